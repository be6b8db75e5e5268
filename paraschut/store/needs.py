"""The rows of the field ``after``: what a job needs, whether that exists, and whether it could ever come to it.

Whether a job waits is kept in ``job.waits`` by triggers (see ``schema.py``), so that passes find those that do not
without looking at what they need. Part of the road of a job: imports little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from paraschut.after import WHOLE, Need, find_circle
from paraschut.errors import JobError
from paraschut.store.runtime import Statements

#: Below every priority, and where those begin that hold back all batches.
LOWEST, GLOBAL = -math.inf, 100.0


class _Above(NamedTuple):
    """All jobs of a batch above a priority."""

    batch_id: int
    priority: float
    #: As tuples, a need of two numbers would be equal to it.
    kind: str = "above"


class _Global(NamedTuple):
    """All jobs above a priority that hold back those below it in every batch."""

    priority: float


_Node = Need | _Above | _Global


def put(db: Statements, needs: Mapping[tuple[int, int], Sequence[Need]], grown: Iterable[int] = ()) -> None:
    """Write what jobs need, inside the transaction that adds or changes them.

    Parameters
    ----------
    needs : Mapping
        For jobs by (BatchID, JobIndex); what they needed before is forgotten.
    grown : Iterable[int]
        Batches that have more jobs now.

    Raises
    ------
    JobError
        Naming a job or a batch that does not exist, or those that would wait for one another for ever.
    """
    for (batch_id, job_index), those in needs.items():
        where = {"batch_id": batch_id, "job_index": job_index}
        db.run("forget_needs", **where)
        for one in those:
            db.run("add_need", **where, needs_batch=one.batch_id, needs_job=one.job_index)
    for batch_id, job_index in needs:
        db.run("job_waits", batch_id=batch_id, job_index=job_index)
    if db.row("any_need") is None:
        return
    for where_needed in {one: who for who, those in needs.items() for one in those}.items():
        _refuse_unknown(db, *where_needed)
    for batch_id in grown:
        db.run("dependents_wait", needs_batch=batch_id)
    starts: list[_Node] = [Need(*who) for who in needs]
    starts += [_Above(batch_id, LOWEST) for batch_id in dict.fromkeys([*grown, *(who[0] for who in needs)])]
    _refuse_circle(db, [*starts, _Global(GLOBAL)])


def _refuse_unknown(db: Statements, need: Need, who: tuple[int, int]) -> None:
    name = "any_job_of" if need.job_index == WHOLE else "read_job"
    where = {"batch_id": need.batch_id, **({} if need.job_index == WHOLE else {"job_index": need.job_index})}
    if db.row(name, **where) is None:
        raise JobError(
            f"job {who[0]}:{who[1]} is to come after {need}, which is not in the index. Nothing was written. Add that "
            f"first, or both in one call."
        )


def _refuse_circle(db: Statements, starts: Sequence[_Node]) -> None:
    circle = find_circle(starts, lambda node: _needs(db, node))
    if circle is None:
        return
    named = [str(node) for node in circle if isinstance(node, Need)]
    via = (
        " A job also waits for those of higher priority in its batch, and for those above 100 in all batches."
        if len(named) < len(circle)
        else ""
    )
    raise JobError(
        f"{' would wait for '.join([*named, named[0]])}, so none of them could ever start.{via} Nothing was written. "
        f"Mend the field 'after' of one of them, or its priority."
    )


def _needs(db: Statements, node: _Node) -> list[_Node]:
    """Return what a node waits for by all rules; of finished jobs nothing."""
    found: list[_Node]
    if isinstance(node, _Global):
        groups = db.run("holders", priority=node.priority)
        return [_Above(batch_id, priority) for batch_id, priority in groups]
    if isinstance(node, _Above):
        found = [
            Need(node.batch_id, job_index)
            for (job_index,) in db.run("waiting_above", batch_id=node.batch_id, priority=node.priority)
        ]
        (lowest,) = db.run("lowest_above", batch_id=node.batch_id, priority=node.priority).fetchone()
        return found if lowest is None else [*found, _Global(max(GLOBAL, lowest))]
    if node.job_index == WHOLE:
        return [_Above(node.batch_id, LOWEST)]
    (priority,) = db.run(
        "unfinished_priority", batch_id=node.batch_id, job_index=node.job_index
    ).fetchone() or (None,)
    if priority is None:
        return []
    rows = db.run("needs_of", batch_id=node.batch_id, job_index=node.job_index)
    found = [Need(*row) for row in rows]
    return [*found, _Above(node.batch_id, priority), _Global(max(GLOBAL, priority))]
