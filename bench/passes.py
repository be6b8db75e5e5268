"""Passes: submitting thousands of jobs, and finding nothing to submit among a million."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paraschut as psu
from bench.common import (
    Row,
    index_of,
    interleave,
    make_jobs,
    milliseconds,
    per_second,
    quotients,
    scratch,
    seconds,
    spread,
    times,
)
from paraschut.command import job_variables
from paraschut.executors.file import FileJobExecutor
from paraschut.process import boot_id, start_ticks

BATCH = 20260101000000


def submitted(count: int) -> float:
    """Return the jobs per second of a pass that submits a batch."""
    with scratch():
        psu.add_batch_to_queue(BATCH, make_jobs(BATCH, count, script="echo done"))
        done = None

        def make_pass() -> None:
            nonlocal done
            done = psu.submit_jobs(Executor=FileJobExecutor(), MaxJobs=count, Verbose=False)

        took = seconds(make_pass)
        if done is None or done.count != count:
            raise RuntimeError(f"a pass over {count} jobs gave {done}")
        return count / took


def stdlib(count: int) -> float:
    """Return the jobs per second of the least that a pass can do: read, write a line each, mark, in one go."""
    with scratch():
        db = sqlite3.connect("plain.db", isolation_level=None)
        db.execute(
            "CREATE TABLE job (BatchID INT, JobIndex INT, state, metadata, PRIMARY KEY (BatchID, JobIndex))"
        )
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO job VALUES (?, ?, 'init', ?)",
            [(BATCH, one["JobIndex"], json.dumps(one)) for one in make_jobs(BATCH, count)],
        )
        db.execute("COMMIT")

        def make_pass() -> None:
            db.execute("BEGIN IMMEDIATE")
            jobs = db.execute("SELECT BatchID, JobIndex, metadata FROM job WHERE state='init'").fetchall()
            with open("jobs.sh", "w") as file:
                file.writelines(
                    f"{json.loads(metadata)['script']} > {b}.{j}.out\n" for b, j, metadata in jobs
                )
                file.flush()
                os.fsync(file.fileno())
            mark = "UPDATE job SET state='submit' WHERE BatchID=? AND JobIndex=?"
            db.executemany(mark, [job[:2] for job in jobs])
            db.execute("COMMIT")

        return count / seconds(make_pass)


def measure(*, quick: bool) -> list[Row]:
    rows = _submitting(quick=quick)
    total = 100_000 if quick else 1_000_000
    for count in (1, 100) if quick else (1, 100, 10_000):
        rows.append(_nothing(total, count, together=True))
    if not quick:
        rows.append(_nothing(total, 10_000, together=False))
    return rows


def _submitting(*, quick: bool) -> list[Row]:
    small, large = 1000, 10_000
    rates = interleave(
        3 if quick else 7,
        {
            "small": lambda: submitted(small),
            "large": lambda: submitted(large),
            "floor small": lambda: stdlib(small),
            "floor large": lambda: stdlib(large),
        },
    )
    rows = []
    for name, count in (("small", small), ("large", large)):
        rate = sorted(rates[name])[len(rates[name]) // 2]
        rows.append(
            Row(
                f"a pass that submits {count:,} jobs through FileJobExecutor",
                spread(rates[name], per_second),
                spread(rates[f"floor {name}"], per_second),
                spread(quotients(rates[name], rates[f"floor {name}"]), times),
                "≥ 5,000/s" if count == large else "",
                rate >= 5000 if count == large else None,
                recorded="stdlib 12,676/s" if count == small else "stdlib 23,012/s; predecessor 62/s",
            )
        )
    linear = quotients(rates["large"], rates["small"])
    middle = sorted(linear)[len(linear) // 2]
    rows.append(
        Row("… its rate at 10,000 by that at 1,000", spread(linear, times), "", "", "≥ 0.8×", middle >= 0.8)
    )
    return rows


# -- nothing to do --------------------------------------------------------------------------------------------------


class Watched(FileJobExecutor):
    """The executor, with a clock on what it is asked."""

    asked = 0.0

    def evidence(self, folder: str) -> Any:
        started = time.perf_counter()
        try:
            return super().evidence(folder)
        finally:
            Watched.asked += time.perf_counter() - started


def _nothing(total: int, count: int, *, together: bool) -> Row:
    """Time passes over ``total`` jobs in ``count`` batches, each held back by one running job."""
    with scratch(), _blocked(total, count, together=together):
        took, asked = [], []
        for _ in range(2):  # folders that changed just now are looked at again: let them settle
            time.sleep(2.1)
            psu.submit_jobs(MaxJobs=10 * count, Verbose=False)
        for _ in range(15):
            done = None

            def make_pass() -> None:
                nonlocal done
                done = psu.submit_jobs(MaxJobs=10 * count + 100, Verbose=False)

            took.append(seconds(make_pass))
            if done is None or done.count:
                raise RuntimeError(f"there should be nothing to submit, and a pass says: {done}")
        most = 0.06 if count > 100 else 0.02
        how = "one submission" if together else "a submission each"
        middle = sorted(took)[len(took) // 2]
        del asked
        return Row(
            f"a pass with nothing eligible among {total:,} jobs, {count:,} open batches blocked by one running job ({how})",
            spread(took, milliseconds),
            "",
            "",
            f"≤ {milliseconds(most)}",
            middle <= most,
        )


@contextmanager
def _blocked(total: int, count: int, *, together: bool) -> Iterator[None]:
    """Add batches of three groups: one running job on top, half of the others done, half waiting."""
    each = total // count
    environ = dict(os.environ)
    executor = FileJobExecutor()
    folder = Path.cwd()
    for batch in range(BATCH, BATCH + count):
        jobs = make_jobs(batch, each)
        for job in jobs[each // 2 :]:
            job.update(state="complete", priority=3)
        jobs[0].update(priority=2, script=f"read line < '{folder}/fifo'", complete_on_exit=batch % 2 == 0)
        waiting = jobs if batch == BATCH else waiting + jobs
        if len(waiting) > 100_000 or batch == BATCH + count - 1:
            psu.add_job_to_queue(waiting)
            waiting = []
    if together:
        psu.submit_jobs(Executor=executor, MaxJobs=count, Verbose=False)
    else:
        for batch in range(BATCH, BATCH + count):
            psu.submit_one_batch(batch, Executor=executor, MaxJobs=count, Verbose=False)
    try:
        _start(folder, environ)
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)


def _start(folder: Path, environ: Mapping[str, str]) -> None:
    """Start what was submitted as the script does, up to the first line of each job; half of them call back."""
    index = index_of(folder)
    db = sqlite3.connect(index)
    found = db.execute("SELECT BatchID, JobIndex, token, task FROM attempt").fetchall()
    db.close()
    holder = f"{socket.gethostname()} {os.getpid()} {start_ticks(os.getpid())}.{boot_id()}"
    for batch_id, job_index, token, task in found:
        os.symlink(f"{token}.{task} {holder}", folder / "jobs" / "submissions" / token / f"{task}.run.0")
        if batch_id % 2:
            os.environ.clear()
            os.environ.update(environ)
            os.environ.update(job_variables(index, batch_id, job_index, 1, token, task, f"{token}.{task}"))
            psu.get_job_info(SetID=True)
    os.environ.clear()
    os.environ.update(environ)
