"""Summaries of a queue -> text. No store, no executor, no I/O, no clock.

Names and reasons may hold anything: :func:`paraschut.look.texts.clean` is the only way by which they reach the output.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from paraschut.look.summary import (
    BatchRow,
    Totals,
    bar_cells,
    bar_counts,
    group_missing,
    percent_complete,
    piece_of,
    segments_of,
    state_rank,
    visible,
)
from paraschut.look.texts import LONGEST, cells_of, char_cells, clean, clipped, duration, percent_of, plural

# A cell of the bar, the same for terminals that know only ASCII, and the colour (the number after "ESC [").
_SIGNS = {
    "collected": ("█", "#", "32"),
    "complete": ("█", "#", "32"),
    "run": ("▒", "=", "36"),
    "spawn": ("▒", "=", "36"),
    "submit": ("░", "-", "34"),
    "missing": ("!", "!", "31"),
    "held": ("_", "_", "33"),
    "init": ("·", ".", "2"),
}
_OTHER_SIGN = ("~", "~", "35")

_LEAST_WIDTH = 40
_INDEX_LINES = 3
_MOST_REASONS = 8
_LEAST_INDICES = 10
_MOST_MESSAGES = 10
_LONGEST_BAR = 40
_LEAST_LABEL = 20
_LABEL = 12
_CELL = 80
# Ranges on lines


def _wrapped(pieces: Iterable[str], room: int, joint: str) -> list[str]:
    end = joint.rstrip()
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(joint) + len(piece) + len(end) <= room:
            lines[-1] += joint + piece
        else:
            lines.append(piece)
    return [line + end for line in lines[:-1]] + lines[-1:]


def _index_lines(segments: Sequence[tuple[int, int, int]], room: int, most: int, dots: str) -> list[str]:
    """Return ranges on at most ``most`` lines, or on one that leaves out the middle."""
    # No index is shorter than the first: where not even its like would fit so often, there is no need to try.
    least = len(segments) * (len(str(segments[0][0])) + 2) - 2 if segments else 0
    if least <= most * (room + 1):
        pieces = [piece_of(segment) for segment in segments]
        whole = ", ".join(pieces)
        if len(whole) <= room:
            return [whole]
        lines = _wrapped(pieces, room, ", ") if len(whole) <= most * (room + 1) else []
        if 0 < len(lines) <= most and max(map(len, lines)) <= room:
            return lines
    left = room - len(f"{dots} ({len(segments)} ranges)")
    head = _fitting(segments, left * 2 // 3)
    tail = _fitting(reversed(segments[len(head) :]), left - sum(len(piece) + 2 for piece in head))[::-1]
    hidden = len(segments) - len(head) - len(tail)
    marker = f"{dots} ({plural(hidden, 'range')})"
    text = ", ".join([*head, marker, *tail])
    return [text if len(text) <= room else clipped(text, room, dots)]


def _fitting(segments: Iterable[tuple[int, int, int]], room: int) -> list[str]:
    pieces = []
    for segment in segments:
        piece = piece_of(segment)
        room -= len(piece) + 2
        if room < 0:
            break
        pieces.append(piece)
    return pieces


# How it looks


def bar(counts: Mapping[str, int], width: int, *, ascii_only: bool = False) -> str:
    """Return a bar of exactly ``width`` cells, divided by state.

    Examples
    --------
    >>> bar({"complete": 3, "run": 2, "init": 3}, 8, ascii_only=True)
    '###==...'
    """
    return _Look(width, ascii_only).bar(counts, width)


def render_queue(
    batches: Sequence[BatchRow],
    totals: Totals,
    *,
    display: Collection[str] | None = None,
    filtered: bool = False,
    width: int = 100,
    ascii_only: bool = False,
    colour: bool = False,
) -> str:
    """Return the whole queue as text, without a newline at its end.

    Parameters
    ----------
    display : collection of str, optional
        The states that are shown; batches with none of them are left out. The totals stay.
    filtered : bool
        Whether the batches were chosen by a Filter: an empty queue is then explained by it.
    width : int
        Cells in a line; 40 at least.
    ascii_only : bool
        For terminals and files that know nothing else; letters lose their accents, other signs become ``?``.
    """
    wanted = {display} if isinstance(display, str) else display
    look = _Look(max(width, _LEAST_WIDTH), ascii_only, colour)
    shown = [(batch, part) for batch in batches if (part := visible(batch, wanted)) is not None]
    if not shown:
        lines = _sentence(
            nothing_shown(hidden=bool(batches or totals.jobs), display=wanted, filtered=filtered), look
        )
        return "\n".join(lines + _total_lines(totals, look))
    id_width = max(len(str(batch.batch_id)) for batch, _ in shown)
    tables = _state_tables([part for _, part in shown], look)
    blocks = [
        [
            _title(batch, id_width, look),
            *table,
            *_missing_lines(part, look),
            *_progress_lines(part, look),
            *_time_lines(part, look),
        ]
        for (batch, part), table in zip(shown, tables, strict=True)
    ]
    blocks.append(_total_lines(totals, look, always=True))
    return "\n\n".join("\n".join(block) for block in blocks)


def render_table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, ascii_only: bool = False
) -> str:
    """Return rows as a table with these columns; what a row does not have is left empty."""
    from tabulate import tabulate

    look = _Look(_CELL, ascii_only)
    cells = [[look.text(_cell(row.get(column)), _CELL) for column in columns] for row in rows]
    align = ["right" if _is_numeric(row.get(column) for row in rows) else "left" for column in columns]
    heads = [look.text(column, _CELL) for column in columns]
    # As data, the heads are neither padded nor taken for numbers.
    text = tabulate([heads, *cells], tablefmt="plain", disable_numparse=True, colalign=align)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(round(value, 3) if isinstance(value, float) else value)


def _is_numeric(values: Iterable[object]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in given
    )


@dataclass(frozen=True, slots=True)
class _Look:
    width: int
    ascii_only: bool
    colour: bool = False

    @property
    def dots(self) -> str:
        """Return what stands where something was left out."""
        return "..." if self.ascii_only else "…"

    def text(self, text: str, room: int) -> str:
        """Return a user's string, clean and shortened."""
        text = clean(text)
        if self.ascii_only and not text.isascii():
            letters = (char for char in unicodedata.normalize("NFKD", text) if char_cells(char))
            text = "".join(letters).encode("ascii", "replace").decode("ascii")
        return clipped(text, room, self.dots)

    def paint(self, text: str, state: str) -> str:
        """Return a text in the colour of a state."""
        return f"\x1b[{_SIGNS.get(state, _OTHER_SIGN)[2]}m{text}\x1b[0m" if self.colour and text else text

    def bar(self, counts: Mapping[str, int], width: int) -> str:
        """Return the stacked bar; blank where there are no jobs."""
        cells = bar_cells(counts, width)
        signs = ((state, _SIGNS.get(state, _OTHER_SIGN)[self.ascii_only] * many) for state, many in cells)
        return "".join(self.paint(sign, state) for state, sign in signs) if cells else " " * width


