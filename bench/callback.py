"""What calling back costs a job: whole processes, from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
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
    scratch,
    seconds,
)
from paraschut.command import job_variables

OURS = """
import paraschut
paraschut.get_job_info(SetID=True)
paraschut.set_complete()
"""
#: The same two transactions: who am I and I run; I am complete.
FLOOR = """
import json, os, sqlite3, time
where = (int(os.environ["PARASCHUT_BATCHID"]), int(os.environ["PARASCHUT_JOBINDEX"]))
db = sqlite3.connect(os.environ["PARASCHUT_INDEX"], timeout=60, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
row = db.execute("SELECT * FROM job WHERE BatchID=? AND JobIndex=?", where).fetchone()
fields = json.loads(row[-2])
db.execute("UPDATE job SET state='run' WHERE BatchID=? AND JobIndex=?", where)
db.execute("UPDATE attempt SET started=? WHERE BatchID=? AND JobIndex=? AND n=1", (time.time(), *where))
db.execute("COMMIT")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE job SET state='complete' WHERE BatchID=? AND JobIndex=?", where)
db.execute("COMMIT")
"""


class Claimed:
    """Jobs that a submission took and that were not started; each is handed out once."""

    def __init__(self, folder: Path, count: int) -> None:
        self.index = index_of(folder)
        psu.add_batch_to_queue(BATCH, make_jobs(BATCH, count))
        psu.submit_jobs(Executor=psu.FileJobExecutor(), MaxJobs=count, Verbose=False)
        self.token = next(one.name for one in (folder / "jobs" / "submissions").iterdir())
        self.numbers = iter(range(count))

    def environment(self) -> dict[str, str]:
        """Return the environment of the next one, as an executor makes it."""
        number = next(self.numbers)
        mine = job_variables(self.index, BATCH, number, 1, self.token, number, f"{self.token}.{number}")
        return {**os.environ, "PYTHONPATH": PACKAGE, **mine}


def run(command: list[str], claimed: Claimed) -> float:
    environment = claimed.environment()
    return seconds(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))


def measure(*, quick: bool) -> list[Row]:
    rounds = 15 if quick else 41
    with scratch() as folder:
        claimed = Claimed(folder, 3 * rounds + 6)
        for name, text in (("ours.py", OURS), ("floor.py", FLOOR)):
            Path(name).write_text(text)
        shell = os.path.join(os.path.dirname(sys.executable), "paraschut")
        runs = {
            "ours": [sys.executable, "ours.py"],
            "floor": [sys.executable, "floor.py"],
            "shell": ["sh", "-c", f"'{shell}' job complete"],
        }
        if not os.path.exists(shell):
            runs["shell"] = ["sh", "-c", f"'{sys.executable}' -m paraschut job complete"]
        for command in runs.values():
            run(command, claimed)
        took = interleave(
            rounds, {name: lambda command=command: run(command, claimed) for name, command in runs.items()}
        )
    return [
        compared(
            f"{what}, whole process",
            took[name],
            took["floor"],
            milliseconds,
            most=most,
            recorded="stdlib-only script 39 ms; predecessor 582 ms",
        )
        for name, what, most in (
            ("ours", "a Python job that calls get_job_info(SetID=True) and set_complete()", 2),
            ("shell", "`paraschut job complete` in a shell job", 3),
        )
    ]
