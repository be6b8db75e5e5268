"""The agent leaves when there is nothing to do, and what is submitted at that very moment is not lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import time

import psutil
import pytest
from helpers import BATCH, kill, until

import paraschut as psu
from paraschut.process import boot_id, host_name

pytestmark = pytest.mark.process

#: An agent that leaves after so many seconds without work.
SHORT = """
import json, os, sys, time
from paraschut import dispatch
from paraschut.agent import agent, __main__
from paraschut.agent.limits import capacity_of

agent.LINGER = agent.REST = agent.SAFETY = float(os.environ["LINGER"])
real = agent.Agent._may_leave


def slow(self):
    leaves = real(self)
    if leaves and os.path.exists(os.environ["DOOR"]):
        open(os.environ["DOOR"] + ".reached", "w").close()
        while os.path.exists(os.environ["DOOR"]):
            time.sleep(0.01)
    return leaves


agent.Agent._may_leave = slow
real_pass = dispatch.go_on


def slow_pass(index):
    time.sleep(float(os.environ["PASS_TAKES"]))
    made = real_pass(index)
    open(os.environ["DOOR"] + ".passed", "a").close()
    return made


dispatch.go_on = slow_pass
__main__.main()
"""


@pytest.fixture
def short(world, monkeypatch, tmp_path):
    """Let all agents linger only for a moment: the interpreter that starts them is a small script."""
    program = tmp_path / "python"
    (tmp_path / "short.py").write_text(SHORT, "utf-8")
    program.write_text(
        f"""#!/bin/sh
case " $* " in
    *" paraschut.agent "*)
        while [ "$1" != paraschut.agent ]; do shift; done
        shift
        exec {sys.executable} '{tmp_path}/short.py' "$@" ;;
esac
exec {sys.executable} "$@"
""",
        "utf-8",
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("LINGER", "0.03")
    monkeypatch.setenv("PASS_TAKES", "0")
    monkeypatch.setenv("DOOR", str(tmp_path / "door"))
    return world


def test_what_is_submitted_when_the_agent_has_decided_to_leave(short, tmp_path):
    """It has written down that it leaves, and lives on for a moment: it is not told, but the next one started."""
    door, reached = tmp_path / "door", tmp_path / "door.reached"
    door.touch()
    short.add(short.says("$J"))
    psu.submit_jobs(Verbose=False)
    short.until(reached.exists)
    short.add(short.says("$J"), start=1)
    psu.submit_jobs(Verbose=False)
    door.unlink()
    short.until_complete()


def test_what_is_submitted_while_the_agent_leaves_is_not_lost(short):
    """Again and again, at moments around that of its leave."""
    agents = set()
    for index in range(15):
        short.add(short.says("$J"), start=index)
        psu.submit_jobs(Verbose=False)
        short.until_complete(seconds=20)
        agents.add(short.query("SELECT pid FROM agent")[0]["pid"])
        time.sleep(0.02 + 0.001 * (index % 40))
    assert sorted(map(int, short.lines())) == list(range(15))
    assert len(agents) > 3


def test_it_does_not_leave_while_a_pass_is_put_off(short, tmp_path, monkeypatch):
    """A pass that found nothing took long, so the next one is put off for longer than an idle agent stays."""
    monkeypatch.setenv("PASS_TAKES", "0.2")
    first = short.says("$J", then="until [ -e one ]; do sleep 0.05; done")
    short.add(first, short.says("$J"), priority=lambda index: 2 - index)
    psu.submit_jobs(Verbose=False)
    short.until_lines(1)
    short.add(short.says("$J", then="until [ -e go ]; do sleep 0.05; done"), priority=101, batch=BATCH + 1)
    psu.submit_jobs(Verbose=False)
    short.until_lines(2)
    # What is free now is held back by the job above 100: the pass finds nothing.
    (short.home / "one").touch()
    short.until((tmp_path / "door.passed").exists)
    (short.home / "go").touch()
    short.until_complete()


def test_it_leaves_nothing_behind(short):
    """No process, no socket, no file of ends; the index can be moved."""
    short.add(*[short.says("$J", then="echo word")] * 5)
    psu.submit_jobs(Verbose=False)
    short.until_complete()
    short.until(lambda: not short.mine())
    (folder,) = (short.home / "jobs" / "agent").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert not os.path.exists(short.paths.local() + "/wake")
    assert sorted(os.listdir(short.home / "jobs")) == [str(BATCH), "agent", "index.db"]


def test_it_leaves_when_the_index_is_removed(world):
    """Somebody removes the folder while a job runs: the agent goes, and a new index has a new agent."""
    world.add(world.says("$J", then="until [ -e go ]; do sleep 0.05; done"))
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    first = world.agent()
    shutil.rmtree(world.home / "jobs")
    until(lambda: not psutil.pid_exists(first))
    world.add(*[world.says("new")] * 3, batch=BATCH + 1)
    psu.submit_jobs(Verbose=False)
    world.until_complete(BATCH + 1)
    (world.home / "go").touch()
    assert world.lines().count("new") == 3


def test_it_leaves_when_another_index_has_taken_the_place(world):
    """The same path, another file: two agents must not share it."""
    world.add(world.says("$J", then="until [ -e go ]; do sleep 0.05; done"))
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    first = world.agent()
    kill(first, signal.SIGSTOP)
    shutil.rmtree(world.home / "jobs")
    world.add(*[world.says("new", then="sleep 0.2")] * 5, batch=BATCH + 1)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.agent() not in {None, first})
    kill(first, signal.SIGCONT)
    until(lambda: not psutil.pid_exists(first))
    world.until_complete(BATCH + 1)
    (world.home / "go").touch()
    assert world.lines().count("new") == 5


def test_it_outlives_somebody_who_holds_the_index(world):
    """Longer than the time limit: it waits on, and goes on with what waits."""
    (world.home / "config.toml").write_text(
        (world.home / "config.toml").read_text("utf-8") + "lock_timeout = 0.5\n", "utf-8"
    )
    world.add(*[world.says("$J", then="sleep 0.2")] * 4)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=1), Verbose=False)
    world.until_lines(1)
    holder = sqlite3.connect(world.index, isolation_level=None, timeout=60)
    try:
        holder.execute("BEGIN IMMEDIATE")
        time.sleep(2)  # several times the limit
        holder.execute("ROLLBACK")
    finally:
        holder.close()
    world.until_complete()
    assert len(world.lines()) == 4


def test_a_broken_line_among_the_ends_harms_nobody(world):
    """Half a line, as a full disk leaves it: the others are read, passes go on, and so does the agent."""
    world.add(world.says("$J", then="sleep 1000"), *[world.says("$J")] * 2)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until(lambda: world.count("complete") == 2)
    world.kill_agent()
    world.end_all()
    folder = world.paths.agent(host_name())
    line = {"process": f"1:1:{boot_id()}", "key": [BATCH, 9, 1], "code": 0}
    with open(f"{folder}/ends.1.1", "w", encoding="utf-8") as file:
        file.write(
            json.dumps(line)[:20] + json.dumps(line)[:50] + "\n[]\n\n7\n{}\n\xff\n" + json.dumps(line) + "\n"
        )
    world.add(world.says("$J"), start=3)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.states()[3] == "complete")
    assert world.failures() == {0: "vanished"}
