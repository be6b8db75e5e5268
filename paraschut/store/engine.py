"""Connections to the index, on the standard library's driver: modes, transactions, waiting.

Jobs and the agent use it directly; ``store.py`` gives the same connections to SQLAlchemy. It is part of the
road of a job, so it imports little.

Waiting: SQLite's busy handler is unfair, the worst wait is about as long as the whole rush. On one host,
writers therefore queue first on a ``flock`` of a file in a host-local folder, which the kernel serves in
order; across hosts they pause, shorter the longer they have waited. SQLite's own lock stays the truth: a
stopped holder of the queue's lock costs the others a few seconds, not their turn.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from paraschut.errors import SchemaError, StoreBusyError, StoreError
from paraschut.paths import Paths

#: Seconds that a writer stands in line before it competes for SQLite's lock directly.
LINE_LIMIT = 5.0
#: Seconds for which a process may write again and again while others stand in line.
SLICE = 0.0005
#: Seconds between two looks at SQLite's lock by the head of the line.
HEAD_PAUSE = 0.0001
#: Pages in the write-ahead log before a commit copies them back: fewer pauses than with SQLite's 1000.
CHECKPOINT_PAGES = 4000

_UNWRITABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def connect(index: str, limit: float) -> sqlite3.Connection:
    """Open an existing index.

    Parameters
    ----------
    index : str
        The path of the index file.
    limit : float
        Seconds to wait while others hold it.

    Raises
    ------
    StoreError
        If there is none, or it cannot be opened.
    """
    with speaking(index):
        if not os.path.exists(index):
            raise StoreError(
                f"There is no index at {index}: no batch was added yet, or the configuration has moved."
            )
        connection = sqlite3.connect(
            index, timeout=limit, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _UNWRITABLE or not _at_rest(index):
                raise
            # A write-ahead log needs files beside it even to be read; where none can be made, nobody writes either.
            uri = f"file:{quote(index)}?immutable=1"
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except BaseException:
            connection.close()
            raise
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        else:
            connection.execute("PRAGMA synchronous=FULL")
        return connection


def _at_rest(index: str) -> bool:
    """Return whether all of an index is in its file."""
    try:
        return os.path.getsize(index + "-wal") == 0
    except FileNotFoundError:
        return True


def quote(path: str) -> str:
    """Return a path as SQLite's URIs want it (https://sqlite.org/uri.html)."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class Line:
    """The line in which the writers of this host wait for one index.

    Who finds SQLite's lock free takes it. Who does not stands in line: it holds a ``flock`` while it waits
    for SQLite's lock, so only the head of the line competes with those who come by; and those who come by
    again and again give way as soon as they had their slice and somebody stands in line.

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
        self._folder: str | None = None
        self._slice_started = 0.0
        self._last_write = 0.0

    @contextmanager
    def writing(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """Run one write transaction: commits at the end of the block, rolls back if it raises."""
        with speaking(self.index):
            self.begin(connection)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._last_write = time.monotonic()

    def begin(self, connection: sqlite3.Connection) -> None:
        """Take SQLite's write lock."""
        started = time.monotonic()
        if started - self._last_write > SLICE:
            self._slice_started = started
        connection.execute("PRAGMA busy_timeout=0")
        try:
            gives_way = started - self._slice_started > SLICE and self._somebody_waits()
            if gives_way or not _try_begin(connection):
                self._stand_in_line(connection, started)
        finally:
            connection.execute(f"PRAGMA busy_timeout={int(self.limit * 1000)}")

    def _stand_in_line(self, connection: sqlite3.Connection, started: float) -> None:
        place = _take_place(self._place(), min(self.limit, LINE_LIMIT))
        try:
            while not _try_begin(connection):
                waited = time.monotonic() - started
                if waited > self.limit:
                    connection.execute("BEGIN IMMEDIATE")
                    break
                time.sleep(
                    HEAD_PAUSE if place is not None else pause(waited, time.monotonic_ns() ^ os.getpid())
                )
        finally:
            _leave_place(place)
        self._slice_started = time.monotonic()

    def _place(self) -> int | None:
        if self._folder is None:
            self._folder = local_folder(self.index) or ""
        if not self._folder:
            return None
        try:
            return os.open(
                self._folder + "/line", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError:
            return None

    def _somebody_waits(self) -> bool:
        place = self._place()
        if place is None:
            return False
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(place)
            return True
        _leave_place(place)
        return False


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


def _take_place(place: int | None, limit: float) -> int | None:
    """Wait for the head of the line; None if there is no line, or its head did not move on in time."""
    if place is None:
        return None
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _wait_for_place(place, limit)
    except OSError:  # a file system without flock
        os.close(place)
        return None
    return place


def _wait_for_place(place: int, limit: float) -> int | None:
    # The kernel serves blocked callers in order but knows no time limit; so a helper thread blocks, and
    # when it comes too late it gives the lock back at once.
    arrived = _thread.allocate_lock()
    arrived.acquire()
    settled = _thread.allocate_lock()

    def block() -> None:
        fcntl.flock(place, fcntl.LOCK_EX)
        if settled.acquire(blocking=False):
            arrived.release()
        else:
            _leave_place(place)

    try:
        _thread.start_new_thread(block, ())
    except RuntimeError:  # no more threads
        os.close(place)
        return None
    if arrived.acquire(timeout=limit) or not settled.acquire(blocking=False):
        return place
    return None


def _leave_place(place: int | None) -> None:
    if place is not None:
        # Explicitly: a child that was forked meanwhile may share the descriptor.
        fcntl.flock(place, fcntl.LOCK_UN)
        os.close(place)


def local_folder(index: str) -> str | None:
    """Return the host-local folder of an index, made if needed; None where it cannot be trusted."""
    folder = Paths(index).local()
    try:
        if not os.path.isdir(folder):
            for made in (os.path.dirname(folder), folder):
                with suppress(FileExistsError):
                    os.mkdir(made, 0o700)
        parent = os.lstat(os.path.dirname(folder))
    except OSError:
        return None
    if parent.st_uid != os.getuid() or parent.st_mode & 0o077:
        # /tmp is everybody's: a folder of that name may have been put there by somebody else.
        return None
    return folder


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether an error says that others hold the index."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


@contextmanager
def speaking(index: str) -> Iterator[None]:
    """Turn the driver's errors into those of this package."""
    try:
        yield
    except sqlite3.Error as error:
        raise spoken(error, index) from error


def spoken(error: sqlite3.Error, index: str) -> StoreError:
    """Return the sentence for an error of the driver."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return StoreBusyError(
            f"Other processes held the index {index} for too long ({error}). Try again; if it stays so, a stopped "
            f"process may hold it: 'fuser {index}' names it. The limit is lock_timeout in the configuration."
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return SchemaError(
            f"{index} is not an index that can be read ({error}). If it should be one, restore it from a backup; "
            f"if not, set job_dir in the configuration to another folder."
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreError(
            f"The disk of the index {index} is full; nothing was changed. Make room and try again."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(
            f"The index {index} cannot be opened or written ({error}). Its folder must be yours and writable: SQLite "
            f"keeps its journal beside it. Check the permissions, or set job_dir in the configuration."
        )
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"The file system failed under the index {index} ({error}). Is the disk full or gone?"
        )
    return StoreError(f"The index {index} could not be used: {error}.")
