"""Text that is safe to print, and its width; numbers as people say them. No I/O, no clock.

Names and reasons may hold anything: :func:`clean` is the only way by which they reach the output.
"""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import pairwise

#: Longer user strings are cut before they are looked at: nothing of this length is ever shown.
LONGEST = 2000

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")


def clean(text: str) -> str:
    """Return a user's string as one line without control characters, escape sequences and changes of direction."""
    text = text[:LONGEST]
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_printable, _ESCAPES.sub("", text)))
    return " ".join(text.split())


def _printable(char: str) -> str:
    kind = unicodedata.category(char)
    # Joiners, direction marks and variation selectors change what stands around them, and its width.
    if kind == "Cf" or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return ""
    if kind == "Cs":
        return "\ufffd"
    return " " if kind in {"Cc", "Zs", "Zl", "Zp"} else char


def percent_of(fraction: float) -> int:
    """Return a fraction as a whole percentage, rounded down; 0 for what is no number."""
    # Rounded first: 0.29 * 100 is a little less than 29.
    return 0 if math.isnan(fraction) else int(round(100 * min(max(fraction, 0.0), 1.0), 6))


def duration(seconds: float) -> str:
    """Return a time span for the eye, in its two greatest units.

    Examples
    --------
    >>> duration(8), duration(100), duration(4000), duration(200_000)
    ('8 s', '1 min 40 s', '1 h 6 min', '2 d 7 h')
    """
    left = max(int(seconds), 0)
    for (unit, size), (finer, part) in pairwise((*_UNITS, ("", 0))):
        if left >= size:
            rest = left % size // part if part else 0
            return f"{left // size} {unit} {rest} {finer}" if rest else f"{left // size} {unit}"
    return "0 s"


def plural(count: int, word: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> plural(1, "job"), plural(2, "batch")
    ('1 job', '2 batches')
    """
    ending = "" if count == 1 else "es" if word.endswith(("ch", "s")) else "s"
    return f"{count:,} {word}{ending}"


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(char_cells, text))


def char_cells(char: str) -> int:
    """Return how many cells a character takes."""
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def clipped(text: str, room: int, dots: str) -> str:
    """Return a text that is shortened to so many cells, with dots at its end."""
    # The second condition is for names that pile up marks which take no cell.
    if cells_of(text) <= room and len(text) <= 4 * room:
        return text
    cells = kept = 0
    for char in text[: 4 * room]:
        cells += char_cells(char)
        if cells > room - len(dots):
            break
        kept += 1
    return text[:kept].rstrip() + dots[: max(room, 0)]
