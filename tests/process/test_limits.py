"""What a job asks for gates its start, and holds for everything that it starts."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from helpers import BATCH, World, rests

import paraschut as psu

pytestmark = pytest.mark.process

GREEDY = f"{sys.executable} -c 'import time; data = bytearray(300 << 20); time.sleep(1000)'"
#: A shell that does not heed the polite request to end.
DEAF = 'sh -c \'trap "" TERM; echo deaf >> "$LINES"; while :; do sleep 1; done\''


def test_the_time_limit_holds_for_all_that_a_job_started(world):
    """Children in the background, and those that left its session, end with it."""
    world.add(
        f"sleep 1001 & setsid sleep 1002 & setsid setsid sleep 1003 & {world.says('$J', then='sleep 1004')}",
        world.says("$J"),
        resources=lambda index: {"walltime": "2s"} if index == 0 else {},
    )
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until(lambda: len(world.of_job(0)) >= 4)
    world.until(world.failures)
    assert world.failures() == {0: "time limit"}
    assert world.states()[1] == "complete"
    world.until(lambda: not world.of_job(0), 20)


def test_the_time_limit_holds_for_what_ignores_it(world):
    """What does not end when asked is killed, also when the job itself has ended by then."""
    world.add(f"{DEAF}", f"setsid {DEAF} & sleep 1000", resources={"walltime": "2s"})
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until_lines(2)
    world.until(lambda: len(world.failures()) == 2)
    assert world.failures() == {0: "time limit", 1: "time limit"}
    world.until(lambda: not world.of_job(0) + world.of_job(1), 20)


def test_the_time_limit_holds_although_the_agent_is_killed(world):
    """The next agent counts from the start of the job, not from its own."""
    world.add(world.says("$J", then="sleep 1000"), resources={"walltime": "3s"})
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    world.kill_agent()
    world.until(world.failures)
    assert world.failures() == {0: "time limit"}
    (attempt,) = world.attempts()
    assert attempt["ended"] - attempt["started"] >= 3


def test_memory_is_that_of_the_whole_tree(world):
    """A child in a session of its own takes too much; a sibling that takes little goes on."""
    world.add(
        f"setsid {GREEDY} & sleep 1000",
        world.says("$J", then="sleep 2"),
        resources={"mem": "100M"},
    )
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until(world.failures)
    assert world.failures() == {0: "out of memory"}
    world.until(lambda: not world.of_job(0), 20)
    world.until(lambda: world.states()[1] == "complete")


def test_memory_that_processes_share_counts_once(world):
    """Ten forks that only read what they share are within the limit."""
    text = (
        "import os, time\n"
        "data = bytes(60 << 20)\n"
        "for _ in range(10):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(3); os._exit(0)\n"
        "for _ in range(10): os.wait()\n"
    )
    (world.home / "share.py").write_text(text, "utf-8")
    world.add(f"{sys.executable} share.py", resources={"mem": "200M"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()


def test_jobs_of_two_cpus_never_overlap_on_two(world):
    """The cpus that jobs ask for gate their start, and no job overtakes one that waits for more."""
    script = world.says("start", "$J", then="sleep 0.2; " + world.says("end", "$J"))
    world.add(*[script] * 6, resources=lambda index: {"cpus": 2 if index % 2 == 0 else 1})
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=8, cpus=2), Verbose=False)
    world.until_complete()
    held, order = 0, []
    for line in world.lines():
        what, index = line.split()
        cpus = 2 if int(index) % 2 == 0 else 1
        held += cpus if what == "start" else -cpus
        assert 0 <= held <= 2
        if what == "start":
            order.append(int(index))
    assert order == list(range(6))


def test_a_limit_of_workers_holds_for_the_groups_that_follow(world):
    """The agent goes on as the batch was submitted: with one worker, never two jobs at once."""
    script = world.says("start", "$J", then="sleep 0.1; " + world.says("end", "$J"))
    world.add(*[script] * 6, priority=lambda index: 3 - index // 2)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=1), Verbose=False)
    world.until_complete()
    assert [line.split()[0] for line in world.lines()] == ["start", "end"] * 6


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one processor")
def test_jobs_of_two_indexes_do_not_share_a_processor(home, world, monkeypatch):
    """Each agent knows only its own jobs, and a processor that another one's job is kept on is not free."""
    script = "grep Cpus_allowed_list /proc/self/status > cpus; until [ -e go ]; do sleep 0.05; done"
    other = home / "other"
    other.mkdir(mode=0o700)
    shutil.copy(home / "config.toml", other)
    second = World(other, world.mark)
    try:
        for one in (world, second):
            monkeypatch.chdir(one.home)
            one.add(script)
            psu.submit_jobs(Verbose=False)
            one.until(lambda one=one: (one.home / "cpus").exists() and (one.home / "cpus").read_text("utf-8"))
        first, last = ((one.home / "cpus").read_text("utf-8").split()[1] for one in (world, second))
        assert first != last or "-" in first
        for one in (world, second):
            (one.home / "go").touch()
            one.until_complete()
    finally:
        second.end_all()


def test_what_no_machine_has_stays_where_it_is(world):
    """Such a job is left in 'init', the pass says why, and the others run."""
    world.add(
        world.says("$J"),
        world.says("$J"),
        world.says("$J"),
        resources=lambda index: [{"cpus": 10_000}, {}, {"mem": "900tb"}][index],
    )
    done = psu.submit_jobs(Verbose=False)
    assert done.jobs == {BATCH: [1]}
    assert "it asks for 10000 cpus" in str(done)
    assert any("921600.0 GB" in one or "900" in one for one in done.left if ":2 was left" in one), done.left
    world.until(lambda: world.count("complete") == 1)
    assert world.states() == {0: "init", 1: "complete", 2: "init"}


def test_the_agent_rests_while_a_job_that_cannot_run_is_left(world):
    """What a pass leaves alone is no reason for the next pass at once."""
    wait = world.says("$J", then="until [ -e go ]; do sleep 0.2; done")
    world.add(world.says("$J"), wait, "true", resources=lambda index: {"cpus": [1, 1, 10_000][index]})
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(2)
    world.until(lambda: rests(world.agent()))
    (world.home / "go").touch()
    world.until(lambda: world.count("complete") == 2)
    world.until(lambda: rests(world.agent()))


def test_the_agent_rests_while_a_global_job_holds_back_others(world):
    """A batch that waits for a job above 100 of another batch makes no work."""
    first = world.says("$J", then="until [ -e one ]; do sleep 0.2; done")
    world.add(first, world.says("$J"), priority=lambda index: 2 - index, batch=1)
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    world.add(world.says("$J", then="until [ -e go ]; do sleep 0.2; done"), priority=101, batch=2)
    psu.submit_jobs(Verbose=False)
    world.until_lines(2)
    (world.home / "one").touch()
    world.until(lambda: world.states(1)[0] == "complete")
    world.until(lambda: rests(world.agent()))
    assert world.states(1) == {0: "complete", 1: "init"}
    (world.home / "go").touch()
    world.until_complete(batch=1)
