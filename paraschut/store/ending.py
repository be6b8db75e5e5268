"""How an attempt ends in the index, and what that means for its job: complete, missing, or tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paraschut.store.runtime import Ended, Key, Statements, add_event

if TYPE_CHECKING:
    from paraschut.retry import Again


def end_attempt(db: Statements, key: Key, ended: Ended, reason: str | None, *, complete: bool) -> bool:
    """Fold the end of an attempt, once: its facts, and what they mean for the job.

    Parameters
    ----------
    reason : str | None
        Why the job is missing, if it is not tried again; None if it is not.
    complete : bool
        Whether this end completes the job (a plain command that exited 0).

    Returns
    -------
    bool
        False if the end had been folded before.
    """
    if not db.changed("attempt_ends", **key._asdict(), reason=reason, **ended._asdict()):
        return False
    if not db.changed("job_end_proved", **key._asdict()):
        if complete:
            db.run("job_ended", **key._asdict())
        elif (
            reason is not None
            and not _copy_is_missing(db, key, reason, ended.ended)
            and not _try_again(db, key, reason, ended.ended)
        ):
            db.run("job_missing", **key._asdict(), reason=reason)
    return True


def _copy_is_missing(db: Statements, key: Key, reason: str, now: float) -> bool:
    """Write down that one of the copies of a job is missing, or is to be tried again; return whether it is one."""
    row = db.row("read_job", batch_id=key.batch_id, job_index=key.job_index)
    if row is None or row["state"] != "spawn":
        return False
    copy = db.row("spawn_of_attempt", **key._asdict())
    if (
        copy is not None
        and copy["state"] != "complete"
        and not _try_again(db, key, reason, now, copy["SpawnID"])
    ):
        told = f"copy {copy['SpawnID']}: {reason}"
        db.run("job_spawns", batch_id=key.batch_id, job_index=key.job_index, reason=told)
    return True


def will_try_again(db: Statements, key: Key, reason: str) -> tuple[Again, dict[str, Any]] | None:
    """Return how a job whose current attempt ends badly is tried again, and what that is decided from."""
    row = db.row("job_to_retry", **key._asdict())
    if row is None:
        return None
    import json

    from paraschut.retry import next_try, policy_of

    policy = policy_of(row["retry"])
    given = json.loads(row["metadata"]).get("retries")
    row["allowed"] = policy.retries if given is None else given
    again = next_try(
        reason,
        json.loads(row["asked"] or "{}"),
        row["allowed"],
        row["retried"],
        policy,
        spared=row["resumed"],
    )
    return None if again is None else (again, row)


def _try_again(db: Statements, key: Key, reason: str, now: float, copy: int | None = None) -> bool:
    """Set a job whose current attempt ended badly back to ``init``, or a copy, if it has retries left for that."""
    decided = will_try_again(db, key, reason)
    if decided is None:
        return False
    import json

    again, row = decided
    retried, resumed = row["retried"] + again.counts, row["resumed"] + (not again.counts)
    raised = {**json.loads(row["raised"] or "{}"), **again.raised}
    if copy is not None:
        db.run("spawn_waits", **key._asdict())
    db.run(
        "job_retries" if copy is None else "copy_retries",
        batch_id=key.batch_id,
        job_index=key.job_index,
        retried=retried,
        resumed=resumed,
        raised=json.dumps(raised) if raised else None,
        not_before=now + again.pause,
    )
    told = {
        "reason": reason,
        "retried": retried,
        "of": row["allowed"],
        **({} if copy is None else {"copy": copy}),
        **({"raised": again.raised} if again.raised else {}),
    }
    add_event(db, now, key.batch_id, key.job_index, "retry", json.dumps(told))
    return True


def settle(db: Statements, token: str, now: float) -> bool:
    """Mark a submission whose attempts have all ended; return whether it is."""
    if db.row("submission_left", token=token) is not None:
        return False
    db.run("submission_settled", token=token, now=now)
    return True
