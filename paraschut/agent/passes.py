"""Whether the end of a local job should make a pass."""

from __future__ import annotations

from paraschut.plan import worth_a_pass
from paraschut.store import copies
from paraschut.store.runtime import Statements


def pass_is_due(db: Statements, usual: int, now: float, *, idle: bool) -> bool:
    """Return whether jobs of batches that were submitted before can be submitted now.

    Parameters
    ----------
    usual : int
        The limit of jobs for batches that were not given their own.
    idle : bool
        Whether nothing waits for this machine: then any job is worth a pass.
    """
    if any(row["executor"] == "local" and row["not_before"] <= now for row in copies.due(db)):
        return True
    heads = [row for row in db.rows("heads", now=now) if row["executor"] is not None]
    if not heads:
        return False
    (active,) = db.run("active_count").fetchone()
    limits = [usual if head["max_jobs"] is None else head["max_jobs"] for head in heads]
    limit = max(limits)
    room = limit - active
    if room <= 0:
        return False
    if idle:
        return True
    eligible = 0
    for head, own in zip(heads, limits, strict=True):
        if own <= active:
            continue
        (count,) = db.run(
            "ready_count", batch_id=head["BatchID"], priority=head["top"], most=room, now=now
        ).fetchone()
        eligible += count
        if eligible >= room:
            break
    return worth_a_pass(eligible, active, limit)
