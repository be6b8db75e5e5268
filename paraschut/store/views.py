"""What is read from the index to be looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from paraschut import job as jobs
from paraschut.bulk import uncollected
from paraschut.look.runs import Run
from paraschut.store import runtime
from paraschut.store.rows import CHUNK
from paraschut.store.runtime import assemble
from paraschut.store.schema import active, agent, attempt, batch, event, job, spawn, submission
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
