"""Calls of functions: what is called, what came of it, and their names."""

from __future__ import annotations

from sqlalchemy import ClauseElement, exists, insert, literal_column, select, update

from paraschut.store.schema import ACTIVE, FINISHED, active, attempt, job, name, payload, result
from paraschut.store.statements.terms import NOW, ONE, THIS_ATTEMPT, P, word

_RESULT = [
    result.c[column]
    for column in ("JobIndex", "n", "kind", "summary", "traceback", "seconds", "data", "in_file")
]


def statements() -> dict[str, ClauseElement]:
    """Return them by name."""
    return {
        "call_state": select(
            job.c.state, job.c.attempt, job.c.ending, attempt.c.cancelled, attempt.c.ended, attempt.c.reason
        )
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .where(THIS_ATTEMPT),
        "call_taken": select(attempt.c.cancelled).where(
            THIS_ATTEMPT,
            attempt.c.process == P("process"),
            attempt.c.started == P("now"),
            attempt.c.ended.is_(None),
        ),
        "add_payload": insert(payload).values(
            BatchID=P("batch_id"),
            number=P("number"),
            shared=P("shared"),
            warm=P("warm"),
            about=P("about"),
            data=P("data"),
        ),
        "payload": select(payload.c.shared, payload.c.about, payload.c.data).where(
            payload.c.BatchID == P("batch_id"), payload.c.number == P("number")
        ),
        "add_result": insert(result)
        .prefix_with("OR REPLACE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            n=P("n"),
            kind=P("kind"),
            summary=P("summary"),
            traceback=P("traceback"),
            seconds=P("seconds"),
            data=P("data"),
            in_file=P("in_file"),
        ),
        "result": select(*_RESULT).where(
            result.c.BatchID == P("batch_id"), result.c.JobIndex == P("job_index")
        ),
        # By serial, not by batch: what is new is at the end.
        "results_since": select(result.c.serial, *_RESULT)
        .join(job, (job.c.BatchID == result.c.BatchID) & (job.c.JobIndex == result.c.JobIndex))
        .where(
            result.c.serial > P("since"),
            literal_column('+result."BatchID"') == P("batch_id"),
            job.c.attempt == result.c.n,
            job.c.state.not_in([word("init"), word("submit")]),
        )
        .order_by(result.c.serial),
        "stopped": select(job.c.JobIndex, job.c.state, job.c.failure, job.c.attempt).where(
            job.c.BatchID == P("batch_id"),
            (job.c.failure.is_not(None) & active())
            | job.c.state.not_in([word(one) for one in ("init", *ACTIVE, *FINISHED)])
            | (
                job.c.state.in_([word(one) for one in FINISHED])
                & ~exists(
                    select(ONE)
                    .select_from(result)
                    .where(
                        result.c.BatchID == job.c.BatchID,
                        result.c.JobIndex == job.c.JobIndex,
                        result.c.n == job.c.attempt,
                    )
                )
            ),
        ),
        "standing": select(job.c.JobIndex, job.c.state, job.c.failure, job.c.attempt)
        .where(job.c.BatchID == P("batch_id"))
        .order_by(job.c.JobIndex),
        "add_name": insert(name)
        .prefix_with("OR IGNORE")
        .values(name=P("name"), BatchID=P("batch_id"), kind=P("kind"), created=NOW, about=P("about")),
        "tell_name": update(name).where(name.c.name == P("name")).values(about=P("about")),
        "name": select(name.c.BatchID, name.c.kind, name.c.about).where(name.c.name == P("name")),
    }
