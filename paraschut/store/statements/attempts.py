"""Attempts to run a job, and the submissions that they came of."""

from __future__ import annotations

from sqlalchemy import ClauseElement, func, select, update

from paraschut.store.schema import attempt, batch, submission
from paraschut.store.statements.terms import NOW, ONE, THIS_ATTEMPT, ZERO, P


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        "read_attempts": select(attempt, submission.c.cluster_id)
        .join(submission, submission.c.token == attempt.c.token)
        .where(attempt.c.BatchID == P("batch_id"), attempt.c.JobIndex == P("job_index"))
        .order_by(attempt.c.n),
        "read_attempt": select(
            attempt.c.token, attempt.c.started, attempt.c.cancelled, attempt.c.ended, attempt.c.folded
        ).where(THIS_ATTEMPT),
        "highest_attempt": select(func.max(attempt.c.n)).where(
            attempt.c.BatchID == P("batch_id"), attempt.c.JobIndex == P("job_index")
        ),
        "open_attempts": select(attempt.c.n).where(
            attempt.c.BatchID == P("batch_id"),
            attempt.c.JobIndex == P("job_index"),
            attempt.c.ended.is_(None),
        ),
        "attempt_runs": update(attempt)
        .where(THIS_ATTEMPT, attempt.c.ended.is_(None))
        .values(started=func.coalesce(attempt.c.started, NOW), host=P("host")),
        "attempt_marked": update(attempt)
        .where(THIS_ATTEMPT, attempt.c.ended.is_(None), attempt.c.started.is_(None))
        .values(started=P("started"), host=P("host")),
        "attempt_ends": update(attempt)
        .where(THIS_ATTEMPT, attempt.c.ended.is_(None))
        .values(
            started=func.coalesce(attempt.c.started, P("started")),
            # Shells write whole seconds, and machines have clocks of their own.
            ended=func.max(P("ended"), func.coalesce(attempt.c.started, P("started"), P("ended"))),
            code=P("code"),
            signal=P("signal"),
            reason=func.coalesce(attempt.c.reason, P("reason")),
            max_rss=P("max_rss"),
            cpu=P("cpu"),
        ),
        "attempt_reason": update(attempt)
        .where(THIS_ATTEMPT, attempt.c.ended.is_(None), attempt.c.reason.is_(None))
        .values(reason=P("reason")),
        "attempt_cancelled": update(attempt)
        .where(THIS_ATTEMPT)
        .values(cancelled=NOW, reason=func.coalesce(attempt.c.reason, P("reason"))),
        "attempt_folded": update(attempt).where(THIS_ATTEMPT).values(folded=P("folded")),
        "attempt_qstat": update(attempt).where(THIS_ATTEMPT).values(qstat=P("qstat")),
        "submission_of": select(submission.c.executor, submission.c.token)
        .where(submission.c.cluster_id == P("cluster_id"))
        # A scheduler that lost its memory gives ids out again.
        .order_by(submission.c.claimed.desc())
        .limit(ONE)
        .offset(ZERO),
        "submission_left": select(ONE)
        .select_from(attempt)
        .where(attempt.c.token == P("token"), attempt.c.ended.is_(None))
        .limit(ONE)
        .offset(ZERO),
        "submission_settled": update(submission).where(submission.c.token == P("token")).values(settled=NOW),
        "submitted_as": select(
            submission.c.executor,
            submission.c.environment,
            batch.c.executor.label("usual"),
            batch.c.executor_defaults,
        )
        .select_from(attempt)
        .join(submission, submission.c.token == attempt.c.token)
        .join(batch, batch.c.BatchID == attempt.c.BatchID)
        .where(
            attempt.c.BatchID == P("batch_id"),
            attempt.c.JobIndex == P("job_index"),
            attempt.c.n == func.coalesce(P("n"), attempt.c.n),
        )
        .order_by(attempt.c.n.desc())
        .limit(ONE)
        .offset(ZERO),
    }
