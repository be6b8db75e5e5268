"""Functions as jobs: calls that do nothing, how soon one is answered, and what a large array costs."""

from __future__ import annotations

import os
import pickle
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
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


def joblib(count: int) -> float:
    library = import_module("joblib")
    parallel = library.Parallel(n_jobs=WORKERS, batch_size=1)
    return count / seconds(lambda: parallel(library.delayed(same)(x) for x in range(count)))


def submitit(count: int) -> float:
    count = min(count, 8)
    executor = import_module("submitit").LocalExecutor(folder="submitit")

    def run() -> None:
        for job in [executor.submit(same, x) for x in range(count)]:
            job.result()

    return count / seconds(run)


def executorlib(count: int) -> float:
    count = min(count, 500)
    library = import_module("executorlib")
    with library.SingleNodeExecutor(max_workers=WORKERS, block_allocation=True) as executor:
        return count / seconds(
            lambda: [call.result() for call in [executor.submit(same, x) for x in range(count)]]
        )


def measure(*, quick: bool) -> list[Row]:
    count = 300 if quick else 1000
    peers: dict[str, Callable[[int], float]] = {
        "joblib": joblib,
        "submitit": submitit,
        "executorlib": executorlib,
    }
    with scratch(SETTINGS):
        mapped(10)  # the agent is there, as in a session that has begun
        runs = {"map": mapped, "executor": executed, "pool": pool}
        runs |= {name: run for name, run in peers.items() if find_spec(name)}
        rates = interleave(
            3 if quick else 7, {name: lambda run=run: run(count) for name, run in runs.items()}
        )  # type: ignore[misc]
        rows = [
            _throughput(name, what, count, rates)
            for name, what in (
                ("map", "persist_map(chunk=1)"),
                ("executor", "BatchExecutor.map"),
            )
        ]
        rows += [_answered(31 if quick else 101), _persisted(7 if quick else 21)]
        rows.append(_large(3 if quick else 7))
    return rows


def _throughput(name: str, what: str, count: int, rates: dict[str, list[float]]) -> Row:
    ratio = quotients(rates[name], rates["pool"])
    others = "; ".join(
        f"{one} {spread(rates[one], per_second)}" for one in rates if one not in {"map", "executor", "pool"}
    )
    return Row(
        f"{count:,} no-op calls on {WORKERS} workers, {what}, results kept; floor: ProcessPoolExecutor, which keeps none",
        spread(rates[name], per_second),
        spread(rates["pool"], per_second),
        spread(ratio, times),
        "≥ 0.3×, ≥ 1,095/s",
        statistics.median(ratio) >= 0.3 and statistics.median(rates[name]) >= 1095,
        peers=others,
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
