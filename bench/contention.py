"""Callbacks of many processes at once, in both journal modes."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paraschut as psu
from bench.common import (
    BATCH,
    Row,
    compared,
    index_of,
    interleave,
    make_jobs,
    milliseconds,
    per_second,
    scratch,
)
from paraschut.store.runtime import read_statements

CALLS = 50
_fork = multiprocessing.get_context("fork")


def ours(index: str, number: int) -> Callable[[int], object]:
    """Return one callback of a job, as the job makes it."""
    del index, number  # the job knows them from its environment
    return lambda call: psu.set_progress(call / CALLS)


def plain(index: str, number: int) -> Callable[[int], object]:
    """Return the same statements in ``BEGIN IMMEDIATE`` on the stdlib's driver, which waits up to 60 s."""
    db = sqlite3.connect(index, timeout=60, isolation_level=None)
    wal = db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.execute(f"PRAGMA synchronous={'NORMAL' if wal else 'FULL'}")
    texts = read_statements()
    where = {"batch_id": BATCH, "job_index": number}

    def call(done: int) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute(texts["read_job"], where).fetchall()
        db.execute(texts["job_progress"], {**where, "progress": done / CALLS, "progress_message": ""})
        db.execute("COMMIT")

    return call


def worker(make: Any, index: str, number: int, start: Any, answers: Any) -> None:
    """Call again and again, as job ``number``; tell when it began and ended, the worst wait, and errors."""
    names = {"BATCHID": BATCH, "JOBINDEX": number, "ATTEMPT": 1}
    os.environ.update({f"PARASCHUT_{name}": str(value) for name, value in names.items()})
    call = make(index, number)
    call(0)  # opens the index, as the first call of a job does; the rush is what is measured
    start.wait(60)
    waits, errors = [], 0
    began = time.monotonic()
    for done in range(CALLS):
        before = time.monotonic()
        try:
            call(done)
        except Exception:
            traceback.print_exc()
            errors += 1
        waits.append(time.monotonic() - before)
    answers.put((began, time.monotonic(), max(waits), errors))


def rush(make: Any, folder: Path, count: int) -> tuple[float, float, int]:
    """Let ``count`` processes call at once; return calls per second, the worst wait, and errors."""
    index = index_of(folder)
    start, answers = _fork.Barrier(count), _fork.SimpleQueue()
    processes = [_fork.Process(target=worker, args=(make, index, n, start, answers)) for n in range(count)]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    elapsed = max(end for _, end, _, _ in told) - min(begin for begin, _, _, _ in told)
    return count * CALLS / elapsed, max(one[2] for one in told), sum(one[3] for one in told)


def measure(*, quick: bool) -> list[Row]:
    rows = []
    for mode in ("delete", "wal"):
        for count in (16,) if quick else (16, 64):
            with scratch(f'journal_mode = "{mode}"') as folder:
                psu.add_batch_to_queue(BATCH, make_jobs(BATCH, 10_000))
                # A job finds its index so, without reading the configuration.
                os.environ["PARASCHUT_INDEX"] = index_of(folder)
                rows.extend(_rows(folder, mode, count, rounds=3 if quick else 7))
                del os.environ["PARASCHUT_INDEX"]
    return rows


def _rows(folder: Path, mode: str, count: int, rounds: int) -> list[Row]:
    told: dict[str, list[tuple[float, float, int]]] = {"ours": [], "floor": []}

    def run(name: str, make: Any) -> float:
        told[name].append(rush(make, folder, count))
        return told[name][-1][0]

    rates = interleave(rounds, {"ours": lambda: run("ours", ours), "floor": lambda: run("floor", plain)})
    waits = {name: [one[1] for one in of] for name, of in told.items()}
    errors = {name: sum(one[2] for one in of) for name, of in told.items()}
    what = f"{count} processes × {CALLS} callbacks, {'WAL' if mode == 'wal' else 'rollback journal'}"
    rate = compared(
        f"{what}: throughput ({errors['ours']} errors; floor {errors['floor']})",
        rates["ours"],
        rates["floor"],
        per_second,
        least=0.8,
    )
    return [
        replace(rate, met=rate.met and not errors["ours"], target=f"{rate.target}, no error"),
        compared(f"{what}: worst wait", waits["ours"], waits["floor"], milliseconds, most=1 / 3),
    ]
