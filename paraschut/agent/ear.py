"""How others wake the agent: a socket in the host-local folder of the index, to which they tell what it may use."""

from __future__ import annotations

import json
import os
import selectors
import socket
from contextlib import suppress
from typing import Any

from paraschut.store.engine import local_folder


def call(index: str, limits: list[int]) -> bool:
    """Wake the agent of an index; return whether there is one that hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as voice:
        voice.setblocking(False)
        try:
            voice.sendto(json.dumps(limits).encode(), f"{local_folder(index)}/wake")
        except BlockingIOError:
            return True  # so many others have woken it that it cannot miss it
        except OSError:
            return False
        return True


class Ear:
    """The agent's end of it.

    Parameters
    ----------
    index : str
        The path of the index.
    selector : selectors.BaseSelector
        Where the agent waits for all that it hears.
    """

    def __init__(self, index: str, selector: selectors.BaseSelector) -> None:
        self.index = index
        self.path: str | None = None
        self._selector = selector
        self._socket: socket.socket | None = None
        self._inode = 0

    def open(self) -> None:
        """Listen from now on."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        folder = local_folder(self.index)
        if folder is not None:
            self.path = folder + "/wake"
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            self._inode = os.stat(self.path).st_ino
        self._selector.register(self._socket, selectors.EVENT_READ, None)

    def close(self) -> None:
        """Be deaf from now on: who finds the socket gone starts the next agent."""
        if self.path is not None:
            with suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:  # not that of an agent of another index
                    os.unlink(self.path)
            self.path = None
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def heard(self) -> list[Any]:
        """Return what was told meanwhile; None for what makes no sense, and wakes all the same."""
        told: list[Any] = []
        with suppress(BlockingIOError):
            while self._socket is not None:
                message = self._socket.recv(4096)
                told.append(None)
                with suppress(ValueError):
                    told[-1] = json.loads(message)
        return told
