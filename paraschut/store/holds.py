"""Reads what holds a job back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, table
from sqlalchemy import column as column_of

from paraschut.after import WHOLE
from paraschut.store import views
from paraschut.store.filters import compile_filter
from paraschut.store.runtime import Statements, last_pass
from paraschut.store.schema import attempt, batch, job, unfinished
from paraschut.why import Attempt, Facts, Other

_unmet = table("unmet", *map(column_of, ("BatchID", "JobIndex", "needs_batch", "needs_job")))


class Given(NamedTuple):
    """What an executor is asked with about a job."""

    fields: dict[str, Any]
    executor: str | None
    defaults: str | None
    cluster_id: str | None
    task: int


def facts_of(connection: Connection, row: Mapping[str, Any], max_jobs: int) -> tuple[Facts, Given]:
    """Return what is known of a job from its row, and what an executor is to be asked with."""
    where = (row["BatchID"], row["JobIndex"])
    of_batch = connection.execute(select(batch).where(batch.c.BatchID == where[0])).mappings().one()
    attempts = views.attempts_of(connection, *where)
    last = attempts[-1] if attempts else None
    top = connection.execute(
        select(job.c.BatchID, job.c.JobIndex, job.c.state, job.c.failure)
        .where(unfinished(), job.c.priority > max(100, row["priority"]), job.c.waits == 0)
        .order_by(job.c.priority.desc())
        .limit(1)
    ).first()
    facts = Facts(
        *where,
        state=row["state"],
        failure=row["failure"],
        ending=row["ending"] is not None,
        not_before=row["not_before"],
        above=_above(connection, where[0], row["priority"]),
        needs=_needs(connection, where),
        first=None if top is None else Other(*top),
        active=views.active_jobs(connection),
        limit=max_jobs if of_batch["max_jobs"] is None else of_batch["max_jobs"],
        last=None if last is None else _attempt(last),
        goes_on=of_batch["executor"] is not None,
        ahead=_ahead(connection, last),
    )
    fields = {"BatchID": where[0], "JobIndex": where[1], **json.loads(row["metadata"])}
    if row["raised"] is not None:
        fields["resources"] = {**(fields["resources"] or {}), **json.loads(row["raised"])}
    given = Given(
        fields,
        of_batch["executor"],
        of_batch["executor_defaults"],
        last["cluster_id"] if last else None,
        last["task"] if last else 0,
    )
    return facts, given


def left_by(connection: Connection, db: Statements, row: Mapping[str, Any]) -> tuple[str | None, float]:
    """Return what the last pass of a person was given that leaves a job out, and when; None: nothing does."""
    last = last_pass(db)
    bounds = {} if last is None else json.loads(last["detail"])
    if last is None or row["BatchID"] not in bounds.get("BatchID", [row["BatchID"]]):
        return None, 0.0
    if row["priority"] < bounds.get("MinPrior", row["priority"]):
        return f"MinPrior={bounds['MinPrior']:g}", last["at"]
    text = bounds.get("Filter")
    if text is None or _fits(connection, row, text):
        return None, 0.0
    return f"Filter={text!r}", last["at"]


def _fits(connection: Connection, row: Mapping[str, Any], text: str) -> bool:
    mine = (job.c.BatchID == row["BatchID"]) & (job.c.JobIndex == row["JobIndex"])
    query = select(job.c.JobIndex).join(batch, batch.c.BatchID == job.c.BatchID).where(mine)
    condition = compile_filter(text)
    return condition is None or connection.execute(query.where(condition)).first() is not None


def _attempt(row: Mapping[str, Any]) -> Attempt:
    cancelled = row["cancelled"] is not None
    return Attempt(
        row["n"], row["executor"], row["host"], row["started"], row["ended"], cancelled, row["reason"]
    )


def _above(connection: Connection, batch_id: int, priority: float) -> Other | None:
    those = (job.c.BatchID == batch_id) & unfinished() & (job.c.priority > priority)
    count = connection.execute(select(func.count()).select_from(job).where(those)).scalar_one()
    # One that is missing is what somebody must see to.
    row = connection.execute(
        select(job.c.BatchID, job.c.JobIndex, job.c.state, job.c.failure)
        .where(those)
        .order_by(job.c.failure.is_(None), job.c.priority.desc(), job.c.JobIndex)
        .limit(1)
    ).first()
    return None if row is None else Other(*row, left=count)


def _needs(connection: Connection, where: tuple[int, int]) -> tuple[Other, ...]:
    rows = connection.execute(
        select(_unmet.c.needs_batch, _unmet.c.needs_job).where(
            _unmet.c.BatchID == where[0], _unmet.c.JobIndex == where[1]
        )
    ).all()
    found = []
    for batch_id, job_index in rows:
        if job_index == WHOLE:
            left = connection.execute(
                select(func.count()).select_from(job).where(job.c.BatchID == batch_id, unfinished())
            ).scalar_one()
            state = "init" if views.existing(connection, batch_id) else None
            found.append(Other(batch_id, None, state, None, left))
            continue
        row = connection.execute(
            select(job.c.state, job.c.failure).where(job.c.BatchID == batch_id, job.c.JobIndex == job_index)
        ).first()
        found.append(Other(batch_id, job_index, *(row or (None, None))))
    return tuple(found)


def _ahead(connection: Connection, last: Mapping[str, Any] | None) -> int:
    if last is None or last["executor"] != "local" or last["started"] is not None:
        return 0
    mine = (
        select(func.min(attempt.c.submitted))
        .where(
            attempt.c.BatchID == last["BatchID"],
            attempt.c.JobIndex == last["JobIndex"],
            attempt.c.n == last["n"],
        )
        .scalar_subquery()
    )
    return int(
        connection.execute(
            select(func.count())
            .select_from(attempt)
            .where(
                attempt.c.host == last["host"],
                attempt.c.started.is_(None),
                attempt.c.ended.is_(None),
                attempt.c.submitted < mine,
            )
        ).scalar_one()
    )
