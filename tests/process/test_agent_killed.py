"""The agent, a wrapper, a job, the launcher is killed, at any moment: nothing runs twice, nothing is lost."""

from __future__ import annotations

import random
import signal
import time

import psutil
import pytest
from helpers import BATCH, kill, until

import paraschut as psu

pytestmark = pytest.mark.process


def test_the_agent_is_killed_while_eight_jobs_run(world):
    """They go on, the next agent is started by them, and those that waited run as well."""
    script = world.says("start", "$J", then='until [ -e go ]; do sleep 0.05; done; ' + world.says("end", "$J"))
    world.add(*[script] * 20)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=8, cpus=8), Verbose=False)
    world.until_lines(8)
    first = world.kill_agent()
    second = world.until(world.agent)
    assert second != first
    (world.home / "go").touch()
    world.until_complete()
    assert sorted(world.lines()) == sorted(f"{what} {index}" for what in ("start", "end") for index in range(20))
    assert [row["n"] for row in world.attempts()] == [1] * 20
    assert {row["code"] for row in world.attempts()} == {0}


def test_the_agent_is_killed_again_and_again(world):
    """Twenty times at random moments of sixty short jobs: each runs once, and nobody calls anything."""
    chance = random.Random(1)
    world.add(*[world.says("$J", then="sleep 0.1")] * 60)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    kills = 0
    while kills < 20 and set(world.states().values()) != {"complete"}:
        kills += world.kill_agent() is not None
        time.sleep(chance.random() * 0.4)
    world.until_complete(seconds=60)
    assert sorted(map(int, world.lines())) == list(range(60)), kills
    assert {row["n"] for row in world.attempts()} == {1}
