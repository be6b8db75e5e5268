"""Copies of jobs that multiply while they run."""

from __future__ import annotations

from sqlalchemy import ClauseElement, delete, exists, func, insert, null, select, update

from paraschut.store.schema import active, attempt, batch, job, spawn, submission
from paraschut.store.statements.terms import OF_JOB, ONE, THIS_ATTEMPT, THIS_JOB, ZERO, P, word


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        "any_spawn": select(ONE).select_from(spawn).limit(ONE).offset(ZERO),
        "spawn_of_attempt": select(spawn.c.SpawnID, spawn.c.state).where(
            spawn.c.BatchID == P("batch_id"), spawn.c.JobIndex == P("job_index"), spawn.c.attempt == P("n")
        ),
        "spawns_of": select(
            spawn.c.SpawnID,
            spawn.c.state,
            attempt.c.n,
            attempt.c.token,
            attempt.c.task,
            attempt.c.host,
            attempt.c.started,
            attempt.c.ended,
            attempt.c.reason,
            attempt.c.asked,
            submission.c.cluster_id,
            submission.c.executor,
        )
        .join(
            attempt,
            (attempt.c.BatchID == spawn.c.BatchID)
            & (attempt.c.JobIndex == spawn.c.JobIndex)
            & (attempt.c.n == spawn.c.attempt),
        )
        .join(submission, submission.c.token == attempt.c.token)
        .where(OF_JOB)
        .order_by(spawn.c.SpawnID),
        "put_spawn": insert(spawn)
        .prefix_with("OR REPLACE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            SpawnID=P("spawn_id"),
            attempt=P("n"),
            state=word("spawn"),
        ),
        "attempt_of_spawn": update(attempt).where(THIS_ATTEMPT).values(spawn_id=P("spawn_id")),
        "spawn_done": update(spawn)
        .where(OF_JOB, spawn.c.attempt == P("n"), spawn.c.state != word("complete"))
        .values(state=word("complete")),
        "spawn_left": select(func.count())
        .select_from(spawn)
        .where(OF_JOB, spawn.c.state != word("complete")),
        "spawn_waits": update(spawn).where(OF_JOB, spawn.c.attempt == P("n")).values(state=word("init")),
        "copies_due": select(job.c.BatchID, job.c.JobIndex, job.c.not_before, batch.c.executor)
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(
            active(),
            job.c.state == word("spawn"),
            exists(
                select(ONE)
                .select_from(spawn)
                .where(
                    spawn.c.BatchID == job.c.BatchID,
                    spawn.c.JobIndex == job.c.JobIndex,
                    spawn.c.state == word("init"),
                )
            ),
        ),
        "forget_spawns": delete(spawn).where(OF_JOB),
        "job_spawns": update(job).where(THIS_JOB).values(state=word("spawn"), failure=P("reason")),
        "job_rejoins": update(job)
        .where(THIS_JOB, job.c.state == word("spawn"))
        .values(state=word("run"), attempt=P("n"), failure=null(), absent_since=null()),
    }
