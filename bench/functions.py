"""Functions as jobs: calls that do nothing, how soon one is answered, and what a large array costs."""

from __future__ import annotations

import math
import os
import pickle
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import paraschut as psu
from bench.common import Row, interleave, milliseconds, per_second, quotients, scratch, seconds, spread, times
from bench.noop import same

WORKERS = 2
SETTINGS = f"max_workers = {WORKERS}"


def mapped(count: int) -> float:
    """Return the calls per second of a map of one call to a job, from nothing to all results in a list."""
    name = f"bench {time.time_ns()}"
    made = []

    def run() -> None:
        made.append(psu.persist_map(same, range(count), name=name))
        assert made[0].results(timeout=120) == list(range(count))

    took = seconds(run)
    made[0].cleanup()
    return count / took


def executed(count: int) -> float:
    with psu.BatchExecutor() as executor:
        return count / seconds(lambda: list(executor.map(same, range(count))))


def pool(count: int) -> float:
    with ProcessPoolExecutor(WORKERS) as executor:
        return count / seconds(lambda: list(executor.map(same, range(count))))


#: The interpreter that has the peers (``make bench``), and how many calls each is given: some are slow.
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
CALLS = {"joblib": 1000, "huey": 1000, "dask": 1000, "parsl": 500, "executorlib": 500, "submitit": 8}


def peer(name: str) -> float:
    """Return the calls per second of another library; nan where it is not installed or does not work."""
    command = [str(PEERS), str(Path(__file__).with_name("peers.py")), name, str(CALLS[name]), str(WORKERS)]
    here = str(Path(__file__).parent)
    environ = {**os.environ, "PYTHONPATH": here, "PATH": f"{PEERS.parent}{os.pathsep}{os.environ['PATH']}"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
        return float(done.stdout.split()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return math.nan


def measure(*, quick: bool) -> list[Row]:
    count = 300 if quick else 1000
    with scratch(SETTINGS):
        mapped(10)  # the agent is there, as in a session that has begun
        rates = interleave(
            3 if quick else 7,
            {
                "map": lambda: mapped(count),
                "executor": lambda: executed(count),
                "pool": lambda: pool(count),
            },
        )
        others = interleave(1 if quick else 2, {name: lambda name=name: peer(name) for name in CALLS})  # type: ignore[misc]
        rows = [
            _throughput(name, what, count, rates, others)
            for name, what in (
                ("map", "persist_map(chunk=1)"),
                ("executor", "BatchExecutor.map"),
            )
        ]
        rows += [_answered(31 if quick else 101), _persisted(7 if quick else 21)]
        rows.append(_large(3 if quick else 7))
    return rows


def _throughput(
    name: str, what: str, count: int, rates: dict[str, list[float]], others: dict[str, list[float]]
) -> Row:
    ratio = quotients(rates[name], rates["pool"])
    ours = statistics.median(rates[name])
    theirs = {one: statistics.median(rate) for one, rate in others.items()}
    peers = "; ".join(
        f"{one} {rate:,.3g}/s (ours {times(ours / rate)})"
        for one, rate in theirs.items()
        if not math.isnan(rate)
    )
    return Row(
        f"{count:,} no-op calls on {WORKERS} workers, {what}, results kept; floor: ProcessPoolExecutor, which keeps none",
        spread(rates[name], per_second),
        spread(rates["pool"], per_second),
        spread(ratio, times),
        "≥ 0.3×, ≥ 1,095/s",
        statistics.median(ratio) >= 0.3 and statistics.median(rates[name]) >= 1095,
        peers=peers,
        recorded="ProcessPoolExecutor 4,864/s; joblib 2,823/s; executorlib with blocks 2,442/s; huey 1,095/s; submitit 1.9/s",
    )


def _answered(count: int) -> Row:
    with psu.BatchExecutor() as executor:
        executor.submit(same, 0).result()
        measured = [seconds(lambda: executor.submit(same, 0).result()) for _ in range(count)]
    return _latency("BatchExecutor.submit(f).result(), warm", measured, 0.01)


def _persisted(count: int) -> Row:
    jobs = []
    measured = [
        seconds(lambda number=number: jobs.append(psu.persist(same, f"one {number}", args=(1,))))  # type: ignore[misc]
        for number in range(count)
    ]
    for job in jobs:
        job.fetch(timeout=60)
    return _latency("persist returns, in a warm session", measured, 0.05)


def _latency(what: str, measured: list[float], most: float) -> Row:
    return Row(
        what,
        spread(measured, milliseconds),
        "",
        "",
        f"median ≤ {milliseconds(most)}",
        statistics.median(measured) <= most,
    )


def _large(rounds: int) -> Row:
    large = np.random.default_rng(1).random(100_000_000 // 8)

    def there_and_back(array: np.ndarray) -> float:
        def run() -> None:
            job = psu.persist(same, f"array {time.time_ns()}", args=(array,))
            job.fetch(timeout=120)

        return seconds(run)

    took = interleave(
        rounds,
        {
            "ours": lambda: there_and_back(large) - there_and_back(large[:9]),
            "files": lambda: seconds(lambda: [_there(large), _there(large)]),
        },
    )
    ratio = quotients(took["ours"], took["files"])
    return Row(
        "an array of 100 MB as argument and as result, beyond what a small one takes; floor: a file of it written, "
        "synced and read, twice",
        spread(took["ours"], milliseconds),
        spread(took["files"], milliseconds),
        spread(ratio, times),
        "≤ 2×",
        statistics.median(ratio) <= 2,
    )


def _there(array: np.ndarray) -> object:
    path = Path(f"large {time.time_ns()}.pkl")
    with path.open("wb") as file:
        pickle.dump(array, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())
    with path.open("rb") as file:
        return pickle.load(file)
