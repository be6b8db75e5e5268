"""Submissions that are not settled, and the attempts of theirs that evidence is gathered for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, select, update

from paraschut.store.rows import CHUNK, Running
from paraschut.store.schema import attempt, job, spawn, submission
from paraschut.store.statements.terms import OF_COPY, standing


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
