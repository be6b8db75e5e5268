"""What a process holds of an index for as long as its calls follow one another, and which job it is.

Inside a job the index comes from the environment; it is spoken to on the standard library's driver, and little is
imported for that, so that a job pays a few milliseconds (a test holds that true).
"""

from __future__ import annotations

import _thread
import atexit
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from paraschut import checks
from paraschut.errors import NotInJobError
from paraschut.paths import Paths
from paraschut.store import engine, runtime, spool
from paraschut.store.line import Line
from paraschut.store.runtime import Key, Statements

_T = TypeVar("_T")
#: Calls that follow within this many seconds share a connection; afterwards it is closed.
_BURST = 1.0
#: Calls that follow within this many seconds share one look for what could not be written before.
_LOOK = 0.01


class Desk:
    """The connection of this process to one index, for as long as calls follow one another.

    An idle connection would be in the way of who changes the journal. The first call closes its own; where more
    follow, opening anew would cost several times what they do, and a thread closes it after the last.
    """

    def __init__(self, index: str, limit: float, trusted: tuple[str, ...]) -> None:
        self.index = index
        self.limit = limit
        self.trusted = trusted
        self.paths = Paths(index)
        self._texts = runtime.read_statements()
        self._line = Line(index, limit)
        self._connection: Any = None
        self._last = 0.0
        # Held by whoever uses the connection.
        self._turn = _thread.RLock()
        #: Held until the thread that waits for the end of a burst may go; None if there is none.
        self._waits: Any = None
        self._looked: tuple[Key | None, float] = (None, 0.0)

    def read(self, do: Callable[[Statements], _T]) -> _T:
        """Run queries that see one moment."""
        with self._turn, engine.speaking(self.index):
            connection = self._open()
            engine.be_patient(connection, self.limit)
            connection.execute("BEGIN")
            try:
                return do(Statements(connection, self._texts))
            finally:
                connection.execute("ROLLBACK")
                self._done()

    def write(self, do: Callable[[Statements], _T], key: Key | None = None) -> _T:
        """Run one transaction; what this attempt could not write before goes in first."""
        events = [] if key is None or self._has_looked(key) else spool.load(spool.pending(self.paths, key))
        with self._turn:
            connection = self._open()
            try:
                with self._line.writing(connection):
                    db = Statements(connection, self._texts)
                    spool.fold(db, self.index, events, self.trusted)
                    result = do(db)
            except BaseException:
                self._looked = (None, 0.0)  # what could not be written now lies there before the next call
                raise
            finally:
                self._done()
        spool.unlink(self.paths, events)
        return result

    def keep(self, key: Key, event: dict[str, Any]) -> None:
        """Keep beside the index what this attempt could not write into it."""
        spool.spool(self.paths, key, {**event, "token": os.environ.get("PARASCHUT_TOKEN")})

    def small(self) -> int:
        """Return the bytes up to which a pickle is kept in the index."""
        from paraschut.store import pickles

        return self.read(lambda db: pickles.limit_of(db.connection))

    def _has_looked(self, key: Key) -> bool:
        now = time.monotonic()
        before, then = self._looked
        if before == key and now - then < _LOOK:
            return True
        self._looked = (key, now)
        return False

    def _open(self) -> Any:
        if self._connection is None:
            self._connection = runtime.opened(self.index, self.limit, self._texts)
        return self._connection

    def _done(self) -> None:
        now = time.monotonic()
        if now - self._last > _BURST or not self._awaits_idleness():
            self.close()
        self._last = now

    def _awaits_idleness(self) -> bool:
        if self._waits is None:
            waits = _thread.allocate_lock()
            waits.acquire()
            try:
                _thread.start_new_thread(self._close_when_idle, (waits,))
            except RuntimeError:  # no more threads, or the interpreter ends
                return False
            self._waits = waits
        return True

    def _close_when_idle(self, waits: Any) -> None:
        while not waits.acquire(timeout=_BURST):
            with self._turn:
                if self._waits is waits and time.monotonic() - self._last > _BURST:
                    self.close()
                    return

    def close(self) -> None:
        """Let go of the index."""
        with self._turn:
            if self._waits is not None:
                self._waits.release()
                self._waits = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None


_desks: dict[str, Desk] = {}


def _close_desks() -> None:
    for desk in _desks.values():
        desk.close()


def my_desk() -> Desk:
    """Return the desk of this process at the index of its job; outside of one, at the configured one."""
    environ = os.environ
    index = environ.get("PARASCHUT_INDEX")
    if index is None:
        from paraschut.config import load_config

        config = load_config()
        index, limit, trusted = str(config.index), config.lock_timeout, config.trusted_users
    elif index in _desks:
        return _desks[index]
    else:
        limit = float(environ.get("PARASCHUT_LOCK_TIMEOUT", "60"))
        trusted = tuple(filter(None, environ.get("PARASCHUT_TRUSTED", "").split(":")))
    if not _desks:
        # A connection must not go through a fork (https://sqlite.org/howtocorrupt.html, 2.7).
        os.register_at_fork(before=_close_desks, after_in_child=_desks.clear)
        atexit.register(_close_desks)
    if index not in _desks:
        _desks[index] = Desk(index, limit, trusted)
    return _desks[index]


def own_key() -> Key | None:
    """Return which attempt this process is; None outside of a job."""
    try:
        environ = os.environ
        return Key(
            int(environ["PARASCHUT_BATCHID"]),
            int(environ["PARASCHUT_JOBINDEX"]),
            int(environ["PARASCHUT_ATTEMPT"]),
        )
    except (KeyError, ValueError):
        return None


def job_meant(batch_id: int | None, job_index: int | None, call: str) -> tuple[tuple[int, int], Key | None]:
    """Return which job is meant, and its attempt if it is this process."""
    key = own_key()
    if key is None and (batch_id is None or job_index is None):
        raise NotInJobError(
            f"{call} was called outside of a job, so BatchID and JobIndex must be given: {call}(BatchID, JobIndex)."
        )
    where: Any = (
        key.batch_id if batch_id is None and key else checks.number_of(batch_id),
        key.job_index if job_index is None and key else checks.number_of(job_index),
    )
    return where, key if key is not None and key[:2] == where else None
