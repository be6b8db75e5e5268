"""What is read from the index to be looked at, and the attempts that evidence is gathered for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, select, update

from paraschut import job as jobs
from paraschut.bulk import uncollected
from paraschut.look.runs import Run
from paraschut.store import runtime
from paraschut.store.rows import CHUNK, Running
from paraschut.store.runtime import assemble
from paraschut.store.schema import active, agent, attempt, batch, event, job, spawn, submission
from paraschut.store.statements.terms import OF_COPY, standing
from paraschut.store.store import Store


class BatchInfo(NamedTuple):
    """A batch that has jobs."""

    batch_id: int
    name: str | None
    data_type: str | None
    executor: str | None
    executor_defaults: str | None
    created: float


def islands(
    connection: Connection, condition: ColumnElement[bool] | None = None
) -> list[tuple[int, str, int, int]]:
    """Return all job indices as ranges without a gap: (BatchID, state, first, last), in that order.

    The rows come from a covering index and are gathered here as they come: SQLite's window functions would
    take three times as long.
    """
    query = select(job.c.BatchID, job.c.state, job.c.JobIndex)
    if condition is not None:
        query = query.join(batch, batch.c.BatchID == job.c.BatchID).where(condition)
    found: list[tuple[int, str, int, int]] = []
    batch_before, state_before, first, following = -1, "", 0, 0
    rows: Any = connection.execute(query.order_by(job.c.BatchID, job.c.state, job.c.JobIndex)).cursor
    for batch_id, state, index in rows:
        if index == following and batch_id == batch_before and state == state_before:
            following += 1
            continue
        found.append((batch_before, state_before, first, following - 1))
        batch_before, state_before, first, following = batch_id, state, index, index + 1
    found.append((batch_before, state_before, first, following - 1))
    return found[1:]


def batches(connection: Connection) -> dict[int, BatchInfo]:
    """Return all batches; those without jobs too."""
    columns = [batch.c[name] for name in ("BatchID", *BatchInfo._fields[1:])]
    return {row.BatchID: BatchInfo(*row) for row in connection.execute(select(*columns))}


class Alive(NamedTuple):
    """When an attempt began that did not end yet, and whether there is still something to do for its job."""

    started: float
    open: bool


def online(connection: Connection) -> dict[tuple[int, int], Alive]:
    """Return the jobs that have an attempt that started and did not end."""
    query = (
        select(attempt.c.BatchID, attempt.c.JobIndex, attempt.c.started, active())
        .join(job, (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex))
        .where(attempt.c.started.is_not(None), attempt.c.ended.is_(None))
    )
    return {(batch_id, job_index): Alive(*row) for batch_id, job_index, *row in connection.execute(query)}


def copies(connection: Connection) -> dict[tuple[int, int], int]:
    """Return how many copies of a job in ``spawn`` have started and did not end, if any."""
    query = (
        select(spawn.c.BatchID, spawn.c.JobIndex, func.count())
        .join(job, (job.c.BatchID == spawn.c.BatchID) & (job.c.JobIndex == spawn.c.JobIndex))
        .join(
            attempt,
            (attempt.c.BatchID == spawn.c.BatchID)
            & (attempt.c.JobIndex == spawn.c.JobIndex)
            & (attempt.c.n == spawn.c.attempt),
        )
        .where(job.c.state == "spawn", attempt.c.started.is_not(None), attempt.c.ended.is_(None))
        .group_by(spawn.c.BatchID, spawn.c.JobIndex)
    )
    return {(batch_id, job_index): count for batch_id, job_index, count in connection.execute(query)}


class Times(NamedTuple):
    """When the attempts of a batch ran: the first start, the last end, and the mean of those that ended by themselves."""

    first: float
    last: float | None
    mean: float | None


def times(connection: Connection) -> dict[int, Times]:
    """Return when the attempts of each batch ran."""
    well = case((attempt.c.reason.is_(None), attempt.c.ended - attempt.c.started))
    query = (
        select(attempt.c.BatchID, func.min(attempt.c.started), func.max(attempt.c.ended), func.avg(well))
        .where(attempt.c.started.is_not(None))
        .group_by(attempt.c.BatchID)
    )
    found: Any = connection.execute(query).cursor
    return {batch_id: Times(*row) for batch_id, *row in found}


def missing(
    connection: Connection, condition: ColumnElement[bool] | None = None
) -> list[tuple[int, int, str, int]]:
    """Return the missing jobs, with reason and number of the attempt."""
    query = select(job.c.BatchID, job.c.JobIndex, job.c.failure, job.c.attempt).where(
        active(), job.c.failure.is_not(None)
    )
    if condition is not None:
        query = query.join(batch, batch.c.BatchID == job.c.BatchID).where(condition)
    return [tuple(row) for row in connection.execute(query.order_by(job.c.BatchID, job.c.JobIndex))]


def progress(
    connection: Connection, condition: ColumnElement[bool] | None = None
) -> list[tuple[int, int, float, str]]:
    """Return what running jobs told of their progress."""
    query = select(job.c.BatchID, job.c.JobIndex, job.c.progress, job.c.progress_message).where(
        active(), job.c.failure.is_(None), job.c.progress.is_not(None)
    )
    if condition is not None:
        query = query.join(batch, batch.c.BatchID == job.c.BatchID).where(condition)
    return [(row[0], row[1], row[2], row[3] or "") for row in connection.execute(query)]


def _jobs_query(condition: ColumnElement[bool] | None) -> Select[Any]:
    query = select(job, batch.c.workdir, batch.c.name.label("batch_name")).join(
        batch, batch.c.BatchID == job.c.BatchID
    )
    return query if condition is None else query.where(condition)


def job_dicts(
    store: Store,
    connection: Connection,
    condition: ColumnElement[bool] | None,
    states: Sequence[str] | None = None,
) -> dict[int, list[jobs.Job]]:
    """Return job dicts by batch, without what needs unpickling; ``missing`` is a state here, too."""
    query = _jobs_query(condition)
    if states is not None:
        wanted = job.c.state.in_(list(states))
        query = query.where(
            wanted | (active() & job.c.failure.is_not(None)) if "missing" in states else wanted
        )
    found: dict[int, list[jobs.Job]] = {}
    with uncollected():
        rows = list(_dicts(connection, query.order_by(job.c.BatchID, job.c.JobIndex)))
        for batch_id, group in groupby(rows, key=itemgetter("BatchID")):
            told = attempts_of_batch(connection, batch_id)
            found[batch_id] = [
                assemble(row, told.get(row["JobIndex"], []), store.index, partial=True) for row in group
            ]
    return found


def _dicts(connection: Connection, query: Select[Any]) -> Iterator[dict[str, Any]]:
    """Return rows as the driver gives them: of thousands, SQLAlchemy's own cost more than the query."""
    cursor: Any = connection.execute(query).cursor
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def attempts_of_batch(connection: Connection, batch_id: int) -> dict[int, list[dict[str, Any]]]:
    """Return the attempts of the jobs of a batch, by JobIndex."""
    query = (
        select(attempt, submission.c.cluster_id, submission.c.executor)
        .join(submission, submission.c.token == attempt.c.token)
        .where(attempt.c.BatchID == batch_id)
        .order_by(attempt.c.JobIndex, attempt.c.n)
    )
    told: dict[int, list[dict[str, Any]]] = {}
    for row in _dicts(connection, query):
        told.setdefault(row["JobIndex"], []).append(row)
    return told


