"""Looking at the queue: where 100,000 and a million jobs stand."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import paraschut as psu
from bench.common import (
    BATCH,
    PACKAGE,
    Row,
    compared,
    index_of,
    interleave,
    make_jobs,
    milliseconds,
    quotients,
    scratch,
    spread,
    times,
)
from paraschut.config import load_config
from paraschut.look.dashboard import bring_up_to_date, summarise
from paraschut.look.render_html import queue_html
from paraschut.store.store import Store

EACH = 5000
#: Many small batches, as they look in a notebook: so many, with so many jobs each; seconds that this may take.
SMALL, OF_SMALL, MOST_HTML = 1000, 100, 0.5


def fill(folder: Path, total: int, each: int = EACH) -> None:
    """Add batches that have come more or less far: a ragged front of jobs, some held, some given up by the user."""
    chance = random.Random(20260101)
    batches = total // each
    for batch in range(BATCH, BATCH + batches):
        front = chance.uniform(0, 1.2) * each
        jobs = make_jobs(batch, each)
        for number, job in enumerate(jobs):
            # Jobs end in nearly, not exactly, the order of their indices.
            if chance.random() < 0.01:
                job["state"] = chance.choice(["held", "failed_qc"])
            elif number + chance.gauss(0, 30) < front:
                job["state"] = "complete"
        psu.add_batch_to_queue(batch, jobs)
        waiting = [job["JobIndex"] for job in jobs if job["state"] == "init"][:50]
        # A pass for each of a thousand batches would take longer than all else here.
        if waiting and (each == EACH or batch % 20 == 0):
            psu.submit_one_job(batch, waiting, Executor=psu.FileJobExecutor(), Verbose=False)
    with contextlib.closing(sqlite3.connect(index_of(folder))) as db, db:
        started = "JobIndex % 10 < 7 AND JobIndex IN (SELECT JobIndex FROM attempt AS a WHERE a.BatchID = job.BatchID)"
        db.execute(f"UPDATE job SET state='run' WHERE state='submit' AND {started}")
        db.execute("UPDATE attempt SET started=submitted WHERE JobIndex % 10 < 7")


def ours(index: str) -> None:
    del index
    psu.get_queue()


def as_html(index: str) -> None:
    """Do what a notebook asks for."""
    config = load_config()
    with Store(index) as store:
        rows, totals = summarise(store, None, bring_up_to_date(store, config, None))
    print(queue_html(rows, totals, now=time.time()))


def floor(index: str) -> None:
    """Read (batch, state, index) in the order of an index, and make ranges of it."""
    with contextlib.closing(sqlite3.connect(index)) as db:
        ranges: list[list[object]] = []
        query = "SELECT BatchID, state, JobIndex FROM job ORDER BY BatchID, state, JobIndex"
        last: tuple[object, object, int] = (None, None, -1)
        for row in db.execute(query):
            if row[0] == last[0] and row[1] == last[1] and row[2] == last[2] + 1:
                ranges[-1][3] = row[2]
            else:
                ranges.append([*row, row[2]])
            last = row
        for one in ranges:
            print(*one)


def child() -> None:
    """Look twice, in a process of its own; print seconds of both, and MiB that the first took at its peak."""
    look = {"ours": ours, "floor": floor, "html": as_html}[sys.argv[1]]
    psu.get_queue  # noqa: B018 - imported before the clock runs, as in a session
    before = _peak(reset=True)
    spent = []
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()):
            started = time.perf_counter()
            look(sys.argv[2])
            spent.append(time.perf_counter() - started)
        if len(spent) == 1:
            added = (_peak() - before) / 1024
    print(*spent, added)


def _peak(*, reset: bool = False) -> int:
    """Return the greatest resident size in KiB, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def look(name: str, folder: Path, told: list[list[float]]) -> float:
    command = [sys.executable, "-c", "from bench.dashboard import child; child()", name, index_of(folder)]
    environ = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{PACKAGE}"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True)
    told.append([float(word) for word in done.stdout.split()])
    return told[-1][1]


def small_batches(rounds: int) -> Row:
    """Measure the HTML of many small batches."""
    told: list[list[float]] = []
    with scratch() as folder:
        fill(folder, SMALL * OF_SMALL, OF_SMALL)
        took = [look("html", folder, told) for _ in range(rounds)]
    return Row(
        f"the dashboard of {SMALL:,} batches with {SMALL * OF_SMALL:,} jobs, as HTML",
        spread(took, milliseconds),
        "",
        "",
        f"≤ {milliseconds(MOST_HTML)}",
        statistics.median(took) <= MOST_HTML,
    )


def measure(*, quick: bool) -> list[Row]:
    sizes = (100_000,) if quick else (100_000, 1_000_000)
    told: dict[str, list[list[float]]] = {
        f"{who} {total}": [] for total in sizes for who in ("ours", "floor")
    }
    runs: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as folders:
        for total in sizes:
            folder = folders.enter_context(scratch())
            fill(folder, total)
            for who in ("ours", "floor"):
                name = f"{who} {total}"
                runs[name] = lambda who=who, folder=folder, name=name: look(who, folder, told[name])  # type: ignore[misc]
        took = interleave(5 if quick else 7, runs)
    rows = [row for total in sizes for row in _rows(total, took, told)]
    rows.append(small_batches(3 if quick else 7))
    if not quick:
        # Both sizes are looked at in each round, so what slows the machine slows both.
        growth = quotients(took["ours 1000000"], took["ours 100000"])
        rows.append(
            Row(
                "… 1,000,000 jobs by 100,000",
                "",
                "",
                spread(growth, times),
                "≤ 10×",
                statistics.median(growth) <= 10,
            )
        )
    return rows


def _rows(
    total: int, took: Mapping[str, Sequence[float]], told: Mapping[str, Sequence[Sequence[float]]]
) -> list[Row]:
    """Return the time and the memory of an index of so many jobs."""
    ours, floor = (f"{who} {total}" for who in ("ours", "floor"))
    first = statistics.median(one[0] for one in told[ours])
    memory = [one[2] for one in told[ours]]
    mebibytes = "{:.1f} MiB".format
    small = total == 100_000
    return [
        compared(
            f"the dashboard of {total:,} jobs (the first look of a session: {milliseconds(first)})",
            took[ours],
            took[floor],
            milliseconds,
            most=2,
            recorded="stdlib 140 ms; predecessor 4.2 s" if small else "",
        ),
        Row(
            f"… memory that it adds at its peak, {total:,} jobs",
            spread(memory, mebibytes),
            spread([one[2] for one in told[floor]], mebibytes),
            "",
            "≤ 20 MiB" if small else "",
            statistics.median(memory) <= 20 if small else None,
            recorded="stdlib 6 MiB; predecessor 390 MiB" if small else "",
        ),
    ]
