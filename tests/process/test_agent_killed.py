"""The agent, a wrapper, a job, the launcher is killed, at any moment: nothing runs twice, nothing is lost."""

from __future__ import annotations

import random
import signal
import time

import psutil
import pytest
from helpers import BATCH, kill, until

import paraschut as psu
from paraschut.store import views

pytestmark = pytest.mark.process


def test_the_agent_is_killed_while_eight_jobs_run(world):
    """They go on, the next agent is started by them, and those that waited run as well."""
    script = world.says(
        "start", "$J", then="until [ -e go ]; do sleep 0.05; done; " + world.says("end", "$J")
    )
    world.add(*[script] * 20)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=8, cpus=8), Verbose=False)
    world.until_lines(8)
    first = world.kill_agent()
    second = world.until(world.agent)
    assert second != first
    (world.home / "go").touch()
    world.until_complete()
    assert sorted(world.lines()) == sorted(
        f"{what} {index}" for what in ("start", "end") for index in range(20)
    )
    assert [row["n"] for row in world.attempts()] == [1] * 20
    assert {row["code"] for row in world.attempts()} == {0}


def test_the_agent_is_killed_again_and_again(world):
    """Twenty times at random moments of sixty short jobs: each runs once, and nobody calls anything."""
    chance = random.Random(1)
    world.add(*[world.says("$J", then="sleep 0.25")] * 60)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    for _ in range(20):
        if set(world.states().values()) == {"complete"}:
            break
        world.until(world.agent)
        time.sleep(chance.random() * 0.3)
        world.kill_agent()
    world.until_complete(seconds=60)
    assert sorted(map(int, world.lines())) == list(range(60))
    assert {row["n"] for row in world.attempts()} == {1}


def test_the_agent_is_killed_when_nothing_runs_yet(world):
    """Jobs wait, none runs, and the agent is killed at some moment of its first half second."""
    for index in range(8):
        world.add(world.says("$J"), start=index)
        psu.submit_jobs(Verbose=False)
        world.until(world.agent)
        time.sleep(0.01 * index)
        world.kill_agent()
        world.until_complete()
    assert sorted(map(int, world.lines())) == list(range(8))


def test_the_next_agent_starts_whatever_lies_in_the_folder_of_a_job(world):
    """Files named like modules of the standard library must not be taken for them."""
    folder = world.home / "mine"
    folder.mkdir()
    for name in ("json", "socket", "sqlite3", "paraschut"):
        (folder / f"{name}.py").write_text("raise SystemExit('this is not what you think')", "utf-8")
    world.add(*[world.says("$J", then="until [ -e go ]; do sleep 0.05; done")] * 3, workdir=str(folder))
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=1), Verbose=False)
    world.until_lines(1)
    first = world.kill_agent()
    world.until(lambda: world.agent() not in {None, first})
    (folder / "go").touch()
    world.until_complete()
    assert sorted(world.lines()) == ["0", "1", "2"]


def test_a_job_that_is_killed_is_missing(world):
    """Its own process gets a signal: the verdict says which, and the others go on."""
    world.add("echo $$ > pid; sleep 1000", *[world.says("$J")] * 3)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    pid = world.until(lambda: (world.home / "pid").exists() and (world.home / "pid").read_text("utf-8"))
    kill(int(pid))
    world.until(world.failures)
    assert world.failures() == {0: "signal 9 (SIGKILL)"}
    world.until(lambda: world.count("complete") == 3)
    assert world.attempts(JobIndex=0)[0]["signal"] == 9
    world.until(lambda: not world.of_job(0))


def test_a_wrapper_that_is_killed_takes_its_job_along(world):
    """What it watched over ends, the job is missing, and runs again once when it is reset."""
    world.add(world.says("$J", then="[ -e go ] || sleep 1000"), world.says("$J"))
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until_lines(2)
    world.until(lambda: world.count("complete") == 1)
    agent = world.agent()
    kill(world.wrapper(0))
    world.until(world.failures)
    assert world.failures() == {0: "vanished"}
    world.until(lambda: not world.of_job(0))
    assert world.agent() == agent
    (world.home / "go").touch()
    psu.get_queue(Verbose=False, ResetMissing=True)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert sorted(world.lines()) == ["0", "0", "1"]
    assert [row["n"] for row in world.attempts(JobIndex=0)] == [1, 2]


