"""What a report says of attempts: lanes, counts, causes, extremes. No I/O, no clock."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Run(NamedTuple):
    """One attempt that started; times in epoch seconds, sizes in bytes; what is not known is None.

    ``ended`` is None while it runs; ``reason`` says why it failed, if it did.
    """

    batch_id: int
    job_index: int
    n: int
    host: str
    submitted: float
    started: float
    ended: float | None
    reason: str | None
    max_rss: int | None
    cpu: float | None
    cpus: int | None
    mem: int | None
    walltime: float | None

    def seconds(self, now: float) -> float:
        """Return how long it took, until now if it still runs."""
        return max((now if self.ended is None else self.ended) - self.started, 0.0)

    @property
    def label(self) -> str:
        """How the job is called, with the number of its attempt if it is not the first."""
        return f"{self.batch_id}:{self.job_index}" + (f" (attempt {self.n})" if self.n > 1 else "")


def lanes(runs: Iterable[Run], now: float) -> list[tuple[Run, int]]:
    """Give each run the lowest lane that is free when it starts.

    Examples
    --------
    >>> one = Run(1, 0, 1, "a", 0.0, 0.0, 5.0, None, None, None, None, None, None)
    >>> two, three = one._replace(started=2.0), one._replace(started=5.0)
    >>> [lane for _, lane in lanes([one, two, three], now=9.0)]
    [0, 1, 0]
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    placed = []
    for run in sorted(runs, key=lambda one: (one.started, one.batch_id, one.job_index)):
        while busy and busy[0][0] <= run.started:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (run.started + run.seconds(now), lane))
        placed.append((run, lane))
    return placed


def by_host(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return runs by host, in the order of the names."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.host, []).append(run)
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[tuple[str, int]]:
    # node9 comes before node10.
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def busy_share(runs: Iterable[Run], edges: Sequence[float], now: float) -> list[float]:
    """Return how many runs there were on average between each two of the edges, which are equally far apart.

    Examples
    --------
    >>> one = Run(1, 0, 1, "a", 0.0, 0.0, 3.0, None, None, None, None, None, None)
    >>> busy_share([one, one], [0.0, 2.0, 4.0], now=9.0)
    [2.0, 1.0]
    """
    step = edges[1] - edges[0]
    shares = [0.0] * (len(edges) - 1)
    # Whole steps as a difference of counts: a run of many steps costs no more than a short one.
    changes = [0.0] * (len(edges) + 1)
    for run in runs:
        first, last = run.started, run.started + run.seconds(now)
        low = min(max(int((first - edges[0]) / step), 0), len(shares) - 1)
        high = min(max(int((last - edges[0]) / step), 0), len(shares) - 1)
        if low == high:
            shares[low] += (last - first) / step
            continue
        shares[low] += (edges[low + 1] - first) / step
        shares[high] += (last - edges[high]) / step
        changes[low + 1] += 1
        changes[high] -= 1
    whole = 0.0
    for number in range(len(shares)):
        whole += changes[number]
        shares[number] += whole
    return [round(share, 9) for share in shares]


def causes(runs: Iterable[Run]) -> list[tuple[str, list[Run]]]:
    """Return the failed runs by their cause, the most frequent first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.reason:
            found.setdefault(run.reason, []).append(run)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def slowest(runs: Iterable[Run], count: int, now: float) -> list[Run]:
    """Return the runs that took longest."""
    return heapq.nlargest(count, runs, key=lambda run: run.seconds(now))


def hungriest(runs: Iterable[Run], count: int) -> list[Run]:
    """Return the runs that needed most memory."""
    return heapq.nlargest(count, (run for run in runs if run.max_rss), key=lambda run: run.max_rss or 0)
