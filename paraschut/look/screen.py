"""Where output goes: a notebook, a terminal, or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from paraschut.process import notebook

_LEAST, _MOST = 60, 160


def show(text: str, as_html: Callable[[], str]) -> None:
    """Show something: as HTML in a notebook, as text elsewhere."""
    if notebook() is None:
        print(text)
        return
    # Both, so that what reads the notebook without a browser has something to read.
    _ipython().display({"text/plain": text, "text/html": as_html()}, raw=True)


def publish(text: str, as_html: str) -> Callable[[str, str], None]:
    """Show something in a notebook; return a function that shows something else in its place."""
    handle = _ipython().display({"text/plain": text, "text/html": as_html}, raw=True, display_id=True)

    def update(text: str, as_html: str) -> None:
        handle.update({"text/plain": text, "text/html": as_html}, raw=True)

    return update


def _ipython() -> Any:
    return import_module("IPython.display")


def width() -> int:
    """Return the cells in a line of the terminal."""
    return max(_LEAST, min(shutil.get_terminal_size((100, 24)).columns, _MOST))


def coloured() -> bool:
    """Return whether text may be coloured: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    stream = sys.stdout
    return (
        stream is not None
        and stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )
