"""Which jobs go next: pure functions over plain data. No store, no executor, no clock.

Within a batch, a priority group is open once every job above it is ``complete`` or ``collected``. Above 100, a
priority is global: while such a job is not yet complete, nothing lower is submitted in any batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Head(NamedTuple):
    """The highest unfinished priority group of a batch, which has jobs to submit."""

    batch_id: int
    executor: str | None
    priority: float


class Limits(NamedTuple):
    """What bounds one pass.

    Attributes
    ----------
    room : int
        How many more jobs may be queued or running at once.
    min_prior : float
        Nothing below this priority is submitted.
    global_top : float | None
        The highest priority above 100 that any unfinished job has; None if there is none.
    """

    room: int
    min_prior: float
    global_top: float | None


def next_groups(heads: Iterable[Head], limits: Limits) -> list[Head]:
    """Return the groups whose jobs may be submitted now, in the order in which they go.

    Examples
    --------
    >>> heads = [Head(1, None, 1), Head(2, None, 150), Head(3, None, 0.5)]
    >>> [head.batch_id for head in next_groups(heads, Limits(10, 0, None))]
    [2, 1, 3]
    >>> [head.batch_id for head in next_groups(heads, Limits(10, 0, 150))]
    [2]
    """
    if limits.room <= 0:
        return []
    least = limits.min_prior if limits.global_top is None else max(limits.min_prior, limits.global_top)
    return sorted(
        (head for head in heads if head.priority >= least), key=lambda head: (-head.priority, head.batch_id)
    )


def worth_a_pass(eligible: int, active: int, limit: int) -> bool:
    """Return whether the end of a job should make a pass by itself.

    A pass that has room for one job in a thousand costs as much as one that has room for a hundred; so while
    the limit of jobs is what holds others back, passes wait until a tenth of it is free.

    Examples
    --------
    >>> worth_a_pass(eligible=5, active=0, limit=1000)
    True
    >>> worth_a_pass(eligible=5000, active=999, limit=1000)
    False
    """
    room = limit - active
    return eligible > 0 and room >= min(eligible, max(1, limit // 10))
