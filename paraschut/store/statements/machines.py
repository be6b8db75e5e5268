"""What waits for a machine, runs there, and who looks after it."""

from __future__ import annotations

from sqlalchemy import ClauseElement, insert, literal_column, null, select, update

from paraschut.store.schema import agent, attempt, batch, environment, job, payload, spawn, submission
from paraschut.store.statements.terms import (
    HERE,
    NOW,
    OF_COPY,
    ONE,
    THIS_ATTEMPT,
    THIS_JOB,
    ZERO,
    P,
    standing,
    word,
)

_KEY = (attempt.c.BatchID, attempt.c.JobIndex, attempt.c.n)
_TOLD = (*_KEY, attempt.c.token, attempt.c.task, attempt.c.asked)
_ITS_JOB = (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex)
_RUNS = (HERE, attempt.c.started.is_not(None), attempt.c.ended.is_(None), attempt.c.process.is_not(None))


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        "waiting": select(
            *_TOLD,
            attempt.c.spawn_id,
            job.c.metadata,
            job.c.complete_on_exit,
            batch.c.workdir,
            submission.c.environment,
            submission.c.cluster_id,
            payload.c.warm,
        )
        .join(job, _ITS_JOB)
        .join(batch, batch.c.BatchID == attempt.c.BatchID)
        .join(submission, submission.c.token == attempt.c.token)
        .outerjoin(
            payload, (payload.c.BatchID == attempt.c.BatchID) & (payload.c.number == attempt.c.JobIndex)
        )
        .where(HERE, attempt.c.started.is_(None), attempt.c.ended.is_(None), attempt.c.cancelled.is_(None))
        .order_by(literal_column("attempt.rowid"))
        .limit(P("most"))
        .offset(ZERO),
        "any_waiting": select(ONE)
        .select_from(attempt)
        .where(HERE, attempt.c.started.is_(None), attempt.c.ended.is_(None))
        .limit(ONE)
        .offset(ZERO),
        "any_running": select(ONE).select_from(attempt).where(*_RUNS).limit(ONE).offset(ZERO),
        "running": select(
            *_TOLD,
            attempt.c.process,
            attempt.c.started,
            attempt.c.cancelled,
            attempt.c.reason,
            job.c.absent_since,
        )
        .join(job, _ITS_JOB)
        .where(*_RUNS),
        "started_in": select(*_KEY, attempt.c.cancelled).where(
            HERE,
            attempt.c.process == P("process"),
            attempt.c.started.is_not(None),
            attempt.c.ended.is_(None),
        ),
        "cancelled": select(*_KEY, attempt.c.process).where(
            HERE, attempt.c.cancelled.is_not(None), attempt.c.ended.is_(None)
        ),
        "attempt_starts": update(attempt)
        .where(
            THIS_ATTEMPT,
            attempt.c.started.is_(None),
            attempt.c.ended.is_(None),
            attempt.c.cancelled.is_(None),
        )
        .values(started=NOW, process=P("process")),
        "attempt_not_started": update(attempt)
        .where(THIS_ATTEMPT, attempt.c.process == P("process"), attempt.c.ended.is_(None))
        .values(started=null(), process=null()),
        "job_not_started": update(job)
        .where(THIS_JOB, job.c.attempt == P("n"), job.c.state == word("run"))
        .values(state=word("submit")),
        "job_and_reason": select(*standing(), attempt.c.reason, attempt.c.token, attempt.c.process)
        .select_from(job)
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .outerjoin(spawn, OF_COPY)
        .where(THIS_ATTEMPT),
        "environment": select(environment.c.variables).where(environment.c.digest == P("digest")),
        "agent": select(agent.c.pid, agent.c.boot_id, agent.c.start_ticks, agent.c.state).where(
            agent.c.host == P("host")
        ),
        "agent_state": insert(agent)
        .prefix_with("OR REPLACE")
        .values(
            host=P("host"),
            pid=P("pid"),
            boot_id=P("boot_id"),
            start_ticks=P("start_ticks"),
            state=P("state"),
            since=NOW,
        ),
    }
