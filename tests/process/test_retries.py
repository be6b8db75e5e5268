"""Jobs that ended badly are tried again by themselves, with what the cause asks for."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import pytest
from helpers import BATCH, kill, rests

import paraschut as psu

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def impatient(world):
    """Jobs are tried again almost at once."""
    configured(world, retry_pause=0.1)


def configured(world, **settings):
    """Write the configuration of a world with more settings."""
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    names = '["PATH", "HOME", "LANG", "PYTHONPATH", "LINES"]'
    text = f'[paraschut]\njob_dir = "jobs"\nenvironment = {names}\n{lines}'
    (world.home / "config.toml").write_text(text, "utf-8")


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
        '[ "$PARASCHUT_ATTEMPT" = 2 ] || sleep 100',
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
    configured(world, retries=1, retry_pause=0.1)

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


def test_the_agent_stays_for_the_pause_and_wakes_for_it(world):
    """Longer than it stays when idle would be too long for a test; that it rests meanwhile is seen."""
    configured(world, retry_pause=3)
    world.add('test "$PARASCHUT_ATTEMPT" -ge 3 || exit 1', retries=2)
    psu.submit_jobs(Verbose=False)
    agent = world.until(world.agent)
    world.until(lambda: len(world.attempts(ended=None)) == 0 and world.states()[0] == "init")
    assert rests(agent)
    world.until_complete()
    first, second, third = world.attempts()
    assert 3 <= second["submitted"] - first["ended"] < 6
    assert 6 <= third["submitted"] - second["ended"] < 9
    assert world.agent() == agent


def test_an_agent_that_is_killed_in_the_pause_has_a_successor(world):
    """The next one is started, and wakes for it in its place."""
    configured(world, retry_pause=3)
    world.add('test "$PARASCHUT_ATTEMPT" -ge 2 || exit 1', retries=1)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.attempts() and world.states()[0] == "init")
    assert world.kill_agent()
    world.until_complete()
    first, second = world.attempts()
    assert second["submitted"] - first["ended"] >= 3


def test_on_a_cluster_the_scheduler_is_told_of_the_pauses(world, fake_slurm):
    """Nobody watches: exit codes, memory and time limits are seen, and the last group comes after all that."""
    configured(world, retry_pause=2, executor='"slurm"', grace=0.5, queue_age=0.2)
    world.add(
        'test "$PARASCHUT_ATTEMPT" -ge 3 || exit 5',
        'test "$PARASCHUT_ATTEMPT" -ge 2 || sleep 1000',
        world.says("$J"),
        retries=2,
        resources={"mem": "100M", "walltime": "00:10:00"},
        priority=lambda index: [2, 2, 1][index],
    )
    psu.submit_jobs(Verbose=False)
    fake_slurm.until(lambda: fake_slurm.tasks("ended") and fake_slurm.tasks("running"))
    (task,) = fake_slurm.tasks("running")
    fake_slurm.end(*task, verdict="OUT_OF_MEMORY")
    world.until_complete(seconds=120)
    ends = [
        (row["JobIndex"], row["reason"], json.loads(row["asked"])["mem"] >> 20) for row in world.attempts()
    ]
    assert ends == [
        *((0, "exit code 5", 100), (0, "exit code 5", 100), (0, None, 100)),
        *((1, "out of memory", 100), (1, None, 200)),
        (2, None, 100),
    ]
    assert world.lines() == ["2"]
    pauses = pauses_of(world)
    assert len(pauses) == 3
    # Shells write whole seconds.
    assert all(2 * 2 ** (n - 1) - 1 <= pause for n, pause in pauses), pauses


def pauses_of(world):
    """Return, for each attempt but the first of its job, which one it is and the seconds from the end of the one before."""
    rows = world.attempts()
    return [
        (after["n"] - 1, after["started"] - before["ended"])
        for before, after in pairwise(rows)
        if before["JobIndex"] == after["JobIndex"]
    ]