def get_job(store: Store, connection: Connection, batch_id: int, job_index: int) -> jobs.Job:
    """Return one job with all its fields."""
    return runtime.read_job(store.statements(connection), store.index, batch_id, job_index, store.trusted)


def active_jobs(connection: Connection) -> int:
    """Return how many jobs are with an executor and not missing."""
    query = select(func.count()).select_from(job).where(active(), job.c.failure.is_(None))
    return int(connection.execute(query).scalar_one())


def indices_of(connection: Connection, batch_id: int, wanted: Sequence[int]) -> list[int]:
    """Return those of some job indices that a batch has."""
    found: list[int] = []
    for start in range(0, len(wanted), CHUNK):
        query = select(job.c.JobIndex).where(
            job.c.BatchID == batch_id, job.c.JobIndex.in_(wanted[start : start + CHUNK])
        )
        found.extend(connection.execute(query).scalars())
    return found


def existing(connection: Connection, batch_id: int) -> bool:
    """Return whether a batch has jobs."""
    return (
        connection.execute(select(job.c.BatchID).where(job.c.BatchID == batch_id).limit(1)).first()
        is not None
    )


def highest_index(connection: Connection, batch_id: int) -> int:
    """Return the highest JobIndex of a batch; -1 if it has no jobs."""
    found: int | None = connection.execute(
        select(func.max(job.c.JobIndex)).where(job.c.BatchID == batch_id)
    ).scalar()
    return -1 if found is None else found


