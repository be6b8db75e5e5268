"""Jobs that ended badly are tried again by themselves, with what the cause asks for."""

from __future__ import annotations

import json
import sys

import pytest
from helpers import BATCH, kill

import paraschut as psu

pytestmark = pytest.mark.process

#: Takes 200 MB and is complete if it was allowed to.
GREEDY = f"{sys.executable} -c 'import time; data = bytearray(200 << 20); time.sleep(1.5)'"


def test_a_job_is_tried_again_until_it_works(world):
    """Exit codes and signals, on the third try all is well; nobody makes a pass."""
    fails = 'test "$PARASCHUT_ATTEMPT" -ge 3 || exit 7'
    dies = 'test "$PARASCHUT_ATTEMPT" -ge 3 || kill -KILL $$'
    world.add(fails, dies, world.says("$J"), retries=2)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    ends = [(row["JobIndex"], row["n"], row["reason"]) for row in world.attempts()]
    assert ends == [
        *((0, 1, "exit code 7"), (0, 2, "exit code 7"), (0, 3, None)),
        *((1, 1, "signal 9 (SIGKILL)"), (1, 2, "signal 9 (SIGKILL)"), (1, 3, None)),
        (2, 1, None),
    ]


def test_a_job_that_never_works_is_missing_with_its_last_reason(world):
    """It holds back the group below it, as any missing job does."""
    world.add("exit $PARASCHUT_ATTEMPT", world.says("$J"), retries=1, priority=lambda index: 2 - index)
    psu.submit_jobs(Verbose=False)
    world.until(world.failures)
    assert world.failures() == {0: "exit code 2"}
    assert world.states() == {0: "run", 1: "init"}


def test_the_next_group_waits_for_those_that_are_tried_again(world):
    """A job in 'init' again holds back what is below it."""
    fails = 'test "$PARASCHUT_ATTEMPT" -ge 2 || exit 1; ' + world.says("$J")
    world.add(fails, world.says("$J"), retries=1, priority=lambda index: 2 - index)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert world.lines() == ["0", "1"]


def test_memory_and_time_grow_where_they_were_not_enough(world):
    """Each alone, and only for the job that needed it."""
    world.add(
        GREEDY,
        "sleep 3",
        retries=2,
        resources=lambda index: [{"mem": "120M", "walltime": "1m"}, {"mem": "100M", "walltime": "2s"}][index],
    )
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until_complete()
    used = [(row["JobIndex"], row["reason"], json.loads(row["asked"])) for row in world.attempts()]
    mega = 1 << 20
    assert used == [
        (0, "out of memory", {"cpus": 1, "mem": 120 * mega, "walltime": 60.0}),
        (0, None, {"cpus": 1, "mem": 240 * mega, "walltime": 60.0}),
        (1, "time limit", {"cpus": 1, "mem": 100 * mega, "walltime": 2.0}),
        (1, None, {"cpus": 1, "mem": 100 * mega, "walltime": 4.0}),
    ]
    assert psu.get_job_info(BATCH, 0)["resources"] == {"mem": "120M", "walltime": "1m"}


def test_a_job_whose_wrapper_is_killed_is_tried_again(world):
    """It vanished with its words, and what it left must not run beside the next attempt."""
    world.add('echo "$PARASCHUT_ATTEMPT" >> "$LINES"; until [ -e go ]; do sleep 0.1; done', retries=1)
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    kill(world.wrapper())
    assert world.until_lines(2) == ["1", "2"]
    (world.home / "go").touch()
    world.until_complete()
    assert [row["reason"] for row in world.attempts()] == ["vanished", None]


def test_a_function_is_tried_again(world):
    """What it raised is in the history, what it returned is its result."""
    (world.home / "config.toml").write_text(
        '[paraschut]\njob_dir = "jobs"\nretries = 1\nenvironment = ["PATH", "HOME", "PYTHONPATH"]\n', "utf-8"
    )

    def often():
        import os

        if os.environ["PARASCHUT_ATTEMPT"] == "1":
            raise ValueError("not yet")
        return 42

    handle = psu.persist(often, "often")
    assert handle.fetch(timeout=60) == 42
    batch = world.query("SELECT DISTINCT BatchID FROM attempt")[0]["BatchID"]
    assert [row["reason"] for row in world.attempts(batch)] == ["ValueError: not yet", None]


def test_what_a_person_deleted_is_not_tried_again(world):
    """It is held; its end is no failure."""
    world.add(world.says("$J", then="sleep 1000"), retries=3)
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    psu.qdel_job(BATCH, 0)
    world.until(lambda: not world.attempts(ended=None))
    assert world.states() == {0: "held"}
