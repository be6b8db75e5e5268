"""What is shown of a queue, as plain data for any renderer, and ranges of job indices. No I/O, no clock."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from paraschut.errors import JobError
from paraschut.job import STATES

#: From the left of a bar: what is done, what is on its way, what went wrong, what waits. Others: before missing.
BAR_ORDER = ("collected", "complete", "run", "spawn", "submit", "missing", "held", "init")

_ACTIVE = ("submit", "run", "spawn")
#: Copies that have an asterisk each; of more, the number is said.
_MOST_STARS = 9
# Less than this tells nothing of how long the rest will take.
_LEAST_PROGRESS = 0.01
_MOST_INDICES = 10_000_000
_LONGEST_QUOTE = 80

_SPAN = re.compile(r"([0-9]{1,18})(?:\s*-\s*([0-9]{1,18}))?(?:\*+(?:x[0-9]+)?)?")


class Span(NamedTuple):
    """A range of job indices; both ends belong to it."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class StateRow:
    """The jobs of one batch in one state; spans are sorted and do not overlap, as from :func:`spans_of`.

    ``online`` has those that their executor knows as active; ``copies`` has (index, n) of a job in ``spawn``
    of which n copies are.
    """

    state: str
    count: int
    spans: tuple[Span, ...]
    online: tuple[Span, ...] = ()
    copies: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class MissingRow:
    """A job that was lost on its way, why, and in which of its attempts."""

    job_index: int
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch; ``progress`` has (index, fraction, message) of the running jobs that told theirs.

    ``elapsed`` is the time in seconds since its first job started, until now or until its last one ended;
    ``left`` is how much longer it will take, as :func:`estimate_left` says.
    """

    batch_id: int
    name: str
    data_type: str
    states: tuple[StateRow, ...]
    missing: tuple[MissingRow, ...] = ()
    progress: tuple[tuple[int, float, str], ...] = ()
    elapsed: float | None = None
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a queue; ``queued`` is None where the scheduler could not be asked."""

    queued: int | None
    online: int
    missing: int
    complete: int
    jobs: int
    notes: tuple[str, ...] = ()
    #: Each scheduler that was asked, and how many jobs this user has there; None if it did not answer.
    schedulers: tuple[tuple[str, int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class MissingGroup:
    """The missing jobs of one batch that share a reason; ``attempts`` is the range of their attempts."""

    reason: str
    count: int
    spans: tuple[Span, ...]
    attempts: Span


# What is shown


def estimate_left(
    running: Sequence[tuple[float, float | None]], waiting: int, mean: float | None
) -> float | None:
    """Return about how many seconds a batch will still take; None where nothing says it.

    A job that told its progress goes on as fast as it went so far; any other takes the mean time. Those that wait
    are run as many at a time as run now.

    Parameters
    ----------
    running : sequence of (elapsed, fraction)
        The seconds since each running job started, and how far it is, between 0 and 1, if it told.
    waiting : int
        The jobs that are still to start.
    mean : float, optional
        How long the jobs took that have ended, in seconds, on average.

    Examples
    --------
    >>> estimate_left([(30.0, 0.5), (10.0, None)], waiting=2, mean=60.0)
    100.0
    """
    if not running:
        return None
    lefts = []
    totals = []
    for elapsed, fraction in running:
        if fraction is not None and _LEAST_PROGRESS <= fraction <= 1:
            lefts.append(elapsed / fraction - elapsed)
            totals.append(elapsed / fraction)
        elif mean is not None:
            lefts.append(max(mean - elapsed, 0.0))
    expected = mean if mean is not None else sum(totals) / len(totals) if totals else None
    if expected is None or len(lefts) < len(running):
        return None
    return max((sum(lefts) + waiting * expected) / len(running), *lefts)


def visible(batch: BatchRow, display: Collection[str] | None) -> BatchRow | None:
    """Return the part of a batch that is in the states of ``display``, in the order of states; None for nothing.

    ``"missing"`` in ``display`` stands for the missing jobs, whatever their state.
    """
    states = tuple(sorted(batch.states, key=lambda row: state_rank(row.state)))
    if display is None:
        return replace(batch, states=states)
    states = tuple(row for row in states if row.state in display)
    holder = _holders(
        states, chain((row.job_index for row in batch.missing), (job[0] for job in batch.progress))
    )
    missing = tuple(row for row in batch.missing if "missing" in display or row.job_index in holder)
    if not states and not missing:
        return None
    return replace(
        batch,
        states=states,
        missing=missing,
        progress=tuple(job for job in batch.progress if job[0] in holder),
    )


def bar_counts(batch: BatchRow) -> dict[str, int]:
    """Return the number of jobs by state; a missing job counts as ``missing`` and not as its state."""
    counts: Counter[str] = Counter()
    for row in batch.states:
        counts[row.state] += row.count
    for state in _holders(batch.states, {row.job_index for row in batch.missing}).values():
        counts[state] -= 1
        counts["missing"] += 1
    return dict(counts)


def percent_complete(counts: Mapping[str, int]) -> int:
    """Return how much is complete or collected; 100 only when all is."""
    done = counts.get("complete", 0) + counts.get("collected", 0)
    return 100 * done // max(1, sum(counts.values()))


def bar_cells(counts: Mapping[str, int], width: int) -> tuple[tuple[str, int], ...]:
    """Divide ``width`` cells among the states, in the order of a bar.

    Every state that has jobs gets a cell while there is room: the missing first, then the most numerous.
    """
    width = max(width, 0)
    present = {state: count for state, count in counts.items() if count > 0}
    if len(present) > width:
        first = sorted(present, key=lambda state: (state != "missing", -present[state], _bar_rank(state)))
        present = dict.fromkeys(first[:width], 1)
    total = sum(present.values())
    cells = {state: max(1, count * width // total) for state, count in present.items()}
    spare = width - sum(cells.values())
    if spare > 0:
        rest = {state: count * width - cells[state] * total for state, count in present.items()}
        by_rest = sorted(present, key=lambda state: (-rest[state], _bar_rank(state)))
        for state in by_rest[:spare]:
            cells[state] += 1
    for _ in range(-spare):
        cells[max(cells, key=lambda state: (cells[state], _bar_rank(state)))] -= 1
    return tuple((state, cells[state]) for state in sorted(cells, key=_bar_rank))


def open_jobs(batches: Iterable[BatchRow]) -> tuple[int, int]:
    """Return how many jobs are with an executor and not missing, and how many wait to be submitted."""
    active = waiting = 0
    for batch in batches:
        for row in batch.states:
            active += row.count if row.state in _ACTIVE else 0
            waiting += row.count if row.state == "init" else 0
        active -= len(batch.missing)
    return active, waiting


def bar_order(states: Iterable[str]) -> list[str]:
    """Return states in the order of a bar."""
    return sorted(states, key=_bar_rank)


def group_missing(missing: Iterable[MissingRow]) -> tuple[MissingGroup, ...]:
    """Group missing jobs by equal reason, the most frequent reason first."""
    by_reason: dict[str, list[MissingRow]] = {}
    for row in missing:
        by_reason.setdefault(row.reason, []).append(row)
    groups = [
        MissingGroup(
            reason,
            len(rows),
            spans_of(row.job_index for row in rows),
            Span(min(row.attempt for row in rows), max(row.attempt for row in rows)),
        )
        for reason, rows in by_reason.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.spans[0].first)))


def state_rank(state: str) -> tuple[int, str]:
    """Return a key that sorts states along a job's life, and the user's own after them."""
    return (STATES.index(state) if state in STATES else len(STATES), state)


def _bar_rank(state: str) -> tuple[int, str]:
    other = BAR_ORDER.index("missing")
    return (2 * BAR_ORDER.index(state) if state in BAR_ORDER else 2 * other - 1, state)


def _holders(states: Iterable[StateRow], indices: Iterable[int]) -> dict[int, str]:
    wanted = list(indices)
    if not wanted:
        return {}
    spans = sorted((span.first, span.last, row.state) for row in states for span in row.spans)
    firsts = [first for first, _, _ in spans]
    found = {}
    for index in wanted:
        at = bisect_right(firsts, index) - 1
        if at >= 0 and index <= spans[at][1]:
            found[index] = spans[at][2]
    return found


# Ranges of job indices


def spans_of(indices: Iterable[int]) -> tuple[Span, ...]:
    """Return job indices as ranges, sorted.

    Examples
    --------
    >>> spans_of([3, 1, 2, 7])
    (Span(first=1, last=3), Span(first=7, last=7))
    """
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return tuple(Span(first, last) for first, last in runs)


def format_spans(
    spans: Sequence[Span], online: Sequence[Span] = (), copies: Sequence[tuple[int, int]] = ()
) -> str:
    """Return ranges as text; jobs that are online carry an asterisk, spawned ones one for each copy.

    Examples
    --------
    >>> format_spans(spans_of([0, 1, 2, 3, 4, 5, 8]), online=spans_of([3, 4, 5]))
    '0-2, 3-5*, 8'
    """
    return ", ".join(map(piece_of, segments_of(spans, online, copies)))


def parse_spans(text: str) -> tuple[int, ...]:
    """Return the job indices that a text such as ``1,3-8`` names, sorted; asterisks are passed over.

    Raises
    ------
    JobError
        Quoting the part that is neither an index nor a range.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _SPAN.fullmatch(part.strip())
        if match is None:
            raise JobError(
                f"{part.strip()[:_LONGEST_QUOTE]!r} in the job indices {text[:_LONGEST_QUOTE]!r} is neither an index nor a range; write "
                f"whole numbers of 0 or more, and ranges from low to high, between commas: 1,3-8."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise JobError(
                f"The range of job indices {first}-{last} runs backwards; write it as {last}-{first}."
            )
        if last - first + len(found) >= _MOST_INDICES:
            raise JobError(
                f"The job indices {text[:_LONGEST_QUOTE]!r} name more than {_MOST_INDICES:,} jobs; name fewer, or leave "
                f"the indices out to mean the whole batch."
            )
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def segments_of(
    spans: Iterable[Span], online: Iterable[Span], copies: Iterable[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """Split ranges where the number of asterisks changes: (first, last, asterisks)."""
    marks = _marks(online, copies)
    if not marks:
        return [(span.first, span.last, 0) for span in spans]
    segments = []
    at = 0
    for span in spans:
        first = span.first
        while at < len(marks) and marks[at][0] <= span.last:
            begin, end, stars = marks[at]
            if end >= first:
                if begin > first:
                    segments.append((first, begin - 1, 0))
                segments.append((max(begin, first), min(end, span.last), stars))
                first = min(end, span.last) + 1
            if end > span.last:
                break
            at += 1
        if first <= span.last:
            segments.append((first, span.last, 0))
    return segments


def _marks(online: Iterable[Span], copies: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    several = {index: count for index, count in copies if count > 1}
    if not several:
        return [(span.first, span.last, 1) for span in online]
    stars = {index: 1 for span in online for index in range(span.first, span.last + 1)} | several
    marks: list[tuple[int, int, int]] = []
    for index in sorted(stars):
        if marks and marks[-1][1:] == (index - 1, stars[index]):
            marks[-1] = (marks[-1][0], index, stars[index])
        else:
            marks.append((index, index, stars[index]))
    return marks


def piece_of(segment: tuple[int, int, int]) -> str:
    """Return one range with its asterisks as text."""
    first, last, stars = segment
    text = str(first) if first == last else f"{first}-{last}"
    return text + ("*" * stars if stars <= _MOST_STARS else f"*x{stars}")
