"""A bar that shows how far a map is, in a terminal and in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, name: str, wanted: bool | None) -> Iterator[Callable[[int], object]]:
    """Show a bar while the block runs; gives a function that is told how many more are done.

    Parameters
    ----------
    wanted : bool | None
        Whether there is one; None: where somebody may be looking.
    """
    if not (wanted or (wanted is None and (sys.stderr.isatty() or _in_notebook()))):
        yield lambda _: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm says so where a notebook has no widgets, and shows text
        from tqdm.auto import tqdm
    with tqdm(total=total, desc=name, unit="call", disable=False) as shown:
        yield shown.update


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
