"""Folds what schedulers know: their queue, which all processes share, and their words about what ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from paraschut.config import Config
from paraschut.errors import ExecutorError
from paraschut.executors.base import Evidence, Exit, Mark, Submission
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Kind as Listed
from paraschut.executors.queue import Queue, Row
from paraschut.executors.scheduler import Cause
from paraschut.paths import Paths
from paraschut.process import Identity, is_alive
from paraschut.reconcile import Found, Kind, Verdict, judge
from paraschut.store import snapshots, unsettled
from paraschut.store.ending import end_attempt
from paraschut.store.runtime import Ended, Key, Statements, add_event
from paraschut.store.store import Store
from paraschut.store.unsettled import OpenAttempt, OpenSubmission

#: Clocks of two machines, and the seconds that squeue's answer may lag behind a submission.
_SLACK = 2.0
#: Seconds that a scheduler may take to end what it has told to end.
_ENDING = 120.0


def shared_queue(
    store: Store,
    config: Config,
    executor: ClusterJobExecutor,
    *,
    since: float = 0.0,
    down_since: float = 0.0,
) -> Queue | None:
    """Return the scheduler's queue, as young as the configuration wants it; None while another asks for the first time.

    Parameters
    ----------
    since : float
        The answer is to be from then or later, unless another process is asking just now.
    down_since : float
        That there was no answer is believed from then on; before, it is asked anew.

    Raises
    ------
    ExecutorError
        If the scheduler did not answer, now or a moment ago.
    """
    patience = config.command_timeout + _SLACK
    now = time.time()
    age = min(config.queue_age, max(0.0, now - since))
    answer, at = snapshots.ask(store, executor.name, age, patience, now)
    if answer is None:
        try:
            rows = executor.ask()
        except ExecutorError as error:
            snapshots.keep(store, executor.name, json.dumps({"error": str(error)}), at)
            raise
        snapshots.keep(store, executor.name, json.dumps(rows), at)
        return Queue(at, rows)
    if not answer:
        return None
    told = json.loads(answer)
    if isinstance(told, dict):
        if at < down_since:
            return shared_queue(store, config, executor, since=down_since)
        raise ExecutorError(told["error"])
    return Queue(at, told)


def counts(store: Store) -> list[tuple[str, int | None]]:
    """Return how many jobs this user has on each scheduler's queue, as last asked; None where there was no answer."""
    found: list[tuple[str, int | None]] = []
    for executor, answer in snapshots.answers(store):
        told = json.loads(answer)
        found.append((executor, None if isinstance(told, dict) else Queue(0.0, told).count))
    return found


class _Look(NamedTuple):
    """What is known of one attempt."""

    attempt: OpenAttempt
    mark: Mark | None
    end: Exit | None
    row: Row | None
    #: Whether it is in the queue; None if nobody can say.
    listed: bool | None
    #: Whether the queue was asked after it ended.
    final: bool


def look_at(
    attempt: OpenAttempt,
    evidence: Evidence,
    listed: Mapping[int, Row] | None,
    asked: float,
    *,
    token: str,
    array: bool,
) -> _Look:
    """Put together what a folder and a queue say of an attempt. Pure."""
    mark, end = evidence.marks.get(attempt.task), evidence.exits.get(attempt.task)
    row = None if listed is None else listed.get(attempt.task if array else -1)
    if row is not None and mark is None and not row.is_of(token):
        # Some give their job another name, but none before it runs: the id is another job's now.
        row = None
    young = asked < max(attempt.submitted, mark.at if mark else 0.0) + _SLACK
    there = (
        None if listed is None or (row is None and young) else row is not None and row.kind != Listed.ENDED
    )
    if end is None or end.code == 0:
        return _Look(attempt, mark, end, row, there, final=True)
    if row is not None and row.kind == Listed.WAITS and asked > end.ended + _SLACK:
        # The scheduler has taken it back to start it again.
        return _Look(attempt, mark, None, row, True, final=True)
    return _Look(attempt, mark, end, row, there, final=end.signal is None or there is False)


