"""Connections to the index, on the standard library's driver: modes, transactions, waiting.

Jobs and the agent use it directly; ``store.py`` gives the same connections to SQLAlchemy. It is part of the
road of a job, so it imports little. How writers wait for one another is in ``line.py``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from paraschut.errors import SchemaError, StoreBusyError, StoreError
from paraschut.paths import Paths

#: Pages in the write-ahead log before a commit copies them back: fewer pauses than with SQLite's 1000.
CHECKPOINT_PAGES = 4000

#: Seconds between two looks of one who opens an index that others write.
_GLANCE = 0.001

_UNWRITABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


class _Connection(sqlite3.Connection):
    """One that knows how long it waits for a lock: asking SQLite for what is so already costs a fifth of a short write."""

    #: Seconds that it waits by itself; None: not known.
    patience: float | None = None
    #: Whether its journal is a write-ahead log.
    ahead = False


def be_patient(connection: sqlite3.Connection, seconds: float) -> None:
    """Let a connection wait this long by itself for what others hold."""
    if getattr(connection, "patience", None) != seconds:
        connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
        if isinstance(connection, _Connection):
            connection.patience = seconds


def logs_ahead(connection: sqlite3.Connection) -> bool:
    """Return whether a connection is known to have a write-ahead log."""
    return getattr(connection, "ahead", False)


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
            index,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=_Connection,
        )
        try:
            mode = _journal_mode(connection, limit)
            be_patient(connection, limit)
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
        connection.ahead = mode == "wal"
        if connection.ahead:
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        else:
            connection.execute("PRAGMA synchronous=FULL")
        return connection


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction, if it has not ended."""
    # SQLAlchemy closes a connection in whose statement Ctrl-C came: that has ended it, too.
    with suppress(sqlite3.ProgrammingError):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _journal_mode(connection: sqlite3.Connection, limit: float) -> str:
    # The first look at the file. While writers with a rollback journal come one after the other, it succeeds only in
    # the moments between two; SQLite's own pauses grow to a tenth of a second and miss nearly all of these.
    deadline = time.monotonic() + limit
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_GLANCE)
        else:
            return str(mode)


def _at_rest(index: str) -> bool:
    """Return whether all of an index is in its file."""
    try:
        return os.path.getsize(index + "-wal") == 0
    except FileNotFoundError:
        return True


def quote(path: str) -> str:
    """Return a path as SQLite's URIs want it (https://sqlite.org/uri.html)."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


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