def _title(batch: BatchRow, id_width: int, look: _Look) -> str:
    counts = bar_counts(batch)
    bar_width = min(_LONGEST_BAR, look.width // 4)
    # The name comes last: no terminal agrees with another on the width of an emoji, or turns round a line of Hebrew alike.
    room = look.width - id_width - bar_width - 10
    data_type = look.text(batch.data_type, room // 3) if room >= _LEAST_LABEL else ""
    kind = f"({data_type})" if data_type else ""
    name = look.text(batch.name, room - (cells_of(kind) + 1 if kind else 0))
    percent = f"{percent_complete(counts):>3}%"
    label = " ".join(filter(None, (name, kind)))
    return f"{batch.batch_id:>{id_width}}  {look.bar(counts, bar_width)}  {percent}  {label}".rstrip()


def _state_tables(batches: Sequence[BatchRow], look: _Look) -> list[list[str]]:
    """Return the lines of each batch's table; all are made as one, so that their columns agree."""
    from tabulate import tabulate

    tables: list[list[str]] = [[] for _ in batches]
    rows = [(number, row) for number, batch in enumerate(batches) for row in batch.states]
    if not rows:
        return tables
    labels = {row.state: look.text(row.state, look.width // 5) or "?" for _, row in rows}
    state_width = max(len("state"), *map(cells_of, labels.values()))
    count_width = max(len("jobs"), *(len(str(row.count)) for _, row in rows))
    room = look.width - state_width - count_width - 6
    cells = [("state", "jobs", "indices")]
    owners = [(rows[0][0], "", "state")]
    for number, row in rows:
        label, count = labels[row.state], str(row.count)
        segments = segments_of(row.spans, row.online, row.copies)
        for line in _index_lines(segments, room, _INDEX_LINES, look.dots):
            # A stand-in of the same width, because tabulate counts letters unless wcwidth is there.
            cells.append(("x" * cells_of(label), count, line))
            owners.append((number, row.state, label))
            label = count = ""
    text = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=("left", "right", "left"))
    for (number, state, label), line in zip(owners, text.split("\n"), strict=True):
        painted = look.paint(label, state) if state else label
        tables[number].append(f"  {painted}{line[cells_of(label) :].rstrip()}".rstrip())
    return tables


def _missing_lines(batch: BatchRow, look: _Look) -> list[str]:
    groups = group_missing(batch.missing)
    room = look.width - _LABEL
    lines = []
    for group in groups[:_MOST_REASONS]:
        reason = look.text(group.reason, room - 1) or "no reason known"
        first, last = group.attempts.first, group.attempts.last
        tries = f" (attempt{'s' if first < last else ''} {piece_of((first, last, 0))})" if last > 1 else ""
        segments = segments_of(group.spans, (), ())
        left = room - cells_of(reason) - 2
        if left < _LEAST_INDICES:
            lines.append(f"{reason}:")
            lines += [f"  {line}" for line in _index_lines(segments, room - 2, 1, look.dots)]
        else:
            tries = tries if left - len(tries) >= _LEAST_INDICES else ""
            indices = _index_lines(segments, left - len(tries), 1, look.dots)[0]
            lines.append(f"{reason}: {indices}{tries}")
    rest = groups[_MOST_REASONS:]
    if rest:
        jobs = sum(group.count for group in rest)
        lines.append(look.text(f"and {plural(len(rest), 'more reason')} ({plural(jobs, 'job')})", room))
    return _labelled("missing", "missing", lines, look)


def _progress_lines(batch: BatchRow, look: _Look) -> list[str]:
    lines = []
    for index, fraction, message in batch.progress[:_MOST_MESSAGES]:
        start = f"{index}: {'?' if math.isnan(fraction) else percent_of(fraction)}%  "
        lines.append((start + look.text(message, look.width - _LABEL - len(start))).rstrip())
    if len(batch.progress) > _MOST_MESSAGES:
        lines.append(f"and {plural(len(batch.progress) - _MOST_MESSAGES, 'more job')}")
    return _labelled("progress", "run", lines, look)


def _time_lines(batch: BatchRow, look: _Look) -> list[str]:
    if batch.left is None or batch.elapsed is None:
        return []
    told = f"{duration(batch.elapsed)}, about {duration(batch.left)} left"
    return _labelled("time", "init", [told], look)


def _labelled(label: str, state: str, lines: Iterable[str], look: _Look) -> list[str]:
    starts = chain(
        [look.paint(f"{label}:", state) + " " * (_LABEL - len(label) - 3)], repeat(" " * (_LABEL - 2))
    )
    return [f"  {start}{line}" for start, line in zip(starts, lines, strict=False)]


def _total_lines(totals: Totals, look: _Look, *, always: bool = False) -> list[str]:
    lines = [part for note in totals.notes for part in _sentence(note, look)]
    if always or totals.jobs or totals.queued:
        parts = [
            f"on queue: {'unknown' if totals.queued is None else totals.queued}",
            f"online: {totals.online}",
            f"missing: {totals.missing}",
            f"complete: {totals.complete}/{totals.jobs}",
            *(f"yours on {name}: {'unknown' if n is None else n}" for name, n in totals.schedulers),
        ]
        return _wrapped(parts, look.width, " | " if look.ascii_only else " · ") + lines
    return lines


def nothing_shown(*, hidden: bool, display: Collection[str] | None, filtered: bool) -> str:
    """Return the sentence that stands where no batch is shown."""
    if hidden and display is not None:
        states = (
            ", ".join(repr(clean(state)) for state in sorted(display, key=state_rank)) or "no state at all"
        )
        return f"No job is in these states ({states}): ask for none to see all of them."
    if filtered:
        return "No job matches the Filter: leave it out to see the whole queue."
    return "The queue is empty: add jobs with add_batch_to_queue, and start them with submit_jobs."


def _sentence(text: str, look: _Look) -> list[str]:
    text = look.text(text, LONGEST)
    # Letters may be two cells wide, and textwrap counts letters.
    return textwrap.wrap(text, look.width if text.isascii() else look.width // 2, break_on_hyphens=False)
