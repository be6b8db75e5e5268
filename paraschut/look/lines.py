"""The lines of a file that somebody is shown: all, some, or the last ones. No file, however large, is held in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import BinaryIO

#: Of longer lines, only so many bytes are shown.
LONGEST = 1 << 16
#: Bytes that are read at once.
BLOCK = 1 << 20

# Colours are kept; what else would change a terminal or turn round what follows, or is no text, is not.
_CONTROL = re.compile(
    r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+"
)


def lines_of(
    path: str, chosen: int | Collection[int] | None = None, pattern: re.Pattern[str] | None = None
) -> Iterator[str]:
    """Yield lines of a file as text, as ``lines_in`` does."""
    with open(path, "rb") as file:
        yield from lines_in(file, chosen, pattern)


def lines_in(
    file: BinaryIO, chosen: int | Collection[int] | None = None, pattern: re.Pattern[str] | None = None
) -> Iterator[str]:
    """Yield lines of an open log as text.

    Parameters
    ----------
    chosen : int or collection of int, optional
        A number: the last so many lines; a collection: the lines of these numbers, from 0; None: all.
    pattern : re.Pattern, optional
        Only lines in which it is found.
    """
    if isinstance(chosen, int):
        position, is_cut = start_of_tail(file, chosen)
        file.seek(position)
        lines: Iterator[str] = ("… " * (is_cut and n == 0) + line for n, line in enumerate(every_line(file)))
    elif chosen is None:
        lines = every_line(file)
    else:
        last = max(chosen, default=-1)
        wanted = frozenset(chosen)
        lines = (line for n, line in _until(enumerate(every_line(file)), last) if n in wanted)
    for line in lines:
        if pattern is None or pattern.search(line):
            yield line


def _until(numbered: Iterator[tuple[int, str]], last: int) -> Iterator[tuple[int, str]]:
    if last < 0:
        return
    for n, line in numbered:
        yield n, line
        if n >= last:
            return


def every_line(file: BinaryIO) -> Iterator[str]:
    """Yield the lines that follow in a file, each cut to a length."""
    kept = b""
    dropped = 0
    while block := file.read(BLOCK):
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            room = LONGEST - len(kept)
            whole = kept + block[start : min(end, start + room)]
            yield text_of(whole, dropped + max(end - start - room, 0))
            kept, dropped, start = b"", 0, end + 1
        room = LONGEST - len(kept)
        kept += block[start : start + room]
        dropped += max(len(block) - start - room, 0)
    if kept:
        yield text_of(kept, dropped)


def text_of(line: bytes, dropped: int = 0) -> str:
    """Return a line of a log as text that does a terminal no harm."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.decode("utf-8", "replace"))
    return f"{text} … ({dropped:,} bytes more in this line)" if dropped else text


def start_of_tail(file: BinaryIO, count: int) -> tuple[int, bool]:
    """Return where the last lines of a file begin, and whether that is in the middle of a very long one."""
    end = file.seek(0, os.SEEK_END)
    if count <= 0 or end == 0:
        return end, False
    # What ends the last line is not between two.
    file.seek(end - 1)
    line_end = position = end - (file.read(1) == b"\n")
    while position > 0:
        step = min(position, LONGEST)
        position -= step
        file.seek(position)
        block = file.read(step)
        at = step
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            count -= 1
            line_end = position + at
            if count == 0:
                return line_end + 1, False
        if line_end - position > LONGEST:
            return line_end - LONGEST, True
    return 0, False
