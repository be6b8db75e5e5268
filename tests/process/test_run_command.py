"""``paraschut run`` with real commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process


def paraschut(*words, given=""):
    command = [sys.executable, "-m", "paraschut", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, input=given)


def test_lines_become_jobs_that_run_and_one_waits_for_them(world, home):
    done = paraschut(
        "run", "--wait", "--each-line", "-", "--", "sh", "-c", "echo $0 > out.$0", "{}", given="one\ntwo\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.read_text() for path in home.glob("out.*")) == ["one\n", "two\n"]


def test_what_fails_is_told_by_the_exit_status(world):
    done = paraschut("run", "--wait", "--json", "--array", "0-1", "--", "test", "{}", "=", "0")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["jobs"], told["submitted"]) == ([0, 1], 2)
    assert "1 job of 2 not completed" in done.stderr
    found = paraschut("queue", "last")
    assert "exit code 1: 1" in found.stdout
