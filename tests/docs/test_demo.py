"""The demo as somebody meets it: with batches of their own in the same index, and a terminal that is closed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import paraschut as psu
from paraschut import demo
from paraschut.errors import ParaschutError

pytestmark = pytest.mark.process
DONE = {"complete", "collected"}


def prepared(**fields):
    """Prepare a batch that nobody has submitted yet."""
    job = psu.get_job_template(SetID=True) | {"script": "true", "resources": {}, **fields}
    psu.add_batch_to_queue(job["BatchID"], [job], set_index=True)
    return job["BatchID"]


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, psu.get_queue(Verbose=False)
        time.sleep(0.05)
    return found


def states(batch):
    return [job["state"] for job in psu.get_queue(Verbose=False).get(batch, [])]


def test_it_is_finished_although_its_terminal_was_closed_and_starts_nothing_else(playground):
    mine = prepared(name="mine")
    terminal = subprocess.Popen(
        [sys.executable, "-m", "paraschut", "demo", "--models", "2"], stdout=subprocess.DEVNULL
    )
    theirs = until(lambda: [batch for batch in psu.get_queue(Verbose=False) if batch != mine])[0]
    until(lambda: "run" in states(theirs))
    terminal.send_signal(signal.SIGKILL)
    terminal.wait()
    until(lambda: set(states(theirs)) <= DONE)
    ranked, refitted = (psu.get_job_info(theirs, index) for index in (2, 3))
    assert [row["rank"] for row in ranked["ranking"]] == [1, 2]
    assert refitted["accuracy"] > 0.9
    assert all(Path(path).exists() for path in (ranked["table"], ranked["figure"], refitted["figure"]))
    assert states(mine) == ["init"]


def test_its_result_can_be_read_by_a_program(playground):
    done = subprocess.run(
        [sys.executable, "-m", "paraschut", "demo", "--models", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    folder = Path(result["table"]).parent
    assert folder.parts[-2:] == (str(result["BatchID"]), "data")
    assert {Path(path).name for path in result["figures"]} <= {path.name for path in folder.iterdir()}


def test_what_cannot_be_started_is_told_at_once(home, configure):
    configure(mem="100mb")
    with pytest.raises(ParaschutError, match=r"could not be started.*600 MiB.*100 MiB.*remove_batch"):
        demo.run(models=1)
