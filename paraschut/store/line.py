"""The line in which the writers of this host wait for one index.

SQLite's busy handler is unfair: who comes again and again overtakes those who sleep, and the worst wait is about
as long as the whole rush. So who finds SQLite's lock free takes it, and who does not draws a number. Only the
number that is called competes for the lock; the others sleep until a bell of their own is rung, at the end of the
transaction before theirs. Who writes again and again draws a number, too, as soon as it had its slice and somebody
waits.

The numbers are in a file in a host-local folder, the bells are FIFOs beside it. They are only manners: SQLite's lock
stays the truth, a bell that is not heard costs a moment, and the number of a process that was killed or stopped is
passed over. Across hosts there are no numbers; writers pause, shorter the longer they have waited.
"""

from __future__ import annotations

import fcntl
import os
import select
import sqlite3
import struct
import time
from contextlib import suppress
from types import TracebackType

from paraschut.store.engine import be_patient, is_busy, local_folder, logs_ahead, roll_back, spoken

#: Seconds for which a process may write again and again while others wait.
SLICE = 0.003
#: Seconds after which the number that is called is passed over, unless its holder says that it is there.
STALL = 0.05
#: Seconds of the shortest and the longest sleep of one that has a number, if it hears no bell.
SHORT, LONG = 0.0001, 0.01
#: Seconds for which the file of the numbers is kept open by one that writes again and again.
OPEN = 1.0
#: How many bells there are; numbers that share one wake each other for nothing.
BELLS = 64

#: The number that is called, the next one to be drawn, and since when (``time.monotonic``).
_BOARD = struct.Struct("=QQd")


class Line:
    """The line of one index; each process that writes has its own view of it.

    Parameters
    ----------
    index : str
        The path of the index file.
    limit : float
        Seconds that a writer waits at most.
    """

    def __init__(self, index: str, limit: float) -> None:
        self.index = index
        self.limit = limit
        self._path: str | None = None
        self._slice_started = 0.0
        self._last_write = 0.0
        #: Our own number, while it is ours to call the next.
        self._number: int | None = None
        #: The file of the numbers, the process that opened it (a fork must not share its lock), and when.
        self._opened: tuple[int, int, float] | None = None

    def __del__(self) -> None:
        if self._opened is not None:
            os.close(self._opened[0])

    def writing(self, connection: sqlite3.Connection) -> _Writing:
        """Return what runs one write transaction: ``with`` commits at its end, rolls back if its block raises."""
        return _Writing(self, connection)

    def begin(self, connection: sqlite3.Connection) -> None:
        """Take SQLite's write lock."""
        now = time.monotonic()
        gives_way = False
        if now - self._last_write > SLICE:
            self._slice_started = now
        elif now - self._slice_started > SLICE:
            gives_way = self._somebody_waits()
            self._slice_started = now
        be_patient(connection, 0)
        try:
            if gives_way or not _try_begin(connection):
                self._wait(connection, now)
        finally:
            # With a log, what holds the write lock waits for nobody.
            if not logs_ahead(connection):
                be_patient(connection, self.limit)

    def wrote(self) -> None:
        """Note the end of a transaction, or that none could begin; wake the one that is called."""
        self._last_write = time.monotonic()
        board = self._board()
        if board is None:
            return
        called: int | None
        if self._number is None:
            called, drawn, _ = _read(board)
            if called == drawn:
                return
        else:
            called = _call(board, self._number)
            self._number = None
        if called is not None:
            self._ring(called)

    def _wait(self, connection: sqlite3.Connection, started: float) -> None:
        board = self._board()
        self._number = None if board is None else _draw(board)
        try:
            if board is None or self._number is None:
                self._compete(connection, started)
            else:
                self._wait_for(self._number, board, connection, started)
        except BaseException:
            self.wrote()
            raise
        self._slice_started = time.monotonic()

    def _wait_for(self, number: int, board: int, connection: sqlite3.Connection, started: float) -> None:
        bell = self._bell(number)
        pause_when_called = SHORT
        try:
            while True:
                at, _, since = _read(board)
                now = time.monotonic()
                if now - started > self.limit:
                    connection.execute("BEGIN IMMEDIATE")
                    return
                if number > at:
                    if not 0 <= now - since < STALL and _call(board, at) is None:
                        # Whoever writes on the board was stopped while it did.
                        self._compete(connection, started)
                        return
                    _listen(bell, LONG)
                elif _try_begin(connection):
                    return
                else:
                    if now - since > STALL / 4:
                        _call(board, None)
                    _listen(bell, pause_when_called)
                    pause_when_called = min(pause_when_called * 2, LONG)
        finally:
            if bell is not None:
                os.close(bell)

    def _compete(self, connection: sqlite3.Connection, started: float) -> None:
        while not _try_begin(connection):
            waited = time.monotonic() - started
            if waited > self.limit:
                connection.execute("BEGIN IMMEDIATE")
                return
            time.sleep(pause(waited, time.monotonic_ns() ^ os.getpid()))

    def _board(self) -> int | None:
        now = time.monotonic()
        if self._opened is not None:
            board, pid, then = self._opened
            if pid == os.getpid() and now - then < OPEN:
                return board
            self._opened = None
            os.close(board)
        if self._path is None:
            folder = local_folder(self.index)
            self._path = "" if folder is None else f"{folder}/line"
        if not self._path:
            return None
        try:
            board = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        self._opened = (board, os.getpid(), now)
        return board

    def _somebody_waits(self) -> bool:
        board = self._board()
        if board is None:
            return False
        called, drawn, _ = _read(board)
        return called < drawn

    def _bell(self, number: int) -> int | None:
        """Return what is read when a number is called; None where there can be none."""
        path = f"{self._path}.{number % BELLS}"
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with suppress(OSError):
                os.mkfifo(path, 0o600)
            with suppress(OSError):
                return os.open(path, flags)
        except OSError:
            pass
        return None

    def _ring(self, number: int) -> None:
        path = f"{self._path}.{number % BELLS}"
        with suppress(OSError):  # nobody listens, or it was rung already
            bell = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(bell, b".")
            finally:
                os.close(bell)


