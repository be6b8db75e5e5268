"""Which groups are next, what holds others back, and what a pass is bounded by."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ClauseElement,
    Select,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
    update,
)

from paraschut.store.schema import (
    GLOBAL_PRIORITY,
    active,
    batch,
    dependency,
    event,
    job,
    unfinished,
)
from paraschut.store.statements.terms import NOW, ONE, PAUSED, THIS_JOB, ZERO, P, word

_above = job.alias("above")
_waiting = job.alias("waiting")
_NEED = ("BatchID", "JobIndex", "needs_batch", "needs_job")
_unmet = table("unmet", *map(column, _NEED))
_WAITS = exists(
    select(ONE)
    .select_from(_unmet)
    .where(_unmet.c.BatchID == job.c.BatchID, _unmet.c.JobIndex == job.c.JobIndex)
    .correlate(job)
)


def heads() -> Select[Any]:
    """Return the query for the groups that are next in their batch and have jobs to submit.

    It scans the batches and looks twice into a partial index for each, so finished batches cost nothing and
    ten thousand blocked ones a few milliseconds. The LIMIT keeps SQLite from evaluating ``top`` twice.
    """
    top = (
        select(func.max(job.c.priority))
        .where(job.c.BatchID == batch.c.BatchID, unfinished())
        .correlate(batch)
        .scalar_subquery()
        .label("top")
    )
    kept = (batch.c.executor, batch.c.executor_defaults, batch.c.environment, batch.c.max_jobs)
    groups = select(batch.c.BatchID, *kept, top).limit(literal_column("-1")).offset(ZERO).subquery("head")
    ready = exists(
        select(ONE)
        .select_from(job)
        .where(
            job.c.BatchID == groups.c.BatchID,
            job.c.priority == groups.c.top,
            job.c.state == word("init"),
            job.c.ending.is_(None),
            job.c.waits == ZERO,
            job.c.not_before <= P("now"),
            unfinished(),
        )
    )
    return select(groups).where(groups.c.top.is_not(None), ready)


def paused_heads() -> Select[Any]:
    """Return the query for the groups that are next in their batch and have jobs whose pause is not over."""
    kept = (batch.c.executor, batch.c.executor_defaults, batch.c.environment, batch.c.max_jobs)
    higher = exists(
        select(ONE)
        .select_from(_above)
        .where(_above.c.BatchID == job.c.BatchID, unfinished(_above), _above.c.priority > job.c.priority)
        .correlate(job)
    )
    return (
        select(batch.c.BatchID, *kept, job.c.priority.label("top"))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(
            PAUSED,
            job.c.not_before > P("now"),
            job.c.ending.is_(None),
            job.c.waits == ZERO,
            unfinished(),
            ~higher,
        )
        .distinct()
    )


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        "heads": heads(),
        "paused_heads": paused_heads(),
        # One that itself has to wait for others holds nobody back.
        "global_top": select(func.max(job.c.priority)).where(
            unfinished(), job.c.priority > literal_column(str(GLOBAL_PRIORITY)), job.c.waits == ZERO
        ),
        # (The sign keeps SQLite from walking through all jobs in the order of batches.)
        "holders": select(literal_column('+job."BatchID"').label("BatchID"), job.c.priority)
        .where(
            unfinished(),
            job.c.priority > literal_column(str(GLOBAL_PRIORITY)),
            job.c.priority > P("priority"),
            job.c.waits == ZERO,
        )
        .distinct(),
        "waiting_above": select(job.c.JobIndex).where(
            job.c.BatchID == P("batch_id"), unfinished(), job.c.priority > P("priority"), job.c.waits == ONE
        ),
        "lowest_above": select(func.min(job.c.priority)).where(
            job.c.BatchID == P("batch_id"), unfinished(), job.c.priority > P("priority")
        ),
        "unfinished_priority": select(job.c.priority).where(THIS_JOB, unfinished()),
        "any_job_of": select(ONE)
        .select_from(job)
        .where(job.c.BatchID == P("batch_id"))
        .limit(ONE)
        .offset(ZERO),
        "active_count": select(func.count()).select_from(job).where(active(), job.c.failure.is_(None)),
        "ready_count": select(func.count()).select_from(
            select(ONE)
            .select_from(job)
            .where(
                job.c.BatchID == P("batch_id"),
                job.c.priority == P("priority"),
                job.c.state == word("init"),
                job.c.ending.is_(None),
                job.c.waits == ZERO,
                job.c.not_before <= NOW,
                unfinished(),
            )
            .limit(P("most"))
            .offset(ZERO)
            .subquery()
        ),
        # When the agent of a machine, or the closer of a batch, has to look again.
        "next_begin": select(func.min(job.c.not_before))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(PAUSED, job.c.not_before > NOW, batch.c.executor == P("executor")),
        "next_begin_of": select(func.min(job.c.not_before)).where(
            PAUSED, job.c.not_before > NOW, job.c.BatchID == P("batch_id")
        ),
        "last_pass": select(event.c.at, event.c.detail)
        .where(event.c.BatchID == P("batch_id"), event.c.kind == P("kind"))
        .order_by(event.c.serial.desc())
        .limit(ONE)
        .offset(ZERO),
        "any_need": select(ONE).select_from(dependency).limit(ONE).offset(ZERO),
        "needs_of": select(dependency.c.needs_batch, dependency.c.needs_job).where(
            dependency.c.BatchID == P("batch_id"), dependency.c.JobIndex == P("job_index")
        ),
        "add_need": insert(dependency)
        .prefix_with("OR IGNORE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            needs_batch=P("needs_batch"),
            needs_job=P("needs_job"),
        ),
        "forget_needs": delete(dependency).where(
            dependency.c.BatchID == P("batch_id"), dependency.c.JobIndex == P("job_index")
        ),
        # Before its batch is removed: what has been met stays so.
        "forget_met": delete(dependency).where(
            dependency.c.needs_batch == P("needs_batch"),
            ~exists(
                select(ONE)
                .select_from(_unmet)
                .where(*(_unmet.c[name] == dependency.c[name] for name in _NEED))
            ),
        ),
        "job_waits": update(job).where(THIS_JOB).values(waits=_WAITS),
        "dependents_wait": update(job)
        .where(
            literal_column("job.rowid").in_(
                select(literal_column("waiting.rowid"))
                .select_from(
                    dependency.join(
                        _waiting,
                        (_waiting.c.BatchID == dependency.c.BatchID)
                        & (_waiting.c.JobIndex == dependency.c.JobIndex),
                    )
                )
                .where(
                    dependency.c.needs_batch == P("needs_batch"),
                    dependency.c.needs_job == literal_column("-1"),
                )
            )
        )
        .values(waits=_WAITS),
    }
