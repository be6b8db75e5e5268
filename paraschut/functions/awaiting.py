"""Waiting for function jobs: sees what came of them, and does meanwhile what keeps them going.

There is no server that could be asked. Who waits hears a bell when something came of a job on this host, looks at the
index besides, less often the longer it waits, and now and then folds what became of jobs that were killed, submits
what became free, and keeps the agent alive: so no wait is for a job that can no longer end.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from paraschut import _run
from paraschut.config import Config
from paraschut.desk import Desk
from paraschut.dispatch import tend
from paraschut.errors import ExecutorError, JobFailed, NotFoundError, StoreBusyError, TrustError
from paraschut.executors.base import JobExecutor
from paraschut.look.logs import open_log
from paraschut.paths import Paths
from paraschut.store import calls, pickles
from paraschut.store.bell import Bell
from paraschut.store.calls import Answer, Standing
from paraschut.store.runtime import Statements
from paraschut.store.store import Store

_T = TypeVar("_T")
#: Seconds between two looks at the index if no bell is heard: at first, and after a long wait; with a write-ahead log,
#: and without.
PAUSES_LOG, PAUSES_ROLLBACK = (0.02, 0.25), (0.02, 2.0)
#: Seconds between two times that who waits keeps the jobs going: on this machine, and on a cluster.
TEND_LOCAL, TEND_CLUSTER = 2.0, 15.0
#: So often in a row keeping them going may fail before who waits is told.
_STRIKES = 3
#: Lines of its error log that the message of a job has that was killed.
_LAST_WORDS = 15


class Ending(NamedTuple):
    """How a function job ended: with an answer, or stopped without one."""

    job_index: int
    answer: Answer | None
    stopped: Standing | None = None

    @property
    def good(self) -> bool:
        """Whether there is a value."""
        return self.answer is not None and self.answer.outcome.kind == "value"


class Watch:
    """Looks at the jobs of one batch; may be used by several threads.

    Parameters
    ----------
    config : Config
        With the index.
    executor : JobExecutor | str | None
        Who gets the jobs that are not submitted yet; None: who had those before.
    store : Store | None
        With which whoever waits writes into the index: under the lock, as its connection is closed with the others.
    """

    def __init__(
        self,
        config: Config,
        batch_id: int,
        executor: JobExecutor | str | None = None,
        store: Store | None = None,
    ) -> None:
        self.config = config
        self.batch_id = batch_id
        self.executor = executor
        self.paths = Paths(config.index)
        self.desk = Desk(self.paths.index, config.lock_timeout, config.trusted_users)
        self.lock = threading.RLock()
        self._store = store
        self._since = 0
        self._told_stopped: set[tuple[int, int]] = set()
        self._next_stopped = 0.0
        self._next_tend = 0.0
        self._strikes = 0
        #: Whether the index has a write-ahead log; None: not known now.
        self._log: bool | None = None
        _mind_forks()
        _watches.add(self)

    # -- looking ------------------------------------------------------------------------------------------------

    def read(self, do: Callable[[Statements], _T]) -> _T:
        """Run queries that see one moment."""
        with self.lock:
            return self.desk.read(do)

    def close(self) -> None:
        """Let go of the index."""
        with self.lock:
            self.desk.close()
            if self._store is not None:
                self._store.rest()
            self._log = None

    def one(self, job_index: int) -> tuple[Standing, Ending | None]:
        """Return where a job stands, and how it ended if it did.

        Raises
        ------
        NotFoundError
            If it is no longer in the index.
        """

        def look(db: Statements) -> tuple[Standing, Ending | None]:
            row = db.row("read_job", batch_id=self.batch_id, job_index=job_index)
            if row is None:
                raise NotFoundError(
                    f"Job {self.batch_id}:{job_index} is no longer in the index: it was removed, with its result."
                )
            standing = Standing(job_index, row["state"], row["failure"], row["attempt"])
            answer = calls.read_result(db, self.batch_id, job_index)
            if answer is not None and answer.n == standing.attempt and not _is_ahead(standing):
                return standing, Ending(job_index, answer)
            return standing, Ending(job_index, None, standing) if _is_stopped(standing) else None

        return self.read(look)

    def begin(self) -> None:
        """Let ``news`` tell of all that has ended again."""
        with self.lock:
            self._since = 0
            self._told_stopped.clear()
            self._next_stopped = 0.0

    def news(self, *, thorough: bool = False) -> list[Ending]:
        """Return the jobs that ended since the last call, each once for each of its attempts.

        ``thorough``: also those that stopped without an answer; else these are looked for now and then.
        """
        with self.lock:
            answers, self._since = self.read(lambda db: calls.results_since(db, self.batch_id, self._since))
            found = [Ending(answer.job_index, answer) for answer in answers]
            now = time.monotonic()
            if thorough or now >= self._next_stopped:
                known = {(answer.job_index, answer.n) for answer in answers}
                for standing in self.read(lambda db: calls.stopped(db, self.batch_id)):
                    key = (standing.job_index, standing.attempt)
                    if key not in known and key not in self._told_stopped and not self._answered(standing):
                        self._told_stopped.add(key)
                        found.append(Ending(standing.job_index, None, standing))
                # On a batch of a hundred thousand jobs this look is dear.
                self._next_stopped = time.monotonic() + max(0.1, 20 * (time.monotonic() - now))
            return found

    def _answered(self, standing: Standing) -> bool:
        answer = self.read(lambda db: calls.read_result(db, self.batch_id, standing.job_index))
        return answer is not None and answer.n == standing.attempt

    # -- waiting ------------------------------------------------------------------------------------------------

    def until(
        self,
        look: Callable[[], _T | None],
        timeout: float | None = None,
        least: float = 0.0,
        *,
        hold: bool = False,
    ) -> _T | None:
        """Wait until ``look`` gives something; None if it does not within ``timeout`` seconds.

        ``least``: seconds between two looks at least, where many jobs end and each look is dear. ``hold``: whether the
        caller comes again soon, and closes the index then.
        """
        # Before the first look, so that nothing comes in between.
        bell = Bell(self.paths.index, self.batch_id)
        began = time.monotonic()
        try:
            while True:
                found = look()
                if found is not None:
                    return found
                waited = time.monotonic() - began
                if timeout is not None and waited >= timeout:
                    return None
                seconds = max(self.rest(waited), least)
                last = seconds if timeout is None else min(seconds, timeout - waited)
                time.sleep(min(least, last))
                bell.listen(last - least)
        finally:
            bell.close()
            if not hold:
                self.close()

    def rest(self, waited: float) -> float:
        """Return the seconds until it is time to look again; keep the jobs going meanwhile.

        Raises
        ------
        ExecutorError, StoreBusyError
            If they could not be kept going several times in a row.
        """
        if self._log is None:
            self._log = self.read(lambda db: pickles.limit_of(db.connection)) == pickles.SMALL
        log = self._log
        self._keep_going(TEND_LOCAL if log else TEND_CLUSTER)
        least, most = PAUSES_LOG if log else PAUSES_ROLLBACK
        seconds = min(most, max(least, waited / 20))
        if seconds > most / 2:
            self.close()  # others may want the index for themselves
        return seconds

    def _keep_going(self, period: float) -> None:
        now = time.monotonic()
        if self._next_tend == 0.0:
            self._next_tend = now + period
        if now < self._next_tend:
            return
        try:
            with Store.of(self.config) as store:
                tend(store, self.config, self.batch_id, self.executor)
        except (ExecutorError, StoreBusyError):
            self._strikes += 1
            if self._strikes >= _STRIKES:
                raise
        else:
            self._strikes = 0
        self._next_tend = time.monotonic() + period

    # -- what came of it ----------------------------------------------------------------------------------------

    def value(self, ending: Ending, label: str) -> Any:
        """Return the value of a job that ended; raise what it raised.

        Raises
        ------
        JobFailed
            If it has none, or its exception cannot be made again here.
        """
        if ending.answer is None:
            raise self.failure(ending, label)
        outcome = ending.answer.outcome
        if outcome.kind == "value":
            return self._good_value(ending, label)
        told = self.failure(ending, label)
        if outcome.data is None and not outcome.in_file:
            raise told
        try:
            error = self._load(ending.answer)
        except TrustError:
            raise
        except (Exception, SystemExit) as reason:  # unpickling runs code of the user's
            raise told from reason
        raise error if isinstance(error, Exception) else told from told

    def _good_value(self, ending: Ending, label: str) -> Any:
        assert ending.answer is not None
        path = self._path(ending.answer)
        if ending.answer.outcome.data is None and not os.path.exists(path):
            raise JobFailed(
                f"The result of {label} is not at {path}: the file was removed.", "its result was removed"
            )
        try:
            return self._load(ending.answer)
        except TrustError:
            raise
        except (Exception, SystemExit) as error:  # unpickling runs code of the user's
            payloads = self.read(lambda db: calls.read_payloads(db, self.batch_id, ending.job_index))
            reason = f"its result cannot be loaded: {_run.summary(error)}"
            because = _run.because_of_drift(_run.about_of(payloads))
            raise JobFailed(f"{label} is done, but {reason}.{because}", reason) from error

    def _path(self, answer: Answer) -> str:
        return self.paths.result(self.batch_id, answer.job_index, answer.n, answer.outcome.kind)

    def _load(self, answer: Answer) -> Any:
        return pickles.load(answer.outcome.data, self._path(answer), self.paths.index, self.desk.trusted)

    def failure(self, ending: Ending, label: str) -> JobFailed:
        """Return what says how a job failed."""
        if ending.answer is not None:
            outcome = ending.answer.outcome
            reason, words = outcome.summary or "", outcome.traceback or ""
        else:
            assert ending.stopped is not None
            reason = reason_of(ending.stopped)
            words = "\n".join(self.log(ending.job_index, "stderr").splitlines()[-_LAST_WORDS:])
        more = f"\n\n{words.rstrip()}" if words else ""
        return JobFailed(f"{label} failed: {reason}{more}", reason, words)

    def log(self, job_index: int, stream: str) -> str:
        """Return what the last attempt of a job wrote, also while it runs."""
        rows = self.read(lambda db: db.rows("read_attempts", batch_id=self.batch_id, job_index=job_index))
        for row in rows[-1:]:
            key = (self.batch_id, job_index, row["n"])
            for place in self.paths.log_places(self.batch_id, job_index, row, stream):
                with contextlib.suppress(FileNotFoundError), open_log(place, key) as file:
                    return file.read().decode("utf-8", "replace")
        return ""


def deadline_of(timeout: float | None) -> Callable[[], float | None]:
    """Return a function that gives the seconds that are left."""
    end = None if timeout is None else time.monotonic() + timeout
    return lambda: None if end is None else max(0.0, end - time.monotonic())


def _is_ahead(standing: Standing) -> bool:
    return standing.state in {"init", "submit"}


def _is_stopped(standing: Standing) -> bool:
    """Return whether a job without an answer will not go on by itself."""
    if standing.state in {"submit", "run", "spawn"}:
        return standing.failure is not None
    return standing.state != "init"


def reason_of(standing: Standing) -> str:
    """Return why a job stopped without an answer.

    Examples
    --------
    >>> reason_of(Standing(0, "run", "signal 9 (SIGKILL)", 1)), reason_of(Standing(0, "held", None, 1))
    ('signal 9 (SIGKILL)', 'cancelled')
    """
    if standing.failure is not None:
        return standing.failure
    if standing.state == "held":
        return "cancelled"
    if standing.state in {"complete", "collected"}:
        return f"it was set to {standing.state!r}, and has no result"
    return f"it was set to {standing.state!r}"


_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


@cache
def _mind_forks() -> None:
    """See to it that no connection goes through a fork (https://sqlite.org/howtocorrupt.html, 2.7).

    Nor may one be closed while another thread uses it.
    """
    held: list[Watch] = []

    def before() -> None:
        held[:] = list(_watches)
        for watch in held:
            watch.lock.acquire()
            watch.close()

    def after() -> None:
        for watch in held:
            watch.lock.release()
        held.clear()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
