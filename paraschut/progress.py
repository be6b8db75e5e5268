"""Bars for what takes long, where somebody may be looking: on a terminal, and in a notebook."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from paraschut.process import notebook

#: Seconds after which a bar of ours appears: what is done sooner needs none.
_DELAY = 0.5
_MANY = 1000
#: Tasks of one submission that take so long that a bar is shown: more than a job array has.
MANY_TASKS = 2000

T = TypeVar("T")


def shown(things: Iterable[T], what: str, unit: str = "job", many: int = _MANY) -> Iterable[T]:
    """Return things to go through, with a bar if they are many or uncounted, which goes away at their end.

    Examples
    --------
    >>> list(shown([1, 2, 3], "counting"))
    [1, 2, 3]
    """
    total = len(things) if isinstance(things, Sized) else None
    if (total is not None and total < many) or not _looked_at():
        return things
    going: Iterable[T] = _tqdm()(
        things, total=total, desc=what, unit=unit, delay=_DELAY, leave=False, **_shape()
    )
    return going


@contextmanager
def bar(
    total: int, what: str, unit: str = "job", *, wanted: bool | None = None, stays: bool = False
) -> Iterator[Callable[[int], object]]:
    """Show a bar while the block runs; gives a function that is told how many more are done.

    Parameters
    ----------
    wanted : bool | None
        Whether there is one; None: where somebody may be looking.
    stays : bool
        Whether it is there from the beginning, and what it told stays at the end.
    """
    if not (wanted or (wanted is None and _looked_at())):
        yield lambda _: None
        return
    with _tqdm()(
        total=total,
        desc=what,
        unit=unit,
        delay=0 if stays else _DELAY,
        leave=stays,
        disable=False,
        **_shape(),
    ) as going:
        yield going.update


def _looked_at() -> bool:
    return notebook() is not None or (sys.stderr is not None and sys.stderr.isatty())


def _shape() -> dict[str, int]:
    """Return how large a terminal is taken to be that reports no size, where tqdm would show nothing."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, or nothing that is a file
        return {}
    return {} if columns else {"ncols": 80, "nrows": 24}


def _tqdm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so where a notebook has no widgets, and shows text
        from tqdm.auto import tqdm
    return tqdm
