"""Jobs that add jobs while they run, and jobs that come after others: on this machine, with nobody watching."""

from __future__ import annotations

import sys

import pytest
from helpers import BATCH

import paraschut as psu

pytestmark = pytest.mark.process

NEXT = BATCH + 1
HEAD = "import os, sys, paraschut as psu\njob = psu.get_job_info(SetID=True)\n"
ADD = (
    "def add(batch, index, priority, script, **fields):\n"
    "    psu.add_job_to_queue({**psu.get_job_template(), **fields, 'BatchID': batch, 'JobIndex': index, 'data': None,\n"
    "        'name': 'grown', 'queue': '', 'resources': {}, 'priority': priority, 'script': script, 'complete_on_exit': True})\n"
)


def python(world, name, body):
    (world.home / name).write_text(HEAD + ADD + body, "utf-8")
    return f"{sys.executable} {name}"


def test_a_job_adds_to_the_group_below_it_before_that_opens(world):
    """What it added runs with that group, and the last group waits for all of it."""
    grow = python(
        world,
        "grow.py",
        f"for index in (10, 11): add({BATCH}, index, 2, 'sleep 0.5; echo grown >> \"$LINES\"')\npsu.set_complete()\n",
    )
    world.add(grow, world.says("$J"), world.says("last"), priority=lambda index: [3, 2, 1][index])
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_complete()
    assert world.lines() == ["1", "grown", "grown", "last"]


def test_a_job_that_adds_above_itself_closes_the_group_below(world):
    """A group that was next is not while there is something above it."""
    grow = python(
        world,
        "grow.py",
        f"add({BATCH}, 10, 5, 'sleep 0.5; echo above >> \"$LINES\"')\npsu.set_complete(Submit=True)\n",
    )
    world.add(grow, world.says("last"), priority=lambda index: 2 - index)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_complete()
    assert world.lines() == ["above", "last"]


def test_a_job_adds_a_batch_that_comes_after_its_own(world):
    """It is refused as long as it names what is not there, and waits for what is."""
    grow = python(
        world,
        "grow.py",
        f"try: add({NEXT}, 0, 1, 'true', after=[({BATCH}, 99)])\n"
        "except psu.JobError as error: print(error)\n"
        f"add({NEXT}, 0, 1, 'echo next >> \"$LINES\"', after={BATCH})\n"
        "psu.submit_jobs(Verbose=False)\n"
        "psu.set_complete()\n",
    )
    world.add(grow, world.says("below", then="sleep 0.5"), priority=lambda index: 2 - index)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.states(NEXT))
    world.until_complete(batch=NEXT)
    assert world.lines() == ["below", "next"]


def test_a_batch_goes_on_when_what_it_comes_after_is_done(world):
    """Both were submitted; the agent goes on with the second when the first is done, job by job."""
    hold = "until [ -e go.$PARASCHUT_JOBINDEX ]; do sleep 0.05; done; "
    world.add(*[hold + world.says("first", "$J")] * 2)
    world.add(*[world.says("second", "$J")] * 3, batch=NEXT, after=lambda i: [(BATCH, i)] if i < 2 else None)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(1)
    assert world.lines() == ["second 2"]
    (world.home / "go.1").touch()
    world.until_lines(3)
    assert world.lines()[1:] == ["first 1", "second 1"]
    (world.home / "go.0").touch()
    world.until_complete(batch=NEXT)
    assert world.lines()[3:] == ["first 0", "second 0"]


def test_a_batch_of_which_all_waits_goes_on_by_itself_too(world):
    """One pass was made over both; of the second there was nothing to take yet."""
    world.add(world.says("first"))
    world.add(*[world.says("second")] * 2, batch=NEXT, after=BATCH, priority=lambda index: 2 - index)
    psu.submit_jobs(Verbose=False)
    world.until_complete(batch=NEXT)
    assert world.lines() == ["first", "second", "second"]
