"""The places where jobs run, as one story sees them: the same words for each executor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import psutil
from helpers import BATCH, World

import paraschut as psu
from paraschut.errors import NotFoundError

#: What makes a job wait in the queue for ever, and what a script's line for the scheduler looks like.
HOLD = {"slurm": "--hold", "sge": "-h", "pbs": "-h"}
PREFIX = {"slurm": "#SBATCH", "sge": "#$", "pbs": "#PBS"}


class Site:
    """One executor, an index, and what a person does with them."""

    def __init__(self, world: World, executor: str, cluster=None) -> None:
        self.world, self.executor, self.cluster = world, executor, cluster
        self.by_hand: list[subprocess.Popen] = []

    @property
    def scheduled(self):
        """Whether there is a scheduler."""
        return self.executor in HOLD

    def submit(self, **more):
        """Make a pass."""
        done = psu.submit_jobs(self.executor, Verbose=False, **more)
        if done.count:
            self.run_by_hand()
        return done

    def run_by_hand(self):
        """Run the script of the file executor in the background, as a person may."""
        script = self.world.home / "jobs" / "jobs.sh"
        if self.executor == "file" and script.exists():
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self.by_hand.append(subprocess.Popen(["sh", script], **quiet))

    def look(self):
        """Look at the queue, which folds what is known; return it."""
        return psu.get_queue(Verbose=False)

    def tend(self):
        """Do what is left to people: look, and with the file executor submit and run what comes next."""
        if self.executor == "file":
            with contextlib.suppress(psu.ParaschutError):
                self.submit()
        return self.look()

    def until(self, condition, seconds=90):
        """Tend until a condition holds, and return what it gave."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{self.world.told()} {self.told()}"
            self.tend()
            time.sleep(0.2)
        return found

    def told(self):
        """Return what else to look at when a story does not end."""
        logs = [path.read_text() for path in self.world.home.glob("jobs/submissions/closers.log")]
        queue = self.listed() if self.scheduled else []
        return f"attempts: {self.world.attempts()}; queue: {queue}; closers: {''.join(logs)[-3000:]}"

    def until_complete(self, batch=BATCH, seconds=90):
        """Wait until all jobs of a batch are complete."""
        self.until(lambda: set(self.world.states(batch).values()) == {"complete"}, seconds)

    def until_missing(self, *indices, batch=BATCH):
        """Wait until these jobs are shown missing; return why, by index."""
        self.until(lambda: set(self.world.failures(batch)) == set(indices))
        return self.world.failures(batch)

    def until_rests(self):
        """Wait until nothing of this index is queued or runs."""
        self.until(lambda: all(attempt["ended"] for attempt in self.world.query("SELECT ended FROM attempt")))
        self.until(lambda: not self.online())

    # -- the scheduler ------------------------------------------------------------------------------------------

    def ids(self):
        """Return the scheduler's ids of all that was submitted from this index."""
        rows = self.world.query("SELECT cluster_id, closer FROM submission")
        known = [one for row in rows for one in row.values() if one]
        return {one.split("_")[0].split(".")[0].split("[")[0] for one in known}

    def listed(self):
        """Return what the scheduler lists of this index and has not ended."""
        from paraschut.executors.choice import executor_of

        executor = executor_of(self.executor, psu.config.load_config())
        tokens = {row["token"] for row in self.world.query("SELECT token FROM submission")}
        rows = executor.ask()
        return [row for row in rows if row.kind != "ended" and row.name.rpartition(".")[2] in tokens]

    def online(self):
        """Return what still waits or runs."""
        return self.listed() if self.scheduled else []

    def end(self):
        """End what this story has started."""
        for process in self.by_hand:
            process.kill()
            process.wait()
        if self.scheduled and os.path.exists(self.world.index):
            from paraschut.executors.choice import executor_of

            with contextlib.suppress(psu.ParaschutError):
                jobs = sorted({row.job for row in self.listed()})
                executor_of(self.executor, psu.config.load_config()).delete_jobs(jobs)
        self.world.end_all()


def cluster_id(site, index=0):
    """Return the scheduler's id of the last attempt of a job."""
    return psu.get_job_info(BATCH, index)["ClusterID"][-1]


def qstat(site, index=0):
    """Return what the scheduler says of the last attempt of a job."""
    with contextlib.suppress(NotFoundError):
        return psu.get_qstat(cluster_id(site, index))
    return {}


def starts(lines):
    """Return how often each job started, from lines whose last word is its index."""
    found = {}
    for line in lines:
        index = int(line.split()[-1])
        found[index] = found.get(index, 0) + 1
    return found


def gone(process):
    """Return whether a process has ended."""
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def configure(world, **settings):
    """Write the configuration of a world."""
    given = {"grace": 1.0, "queue_age": 0.3, "command_timeout": 30.0, **settings}
    lines = "".join(f"{key} = {str(value).lower()}\n" for key, value in given.items())
    (world.home / "config.toml").write_text(
        '[paraschut]\njob_dir = "jobs"\nenvironment = ["PATH", "HOME", "LANG", "PYTHONPATH", "LINES"]\n'
        + lines,
        "utf-8",
    )
