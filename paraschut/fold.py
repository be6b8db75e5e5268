"""Gathers evidence of what became of attempts, and folds it into the index.

What the evidence means is decided by ``reconcile``. Any process may fold, next to any other: each fact is folded
once, by a guarded statement, and nothing is open while files are read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from typing import NamedTuple

from paraschut import queues
from paraschut.agent import ends, limits
from paraschut.config import Config
from paraschut.errors import ExecutorError
from paraschut.executors.base import Evidence, Exit, JobExecutor, Mark, Submission
from paraschut.executors.choice import executor_of
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Queue
from paraschut.executors.scheduler import UnreachableError
from paraschut.paths import Paths
from paraschut.process import Identity, host_name, is_alive
from paraschut.reconcile import Found, Kind, Verdict, judge
from paraschut.store import journal, spool, unsettled
from paraschut.store.ending import end_attempt, settle
from paraschut.store.runtime import Ended, Key, Statements
from paraschut.store.store import Store
from paraschut.store.unsettled import OpenAttempt, OpenSubmission

#: Seconds of absence before an attempt is missing: on disks of this machine, and on others, which show new
#: files late.
GRACE_LOCAL, GRACE_SHARED = 10.0, 90.0
#: A folder that changed this recently (s) is looked at again: its time stamp may stand for two changes.
_FRESH = 2.0


def grace_of(config: Config, index: str) -> float:
    """Return the seconds that an attempt may leave no trace before it is missing."""
    if config.grace is not None:
        return config.grace
    return GRACE_LOCAL if journal.is_local(index) else GRACE_SHARED


def fold(
    store: Store,
    config: Config,
    *,
    thorough: bool = False,
    force: bool = False,
    only: str | None = None,
    down_since: float = 0.0,
) -> list[str]:
    """Fold all there is to fold; return notes on what could not be looked at.

    Parameters
    ----------
    thorough : bool
        Whether to look also at submissions whose folder did not change: a job may have been killed.
    force : bool
        Whether claims of silent submitters are settled at once.
    only : str | None
        Look only at the jobs of this executor.
    down_since : float
        That a scheduler did not answer is believed from then on; before, it is asked anew.
    """
    notes: list[str] = []
    fold_events(store)
    with store.reading() as connection:
        folders = unsettled.open_folders(connection, only)
    for name, theirs in folders.items():
        try:
            executor = executor_of(name, config)
        except ExecutorError as error:
            notes.append(str(error))
            continue
        scheduled = isinstance(executor, ClusterJobExecutor)
        stirred = [one[0] for one in theirs] if thorough or scheduled else _stirred(store, theirs)
        if not stirred:
            continue
        with store.reading() as connection:
            mine = unsettled.open_submissions(connection, stirred)
        notes.extend(_settle_claims(store, config, executor, mine, force=force))
        recorded = [one for one in mine if one.recorded is not None]
        if isinstance(executor, ClusterJobExecutor):
            notes.extend(_fold_scheduled(store, config, executor, recorded, down_since))
        else:
            notes.extend(_fold_folders(store, config, executor, recorded))
    if only in {None, "local"}:
        _fold_local(store)
    return notes


def _settle_claims(
    store: Store, config: Config, executor: JobExecutor, mine: list[OpenSubmission], *, force: bool
) -> list[str]:
    notes = []
    for one in mine:
        if one.recorded is None:
            try:
                settle_claim(store, config, executor, one, force=force)
            except ExecutorError as error:
                notes.append(str(error))
    return notes


def _fold_folders(
    store: Store, config: Config, executor: JobExecutor, mine: list[OpenSubmission]
) -> list[str]:
    """Fold the submissions that tell in their folders what became of them."""
    notes = []
    grace = grace_of(config, store.index) if mine else 0.0
    for one in mine:
        try:
            _fold_submission(store, executor, one, grace)
        except ExecutorError as error:
            notes.append(str(error))
    return notes


def _fold_scheduled(
    store: Store,
    config: Config,
    executor: ClusterJobExecutor,
    open_ones: list[OpenSubmission],
    down_since: float,
) -> list[str]:
    """Fold the submissions that a scheduler has."""
    if not open_ones:
        return []
    notes: list[str] = []
    queue: Queue | None = None
    try:
        queue = queues.shared_queue(store, config, executor, down_since=down_since)
    except ExecutorError as error:
        notes.append(str(error))
    grace = grace_of(config, store.index)
    paths = Paths(store.index)
    open_after = []
    for one in open_ones:
        try:
            looked = queues.fold_submission(store, executor, one, queue, grace)
        except ExecutorError as error:
            notes.append(str(error))
            continue
        if looked:
            with store.writing() as (_, db):
                settled = settle(db, one.token, time.time())
            if settled:
                remove_folder(paths.submission(one.token))
                continue
        open_after.append(one)
    return [*notes, *queues.send_missing_closers(store, config, executor, open_after)]


def reach(store: Store, config: Config, executor: JobExecutor, since: float) -> None:
    """Raise UnreachableError if the executor's scheduler does not answer: nothing is claimed then.

    That it did not answer before a time, when the pass began, is not believed: it may have been started again.
    """
    if isinstance(executor, ClusterJobExecutor):
        try:
            queues.shared_queue(store, config, executor, down_since=since)
        except ExecutorError as error:
            raise UnreachableError(f"Nothing was submitted to {executor.name}: {error}") from error


def remove_folder(folder: str) -> None:
    """Remove a submission's folder; from the first moment on, nothing that starts late finds it."""
    gone = f"{folder}.gone"
    with contextlib.suppress(OSError):
        os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def fold_events(store: Store) -> None:
    """Fold what jobs could not write into the index."""
    paths = Paths(store.index)
    if not os.path.isdir(paths.events):
        return
    events = spool.load(spool.pending(paths))
    with store.reading() as connection:
        over = spool.over(store.statements(connection), paths, time.time())
    if not events and not over:
        return
    with store.writing() as (_, db):
        spool.fold(db, store.index, events, store.trusted)
        spool.forget(db, over)
    spool.unlink(paths, events)


