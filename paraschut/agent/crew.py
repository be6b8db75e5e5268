"""The wrappers of an agent: forked when needed, reused, watched; and the files that they append ends to."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from paraschut.agent import ends, series
from paraschut.agent.job import Kind, Wrapper
from paraschut.process import boot_id

#: Bytes after which a new file of ends is begun.
ENDS_SIZE = 1 << 20
#: Nanoseconds after which a change of a folder has another time stamp.
_TICK = 100_000_000
#: Wrappers that keep an interpreter for function jobs, and wait for some.
KEPT = 2 * (os.cpu_count() or 1)


class Crew:
    """The wrappers of one agent.

    Parameters
    ----------
    folder : str
        The agent's folder.
    next_agent : Callable[[], list[str]]
        Gives what the launcher is told: the agent's lock, and the command for the agent after this one.
    """

    def __init__(self, folder: str, next_agent: Callable[[], list[str]]) -> None:
        self.folder = folder
        self._next_agent = next_agent
        self.selector = selectors.DefaultSelector()
        self._ready: dict[Kind | None, deque[Wrapper]] = {}
        self._offsets: dict[str, int] = {}
        self._current: str | None = None
        #: The time stamp of the folder when all files in it were known.
        self._looked = 0
        self._launcher: socket.socket | None = None
        # Kept, because a Popen that is collected while its process runs complains.
        self._process: subprocess.Popen[bytes] | None = None

    # -- wrappers -----------------------------------------------------------------------------------------------

    def take(self, kind: Kind | None = None) -> Wrapper:
        """Return a wrapper that waits for a job; ``kind`` says for which, if not for any command."""
        ready = self._ready.get(kind, deque())
        while ready:
            wrapper = ready.pop()
            if not wrapper.left:
                return wrapper
            self._drop(wrapper)
        try:
            wrapper = Wrapper.forked(self._ask(), self.ends_file(), kind)
        except OSError:  # the launcher was killed
            self._launcher = None
            wrapper = Wrapper.forked(self._ask(), self.ends_file(), kind)
        self.watch(wrapper)
        return wrapper

    def give_back(self, wrapper: Wrapper) -> None:
        """Take back a wrapper whose job has ended, for the next one; one of an earlier agent goes by itself."""
        if wrapper.left or not isinstance(wrapper.handle, socket.socket):
            self._drop(wrapper)
        else:
            self._ready.setdefault(wrapper.kind, deque()).append(wrapper)
            self._dismiss_some()

    def _dismiss_some(self) -> None:
        """Let those go that keep an interpreter and have waited longest, if there are too many."""
        kept = [wrapper for kind, ready in self._ready.items() if kind is not None for wrapper in ready]
        for wrapper in kept[:-KEPT]:
            self._ready[wrapper.kind].remove(wrapper)
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(wrapper.handle)  # type: ignore[arg-type]
            wrapper.dismiss()

    def watch(self, wrapper: Wrapper) -> None:
        """Notice when a wrapper says something, or ends."""
        if wrapper.handle is not None:
            self.selector.register(wrapper.handle, selectors.EVENT_READ, wrapper)

    def _drop(self, wrapper: Wrapper) -> None:
        if wrapper.handle is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(wrapper.handle)
        wrapper.close()

    def sleep(self, seconds: float) -> None:
        """Wait until there is something to hear, or so long."""
        for chosen, _ in self.selector.select(seconds):
            wrapper = chosen.data
            if wrapper is None:
                continue
            wrapper.listen()
            if wrapper.hung_up:
                self.selector.unregister(chosen.fileobj)

    def start(self) -> None:
        """Start the launcher: it is who starts the next agent if this one is killed."""
        self._ask()

    def dismiss(self, *, for_good: bool) -> None:
        """Let all go that have no job; ``for_good`` if no other agent has to follow."""
        for ready in self._ready.values():
            for wrapper in ready:
                wrapper.dismiss()
        self._ready.clear()
        if self._launcher is not None:
            if for_good:
                with contextlib.suppress(OSError):
                    self._launcher.send(b"nothing left")
            self._launcher.close()

    def _ask(self) -> socket.socket:
        if self._launcher is None:
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", program, *self._next_agent()],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                )
            self._launcher = mine
        return self._launcher

    # -- ends ---------------------------------------------------------------------------------------------------

    def ends_file(self) -> str:
        """Return the file for the ends of the jobs that start now."""
        if self._current is None or self._offsets[self._current] > ENDS_SIZE:
            self._current = os.path.join(self.folder, f"ends.{time.time_ns()}.{os.getpid()}")
            self._offsets[self._current] = 0
        return self._current

    def new_lines(self, *, surely: bool = True) -> list[dict[str, Any]]:
        """Return what was appended since the last time, also to the files of earlier agents.

        Parameters
        ----------
        surely : bool
            Whether to look for new files although their folder seems unchanged: before a wrapper is given up.
        """
        lines: list[dict[str, Any]] = []
        changed = -1
        with contextlib.suppress(FileNotFoundError):
            changed = os.stat(self.folder).st_mtime_ns
        if surely or changed != self._looked:
            # A wrapper makes its file with its first line, so there may be new ones of those that were adopted.
            self._offsets = {**dict.fromkeys(ends.files(self.folder), 0), **self._offsets}
            # File systems tell time in ticks: within one, more may come.
            self._looked = changed if time.time_ns() - changed > _TICK else 0
        for path in self._offsets:
            more, self._offsets[path] = ends.read(path, self._offsets[path])
            lines.extend(more)
        return lines

    def clear_ends(self) -> None:
        """Remove the files of ends, and of workers whose zygote was killed: all that they say is in the index."""
        for path in series.files(self.folder):
            if not ends.is_alive(f"{series.process_of(path)}:{boot_id()}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        for path in self._offsets:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._offsets.clear()
        self._current = None
