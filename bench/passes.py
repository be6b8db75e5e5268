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
    BATCH,
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
    for count in (1, 100, total // 100):
        rows.append(_nothing(total, count, together=True))
    rows.append(_nothing(total, total // 100, together=False))
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
        _submit_together(count) if together else _submit_one_by_one(folder, count)
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
        f"≤ {milliseconds(most)} more",
        statistics.median(took) - asked <= most,
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
    submissions = os.open(folder / "jobs" / "submissions", os.O_RDONLY)
    tokens = os.listdir(submissions)
    asked = [
        seconds(lambda: [os.stat(token, dir_fd=submissions).st_mtime_ns for token in tokens])
        for _ in range(5)
    ]
    os.close(submissions)
    return statistics.median(asked)


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


def _submit_one_by_one(folder: Path, count: int) -> None:
    """Submit the first batch; the others get copies of that submission, with folders of their own, in a few seconds."""
    psu.submit_one_batch(BATCH, FileJobExecutor(), Verbose=False)
    submissions = folder / "jobs" / "submissions"
    (model,) = os.listdir(submissions)
    script = (submissions / model / "script.sh").read_text()
    with contextlib.closing(sqlite3.connect(index_of(folder))) as db, db:
        for batch in range(BATCH + 1, BATCH + count):
            token = os.urandom(8).hex()
            (submissions / token).mkdir(mode=0o700)
            (submissions / token / "script.sh").write_text(
                script.replace(model, token).replace(str(BATCH), str(batch))
            )
            _copy(db, "submission", model, token=token, cluster_id=token)
            _copy(db, "attempt", model, token=token, BatchID=batch)
            db.execute("UPDATE job SET state='submit', attempt=1 WHERE BatchID=? AND JobIndex=0", (batch,))
        mine = "SELECT executor, environment FROM batch WHERE BatchID=?"
        executor, environment = db.execute(mine, (BATCH,)).fetchone()
        db.execute("UPDATE batch SET executor=?, environment=?", (executor, environment))


def _copy(db: sqlite3.Connection, table: str, model: str, **other: object) -> None:
    cursor = db.execute(f"SELECT * FROM {table} WHERE token=?", (model,))
    row = dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True), **other)
    db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row.values()))


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
