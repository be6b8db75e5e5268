"""Passes: submitting thousands of jobs, and finding nothing to submit among a million."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import statistics
import time
from pathlib import Path
from unittest import mock

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
from paraschut.store.store import Ready, Store

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


def _nothing(total: int, count: int, *, together: bool) -> Row:
    """Time passes over ``total`` jobs in ``count`` batches, each held back by one running job."""
    with scratch() as folder:
        _add_blocked(total, count)
        _submit_together(count) if together else _submit_one_by_one(count)
        _start(folder)
        for _ in range(2):  # what changed a moment ago is looked at again: let it settle
            time.sleep(2.1)
            _pass(count)
        took = [_pass(count) for _ in range(15)]
        asked = _asking(folder)
    most = 0.06 if count > 100 else 0.02
    how = "one submission" if together else "a submission each"
    return Row(
        f"a pass with nothing eligible among {total:,} jobs, {count:,} open batches, {how}",
        spread(took, milliseconds),
        f"{milliseconds(asked)} (looking at each folder once)",
        "",
        f"≤ {milliseconds(most)}",
        statistics.median(took) <= most,
    )


def _pass(count: int) -> float:
    started = time.perf_counter()
    done = psu.submit_jobs(MaxJobs=10 * count + 100, Verbose=False)
    took = time.perf_counter() - started
    if done.count:
        raise RuntimeError(f"there should be nothing to submit, and a pass {done}")
    return took


def _asking(folder: Path) -> float:
    """Return the seconds of the least that asking this executor is: the time stamps of its folders."""
    tokens = os.listdir(folder / "jobs" / "submissions")
    submissions = str(folder / "jobs" / "submissions")
    return seconds(lambda: [os.stat(f"{submissions}/{token}").st_mtime_ns for token in tokens])


def _add_blocked(total: int, count: int) -> None:
    """Add batches of three groups: half of the jobs done, one that is to run, and those that wait for it."""
    each = total // count
    group: list[dict[str, object]] = []
    for batch in range(BATCH, BATCH + count):
        jobs = make_jobs(batch, each)
        for job in jobs[each // 2 :]:
            job.update(state="complete", priority=3)
        jobs[0].update(priority=2, script="sleep 1000", complete_on_exit=batch % 2 == 0)
        group += jobs
        if len(group) >= 100_000:
            psu.add_job_to_queue(group)
            group = []
    if group:
        psu.add_job_to_queue(group)


def _submit_together(count: int) -> None:
    psu.submit_jobs(Executor=FileJobExecutor(), MaxJobs=count, Verbose=False)


def _submit_one_by_one(count: int) -> None:
    """Submit each batch in a pass of its own; spared of what each would look at, so that it takes a minute only."""
    executor = FileJobExecutor()
    with mock.patch("paraschut.fold.fold", return_value=[]), mock.patch("os.fsync"):
        for batch in range(BATCH, BATCH + count):
            ready = Ready([(batch, None, 2.0)], {batch: None}, None, 0)
            with mock.patch.object(Store, "ready", return_value=ready):
                psu.submit_jobs(Executor=executor, MaxJobs=count, Verbose=False)


def _start(folder: Path) -> None:
    """Start what was submitted as the script does, up to the first line of each job; half of them call back."""
    index = index_of(folder)
    with contextlib.closing(sqlite3.connect(index)) as db:
        found = db.execute("SELECT BatchID, JobIndex, token, task FROM attempt").fetchall()
    holder = f"{socket.gethostname()} {os.getpid()} {start_ticks(os.getpid())}.{boot_id()}"
    for batch_id, job_index, token, task in found:
        known_as = f"{token}.{task}"
        os.symlink(f"{known_as} {holder}", folder / "jobs" / "submissions" / token / f"{task}.run.0")
        if batch_id % 2:
            mine = job_variables(index, batch_id, job_index, 1, token, task, known_as)
            with mock.patch.dict(os.environ, mine):
                psu.get_job_info(SetID=True)