# -- evidence -------------------------------------------------------------------------------------------------------


class OpenSubmission(NamedTuple):
    """A submission that has attempts whose end was not folded."""

    token: str
    executor: str
    host: str
    pid: int
    boot_id: str
    start_ticks: int
    claimed: float
    recorded: float | None
    cluster_id: str | None
    seen: int | None
    carries: int | None
    closer: str | None


def open_submissions(connection: Connection, tokens: Sequence[str] | None = None) -> list[OpenSubmission]:
    """Return those of some submissions that are not settled; by default, all that were claimed and never recorded."""
    columns = [submission.c[name] for name in OpenSubmission._fields]
    query = select(*columns).where(submission.c.settled.is_(None))
    if tokens is None:
        return [
            OpenSubmission(*row) for row in connection.execute(query.where(submission.c.recorded.is_(None)))
        ]
    found: list[OpenSubmission] = []
    for start in range(0, len(tokens), CHUNK):
        chunk = query.where(submission.c.token.in_(tokens[start : start + CHUNK]))
        found.extend(OpenSubmission(*row) for row in connection.execute(chunk))
    return found


#: Token of a submission, and its folder's time stamp when it was last looked through; None before it was recorded.
Folder = tuple[str, int | None]


def open_folders(connection: Connection, only: str | None = None) -> dict[str, list[Folder]]:
    """Return what tells whether there is something new in the folders of the submissions that are not settled.

    They come by executor; ``only``: of this one. Of thousands, nothing else is read.
    """
    seen = case((submission.c.recorded.is_not(None), func.coalesce(submission.c.seen, -2)))
    is_open = submission.c.settled.is_(None)
    names = select(submission.c.executor).where(is_open).distinct()
    found: dict[str, list[Folder]] = {}
    for name in connection.execute(names).scalars() if only is None else [only]:
        query = select(submission.c.token, seen).where(is_open, submission.c.executor == name)
        rows: Any = connection.execute(query).cursor
        found[name] = rows.fetchall()
    return found


def open_count(connection: Connection, token: str) -> int:
    """Return how many attempts of a submission have not ended."""
    query = select(func.count()).where(attempt.c.token == token, attempt.c.ended.is_(None))
    return int(connection.execute(query).scalar_one())


def carried(connection: Connection, batch_id: int, before: float) -> bool:
    """Return whether a submission that was claimed before still has jobs without an end that a closer goes on with."""
    query = select(submission.c.token).where(
        submission.c.settled.is_(None), submission.c.carries == batch_id, submission.c.claimed < before
    )
    return connection.execute(query.limit(1)).first() is not None


def closers_of(connection: Connection, batch_ids: Sequence[int]) -> dict[str, dict[str, set[str]]]:
    """Return the closers that wait to go on with batches: by executor and id, the tokens that they stand behind."""
    found: dict[str, dict[str, set[str]]] = {}
    query = select(submission.c.executor, submission.c.closer, submission.c.token).where(
        submission.c.settled.is_(None), submission.c.closer.is_not(None), submission.c.carries.in_(batch_ids)
    )
    for executor, closer, token in connection.execute(query):
        found.setdefault(executor, {}).setdefault(closer, set()).add(token)
    return found


class OpenAttempt(NamedTuple):
    """An attempt whose end was not folded, and what its job says."""

    batch_id: int
    job_index: int
    n: int
    task: int
    started: float | None
    cancelled: float | None
    reason: str | None
    host: str | None
    state: str
    current: int
    complete_on_exit: bool
    absent_since: float | None
    failure: str | None
    submitted: float