def fold_submission(
    store: Store, executor: ClusterJobExecutor, one: OpenSubmission, queue: Queue | None, grace: float
) -> bool:
    """Fold what is known of one submission; return whether anything was looked at."""
    assert one.cluster_id is not None
    folder = Paths(store.index).submission(one.token)
    array = "#" in one.cluster_id
    usable = queue is not None and queue.at > (one.recorded or 0.0)
    listed = queue.tasks(executor.job_of(one.cluster_id), one.token) if queue is not None and usable else None
    changed = _changed(folder)
    if changed == one.seen and (listed is None or _all_there(store, one.token, listed)):
        return False
    evidence = executor.evidence(folder)
    with store.reading() as connection:
        attempts = unsettled.open_attempts(connection, one.token)
    asked = queue.at if queue is not None else 0.0
    looks = [look_at(attempt, evidence, listed, asked, token=one.token, array=array) for attempt in attempts]
    _delete_again(store, executor, one, looks)
    now = time.time()
    causes = _causes(executor, one, looks, folder, now, grace)
    verdicts = [_verdict(look, causes.get(look.attempt.task), now, grace) for look in looks]
    executor.bar(
        folder, [look.attempt.task for look, verdict in zip(looks, verdicts, strict=True) if _over(verdict)]
    )
    with store.writing() as (connection, db):
        for look, verdict in zip(looks, verdicts, strict=True):
            deleted = look.row is not None and executor.is_deleted(look.row)
            _fold(db, look, causes.get(look.attempt.task), verdict, now, deleted=deleted)
        unsettled.set_seen(connection, one.token, 0 if changed > (now - _SLACK) * 1e9 else changed)
    return True


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return -1


def _all_there(store: Store, token: str, listed: Mapping[int, Row]) -> bool:
    there = sum(row.kind != Listed.ENDED and row.is_of(token) for row in listed.values())
    with store.reading() as connection:
        return unsettled.open_count(connection, token) == there


def _delete_again(
    store: Store, executor: ClusterJobExecutor, one: OpenSubmission, looks: Sequence[_Look]
) -> None:
    """Finish a deletion whose caller died before the scheduler knew of it."""
    wanted = [
        look.attempt.task
        for look in looks
        if look.attempt.cancelled is not None and look.listed and look.row and look.row.kind != Listed.ENDS
    ]
    if wanted:
        folder = Paths(store.index).submission(one.token)
        executor.delete(Submission(one.token, store.index, folder, {}, (), cluster_id=one.cluster_id), wanted)


def _causes(
    executor: ClusterJobExecutor,
    one: OpenSubmission,
    looks: Sequence[_Look],
    folder: str,
    now: float,
    grace: float,
) -> dict[int, Cause]:
    """Ask why those tasks ended that did not say so themselves, once they have been gone for the grace."""
    unknown = {
        look.attempt.task: look.row
        for look in looks
        if look.listed is False
        and (
            (look.end is not None and look.end.signal is not None and look.end.cause is None)
            or (
                look.end is None
                and look.attempt.absent_since is not None
                and now - look.attempt.absent_since >= grace
            )
        )
    }
    return executor.causes(one.cluster_id or "", unknown, folder) if unknown else {}


def _verdict(look: _Look, cause: Cause | None, now: float, grace: float) -> Verdict:
    attempt, mark, end = look.attempt, look.mark, look.end
    if cause is not None and mark is not None and cause.reason == "never started":
        cause = cause._replace(reason=None)
    found = Found(
        started=attempt.started or (mark.at if mark else None),
        ended=end.ended if end else None,
        code=end.code if end else None,
        signal=end.signal if end else None,
        alive=look.listed,
        absent_since=attempt.absent_since,
        cause=attempt.reason or (end.cause if end else None) or (cause.reason if cause else None),
        final=look.final,
    )
    if end is None and mark is not None and cause is not None and not cause.reason and look.listed is False:
        # It left no word of its own, so what the scheduler saw is all there is. Without a mark nothing of the
        # user's was run, however well the script ended.
        if cause.signal is not None:
            found = found._replace(ended=now, signal=cause.signal)
        elif cause.code is not None:
            found = found._replace(ended=now, code=cause.code)
    state = attempt.state if attempt.current == attempt.n and attempt.cancelled is None else ""
    # What the scheduler is still ending, it has reasons for.
    patience = max(grace, _ENDING) if look.listed else grace
    return judge(state, found, now, patience, complete_on_exit=bool(attempt.complete_on_exit))


def _over(verdict: Verdict) -> bool:
    return verdict.kind is Kind.MISSING


