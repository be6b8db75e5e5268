"""What the statements have in common."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, ColumnElement, bindparam, case, literal_column

from paraschut.store.schema import attempt, job, spawn

P = bindparam
NOW: BindParameter[float] = P("now")
ONE: ColumnElement[int] = literal_column("1")
ZERO: ColumnElement[int] = literal_column("0")
THIS_JOB = (job.c.BatchID == P("batch_id")) & (job.c.JobIndex == P("job_index"))
THIS_ATTEMPT = (
    (attempt.c.BatchID == P("batch_id")) & (attempt.c.JobIndex == P("job_index")) & (attempt.c.n == P("n"))
)
OF_JOB = (spawn.c.BatchID == P("batch_id")) & (spawn.c.JobIndex == P("job_index"))
HERE = attempt.c.host == P("host")
#: Joins an attempt with the copy that it is of, if the job has several.
OF_COPY = (
    (spawn.c.BatchID == attempt.c.BatchID)
    & (spawn.c.JobIndex == attempt.c.JobIndex)
    & (spawn.c.SpawnID == attempt.c.spawn_id)
)
#: Written as the partial index is.
PAUSED = (job.c.state == literal_column("'init'")) & (job.c.not_before > literal_column("0"))


def word(state: str) -> ColumnElement[Any]:
    """Return a state as a literal: partial indexes are found by it."""
    return literal_column(f"'{state}'")


def standing() -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    """Return state, current attempt and ``complete_on_exit`` as they hold for an attempt that is joined with its copy.

    While a job is in ``spawn``, each of its copies stands for itself.
    """
    copies = (job.c.state == word("spawn")) & spawn.c.attempt.is_not(None)
    return (
        case((copies & (spawn.c.state == word("complete")), word("complete")), else_=job.c.state).label(
            "state"
        ),
        case((copies, spawn.c.attempt), else_=job.c.attempt).label("attempt"),
        case((copies, ZERO), else_=job.c.complete_on_exit).label("complete_on_exit"),
    )
