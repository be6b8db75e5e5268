"""What the benchmarks share: scratch folders, interleaved rounds, and the rows of the table."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paraschut

RESULTS = Path(__file__).with_name("results")
BATCH = 20260101000000
#: An interpreter that has what can be had of the peers; ``make bench`` tries to make it.
PEERS = os.path.join(sys.prefix, "peers", "bin", "python")
#: Where the package is found by processes of their own, should it not be installed.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(paraschut.__file__)))


@dataclass(frozen=True)
class Row:
    """One line of the table; empty texts are shown as a dash."""

    figure: str
    ours: str
    floor: str
    ratio: str
    target: str
    met: bool | None
    peers: str = ""
    recorded: str = ""


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Return the median with the least and the greatest."""
    return f"{show(statistics.median(values))} [{show(min(values))}–{show(max(values))}]"


def compared(
    figure: str,
    ours: Sequence[float],
    floor: Sequence[float],
    show: Callable[[float], str],
    *,
    least: float | None = None,
    most: float | None = None,
    enough: float = 0.0,
    peers: str = "",
    recorded: str = "",
) -> Row:
    """Return the row of a figure beside its floor, whose ratio is to be at least, or at most, so much.

    ``enough`` is what the median itself must be at least.
    """
    ratio = quotients(ours, floor)
    middle = statistics.median(ratio)
    met = (least is None or middle >= least) and (most is None or middle <= most)
    target = f"≥ {least}×" if least is not None else f"≤ {most:.3g}×"
    return Row(
        figure,
        spread(ours, show),
        spread(floor, show),
        spread(ratio, times),
        f"{target}, > {show(enough)}" if enough else target,
        met and statistics.median(ours) >= enough,
        peers,
        recorded,
    )


def quotients(ours: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Return ours by floor, round by round: what disturbs the machine disturbs both."""
    return [mine / theirs for mine, theirs in zip(ours, floor, strict=True)]


def per_second(value: float) -> str:
    return f"{value:,.0f}/s"


def milliseconds(value: float) -> str:
    return f"{value * 1000:,.1f} ms" if value < 0.1 else f"{value * 1000:,.0f} ms"


def times(value: float) -> str:
    return f"{value:.2f}×"


def interleave(rounds: int, runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run everything once a round, A B C A B C …, and return what each gave, in order."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            values[name].append(run())
    return values


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


@contextmanager
def scratch(settings: str = "") -> Iterator[Path]:
    """Make a folder with a configuration, and stand in it; afterwards it is gone.

    Agents that work for an index in it find it gone as well, and leave.
    """
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=RESULTS))
    (folder / "config.toml").write_text(f'[paraschut]\njob_dir = "jobs"\n{settings}\n')
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def index_of(folder: Path) -> str:
    """Return the index that belongs to a scratch folder."""
    return str(folder / "jobs" / "index.db")


def make_jobs(batch_id: int, count: int, **fields: object) -> list[dict[str, object]]:
    """Return job dicts of twelve plain fields: the template's ten, and two of a user's own."""
    base = {
        "BatchID": batch_id,
        "priority": 1,
        "name": ["mouse", "liver"],
        "data_type": "rna",
        "data": None,
        "script": "true",
        "queue": None,
        "resources": {"mem": "1gb", "walltime": "01:00:00"},
        "state": "init",
    }
    return [
        {**base, "JobIndex": number, "sample": f"S{number:06}", "threshold": number / 1000, **fields}
        for number in range(count)
    ]