class _Writing:
    """One write transaction."""

    __slots__ = ("_connection", "_line")

    def __init__(self, line: Line, connection: sqlite3.Connection) -> None:
        self._line = line
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._line.begin(self._connection)
        except sqlite3.Error as error:
            raise spoken(error, self._line.index) from error
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        except sqlite3.Error as failed:
            raise spoken(failed, self._line.index) from failed
        finally:
            roll_back(self._connection)
            self._line.wrote()
        if isinstance(error, sqlite3.Error):
            raise spoken(error, self._line.index) from error


def _try_begin(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise
        return False
    return True


def pause(age: float, noise: int) -> float:
    """Return the seconds to sleep before the next try of a writer that has waited for ``age`` seconds.

    Examples
    --------
    >>> pause(0.0, 0) > pause(2.0, 0)
    True
    """
    return max(0.002, 0.05 - 0.01 * age) * (0.5 + noise % 1009 / 1009)


# -- the board ------------------------------------------------------------------------------------------------------


def _read(board: int) -> tuple[int, int, float]:
    told = os.pread(board, _BOARD.size, 0)
    called, drawn, since = _BOARD.unpack(told) if len(told) == _BOARD.size else (0, 0, 0.0)
    # What makes no sense is a board that nobody has written on.
    return (called, drawn, since) if called <= drawn < 1 << 63 and since >= 0 else (0, 0, 0.0)


def _locked(board: int) -> bool:
    # Who holds this is about to let go of it; unless it was stopped just then, and nobody waits for that.
    for _ in range(100):
        try:
            fcntl.flock(board, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(SHORT)
        except OSError:  # a file system without flock
            return False
        else:
            return True
    return False


def _draw(board: int) -> int | None:
    """Return a number of our own; None if none is to be had."""
    if not _locked(board):
        return None
    try:
        called, drawn, since = _read(board)
        os.pwrite(board, _BOARD.pack(called, drawn + 1, time.monotonic() if called == drawn else since), 0)
    except OSError:
        return None
    finally:
        fcntl.flock(board, fcntl.LOCK_UN)
    return drawn


def _call(board: int, number: int | None) -> int | None:
    """Call the number after this one, if this one is called; or only say that its holder is there.

    Returns the number that is called now; None if the board cannot be written on.
    """
    if not _locked(board):
        return None
    called = None
    with suppress(OSError):
        called, drawn, _ = _read(board)
        if number is None or called == number:
            called += number is not None
            os.pwrite(board, _BOARD.pack(called, drawn, time.monotonic()), 0)
    fcntl.flock(board, fcntl.LOCK_UN)
    return called


def _listen(bell: int | None, seconds: float) -> None:
    """Sleep until the bell is rung, but not longer than this."""
    if bell is None:
        time.sleep(seconds)
        return
    heard = select.poll()
    heard.register(bell, select.POLLIN)
    if heard.poll(seconds * 1000):
        with suppress(OSError):
            os.read(bell, BELLS)