def bare(store: Store, token: str, known_as: str | None = None) -> Submission:
    """Return a submission as far as its token says, to ask an executor about it."""
    return Submission(token, store.index, Paths(store.index).submission(token), {}, (), cluster_id=known_as)


def settle_claim(
    store: Store, config: Config, executor: JobExecutor, one: OpenSubmission, *, force: bool
) -> None:
    """Settle a claim that nobody recorded: it happened, or it never will."""
    owner = Identity(one.host, one.pid, one.boot_id, one.start_ticks)
    silent = force or time.time() - one.claimed > config.command_timeout + grace_of(config, store.index)
    if is_alive(owner) is not False and not silent:
        return
    waits = isinstance(executor, ClusterJobExecutor) and not force
    # Looked at before the scheduler is asked: the command may end in between.
    under_way = waits and one.host == host_name() and _named_somewhere(one.token)
    found = executor.find(bare(store, one.token))
    if found is not None:
        store.record({one.token: found}, time.time())
        return
    if under_way:
        return  # the scheduler's command outlived who had started it
    if waits and one.host != host_name():
        # A command on another machine may be slower than all that wait for it: look twice.
        now = int(time.time())
        if one.seen is None:
            with store.writing() as (connection, _):
                unsettled.set_seen(connection, one.token, now)
        if one.seen is None or now - one.seen < grace_of(config, store.index):
            return
    if isinstance(executor, ClusterJobExecutor):
        with store.reading() as connection:
            tasks = {attempt.task for attempt in unsettled.open_attempts(connection, one.token)}
        if executor.bar(Paths(store.index).submission(one.token), tasks) != tasks:
            return  # it was submitted after all, and a task has just started: the next pass finds that
    store.release(one.token, "the process that submitted it died before the executor had it", time.time())
    remove_folder(Paths(store.index).submission(one.token))


