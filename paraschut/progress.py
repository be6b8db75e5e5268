"""A bar for what takes long, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import TypeVar

#: Seconds after which a bar appears: what is done sooner needs none.
_DELAY = 0.5
_MANY = 1000

T = TypeVar("T")


def shown(things: Collection[T], what: str, unit: str = "job", many: int = _MANY) -> Iterable[T]:
    """Return things to go through, with a bar on standard error if they are many and that is a terminal.

    Examples
    --------
    >>> list(shown([1, 2, 3], "counting"))
    [1, 2, 3]
    """
    if len(things) < many or sys.stderr is None or not sys.stderr.isatty():
        return things
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(things, desc=what, unit=unit, delay=_DELAY, leave=False)
    return bar
