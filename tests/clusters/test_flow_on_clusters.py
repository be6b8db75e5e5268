"""What comes after what, on real schedulers: jobs that add jobs, that wait for others, that are told to save."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import BATCH
from sites import Site, configure
from test_checkpoint import COUNTS, SHELL
from test_contract import on
from test_dynamic import NEXT, python

import paraschut as psu

pytestmark = pytest.mark.process


@pytest.fixture
def site(make_site, request):
    made = make_site(request.param)
    configure(made.world, executor=f'"{made.executor}"')
    return made


@on("slurm", "sge")
def test_a_job_adds_jobs_and_batches_that_come_after_others(site):
    """The first adds to the group below it, and a batch that waits for all of its own: nobody makes a pass."""
    world = site.world
    grow = python(
        world,
        "grow.py",
        f"for index in (10, 11): add({BATCH}, index, 2, 'sleep 0.5; echo grown >> \"$LINES\"')\n"
        f"add({NEXT}, 0, 1, 'echo next >> \"$LINES\"', after={BATCH})\n"
        f"add({NEXT}, 1, 1, 'echo early >> \"$LINES\"', after=[({BATCH}, 0)])\n"
        "psu.set_complete(Submit=True)\n",
    )
    world.add(
        grow,
        world.says("$J"),
        world.says("last"),
        priority=lambda index: 3 - index,
        complete_on_exit=lambda index: index > 0,
    )
    assert psu.submit_jobs(Verbose=False).jobs == {BATCH: [0]}
    world.until(lambda: world.states(NEXT), 60)
    assert "job " + f"{BATCH}:" in str(psu.explain(NEXT, 0)) or f"batch {BATCH}" in str(psu.explain(NEXT, 0))
    world.until_complete(NEXT, 120)
    lines = world.lines()
    assert sorted(line for line in lines if line != "early") == ["1", "grown", "grown", "last", "next"]
    assert [line for line in lines if line != "early"][3:] == ["last", "next"]
    assert lines.index("early") < lines.index("next")
    site.until_rests()


@on("slurm", "sge")
def test_why_a_job_does_not_run(site):
    """The scheduler's own word on what waits there; the rule for what was not submitted."""
    world = site.world
    asks = {"slurm": {"cpus": 16, "nodes": 3}, "sge": {"gpus": 99}}[site.executor]
    world.add(
        world.says("$J"),
        world.says("$J"),
        priority=lambda i: 2 - i,
        resources=lambda i: asks if not i else {},
    )
    if site.executor == "slurm":
        world.add("sleep 600", batch=NEXT)
        psu.submit_one_batch(NEXT, Verbose=False)
        site.until(lambda: world.states(NEXT)[0] == "run")
    psu.submit_one_batch(BATCH, Verbose=False)
    said = {"slurm": "PENDING (Resources)", "sge": "cannot run"}[site.executor]
    site.until(lambda: said in str(psu.explain(BATCH, 0)), 60)
    assert str(psu.explain(BATCH, 1)).startswith(f"Job {BATCH}:0 of a higher priority is in 'submit'")
    psu.qdel_batch(BATCH)
    psu.qdel_batch(NEXT) if site.executor == "slurm" else None


@on("slurm", "sge")
def test_jobs_save_before_their_time_is_over_and_go_on_from_there(site):
    """A Python job and a shell job; closers send them again, and no retry is spent."""
    world = site.world
    configure(world, executor=f'"{site.executor}"', warning=6)
    (world.home / "counts.py").write_text(COUNTS, "utf-8")
    world.add(
        f"{sys.executable} counts.py",
        SHELL,
        complete_on_exit=lambda index: index == 1,
        retries=1,
        resources={"walltime": "8s"},
    )
    psu.submit_jobs(Verbose=False)
    world.until_complete(seconds=120)
    assert {row["reason"] for row in world.attempts()} == {"requeued", None}
    assert world.attempts(JobIndex=0, reason="requeued")
    assert world.attempts(JobIndex=1, reason="requeued")
    assert {row["retried"] for row in world.query("SELECT retried FROM job")} == {0}
    saved = [int(line.split()[1]) for line in world.lines() if line.startswith("saved ")]
    assert saved == sorted(saved)
    assert saved[-1] > 0
    assert "went on" in world.lines()
    site.until_rests()


