"""What jobs are, and how they change."""

from __future__ import annotations

from sqlalchemy import ClauseElement, exists, func, insert, literal_column, null, or_, select, update

from paraschut.store.schema import SCHEMA_VERSION, attempt, batch, event, job, spawn, submission
from paraschut.store.statements.terms import NOW, OF_COPY, ONE, THIS_ATTEMPT, THIS_JOB, ZERO, P, word

_open = attempt.alias("open")


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        # For those who do not import the tables.
        "version": select(literal_column(str(SCHEMA_VERSION)).label("version")),
        "read_job": select(job, batch.c.workdir, batch.c.name.label("batch_name"))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(THIS_JOB),
        "job_state": update(job)
        .where(THIS_JOB)
        .values(
            state=P("state"),
            failure=null(),
            absent_since=null(),
            retried=ZERO,
            resumed=ZERO,
            not_before=ZERO,
            revision=job.c.revision + ONE,
        ),
        "job_priority": update(job)
        .where(THIS_JOB)
        .values(priority=P("priority"), revision=job.c.revision + ONE),
        "job_fields": update(job)
        .where(THIS_JOB)
        .values(
            metadata=P("metadata"),
            extras=P("extras"),
            name=P("name"),
            complete_on_exit=P("complete_on_exit"),
            revision=job.c.revision + ONE,
        ),
        "job_progress": update(job)
        .where(THIS_JOB)
        .values(progress=P("progress"), progress_message=P("progress_message")),
        "job_runs": update(job)
        .where(THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([word("submit"), word("run")]))
        .values(state=word("run"), failure=null(), absent_since=null()),
        "job_missing": update(job)
        .where(THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([word("submit"), word("run")]))
        .values(failure=P("reason")),
        "job_ended": update(job)
        .where(THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([word("submit"), word("run")]))
        .values(state=word("complete"), failure=null(), absent_since=null()),
        "job_awaits_end": update(job).where(THIS_JOB).values(ending=P("n")),
        # Of copies, the next one that has not ended is waited for.
        "job_end_proved": update(job)
        .where(THIS_JOB, job.c.ending == P("n"))
        .values(
            ending=select(func.max(_open.c.n))
            .where(
                _open.c.BatchID == P("batch_id"), _open.c.JobIndex == P("job_index"), _open.c.ended.is_(None)
            )
            .scalar_subquery()
        ),
        "job_absent": update(job).where(THIS_JOB).values(absent_since=P("since")),
        "job_to_retry": select(
            job.c.metadata, job.c.retried, job.c.resumed, job.c.raised, attempt.c.asked, submission.c.retry
        )
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .join(submission, submission.c.token == attempt.c.token)
        .where(
            THIS_ATTEMPT,
            or_(
                (job.c.attempt == attempt.c.n) & job.c.state.in_([word("submit"), word("run")]),
                (job.c.state == word("spawn"))
                & exists(select(ONE).select_from(spawn).where(OF_COPY, spawn.c.attempt == attempt.c.n)),
            ),
        ),
        "job_retries": update(job)
        .where(THIS_JOB)
        .values(
            state=word("init"),
            failure=null(),
            absent_since=null(),
            retried=P("retried"),
            resumed=P("resumed"),
            raised=P("raised"),
            not_before=P("not_before"),
        ),
        "job_not_raised": update(job).where(THIS_JOB).values(raised=null()),
        "copy_retries": update(job)
        .where(THIS_JOB)
        .values(retried=P("retried"), resumed=P("resumed"), raised=P("raised"), not_before=P("not_before")),
        "add_event": insert(event).values(
            at=NOW,
            host=P("host"),
            pid=P("pid"),
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            kind=P("kind"),
            detail=P("detail"),
        ),
        "last_edit": select(event.c.at, event.c.host, event.c.pid, event.c.kind)
        .where(
            event.c.BatchID == P("batch_id"),
            (event.c.JobIndex == P("job_index")) | event.c.JobIndex.is_(None),
        )
        .order_by(event.c.serial.desc())
        .limit(ONE)
        .offset(ZERO),
    }
