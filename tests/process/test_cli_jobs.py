"""Shell jobs that use the command line, and people who use it on them, with an agent and real processes."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys

import psutil
import pytest
from helpers import BATCH, until

pytestmark = pytest.mark.process

#: The program, as a shell job calls it where the package need not be installed.
PROGRAM = f"{shlex.quote(sys.executable)} -m paraschut"

#: Takes the terminal as its own, so that Ctrl-C reaches it, and becomes the program.
AT_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("paraschut", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def shell(world):
    """Return a function that runs the program; it returns what was printed, and the test fails if it failed."""

    def run(*words, status=0):
        told = subprocess.run(
            [sys.executable, "-m", "paraschut", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert told.returncode == status, told.stderr
        return told.stdout if status == 0 else told.stderr

    return run


def test_shell_jobs_find_themselves_and_open_the_next_group(world, shell):
    """They read their fields, tell their progress, keep values, and the last one submits what comes next."""
    square = f"""
        set -e
        n=$({PROGRAM} job info n)
        echo "I have $n"
        {PROGRAM} job progress 0.5 "half of $n"
        {PROGRAM} job complete --submit --set square=$((n * n)) --set "word=number $n"
    """
    world.add(square, square, square, n=lambda index: index + 2, complete_on_exit=False)
    world.add(world.says("after"), start=3, priority=0.5)
    assert shell("submit") == "submitted 3 jobs of 1 batch\n"
    world.until_complete()
    assert world.lines() == ["after"]
    told = json.loads(shell("queue", "last", "--json"))[str(BATCH)]
    assert [job.get("square") for job in told] == [4, 9, 16, None]
    assert told[1]["word"] == "number 3"
    assert (told[1]["progress"], told[1]["progress_message"]) == (0.5, "half of 3")
    assert shell("log", "last:1") == "I have 3\n"
    assert "I have 4" in shell("log", "last", "--regex", "4")
    # The job said 'complete' itself; that its process has ended is written down a moment later.
    ended = until(
        lambda: (found := json.loads(shell("history", "last:1", "--json")))["attempts"][0]["ended"] and found
    )
    assert ended["attempts"][0]["code"] == 0
    assert "exit code 0" in shell("history", "last:1")


def test_a_job_that_asks_for_a_field_it_does_not_have_fails_with_a_reason(world, shell):
    """Because the command fails, and the script minds it; and it can be sent again when that is mended."""
    world.add(f"n=$({PROGRAM} job info n) || exit 9; {PROGRAM} job complete", complete_on_exit=False)
    shell("submit")
    world.until(world.failures)
    assert world.failures() == {0: "exit code 9"}
    assert "has no field 'n'" in shell("log", "last:0", "--stderr")
    assert "exit code 9: 0" in shell("queue", "--state", "missing")
    assert "has no field 'n'" in shell("queue", "--report-missing")
    assert shell("reset", "--filter", "failure IS NOT NULL", "--yes") == "Set 1 job to 'init'.\n"
    assert world.states() == {0: "init"}


def test_cancelled_jobs_end_with_all_that_they_started(world, shell):
    """And are held until somebody resets them."""
    world.add(world.says("start", then="sleep 600 & wait"))
    shell("submit")
    world.until_lines(1)
    assert shell("cancel", "last", "--yes") == "Took 1 job off the queue, to 'held'.\n"
    world.until(lambda: not world.of_job())
    assert world.states() == {0: "held"}
    world.until(lambda: world.attempts()[0]["ended"])
    assert "cancelled" in shell("history", "last:0")
    assert shell("remove", "last", "--yes") == "Removed 1 batch.\n"
    assert json.loads(shell("queue", "--json")) == {}


def test_the_submitter_ends_on_a_signal_and_there_is_only_one(world, shell):
    """In the middle of its pause, with its last words."""
    world.add("true")
    first = subprocess.Popen(
        [sys.executable, "-m", "paraschut", "submitter", "--period", "60"], stdout=subprocess.PIPE, text=True
    )
    try:
        # Its lines come at once, also into a pipe: somebody may follow them.
        assert first.stdout.readline() == "submitted 1 job of 1 batch\n"
        assert "Another periodic_submitter runs" in shell("submitter", "-n", "1", status=1)
        first.send_signal(signal.SIGINT)
        assert first.communicate(timeout=60)[0] == "Ended after 1 pass.\n"
        assert first.returncode == 0
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1), (b"\x03", 130)])
def test_a_person_is_asked_at_a_terminal(world, answer, status):
    """And may answer, or press Ctrl-C."""
    world.add("true")
    person, terminal = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, "remove", "last"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        seen = b""
        while b"Go on? [y/N]: " not in seen:
            seen += os.read(person, 1000)
        # A signal between the question and the wait for an answer would be noticed at the next key only.
        until(lambda: psutil.Process(command.pid).status() == psutil.STATUS_SLEEPING)
        os.write(person, answer)
        assert command.wait(timeout=60) == status
    finally:
        command.kill()
        command.wait()
        os.close(person)
    assert b"remove 1 job of 1 batch for good" in seen
    assert len(world.query("SELECT 1 FROM job")) == (0 if status == 0 else 1)