def _fold(
    db: Statements, look: _Look, cause: Cause | None, verdict: Verdict, now: float, *, deleted: bool
) -> None:
    attempt, mark, end = look.attempt, look.mark, look.end
    key = Key(attempt.batch_id, attempt.job_index, attempt.n)
    if deleted:
        db.run("attempt_reason", **key._asdict(), reason="cancelled")
    if verdict.kind in {Kind.ENDED, Kind.MISSING}:
        rss = (end and end.max_rss) or (cause and cause.max_rss) or None
        ended = (
            Ended(end.started, end.ended, end.code, end.signal, rss)
            if end
            else Ended(mark.at if mark else None, now, cause and cause.code, cause and cause.signal, rss)
        )
        if cause and cause.words:
            db.run("attempt_qstat", **key._asdict(), qstat=json.dumps({"scheduler": cause.words}))
        if end_attempt(db, key, ended, verdict.reason, complete=verdict.complete) and mark and mark.restarts:
            told = f"attempt {key.n} was started {mark.restarts + 1} times by its scheduler"
            add_event(db, now, key.batch_id, key.job_index, "restart", told)
        return
    if verdict.absent_since != attempt.absent_since:
        db.run("job_absent", batch_id=key.batch_id, job_index=key.job_index, since=verdict.absent_since)
    if mark is not None and attempt.started is None and attempt.state in {"submit", "spawn"}:
        db.run("attempt_marked", **key._asdict(), started=mark.at, host=mark.holder.split()[1:2][0])
        db.run("job_runs", **key._asdict())


class Sent(NamedTuple):
    """What became of closers."""

    #: What people should know, a sentence each.
    notes: list[str]
    #: Whether a batch may have to go on by a pass of whoever sent them.
    stranded: bool = False


def send_closers(
    store: Store, config: Config, executor: ClusterJobExecutor, carried: Mapping[int, Sequence[Submission]]
) -> Sent:
    """Send the closers of batches, by BatchID, and look once whether they wait as they should.

    What it is to wait for may have ended before a closer is there; schedulers start it at once then, or drop it, or
    hold it for ever. One that will not start is made up for by one that waits only for what is still there.
    """
    notes: list[str] = []
    closers: dict[int, str] = {}
    began = time.time()
    for batch_id, submissions in carried.items():
        try:
            closers[batch_id] = _send(store, executor, submissions, submissions)
        except ExecutorError as error:
            notes.append(
                f"batch {batch_id} goes on with the next pass only, because its closer could not be sent: {error}"
            )
    stranded = False
    try:
        if closers:
            queue = _asked_since(store, config, executor, began)
            for batch_id, closer in closers.items():
                stranded |= not _goes_on(store, executor, queue, closer, carried[batch_id])
    except ExecutorError as error:
        notes.append(f"whether what goes on with the jobs waits for them is not known: {error}")
    return Sent(notes, stranded)


def _send(
    store: Store,
    executor: ClusterJobExecutor,
    submissions: Sequence[Submission],
    after: Sequence[Submission],
) -> str:
    closer = executor.submit_closer(submissions, after)
    store.set_closer([one.token for one in submissions], closer)
    return closer


def _asked_since(store: Store, config: Config, executor: ClusterJobExecutor, since: float) -> Queue:
    queue = shared_queue(store, config, executor, since=since)
    if queue is not None and queue.at >= since:
        return queue
    return Queue(time.time(), executor.ask())  # another process began to ask before


def _goes_on(
    store: Store, executor: ClusterJobExecutor, queue: Queue, closer: str, submissions: Sequence[Submission]
) -> bool:
    """Return whether a closer will start by itself; if not, send another in its place."""
    row = queue.tasks(executor.job_of(closer)).get(-1)
    ids = {one.token: executor.job_of(one.cluster_id or "") for one in submissions}
    listed = [one for one in submissions if queue.has(ids[one.token])]
    # An id may be another job's by now, which may run for weeks.
    there = [one for one in listed if queue.is_ours(ids[one.token], one.token, renamed=True)]
    if len(there) == len(listed) and executor.will_start(row, held=bool(there)):
        return True
    if row is not None and row.kind != Listed.ENDED:
        executor.delete_jobs([closer])
    _send(store, executor, submissions, there)
    return False


def send_missing_closers(
    store: Store, config: Config, executor: ClusterJobExecutor, open_ones: Sequence[OpenSubmission]
) -> list[str]:
    """Send the closers of submissions whose owner died after it had submitted them; return notes."""
    wanted: dict[int, list[Submission]] = {}
    paths = Paths(store.index)
    for one in open_ones:
        if one.carries is None or one.closer is not None or one.recorded is None:
            continue
        owner = Identity(one.host, one.pid, one.boot_id, one.start_ticks)
        silent = time.time() - one.recorded > 2 * config.command_timeout
        if is_alive(owner) is False or silent:
            folder = paths.submission(one.token)
            wanted.setdefault(one.carries, []).append(
                Submission(one.token, store.index, folder, {}, (), cluster_id=one.cluster_id)
            )
    return send_closers(store, config, executor, wanted).notes
