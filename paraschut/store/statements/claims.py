"""Adding jobs to a batch, and claiming them for a submission."""

from __future__ import annotations

from sqlalchemy import ClauseElement, insert, select, update

from paraschut.store.rows import candidates
from paraschut.store.schema import batch, environment, job, submission
from paraschut.store.statements.terms import NOW, ONE, THIS_JOB, ZERO, P

_SUBMISSION = (
    *("token", "executor", "host", "pid", "boot_id", "start_ticks", "claimed", "environment"),
    *("retry", "recorded", "settled", "cluster_id", "carries"),
)
_OF_BATCH = batch.c.BatchID == P("batch_id")


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        # Name and working directory, if it has jobs.
        "known_batch": select(batch.c.name, batch.c.workdir)
        .join(job, job.c.BatchID == batch.c.BatchID)
        .where(_OF_BATCH)
        .limit(ONE)
        .offset(ZERO),
        "claimable": candidates(
            job.c.BatchID == P("batch_id"),
            job.c.priority == P("priority"),
            job.c.waits == ZERO,
            job.c.not_before <= NOW,
        ),
        "claimable_job": candidates(THIS_JOB),
        "keep_environment": insert(environment)
        .prefix_with("OR IGNORE")
        .values(digest=P("digest"), variables=P("variables")),
        "add_submission": insert(submission).values({column: P(column) for column in _SUBMISSION}),
        "batch_limit": update(batch)
        .where(_OF_BATCH, batch.c.max_jobs.is_not(P("limit")))
        .values(max_jobs=P("limit")),
        "batch_taken_on": update(batch)
        .where(_OF_BATCH, batch.c.executor.is_(None))
        .values(executor=P("executor"), executor_defaults=P("defaults"), environment=P("environment")),
    }