def _named_somewhere(token: str) -> bool:
    """Return whether a process of this machine has a token in its command line, as submissions have."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word.endswith(f".{token}") for word in process.cmdline()):
                return True
    return False


def _stirred(store: Store, folders: list[unsettled.Folder]) -> list[str]:
    """Return the submissions with something new in their folder: thousands without must cost a look each, no more."""
    try:
        above = os.open(Paths(store.index).submissions, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [token for token, _ in folders]
    stat = os.stat
    try:
        return [
            token for token, seen in folders if seen is None or stat(token, dir_fd=above).st_mtime_ns != seen
        ]
    except FileNotFoundError:
        parent = Paths(store.index).submissions
        return [token for token, seen in folders if seen is None or _changed(f"{parent}/{token}") != seen]
    finally:
        os.close(above)


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return -1


def _fold_submission(store: Store, executor: JobExecutor, one: OpenSubmission, grace: float) -> None:
    folder = Paths(store.index).submission(one.token)
    changed = _changed(folder)
    evidence = executor.evidence(folder) if changed != -1 else Evidence()
    with store.reading() as connection:
        attempts = unsettled.open_attempts(connection, one.token)
    cancelled = [attempt.task for attempt in attempts if attempt.cancelled is not None]
    gone = set(executor.delete(bare(store, one.token), cancelled)) if cancelled else set()
    now = time.time()
    told = [_judge_attempt(attempt, evidence, gone, now, grace) for attempt in attempts]
    news = [one for one in told if one.tells]
    # Looking again and again at what only runs must not make writers wait.
    if attempts and not news and one.seen == changed:
        return
    with store.writing() as (connection, db):
        for this in news:
            _fold_attempt(db, this, now)
        fresh = changed > (now - _FRESH) * 1e9
        unsettled.set_seen(connection, one.token, 0 if fresh else changed)
        settled = settle(db, one.token, now)
    if settled:
        remove_folder(folder)


class _Judged(NamedTuple):
    """What a folder tells of an attempt, and what that means."""

    attempt: OpenAttempt
    mark: Mark | None
    end: Exit | None
    verdict: Verdict

    @property
    def started(self) -> bool:
        """Whether that it started is new."""
        attempt = self.attempt
        waits = attempt.started is None and attempt.state in {"submit", "spawn"}
        return waits and self.mark is not None and self.end is None

    @property
    def tells(self) -> bool:
        """Whether there is anything to be written."""
        ended = self.end is not None or self.verdict.kind is Kind.MISSING
        return ended or self.started or self.verdict.absent_since != self.attempt.absent_since


def _judge_attempt(
    attempt: OpenAttempt, evidence: Evidence, gone: set[int], now: float, grace: float
) -> _Judged:
    mark, end = evidence.marks.get(attempt.task), evidence.exits.get(attempt.task)
    if end is None and attempt.task in gone:
        end = Exit(attempt.task, None, None, mark.at if mark else now, now)
    found = Found(
        started=attempt.started or (mark.at if mark else None),
        ended=end.ended if end else None,
        code=end.code if end else None,
        signal=end.signal if end else None,
        alive=mark.alive if mark else None,
        absent_since=attempt.absent_since,
        cause=attempt.reason,
    )
    state = attempt.state if attempt.current == attempt.n and attempt.cancelled is None else ""
    verdict = judge(state, found, now, grace, complete_on_exit=bool(attempt.complete_on_exit))
    return _Judged(attempt, mark, end, verdict)


def _fold_attempt(db: Statements, told: _Judged, now: float) -> None:
    attempt, mark, end, verdict = told
    key = Key(attempt.batch_id, attempt.job_index, attempt.n)
    if end is not None:
        ended = Ended(end.started, end.ended, end.code, end.signal, end.max_rss)
        end_attempt(db, key, ended, verdict.reason, complete=verdict.complete)
    elif verdict.kind is Kind.MISSING:
        started = attempt.started or (mark.at if mark else None)
        end_attempt(db, key, Ended(started, now, None, None), verdict.reason, complete=False)
    elif verdict.absent_since != attempt.absent_since:
        db.run("job_absent", batch_id=key.batch_id, job_index=key.job_index, since=verdict.absent_since)
    if told.started and mark is not None:
        db.run("attempt_marked", **key._asdict(), started=mark.at, host=mark.holder.split()[1:2][0])
        db.run("job_runs", **key._asdict())


def _fold_local(store: Store) -> None:
    """Fold the ends of local jobs in place of the agent, if there is none."""
    host = host_name()
    paths = Paths(store.index)
    with store.reading() as connection:
        if store.statements(connection).row("any_running", host=host) is None:
            return
    try:
        lock = os.open(paths.agent_lock(host), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the agent lives and does it
    else:
        with store.reading() as connection:
            gone = ends.dead(store.statements(connection), host)
        lines = [line for path in ends.files(paths.agent(host)) for line in ends.read(path, 0)[0]]
        with store.writing() as (_, db):
            ends.fold(db, host, lines)
            orphans = ends.fold_dead(db, host, paths.agent(host), gone, time.time(), 0)
        for cluster_id in orphans:
            # As the agent does: what a dead wrapper left must not run next to the next attempt.
            limits.send(limits.tree(cluster_id), signal.SIGKILL)
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
