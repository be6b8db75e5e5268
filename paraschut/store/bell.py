"""How one that waits for the jobs of a batch hears at once that something came of them.

Who waits has a FIFO in the host-local folder of the index, named by the batch; whoever has written down an end rings
those of the batch. They are only manners, like the bells of the line: who waits looks by itself now and then, so that
a ring that nobody hears costs a moment. From another host nobody is heard.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from itertools import count

from paraschut.store.engine import local_folder

_PREFIX = "news."
_numbers = count()


class Bell:
    """The bell of one that waits; one that only itself can ring, where there is no folder for others.

    Parameters
    ----------
    index : str
        The path of the index.
    batch_id : int
        Whose jobs are waited for.
    """

    def __init__(self, index: str, batch_id: int) -> None:
        self._process = os.getpid()
        self._path: str | None = None
        #: Where it is read, and where it is written; none when it was taken down.
        self._ends: list[int] = []
        with suppress(OSError):
            folder = local_folder(index)
            if folder is not None:
                path = f"{folder}/{_PREFIX}{batch_id}.{self._process}.{next(_numbers)}"
                os.mkfifo(path, 0o600)
                self._path = path
                self._ends = [os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)]
        if not self._ends:
            self._ends = list(os.pipe())
            for end in self._ends:
                os.set_blocking(end, False)

    def ring(self) -> None:
        """Wake whoever listens."""
        if self._ends:
            with suppress(BlockingIOError):  # it has been rung so often that it cannot be missed
                os.write(self._ends[-1], b".")

    def listen(self, seconds: float | None) -> bool:
        """Sleep until it is rung, or so long; return whether it was rung."""
        heard = select.poll()
        heard.register(self._ends[0], select.POLLIN)
        if not heard.poll(None if seconds is None else max(0.0, seconds * 1000)):
            return False
        with suppress(BlockingIOError):
            os.read(self._ends[0], select.PIPE_BUF)
        return True

    def close(self) -> None:
        """Take it down."""
        ends, self._ends = self._ends, []
        for end in ends:
            os.close(end)
        # Not in a child, whose parent still listens.
        if self._path is not None and self._process == os.getpid():
            with suppress(OSError):
                os.unlink(self._path)


def ring(index: str, batch_id: int | None = None) -> None:
    """Ring the bells of all on this host who wait for jobs of a batch; None: of any batch."""
    wanted = _PREFIX if batch_id is None else f"{_PREFIX}{batch_id}."
    try:
        folder = local_folder(index)
        names = [name for name in os.listdir(folder) if name.startswith(wanted)] if folder else []
    except OSError:  # the index was removed
        return
    for name in names:
        try:
            bell = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ENXIO:  # who listened was killed
                with suppress(OSError):
                    os.unlink(f"{folder}/{name}")
            continue
        with suppress(OSError):
            os.write(bell, b".")
        os.close(bell)
