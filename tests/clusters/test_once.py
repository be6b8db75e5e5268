"""Whoever dies while jobs are handed to a scheduler: after the next pass each runs, and none twice."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from helpers import BATCH
from sites import starts
from test_contract import on
from test_submission_killed import AT

import paraschut as psu

pytestmark = pytest.mark.process
#: How many submitters die at random moments; two hundred take minutes.
KILLS = int(os.environ.get("PARASCHUT_TESTS_KILLS", "20"))
STORE = ("paraschut.store.store", "Store")
COMMAND = {"slurm": "sbatch", "sge": "qsub", "pbs": "qsub"}
NUMBER = 5


@pytest.fixture
def site(make_site, request):
    return make_site(request.param)


def all_run_once(site, number=NUMBER):
    """Make passes until all is complete, and see that nothing ran twice."""
    site.until(lambda: site.submit() is not None and "init" not in site.world.states().values())
    site.until_complete()
    site.until_rests()
    assert starts(site.world.lines()) == dict.fromkeys(range(number), 1)
    ran = [row["JobIndex"] for row in site.world.attempts() if row["started"] is not None]
    assert sorted(ran) == list(range(number))


#: Two submissions: of an array and of a plain job.
def add(site):
    asked = [{}] * (NUMBER - 1) + [{"cpus": 2}]
    site.world.add(*[site.world.says("$J")] * NUMBER, resources=asked.__getitem__)


@on("slurm", "sge", "fake pbs")
@pytest.mark.parametrize(("call", "moment"), [(1, "before"), (1, "after"), (3, "after")])
def test_the_submitter_dies_with_its_command(site, wrap, moment, call):
    """The third call is that of the first closer."""
    add(site)
    with wrap(COMMAND[site.executor], **{moment: f"[ $CALL -ne {call} ] || kill -KILL $PPID"}) as calls:
        assert (
            site.world.python(AT, site.executor, "after", "paraschut.closer", "_say").wait(60)
            == -signal.SIGKILL
        )
        assert calls() == call
    all_run_once(site)


@on("slurm")
@pytest.mark.parametrize(
    "where",
    [
        ("before", *STORE, "claim"),
        ("after", *STORE, "claim"),
        ("before", "paraschut.executors.cluster_script", "write"),
        ("after", "paraschut.executors.cluster_script", "write"),
        ("before", *STORE, "record"),
        ("after", *STORE, "record"),
        ("before", *STORE, "set_closer"),
    ],
    ids=" ".join,
)
def test_the_submitter_dies_between_two_steps(site, where):
    add(site)
    assert site.world.python(AT, site.executor, *where).wait(60) == -signal.SIGKILL
    all_run_once(site)


#: Submits part by part in children, which say when they have claimed and recorded. Three live, and show how long that
#: takes; the others are killed at random moments: of four, three behind their claim. Says how many died between the two.
AROUND = """
import os, random, signal, sys, time
import paraschut as psu
from paraschut import dispatch, fold
from paraschut.executors import slurm
from paraschut.store.store import Store

executor, kills = sys.argv[1], int(sys.argv[2])
chance = random.Random(kills)
parts = kills + 3

def telling(name, word):
    real = getattr(Store, name)
    def told(*given, **more):
        done = real(*given, **more)
        os.write(tell, word)
        return done
    setattr(Store, name, told)

telling("claim", b"c")
telling("record", b"r")
longest, between, behind = 10.0, 0, 0
for part in range(parts):
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hear)
        try:
            psu.submit_jobs(executor, MaxJobs=10000, Filter=f"JobIndex % {parts} == {part}", Verbose=False)
        finally:
            os._exit(0)
    os.close(tell)
    words = b"" if part % 4 == 3 else os.read(hear, 1)
    began = time.monotonic()
    if part < 3:
        os.read(hear, 1)
        longest = min(longest, 1.2 * (time.monotonic() - began))
    else:
        time.sleep(chance.random() * longest)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(hear, 100):
        words += more
    os.close(hear)
    between += part >= 3 and words == b"c"
    behind += part >= 3 and b"r" in words
print(between, behind, longest)
"""


@on("slurm")
def test_submitters_die_at_random_moments(site):
    """Each is in the middle of a pass over a part of the jobs."""
    number = 3 * (KILLS + 3)
    site.world.add(*[site.world.says("$J")] * number)
    submitters = site.world.python(AROUND, site.executor, KILLS, stdout=subprocess.PIPE, text=True)
    told, _ = submitters.communicate(timeout=600)
    between, behind, longest = told.split()
    print(f"{KILLS} kills: {between} between claim and record, {behind} behind; in {longest} s")
    assert int(between) + int(behind) >= KILLS // 4
    assert int(between) >= KILLS // 8
    all_run_once(site, number)


@on("slurm", "sge", "fake pbs")
def test_a_command_that_hangs_has_worked_all_the_same(site, wrap):
    """It is given up, nobody knows what became of it, and it is found by its token."""
    from sites import configure

    configure(site.world, command_timeout=3.0)
    add(site)
    with wrap(COMMAND[site.executor], after="[ $CALL -ne 1 ] || sleep 100"):
        done = site.submit()
    assert "did not answer within 3 s" in str(done)
    assert done.jobs == {BATCH: [4]}
    assert set(site.world.states().values()) <= {"submit", "run", "complete"}
    site.until_complete()
    assert starts(site.world.lines()) == dict.fromkeys(range(NUMBER), 1)
    assert len(site.world.attempts()) == NUMBER
    assert psu.get_job_info(BATCH, 0)["ClusterID"]


@on("slurm", "fake pbs")
@pytest.mark.parametrize(
    ("moment", "then"), [("before", "; sleep 100"), ("after", "; sleep 100"), ("before", "")]
)
def test_somebody_interrupts_while_a_command_runs(site, wrap, moment, then):
    """It is ended where it hangs; otherwise its answer is heard, whatever was prepared meanwhile."""
    add(site)
    with wrap(COMMAND[site.executor], **{moment: f"[ $CALL -ne 1 ] || {{ kill -INT $PPID{then}; }}"}):
        submit = f"import paraschut as psu; psu.submit_jobs({site.executor!r})"
        submitter = site.world.python(submit, stderr=subprocess.PIPE)
        assert b"KeyboardInterrupt" in submitter.communicate(timeout=60)[1]
    all_run_once(site)


@on("fake pbs")
def test_a_closer_that_is_held_for_ever_is_made_up_for(site, wrap):
    """To PBS, what was deleted before it started never ends."""
    site.world.add("true", complete_on_exit=True, options="-h")
    with wrap("qsub", before="[ $CALL -ne 2 ] || qdel $(qselect)") as sent:
        site.submit()
        assert sent() == 3
    assert site.until_missing(0) == {0: "cancelled"}
    site.until_rests()
