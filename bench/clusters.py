"""Submission to real schedulers: 10,000 jobs from ``init`` to recorded, beside the bare commands."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import paraschut as psu
from bench.common import (
    PEERS,
    Row,
    interleave,
    make_jobs,
    milliseconds,
    quotients,
    scratch,
    seconds,
    spread,
    times,
)

BATCH = 20260101000000
ARRAY = 1000
#: What keeps the jobs from running while it is measured, and what takes them away afterwards.
HOLD = {"slurm": ["--hold"], "sge": ["-h"]}
SUBMIT = {
    "slurm": ["sbatch", "--parsable", "--hold", "--output=/dev/null", f"--array=0-{ARRAY - 1}", "job.sh"],
    "sge": ["qsub", "-terse", "-h", "-o", "/dev/null", "-j", "y", "-t", f"1-{ARRAY}", "job.sh"],
}
TITLE = {"slurm": "Slurm", "sge": "Grid Engine"}


def reachable(name: str) -> bool:
    """Return whether a scheduler answers here."""
    ask = {"slurm": ["squeue", "-h", "-t", "R"], "sge": ["qstat"]}[name]
    if shutil.which(ask[0]) is None:
        return False
    try:
        return subprocess.run(ask, capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def clear(name: str) -> None:
    """Take this user's jobs away."""
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    subprocess.run({"slurm": ["scancel", "-u", user], "sge": ["qdel", "-u", user]}[name], capture_output=True)


def submitted(name: str, count: int) -> float:
    """Return the seconds of a pass that submits a batch of plain commands, with its closer."""
    with scratch(f'executor = "{name}"\nmax_jobs = {count}'):
        jobs = make_jobs(BATCH, count, options=HOLD[name], complete_on_exit=True)
        psu.add_batch_to_queue(BATCH, jobs)
        try:
            return seconds(lambda: psu.submit_jobs(Verbose=False))
        finally:
            clear(name)


def counted(name: str, count: int) -> int:
    """Return how often a pass calls the command that submits, closer included."""
    with scratch(f'executor = "{name}"\nmax_jobs = {count}') as folder:
        command = SUBMIT[name][0]
        real = shutil.which(command)
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / command
        wrapper.write_text(f'#!/bin/sh\necho once >> "{folder}/calls"\nexec "{real}" "$@"\n')
        wrapper.chmod(0o700)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{wrapper.parent}:{before}"
        try:
            psu.add_batch_to_queue(BATCH, make_jobs(BATCH, count, options=HOLD[name], complete_on_exit=True))
            psu.submit_jobs(Verbose=False)
        finally:
            os.environ["PATH"] = before
            clear(name)
        return len((folder / "calls").read_text().splitlines())


