"""The terminal is closed while jobs run: they do not notice."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sys

import psutil
import pytest
from helpers import kill, until

import paraschut as psu

pytestmark = pytest.mark.process

SUBMIT = "import paraschut as psu; print(psu.submit_jobs(Verbose=False)); input()"


@contextlib.contextmanager
def terminal(world, *command):
    """Run a command as the leader of a session with a terminal of its own; give its pid and the other end."""
    pid, end = pty.fork()
    if pid == 0:
        os.chdir(world.home)
        os.execv(command[0], command)
    try:
        yield pid, end
    finally:
        kill(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            os.close(end)


def said(end, words):
    """Read from a terminal until words come."""
    found = b""
    while words not in found:
        found += os.read(end, 4096)


def session(leader):
    """Return the processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader:
                found.append(process.pid)
    return found


@pytest.mark.parametrize("how", ["hang up", "kill", "close"])
def test_the_terminal_is_closed(world, how):
    """The shell and all in its session get SIGHUP, are killed, or lose their terminal: all groups still run."""
    script = world.says("$J", then="sleep 0.5")
    world.add(*[script] * 6, priority=lambda index: 3 - index // 2)
    shell = "/bin/bash"
    with terminal(world, shell, "-c", f"{sys.executable} -c '{SUBMIT}'; exit") as (leader, end):
        said(end, b"submitted 2 jobs")
        world.until_lines(1)
        if how == "close":
            os.close(end)
        else:
            number = signal.SIGHUP if how == "hang up" else signal.SIGKILL
            for pid in session(leader):
                kill(pid, number)
        os.waitpid(leader, 0)
        until(lambda: not session(leader))
    world.until_complete()
    assert len(world.lines()) == 6
    assert {row["n"] for row in world.attempts()} == {1}


def test_ctrl_c_ends_who_submitted_and_no_job(world):
    """The interrupt of the terminal goes to those in its foreground, and jobs are not."""
    world.add(*[world.says("$J", then="sleep 1; " + world.says("end"))] * 2)
    with terminal(world, sys.executable, "-c", SUBMIT) as (leader, end):
        said(end, b"submitted 2 jobs")
        world.until_lines(1)
        os.write(end, b"\x03")
        said(end, b"KeyboardInterrupt")
        os.waitpid(leader, 0)
    world.until_complete()
    assert len(world.lines()) == 4


def test_jobs_have_no_terminal(world):
    """They cannot wait for somebody to type."""
    world.add("cat > typed; tty > tty; true")
    with terminal(world, sys.executable, "-c", SUBMIT) as (_, end):
        said(end, b"submitted 1 job")
        world.until_complete()
    assert (world.home / "typed").read_text("utf-8") == ""
    assert (world.home / "tty").read_text("utf-8") == "not a tty\n"


def test_a_notebook_is_restarted(world):
    """The process that submitted is killed with its children, as a kernel is."""
    world.add(*[world.says("$J", then="sleep 0.5")] * 4, priority=lambda index: 2 - index // 2)
    kernel = world.python("import time, paraschut as psu; psu.submit_jobs(Verbose=False); time.sleep(1000)")
    try:
        world.until_lines(1)
        for process in [*psutil.Process(kernel.pid).children(recursive=True), psutil.Process(kernel.pid)]:
            kill(process.pid)
    finally:
        kernel.kill()
        kernel.wait()
    world.until_complete()
    assert len(psu.get_queue(Verbose=False)) == 1
