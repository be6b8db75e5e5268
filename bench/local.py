"""The local agent: a thousand commands that do nothing, and how soon a job starts."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paraschut as psu
from bench.common import (
    BATCH,
    PEERS,
    Row,
    compared,
    index_of,
    interleave,
    make_jobs,
    milliseconds,
    per_second,
    scratch,
    seconds,
    spread,
)

WORKERS = 2
#: It has no limit of workers: all start at once. Its threads would outlive the work, so it does not wait for them.
PSIJ = """
import os, sys, time
from psij import Job, JobExecutor, JobSpec
executor = JobExecutor.get_instance("local")
count = int(sys.argv[1])
started = time.perf_counter()
jobs = [Job(JobSpec(executable="/bin/sh", arguments=["-c", ":"])) for _ in range(count)]
for job in jobs:
    executor.submit(job)
for job in jobs:
    job.wait()
print(count / (time.perf_counter() - started), flush=True)
os._exit(0)
"""


def agent(count: int) -> float:
    """Return the jobs per second of the agent, from ``init`` to ``complete`` in the index; it starts with the clock."""
    with scratch(f"max_workers = {WORKERS}") as folder:
        psu.add_batch_to_queue(
            BATCH, make_jobs(BATCH, count, script=":", complete_on_exit=True, resources=None)
        )
        db = sqlite3.connect(index_of(folder))

        def run() -> None:
            psu.submit_jobs(MaxJobs=count, Verbose=False)
            # A look that costs next to nothing: who watches must not take the processors from who works.
            while db.execute(
                "SELECT 1 FROM job WHERE state NOT IN ('complete', 'collected') LIMIT 1"
            ).fetchone():
                time.sleep(0.005)

        took = seconds(run)
        db.close()
        return count / took


def xargs(count: int) -> float:
    numbers = "\n".join(map(str, range(count)))
    command = ["xargs", f"-P{WORKERS}", "-n1", "sh", "-c", ":"]
    return count / seconds(lambda: subprocess.run(command, input=numbers, text=True, check=True))


def parallel(count: int) -> float:
    numbers = "\n".join(map(str, range(count)))
    command = ["parallel", "--will-cite", f"-j{WORKERS}", ":", ":::"]
    return count / seconds(lambda: subprocess.run(command[:-1], input=numbers, text=True, check=True))


def psij(count: int) -> float:
    """Return the rate of psij-python's local executor, in the interpreter that has it."""
    done = subprocess.run([PEERS, "-c", PSIJ, str(count)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def subprocesses(count: int) -> float:
    """Return the rate of two threads that only start the commands and wait."""

    def one(_: int) -> None:
        subprocess.run(["sh", "-c", ":"], check=True)

    with ThreadPoolExecutor(WORKERS) as pool:
        return count / seconds(lambda: list(pool.map(one, range(count))))


def measure(*, quick: bool) -> list[Row]:
    count = 200 if quick else 1000
    runs = {
        "ours": lambda: agent(count),
        "xargs": lambda: xargs(count),
        "subprocess": lambda: subprocesses(count),
    }
    if shutil.which("parallel"):
        runs["GNU parallel"] = lambda: parallel(count)
    if os.path.exists(PEERS):
        runs["psij"] = lambda: psij(count // 5)
    rates = interleave(3 if quick else 7, runs)
    peers = [f"{name} {spread(rates[name], per_second)}" for name in rates if name not in {"ours", "xargs"}]
    peers += [f"{name} not installed" for name in ("GNU parallel", "psij") if name not in rates]
    throughput = compared(
        f"{count:,} no-op commands on {WORKERS} workers, init to complete, beside `xargs -P{WORKERS}`",
        rates["ours"],
        rates["xargs"],
        per_second,
        least=0.4,
        enough=422,
        peers="; ".join(peers),
        recorded="xargs 978/s; HyperQueue 422/s; GNU parallel 178/s; psij 111/s; predecessor 19/s",
    )
    return [throughput, *_latencies(15 if quick else 31)]


# -- how soon -------------------------------------------------------------------------------------------------------


class Bell:
    """A FIFO that jobs write into, so that their start is seen when it happens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bell"
        os.mkfifo(self.path)
        self.script = f"echo > '{self.path}'"

    def wait(self) -> None:
        with open(self.path) as file:
            file.read()


def _latencies(count: int) -> list[Row]:
    rows = []
    for name, measured, most in (
        ("a live agent", _on_live_agent(count), 0.05),
        ("no agent", [_on_no_agent() for _ in range(count)], 0.5),
    ):
        rows.append(
            Row(
                f"from submit_jobs to a started job, on {name}",
                spread(measured, milliseconds),
                "",
                "",
                f"≤ {milliseconds(most)}",
                sorted(measured)[len(measured) // 2] <= most,
            )
        )
    return rows


def _ring(bell: Bell, batch_id: int) -> float:
    [job] = make_jobs(batch_id, 1, script=bell.script, complete_on_exit=True, resources=None)
    psu.add_job_to_queue(job)

    def start() -> None:
        psu.submit_jobs(Verbose=False)
        bell.wait()

    return seconds(start)


def _on_live_agent(count: int) -> list[float]:
    with scratch() as folder:
        bell = Bell(folder)
        _ring(bell, BATCH)
        measured = []
        for number in range(1, count + 1):
            time.sleep(0.2)
            measured.append(_ring(bell, BATCH + number))
        return measured


def _on_no_agent() -> float:
    with scratch() as folder:
        return _ring(Bell(folder), BATCH)
