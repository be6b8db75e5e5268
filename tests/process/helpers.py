"""What the stories with real processes share: waiting for a condition, looking into an index, ending what was started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import psutil

import paraschut as psu
from paraschut.paths import Paths
from paraschut.process import Identity, is_alive

BATCH = 20260101000000
#: Marks all that a test starts: agents, launchers and wrappers have it from the test's environment.
MARK = "STORY"


def until(condition, seconds=60, what=""):
    """Wait until a condition holds, and return what it gave; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            words = what() if callable(what) else what
            raise AssertionError(f"it did not come to that within {seconds} s. {words}")
        time.sleep(0.01)


def until_gone(path):
    """Return a path when there is nothing any more; what a job calls that is to run until it is told to end."""
    while os.path.exists(path):
        time.sleep(0.01)
    return path


def kill(pid, number=signal.SIGKILL):
    """Send a signal to a process that this test started; that it is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def rests(pid):
    """Return whether a process uses hardly any processor time for a while."""
    before = seconds(pid)
    time.sleep(1)
    return seconds(pid) - before < 0.2


def seconds(pid):
    """Return the processor time of a process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class World:
    """One index, the jobs in it, and the processes that serve it."""

    def __init__(self, home, mark):
        self.home = home
        self.mark = mark
        self.index = str(home / "jobs" / "index.db")
        self.paths = Paths(self.index)
        self.lines_file = home / "lines"

    # -- jobs ---------------------------------------------------------------------------------------------------

    def add(self, *scripts, batch=BATCH, start=0, **fields):
        """Add shell jobs, that are complete when they exit 0; a field that is a function gets the JobIndex."""
        made = []
        for index, script in enumerate(scripts, start):
            job = {**psu.get_job_template(), "resources": {}, "queue": "", "data": None, "name": "story"}
            job.update(BatchID=batch, JobIndex=index, script=script, complete_on_exit=True)
            job.update({key: value(index) if callable(value) else value for key, value in fields.items()})
            made.append(job)
        psu.add_job_to_queue(made)

    def says(self, *words, then=""):
        """Return a command line that appends words to the file of lines, in one write; ``$J`` is the job's index."""
        return f'J=$PARASCHUT_JOBINDEX; echo "{" ".join(words)}" >> "$LINES"; {then}'

    def lines(self):
        """Return the lines that jobs have appended so far."""
        return self.lines_file.read_text("utf-8").splitlines() if self.lines_file.exists() else []

    # -- the index ----------------------------------------------------------------------------------------------

    def query(self, sql, *values):
        """Return the rows of a query, as dicts."""
        with contextlib.closing(sqlite3.connect(self.index, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def change(self, sql, *values):
        """Change rows behind everybody's back."""
        with contextlib.closing(sqlite3.connect(self.index, timeout=60)) as connection, connection:
            connection.execute(sql, values)

    def states(self, batch=BATCH):
        """Return the states of a batch's jobs, by index."""
        rows = self.query('SELECT "JobIndex", state FROM job WHERE "BatchID"=? ORDER BY 1', batch)
        return {row["JobIndex"]: row["state"] for row in rows}

    def failures(self, batch=BATCH):
        """Return why jobs are missing, by index."""
        rows = self.query(
            'SELECT "JobIndex", failure FROM job WHERE "BatchID"=? AND failure IS NOT NULL ORDER BY 1', batch
        )
        return {row["JobIndex"]: row["failure"] for row in rows}

    def attempts(self, batch=BATCH, **having):
        """Return the attempts of a batch."""
        rows = self.query('SELECT * FROM attempt WHERE "BatchID"=? ORDER BY "JobIndex", n', batch)
        return [row for row in rows if all(row[key] == value for key, value in having.items())]

    def count(self, state, batch=BATCH):
        """Return how many jobs of a batch are in a state."""
        return sum(one == state for one in self.states(batch).values())

    def told(self):
        """Return what to look at when a story does not end: states, reasons, what the agent wrote before it died."""
        log = self.home / "jobs" / "agent"
        logs = [path.read_text("utf-8") for path in log.glob("*/agent.log")]
        rows = self.query('SELECT "BatchID", state, failure, count(*) AS n FROM job GROUP BY 1, 2, 3')
        return f"Jobs: {rows}; agent: {self.agent()}; agent.log: {''.join(logs)[-3000:]}"

    def until(self, condition, seconds=60):
        """Wait until a condition holds, and return what it gave."""
        return until(condition, seconds, self.told)

    def until_complete(self, batch=BATCH, seconds=60):
        """Wait until all jobs of a batch are complete."""
        self.until(lambda: set(self.states(batch).values()) == {"complete"}, seconds)

    def until_lines(self, number, seconds=60):
        """Wait until the jobs have appended so many lines."""
        return self.until(lambda: (lines := self.lines()) and len(lines) >= number and lines, seconds)

    # -- processes ----------------------------------------------------------------------------------------------

    def agent(self):
        """Return the pid of the agent that lives, or None."""
        if not os.path.exists(self.index):
            return None
        for row in self.query("SELECT host, pid, boot_id, start_ticks FROM agent"):
            if is_alive(Identity(*row.values())):
                return row["pid"]
        return None

    def kill_agent(self):
        """Kill the agent and wait until it is gone; return its pid, or None if there was none."""
        pid = self.agent()
        if pid is not None:
            kill(pid)
            until(lambda: self.agent() != pid)
        return pid

    def wrapper(self, index=0, batch=BATCH):
        """Return the pid of the process around a running job."""
        row = self.attempts(batch, JobIndex=index, ended=None)[-1]
        return int(row["process"].partition(":")[0])

    def of_job(self, index=0, batch=BATCH):
        """Return the processes of a job, wherever they have gone."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environ = process.environ()
                mine = environ.get("PARASCHUT_INDEX") == self.index
                if mine and (environ.get("PARASCHUT_BATCHID"), environ.get("PARASCHUT_JOBINDEX")) == (
                    str(batch),
                    str(index),
                ):
                    found.append(process)
        return found

    def mine(self):
        """Return all processes that live because of this test, but not this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                environ = process.environ()
                if environ.get(MARK) == self.mark or environ.get("PARASCHUT_INDEX") == self.index:
                    found.append(process)
        return found

    def python(self, program, *arguments, env=None, **options):
        """Start Python text as a process of its own, and return it."""
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=options.pop("cwd", self.home),
            env={**os.environ, **(env or {})},
            **options,
        )

    def end_all(self):
        """End all that this test has started, and remove the index's folder below /tmp."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.paths.local())

        def none_left():
            for process in (left := self.mine()):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return not left

        until(none_left)