def test_many_reset_what_is_missing_at_once(world):
    """Processes see the same missing jobs, reset them and submit: each runs again exactly once."""
    world.add(*[world.says("$J", then="[ -e go ] && sleep 1")] * 4)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until(lambda: len(world.failures()) == 4)
    (world.home / "go").touch()
    text = "import sys, paraschut as psu; print('ready', flush=True); sys.stdin.readline(); "
    text += "psu.get_queue(Verbose=False, ResetMissing=True); psu.submit_jobs(Verbose=False)"
    processes = [world.python(text, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    world.until_complete()
    assert sorted(world.lines()) == sorted(["0", "1", "2", "3"] * 2)
    assert {row["n"] for row in world.attempts()} == {1, 2}


def test_what_was_missing_runs_again_before_it_is_reset(world, monkeypatch):
    """Another process was faster: the attempt that it submitted is left alone."""
    world.add(world.says("$J", then="[ -e go ] && until [ -e on ]; do sleep 0.05; done"))
    psu.submit_jobs(Verbose=False)
    world.until(world.failures)
    (world.home / "go").touch()
    look = views.missing

    def look_and_be_overtaken(*given):
        found = look(*given)
        monkeypatch.setattr(views, "missing", look)
        psu.set_job_field(BATCH, 0)
        psu.submit_jobs(Verbose=False)
        world.until_lines(2)
        return found

    monkeypatch.setattr(views, "missing", look_and_be_overtaken)
    psu.get_queue(Verbose=False, ResetMissing=True)
    assert world.states() == {0: "run"}
    (world.home / "on").touch()
    world.until_complete()
    assert len(world.lines()) == len(world.attempts()) == 2


def test_a_wrapper_dies_while_there_is_no_agent(world):
    """A pass that judges in place of the agent ends what the wrapper left, before the job may run again."""
    world.add(world.says("$J", then="sleep 1000"))
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    wrapper, agent = world.wrapper(0), world.agent()
    for process in world.of_job(0):
        assert process.is_running()
    kill(wrapper, signal.SIGSTOP)  # so that it does not start the next agent
    for process in world.mine():
        if process.ppid() == agent:
            kill(process.pid)  # nor does the launcher
    kill(agent)
    until(lambda: world.agent() is None)
    kill(wrapper)
    until(lambda: not psutil.pid_exists(wrapper))
    psu.get_queue(Verbose=False, ResetMissing=True)
    assert world.states() == {0: "init"}
    world.until(lambda: not world.of_job(0))


def test_the_launcher_is_killed(world):
    """The agent starts another one; jobs neither notice nor are lost."""
    world.add(*[world.says("$J", then="sleep 0.2")] * 12)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=3, cpus=3), Verbose=False)
    world.until_lines(2)
    agent = world.agent()
    for process in psutil.Process(agent).children():
        kill(process.pid)
    world.until_complete()
    assert world.agent() == agent
    assert sorted(map(int, world.lines())) == list(range(12))


def test_the_machine_is_restarted(world):
    """Nobody can have survived: what ran is missing, and says so; what waited runs."""
    world.add(world.says("$J", then="[ -e go ] || sleep 1000"), world.says("$J"))
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=1), Verbose=False)
    world.until_lines(1)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody has the time to start an agent
        for process in world.mine():
            kill(process.pid, number)
    until(lambda: not world.mine())
    world.change(
        "UPDATE attempt SET process=substr(process, 1, instr(process, ':')) || '1:another boot' WHERE started"
    )
    world.change("UPDATE agent SET boot_id='another boot'")
    world.change("UPDATE submission SET boot_id='another boot'")
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.states()[1] == "complete")
    assert world.failures() == {0: "node failure (the machine was restarted)"}
    (world.home / "go").touch()
    psu.get_queue(Verbose=False, ResetMissing=True)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert sorted(world.lines()) == ["0", "0", "1"]
