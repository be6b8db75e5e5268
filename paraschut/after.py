"""What jobs wait for besides their priority group: the field ``after``, and circles in it. Pure.

A need is ``(BatchID, JobIndex)``; with ``WHOLE`` in place of the index, all jobs of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

#: In place of a JobIndex: the whole batch.
WHOLE = -1

_T = TypeVar("_T", bound=Hashable)


class Need(NamedTuple):
    """What must be complete or collected first."""

    batch_id: int
    job_index: int = WHOLE

    def __str__(self) -> str:
        return (
            f"batch {self.batch_id}" if self.job_index == WHOLE else f"job {self.batch_id}:{self.job_index}"
        )


def find_circle(starts: Iterable[_T], needs: Callable[[_T], Iterable[_T]]) -> list[_T] | None:
    """Return nodes of which each needs the next, and the last the first; None if nothing goes round.

    Parameters
    ----------
    starts : Iterable
        Where to look from.
    needs : Callable
        Gives what a node needs; called once for each.

    Examples
    --------
    >>> find_circle(["a"], {"a": "b", "b": "cd", "c": "", "d": "b"}.__getitem__)
    ['b', 'd']
    """
    done: set[_T] = set()
    for start in starts:
        path: dict[_T, Any] = {}
        node: _T | None = start
        while node is not None:
            if node in path:
                circle = list(path)
                return circle[circle.index(node) :]
            if node not in done:
                path[node] = iter(needs(node))
            node = None
            while path and node is None:
                last = next(reversed(path))
                node = next((one for one in path[last] if one not in done), None)
                if node is None:
                    done.add(last)
                    del path[last]
    return None
