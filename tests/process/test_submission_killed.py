"""The process that submits is killed at any moment: after the next pass each job was submitted once."""

from __future__ import annotations

import signal
import subprocess

import pytest

import paraschut as psu

pytestmark = pytest.mark.process

#: Submits in children that it kills at random moments; each child is a copy of one that has imported everything.
RANDOM = """
import os, random, signal, sys, time
import paraschut as psu
from paraschut import dispatch, fold
from paraschut.executors import file, local, slurm

chance = random.Random(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        try:
            psu.submit_jobs(sys.argv[1], MaxJobs=1000, Filter=f"JobIndex % 7 == {chance.randrange(7)}", Verbose=False)
        finally:
            os._exit(0)
    time.sleep(chance.random() * 0.04)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""

#: Kills itself before or after the first call of a function.
AT = """
import importlib, os, signal, sys
import paraschut as psu

executor, when, module, *names = sys.argv[1:]
owner = importlib.import_module(module)
for name in names[:-1]:
    owner = getattr(owner, name)
real = getattr(owner, names[-1])

def fatal(*given, **more):
    if when == "after":
        real(*given, **more)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, names[-1], fatal)
psu.submit_jobs(executor, Verbose=False)
"""
STORE = ("paraschut.store.store", "Store")
LOCAL = ("paraschut.executors.local", "LocalJobExecutor")


def run_by_hand(world):
    """Run the script of the file executor, twice, as a person may."""
    for _ in range(2):
        subprocess.run(["sh", world.home / "jobs" / "jobs.sh"], check=True, capture_output=True, timeout=120)


def once(world, number):
    """Return whether each job ran once, in one attempt that was not released."""
    assert sorted(map(int, world.lines())) == list(range(number))
    ran = [row["JobIndex"] for row in world.attempts() if row["started"] is not None]
    assert sorted(ran) == list(range(number))


@pytest.mark.parametrize(
    "where",
    [
        ("before", *STORE, "claim"),
        ("after", *STORE, "claim"),
        ("before", *LOCAL, "submit"),
        ("before", *LOCAL, "start_agent"),
        ("after", *LOCAL, "start_agent"),
    ],
    ids=" ".join,
)
def test_the_submitter_of_local_jobs_is_killed(world, where):
    """The claim is the submission; what is lost is at most the start of the agent."""
    world.add(*[world.says("$J")] * 5)
    assert world.python(AT, "local", *where).wait(60) == -signal.SIGKILL
    psu.submit_jobs("local", Verbose=False)
    world.until_complete()
    once(world, 5)
    assert len(world.attempts()) == 5


@pytest.mark.parametrize(
    "where",
    [
        ("before", *STORE, "claim"),
        ("after", *STORE, "claim"),
        ("before", "paraschut.executors.file", "_write_runner"),
        ("after", "paraschut.executors.file", "_write_runner"),
        ("before", "paraschut.executors.script", "write_beside"),
        ("before", "paraschut.executors.file", "_append"),
        ("after", "paraschut.executors.file", "_append"),
        ("before", *STORE, "record"),
        ("after", *STORE, "record"),
    ],
    ids=" ".join,
)
def test_the_submitter_of_a_script_is_killed(world, where):
    """Whatever was written by then: the next pass goes on from there, and the script runs each job once."""
    world.add(*[world.says("$J")] * 5)
    assert world.python(AT, "file", *where).wait(60) == -signal.SIGKILL
    psu.submit_jobs("file", Verbose=False)
    assert set(world.states().values()) == {"submit"}
    run_by_hand(world)
    psu.submit_jobs("file", Verbose=False)
    once(world, 5)
    assert set(world.states().values()) == {"complete"}


@pytest.mark.parametrize("executor", ["local", "file"])
def test_submitters_are_killed_at_random_moments(world, executor):
    """Twenty of them, each in the middle of a pass over a part of the jobs."""
    world.add(*[world.says("$J")] * 70)
    assert world.python(RANDOM, executor, 3, 20).wait(120) == 0
    psu.submit_jobs(executor, Verbose=False)
    assert "init" not in world.states().values()
    if executor == "file":
        run_by_hand(world)
        psu.submit_jobs(executor, Verbose=False)
    world.until_complete()
    once(world, 70)


def test_a_job_is_never_missing_before_its_script_is_run(world):
    """Nobody has to hurry to run what the file executor wrote."""
    (world.home / "config.toml").write_text(
        (world.home / "config.toml").read_text("utf-8") + "grace = 0.0\n", "utf-8"
    )
    world.add(*[world.says("$J")] * 3)
    psu.submit_jobs("file", Verbose=False)
    for _ in range(3):
        psu.get_queue(Verbose=False, ResetMissing=True)
    assert set(world.states().values()) == {"submit"}
    assert not world.failures()
    run_by_hand(world)
    psu.get_queue(Verbose=False)
    assert set(world.states().values()) == {"complete"}