def bare(name: str, count: int) -> float:
    """Return the seconds of the least there is to do.

    That is one transaction which reads what the jobs are, marks them, and writes down an attempt of each, to be found
    by its submission; and one command for each thousand.
    """
    with scratch():
        db = sqlite3.connect("plain.db", isolation_level=None)
        db.execute("PRAGMA synchronous=FULL")
        db.execute(
            "CREATE TABLE job (BatchID INT, JobIndex INT, state, metadata, PRIMARY KEY (BatchID, JobIndex))"
        )
        db.execute(
            "CREATE TABLE attempt (BatchID INT, JobIndex INT, n INT, token TEXT, task INT, submitted REAL, "
            "PRIMARY KEY (BatchID, JobIndex, n))"
        )
        db.execute("CREATE INDEX of_token ON attempt (token, task)")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO job VALUES (?, ?, 'init', ?)",
            [(BATCH, one["JobIndex"], json.dumps(one)) for one in make_jobs(BATCH, count)],
        )
        db.execute("COMMIT")
        Path("job.sh").write_text("#!/bin/sh\ntrue\n")

        def submit() -> None:
            db.execute("BEGIN IMMEDIATE")
            jobs = db.execute("SELECT BatchID, JobIndex, metadata FROM job WHERE state='init'").fetchall()
            chosen = [(batch_id, index, json.loads(text)["script"]) for batch_id, index, text in jobs]
            mark = "UPDATE job SET state='submit' WHERE BatchID=? AND JobIndex=?"
            db.executemany(mark, [one[:2] for one in chosen])
            db.executemany(
                "INSERT INTO attempt VALUES (?, ?, 1, ?, ?, 0.0)",
                [(*one[:2], f"{number // ARRAY:016}", number % ARRAY) for number, one in enumerate(chosen)],
            )
            db.execute("COMMIT")
            for _ in range(count // ARRAY):
                subprocess.run(SUBMIT[name], check=True, capture_output=True)

        try:
            return seconds(submit)
        finally:
            db.close()
            clear(name)


def one_by_one(name: str, count: int) -> float:
    """Return the seconds of one command for each job."""
    with scratch():
        Path("job.sh").write_text("#!/bin/sh\ntrue\n")
        command = [word for word in SUBMIT[name] if not word.startswith("--array")]
        if "-t" in command:
            place = command.index("-t")
            del command[place : place + 2]
        try:
            return seconds(
                lambda: [subprocess.run(command, check=True, capture_output=True) for _ in range(count)]
            )
        finally:
            clear(name)


def _has_submitit() -> bool:
    return (
        os.path.exists(PEERS)
        and not subprocess.run([PEERS, "-c", "import submitit"], capture_output=True).returncode
    )


def submitit(count: int) -> float:
    """Return the seconds of submitit's ``map_array`` for as many calls."""
    program = (
        "import sys, time, submitit\n"
        "executor = submitit.SlurmExecutor(folder='logs')\n"
        f"executor.update_parameters(array_parallelism={count}, time=5, additional_parameters={{'hold': True}})\n"
        "started = time.perf_counter()\n"
        f"executor.map_array(abs, range({count}))\n"
        "print(time.perf_counter() - started)\n"
    )
    with scratch():
        try:
            done = subprocess.run([PEERS, "-c", program], capture_output=True, text=True)
        finally:
            clear("slurm")
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


def measure(*, quick: bool = False) -> list[Row]:
    """Return the rows of each scheduler that answers; it must be a test's own, since all jobs of the user are deleted."""
    if os.environ.get("PARASCHUT_BENCH_CLUSTERS") != "yes":
        return [
            Row(
                "submission to Slurm and Grid Engine",
                "not run: it deletes all jobs of the user, so it wants clusters of its own: start them with `make clusters`, "
                "take their variables, and set PARASCHUT_BENCH_CLUSTERS=yes",
                *("", "", "", None),
            )
        ]
    return [row for name in SUBMIT if reachable(name) for row in _rows(name, quick=quick)]


def _rows(name: str, *, quick: bool) -> list[Row]:
    count = 2000 if quick else 10_000
    few = 20 if quick else 100
    runs = {
        "ours": lambda: submitted(name, count),
        "floor": lambda: bare(name, count),
        "single": lambda: one_by_one(name, few) / few * count,
    }
    if name == "slurm" and _has_submitit():
        runs["submitit"] = lambda: submitit(1000) / 1000 * count
    values = interleave(2 if quick else 5, runs)
    ratios = quotients(values["ours"], values["floor"])
    peers = [f"a command for each job {spread(values['single'], milliseconds)} (from {few})"]
    if "submitit" in values:
        peers.append(f"submitit's map_array {spread(values['submitit'], milliseconds)} (from 1,000)")
    calls = counted(name, count)
    most = count // ARRAY + 2
    return [
        Row(
            f"{count:,} jobs from init to recorded on {TITLE[name]}, beside the bare job arrays and a claim",
            spread(values["ours"], milliseconds),
            spread(values["floor"], milliseconds),
            spread(ratios, times),
            "≤ 3×",
            sorted(ratios)[len(ratios) // 2] <= 3,
            "; ".join(peers),
            "1,000 single commands: Slurm 7 s, Grid Engine 79 s",
        ),
        Row(
            f"… calls of {SUBMIT[name][0]} for them, closer included",
            str(calls),
            str(count // ARRAY),
            "",
            f"≤ {most}",
            calls <= most,
        ),
    ]
