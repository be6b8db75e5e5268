"""Many processes submit at once: each job runs once, and no group opens early."""

from __future__ import annotations

import pytest
from helpers import BATCH

import paraschut as psu

pytestmark = pytest.mark.process

SUBMITTER = """
import paraschut as psu

while True:
    psu.submit_jobs(Verbose=False)
    (jobs,) = psu.get_queue(Verbose=False).values()
    if {job["state"] for job in jobs} == {"complete"}:
        break
"""
ONCE = """
import sys
import paraschut as psu

print("ready", flush=True)
sys.stdin.readline()
done = psu.submit_jobs(Verbose=False)
print(*done.jobs.get(int(sys.argv[1]), []))
"""


def test_eight_processes_that_submit_in_a_loop(world):
    """200 jobs in three groups: each runs once, none before the group above it is complete."""
    group_of = {index: 3 - index % 3 for index in range(200)}
    world.add(
        *[world.says("start", "$J", then=world.says("end", "$J"))] * 200, priority=lambda index: group_of[index]
    )
    submitters = [world.python(SUBMITTER) for _ in range(8)]
    try:
        world.until_complete(seconds=120)
        for process in submitters:
            assert process.wait(60) == 0
    finally:
        for process in submitters:
            process.kill()
            process.wait()
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
    """All are told to submit one batch at the same moment: they share its jobs out, and each runs once."""
    world.add(*[world.says("$J")] * 40)
    submitters = [world.python(ONCE, BATCH, stdin=-1, stdout=-1, text=True) for _ in range(20)]
    said = []
    try:
        for process in submitters:
            assert process.stdout.readline() == "ready\n"
        for process in submitters:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in submitters:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            said += map(int, out.split())
    finally:
        for process in submitters:
            process.kill()
            process.communicate()
    assert sorted(said) == list(range(40))
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
