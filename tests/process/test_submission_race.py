"""Many processes submit at once: each job runs once, and no group opens early."""

from __future__ import annotations

import pytest
from helpers import BATCH, rests

import paraschut as psu

pytestmark = pytest.mark.process

#: Many processes, which are copies of one that has imported everything: they begin at the same moment.
MANY = """
import os, sys
import paraschut as psu
from paraschut import change, dispatch, executors
from paraschut.look import dashboard
from paraschut.executors import local

def loop():
    while True:
        psu.submit_jobs(Verbose=False)
        (jobs,) = psu.get_queue(Verbose=False).values()
        if {job["state"] for job in jobs} == {"complete"}:
            return

def once():
    done = psu.submit_jobs(Verbose=False)
    os.write(1, (" ".join(map(str, sum(done.jobs.values(), []))) + "\\n").encode())

barrier, gate = os.pipe()
children = []
for _ in range(int(sys.argv[2])):
    children.append(os.fork())
    if children[-1] == 0:
        os.close(gate)
        os.read(barrier, 1)
        status = 1
        try:
            {"loop": loop, "once": once}[sys.argv[1]]()
            status = 0
        finally:
            os._exit(status)
os.close(gate)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_eight_processes_that_submit_in_a_loop(world):
    """200 jobs in three groups: each runs once, none before the group above it is complete."""
    group_of = {index: 3 - index % 3 for index in range(200)}
    world.add(
        *[world.says("start", "$J", then=world.says("end", "$J"))] * 200,
        priority=lambda index: group_of[index],
    )
    assert world.python(MANY, "loop", 8).wait(120) == 0
    lines = [line.split() for line in world.lines()]
    assert sorted(int(index) for what, index in lines if what == "start") == list(range(200))
    assert len(lines) == 400
    groups = [group_of[int(index)] for what, index in lines if what == "start"]
    assert groups == sorted(groups, reverse=True)
    for higher, lower in ((3, 2), (2, 1)):
        last = max(n for n, (_, index) in enumerate(lines) if group_of[int(index)] == higher)
        first = min(n for n, (_, index) in enumerate(lines) if group_of[int(index)] == lower)
        assert last < first
    assert {row["n"] for row in world.attempts()} == {1}


def test_twenty_processes_at_once(world):
    """All submit one batch at the same moment: they share its jobs out, and each runs once."""
    world.add(*[world.says("$J")] * 40)
    many = world.python(MANY, "once", 20, stdout=-1, text=True)
    out, _ = many.communicate(timeout=120)
    assert many.returncode == 0
    assert sorted(map(int, out.split())) == list(range(40))
    world.until_complete()
    assert sorted(map(int, world.lines())) == list(range(40))
    assert len(world.attempts()) == 40


def test_a_pass_restricted_to_few_jobs_leaves_the_order_alone(world):
    """What is submitted by hand, one by one and at once with whole passes, still runs once."""
    world.add(*[world.says("$J")] * 6, priority=lambda index: 2 - index // 3)
    psu.submit_one_job(BATCH, [0, 1], Verbose=False)
    psu.submit_jobs(Verbose=False)
    with pytest.raises(psu.JobError, match="only jobs in 'init' are submitted"):
        psu.submit_one_job(BATCH, 0)
    world.until_complete()
    assert sorted(map(int, world.lines())) == list(range(6))


@pytest.mark.parametrize("how", ["one job", "a filter"])
def test_what_was_submitted_in_part_stays_so(world, how):
    """A job that is tried alone, a Filter: the agent does not go on with more than was asked for."""
    script = world.says("start", then="sleep 0.2; " + world.says("end"))
    world.add(*[script] * 4)
    if how == "one job":
        psu.submit_one_job(BATCH, 0, Verbose=False)
    else:
        psu.submit_jobs(Filter="JobIndex < 1", Verbose=False)
    world.until_lines(2)
    world.until(lambda: world.count("complete") >= 1 and rests(world.agent()))
    assert world.lines() == ["start", "end"]
