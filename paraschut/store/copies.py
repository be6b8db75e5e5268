"""The copies that jobs make of themselves: which are lost, and who is the last to be complete.

Part of the road of a job: imports little.
"""

from __future__ import annotations

from typing import Any

from paraschut.store import runtime
from paraschut.store.runtime import Key, Statements


def lost(db: Statements, batch_id: int, job_index: int) -> list[dict[str, Any]]:
    """Return the copies of a job that have ended without having said complete."""
    return [
        one
        for one in db.rows("spawns_of", batch_id=batch_id, job_index=job_index)
        if one["state"] != "complete" and one["ended"] is not None
    ]


def due(db: Statements) -> list[dict[str, Any]]:
    """Return the jobs with copies that are to be tried again, and when their pause is over."""
    # Hardly any index has copies, and then those who ask need not look at all jobs that run.
    return db.rows("copies_due") if db.row("any_spawn") is not None else []


def earliest(begin: float | None, db: Statements, now: float, **of: Any) -> float | None:
    """Return the earlier of a time and of the next end of a pause of copies of such jobs."""
    ends = [
        row["not_before"]
        for row in due(db)
        if row["not_before"] > now and all(row[key] == value for key, value in of.items())
    ]
    return min([*ends, *([] if begin is None else [begin])], default=None)


def complete(db: Statements, key: Key) -> bool:
    """Say that one copy of a job is complete; return whether all are: this holds for the last to say so, and only it.

    That copy is from then on the job's one attempt.

    Raises
    ------
    StaleJobError
        If this attempt no longer counts: it was reset, or its copy was submitted again.
    """
    row = runtime.check_current(db, key)
    if row["state"] != "spawn":
        return True  # it never had copies, or it is the one that was told so before
    db.run("spawn_done", **key._asdict())
    (left,) = db.run("spawn_left", batch_id=key.batch_id, job_index=key.job_index).fetchone()
    if left:
        return False
    db.run("job_rejoins", **key._asdict())
    return True
