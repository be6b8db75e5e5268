"""What a scheduler's queue holds, as plain data that processes can share. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a scheduler's state means."""

    WAITS = "waits"
    RUNS = "runs"
    #: It has ended, and the scheduler is not done with it.
    ENDS = "ends"
    #: It has ended; ``reason`` says why if the scheduler ended it.
    ENDED = "ended"


class Row(NamedTuple):
    """Some tasks of one job that are in the same state.

    Attributes
    ----------
    job : str
        The scheduler's id of the job, or of the job array.
    tasks : str
        Their numbers as ranges such as ``0-4,7``; empty for a job that is no array.
    word, reason : str
        The scheduler's own words.
    name : str
        The job's name, as it was submitted.
    """

    job: str
    tasks: str
    kind: str
    word: str
    reason: str
    name: str

    def is_of(self, token: str) -> bool:
        """Return whether it has the name of a submission; also if the scheduler tells no names."""
        return not self.name or self.name.endswith(f".{token}")


#: What the name of each of our own jobs ends in.
_TOKEN = re.compile(r"\.[0-9a-f]{16}\Z")


class Queue:
    """One answer of a scheduler: all jobs of this user.

    Parameters
    ----------
    at : float
        When it was asked (UTC epoch seconds): what was submitted later is not in it.
    rows : Iterable[Sequence[str]]
        What it said.

    Examples
    --------
    >>> queue = Queue(0.0, [Row("21", "0-1,5", "waits", "PENDING", "Priority", "a.f00")])
    >>> sorted(queue.tasks("21")), queue.named("f00"), queue.count
    ([0, 1, 5], '21', 3)
    """

    def __init__(self, at: float, rows: Iterable[Sequence[str]]) -> None:
        self.at = at
        self.rows = [Row(*row) for row in rows]
        self._by_job: dict[str, list[Row]] = {}
        for row in self.rows:
            self._by_job.setdefault(row.job, []).append(row)

    def tasks(self, job: str, token: str = "") -> dict[int, Row]:
        """Return the tasks of a job by number; a job that is no array has the number -1.

        Parameters
        ----------
        token : str
            What its name ends in: a scheduler that lost its memory may give an id out again, to another job. What
            has no such name at all is left in: some jobs give themselves another (``Row.is_of``).
        """
        found: dict[int, Row] = {}
        for row in self._by_job.get(job, ()):
            if token and not row.is_of(token) and _TOKEN.search(row.name):
                continue
            for number in expanded(row.tasks) if row.tasks else (-1,):
                # A task that was started again may be listed twice: what has not ended counts.
                if number not in found or found[number].kind == Kind.ENDED:
                    found[number] = row
        return found

    def has(self, job: str) -> bool:
        """Return whether anything of a job has not ended."""
        return any(row.kind != Kind.ENDED for row in self._by_job.get(job, ()))

    def is_ours(self, job: str, token: str, *, renamed: bool = False) -> bool:
        """Return whether an id is that of our own job: where a scheduler lost its memory, it may be another's now.

        Parameters
        ----------
        token : str
            What the name of our own ends in.
        renamed : bool
            Whether ours may have given itself another name, which only a job that has started does.
        """
        rows = self._by_job.get(job, ())
        return any(row.is_of(token) or (renamed and not _TOKEN.search(row.name)) for row in rows)

    def named(self, token: str) -> str | None:
        """Return the job whose name ends in a token."""
        return next((row.job for row in self.rows if row.name.endswith(f".{token}")), None)

    @property
    def count(self) -> int:
        """How many tasks have not ended."""
        return sum(
            sum(1 for _ in expanded(row.tasks)) if row.tasks else 1
            for row in self.rows
            if row.kind != Kind.ENDED
        )


_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?")


def expanded(ranges: str) -> Iterator[int]:
    """Yield the numbers of ranges.

    Examples
    --------
    >>> list(expanded("0-2,7,10-20:5"))
    [0, 1, 2, 7, 10, 15, 20]
    """
    for part in ranges.split(","):
        if match := _RANGE.fullmatch(part.strip()):
            first, last, step = match.groups()
            yield from range(int(first), int(last or first) + 1, int(step or 1))


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges.

    Examples
    --------
    >>> ranges([3, 4, 5, 9])
    '3-5,9'
    """
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