def open_attempts(connection: Connection, token: str) -> list[OpenAttempt]:
    """Return the attempts of a submission whose end was not folded."""
    query = (
        select(
            attempt.c.BatchID,
            attempt.c.JobIndex,
            attempt.c.n,
            attempt.c.task,
            attempt.c.started,
            attempt.c.cancelled,
            attempt.c.reason,
            attempt.c.host,
            *standing(),
            job.c.absent_since,
            job.c.failure,
            attempt.c.submitted,
        )
        .select_from(attempt)
        .join(job, (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex))
        .outerjoin(spawn, OF_COPY)
        .where(attempt.c.token == token, attempt.c.ended.is_(None))
    )
    return [OpenAttempt(*tuple(row)) for row in connection.execute(query)]


def set_seen(connection: Connection, token: str, mtime: int) -> None:
    """Remember the time stamp of a submission's folder as it was looked through."""
    connection.execute(update(submission).where(submission.c.token == token).values(seen=mtime))


def running_in(connection: Connection, batch_ids: Sequence[int]) -> list[Running]:
    """Return the attempts of batches that did not end."""
    found: list[Running] = []
    for start in range(0, len(batch_ids), CHUNK):
        query = (
            select(
                attempt.c.BatchID,
                attempt.c.JobIndex,
                attempt.c.n,
                submission.c.executor,
                attempt.c.token,
                attempt.c.task,
                submission.c.cluster_id,
                attempt.c.started,
            )
            .join(submission, submission.c.token == attempt.c.token)
            .where(attempt.c.BatchID.in_(batch_ids[start : start + CHUNK]), attempt.c.ended.is_(None))
        )
        found.extend(Running(*row) for row in connection.execute(query))
    return found


def events_of(connection: Connection, batch_id: int, job_index: int) -> list[dict[str, Any]]:
    """Return what people and rules did to a job."""
    query = (
        select(event)
        .where(event.c.BatchID == batch_id, (event.c.JobIndex == job_index) | event.c.JobIndex.is_(None))
        .order_by(event.c.serial)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def attempts_of(connection: Connection, batch_id: int, job_index: int) -> list[dict[str, Any]]:
    """Return the attempts of a job."""
    query = (
        select(attempt, submission.c.cluster_id, submission.c.executor)
        .join(submission, submission.c.token == attempt.c.token)
        .where(attempt.c.BatchID == batch_id, attempt.c.JobIndex == job_index)
        .order_by(attempt.c.n)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def runs(connection: Connection, condition: ColumnElement[bool] | None = None) -> list[Run]:
    """Return the attempts that have started."""
    query = (
        select(
            attempt.c.BatchID,
            attempt.c.JobIndex,
            attempt.c.n,
            func.coalesce(attempt.c.host, ""),
            attempt.c.submitted,
            attempt.c.started,
            attempt.c.ended,
            attempt.c.reason,
            attempt.c.max_rss,
            attempt.c.cpu,
            attempt.c.asked,
        )
        .where(attempt.c.started.is_not(None))
        .order_by(attempt.c.BatchID, attempt.c.JobIndex, attempt.c.n)
    )
    if condition is not None:
        query = (
            query.join(job, (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex))
            .join(batch, batch.c.BatchID == job.c.BatchID)
            .where(condition)
        )
    # Thousands of attempts asked for the same.
    known: dict[str | None, tuple[Any, Any, Any]] = {None: (None, None, None)}
    found = []
    rows: Any = connection.execute(query).cursor
    for row in rows:
        asked = row[-1]
        if asked not in known:
            wanted = json.loads(asked)
            known[asked] = (wanted.get("cpus"), wanted.get("mem"), wanted.get("walltime"))
        found.append(Run._make((*row[:-1], *known[asked])))
    return found


# -- the file itself ------------------------------------------------------------------------------------------------


def fault(connection: Connection) -> str:
    """Return what is wrong with the file of the index; empty if nothing is."""
    told = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    return "" if told == "ok" else told


def journal_mode(connection: Connection) -> str:
    """Return ``wal`` or ``delete``."""
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())


def agent_of(connection: Connection, host: str) -> tuple[int, str, int] | None:
    """Return the last agent of a machine: its pid, the boot, and its start in ticks."""
    query = select(agent.c.pid, agent.c.boot_id, agent.c.start_ticks).where(agent.c.host == host)
    found = connection.execute(query).first()
    return None if found is None else (found[0], found[1], found[2])