@on("slurm", "sge")
def test_a_job_that_is_tried_again_waits_in_the_queue_until_its_pause_is_over(site):
    """The scheduler is told when it may start, at once; and explain says so."""
    world = site.world
    configure(world, executor=f'"{site.executor}"', retry_pause=30)
    fails = 'test "$PARASCHUT_ATTEMPT" -ge 2 || exit 3; ' + world.says("$J")
    world.add(fails, fails, world.says("$J"), retries=1, priority=lambda index: 2 - index // 2)
    psu.submit_jobs(Verbose=False)
    # Nobody makes a pass but the closer: it hands them over long before their pause is over.
    world.until(lambda: len(rows := world.attempts(n=2)) == 2 and all(row["token"] for row in rows), 60)
    site.until(
        lambda: (
            "It ended badly and is tried again after a pause: it waits until" in str(psu.explain(BATCH, 0))
        )
    )
    waits = {"slurm": "PENDING (BeginTime)", "sge": "execution time not reached"}[site.executor]
    site.until(lambda: waits in str(psu.explain(BATCH, 1)), 30)
    world.until_complete(seconds=120)
    assert world.lines() == ["0", "1", "2"] or world.lines() == ["1", "0", "2"]
    for index in (0, 1):
        first, second = world.attempts(JobIndex=index)
        assert second["submitted"] - first["ended"] < 30
        # Shells write whole seconds.
        assert second["started"] - first["ended"] >= 29
    site.until_rests()


@pytest.fixture
def preempted(world, preempting_slurm):
    """Return a site on a Slurm whose partition ``urgent`` takes the nodes from others, which have some time to end."""
    subprocess.run(
        ["scontrol", "update", "partitionname=main", "gracetime=20"], check=True, capture_output=True
    )
    made = Site(world, "slurm", preempting_slurm)
    configure(world, executor='"slurm"')
    yield made
    made.end()


#: Waits until it is told to save; started again, it goes on from there.
SAVES = """
import os, time
import paraschut as psu

job = psu.get_job_info(SetID=True)
def say(*words):
    with open(os.environ["LINES"], "a") as file:
        file.write(" ".join(words) + "\\n")
def save():
    open("saved", "w").close()
    say("saved")
    psu.requeue()
psu.on_warning(save)
say("starts", os.environ["PARASCHUT_ATTEMPT"])
while not os.path.exists("saved"):
    time.sleep(0.1)
psu.set_complete()
"""


@pytest.mark.cluster
def test_jobs_that_give_way_to_others_save_and_are_started_again(preempted):
    """Real preemption: one job saves and asks for it, one knows nothing of it; neither counts as a failure."""
    world = preempted.world
    (world.home / "saves.py").write_text(SAVES, "utf-8")
    world.add(
        f"exec '{sys.executable}' saves.py",
        "[ -e done ] && exit; echo deaf >> $LINES; sleep 600",
        retries=1,
        complete_on_exit=lambda index: index == 1,
        resources={"cpus": 16, "nodes": 1},
    )
    psu.submit_jobs(Verbose=False)
    preempted.until(lambda: {"starts 1", "deaf"} <= set(world.lines()))
    (world.home / "done").touch()
    world.add(world.says("urgent"), batch=NEXT, queue="urgent", resources={"cpus": 16, "nodes": 3})
    psu.submit_one_batch(NEXT, Verbose=False)
    world.until_complete(NEXT, 120)
    world.until_complete(seconds=120)
    first, *_ = world.attempts(JobIndex=0)
    assert first["reason"] == "requeued"
    assert world.attempts(JobIndex=1)[0]["reason"] == "preempted"
    assert "saved" in world.lines()
    assert {row["retried"] for row in world.query("SELECT retried FROM job")} == {0}
    assert {row["reason"] for row in world.attempts() if row["n"] > 1} == {None}
