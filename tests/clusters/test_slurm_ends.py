"""How jobs end on the real Slurm, and what is said of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import BATCH, until
from sites import configure, starts

import paraschut as psu

pytestmark = [pytest.mark.cluster, pytest.mark.process]


@pytest.fixture
def site(make_site):
    return make_site("slurm")


def scontrol(*argv):
    subprocess.run(["scontrol", *argv], check=True, capture_output=True, timeout=60)


def pids(site, number):
    """Return the pids of jobs by index, once so many have said so."""
    return site.until(
        lambda: (
            len(found := {int(line.split()[1]): int(line.split()[0]) for line in site.world.lines()})
            >= number
            and found
        )
    )


def known_as(site, index):
    site.until(lambda: "#" not in (psu.get_job_info(BATCH, index)["ClusterID"] or ["#"])[-1])
    return psu.get_job_info(BATCH, index)["ClusterID"][-1]


def test_each_end_has_its_reason(site, capsys):
    world, cluster = site.world, site.cluster
    greedy = f"exec '{sys.executable}' -c 'x = bytearray(b\"x\") * 400_000_000'"
    lasts = world.says("$$", "$J", then="echo its last words >&2; exec sleep 600")
    scripts = [
        world.says("$$", "$J", then=greedy if cluster.limits_memory() else "kill -KILL $$"),
        lasts,
        lasts,
        lasts,
        world.says("$$", "$J", then="exit 3"),
        lasts,
        world.says("$$", "$J"),
        world.says("$$", "$J", then="trap 'exit 0' TERM; sleep 600 & wait"),
    ]
    world.add(*scripts, resources={"mem": "60mb"}, complete_on_exit=lambda index: index != 6)
    site.submit()
    of = pids(site, len(scripts))
    scontrol("update", f"jobid={known_as(site, 1)}", "endtime=now")
    scontrol("update", f"jobid={known_as(site, 7)}", "endtime=now")
    subprocess.run(["scancel", known_as(site, 2)], check=True)
    os.kill(of[3], signal.SIGKILL)
    os.kill(psutil.Process(of[5]).ppid(), signal.SIGKILL)
    assert site.until_missing(*range(8)) == {
        0: "out of memory" if cluster.limits_memory() else "signal 9 (SIGKILL)",
        1: "time limit",
        2: "cancelled",
        3: "signal 9 (SIGKILL)",
        4: "exit code 3",
        5: "signal 9 (SIGKILL)",
        6: "exited 0 without saying complete",
        7: "time limit",
    }
    capsys.readouterr()
    psu.get_queue(ReportMissing=True)
    said = capsys.readouterr().out
    assert f"{BATCH}:1 is missing: time limit" in said
    assert "its last words" in said
    assert "the scheduler said: CANCELLED" in said
    site.until_rests()
    assert starts(world.lines()) == dict.fromkeys(range(8), 1)


#: Says that it starts, then waits for a file.
WAITS = 'until [ -e "$GO" ]; do sleep 0.05; done'


@pytest.fixture
def last_node(site):
    """Return the name of a node, which is up again afterwards."""
    if os.getuid():
        pytest.skip("only root can take a node down.")
    node = site.cluster.nodes[-1]
    yield node
    subprocess.run(
        ["scontrol", "update", f"nodename={node}", "state=resume"], check=False, capture_output=True
    )
    until(lambda: site.cluster.answers("slurmd-3"))


def test_a_node_that_fails_ends_jobs_and_starts_those_again_that_ask_for_it(site, last_node):
    world = site.world
    path = world.home / "again.sh"
    path.write_text(f"#!/bin/sh\n#SBATCH --requeue\n{world.says('$$', '$J', then=WAITS)}\n")
    more = {"vars": {"GO": str(world.home / "go")}, "options": f"--nodelist={last_node}"}
    world.add(world.says("$$", "$J", then=WAITS), world.says("$$", "$J", then=WAITS), **more)
    world.add(str(path), start=2, **more)
    world.add(
        world.says("$$", "$J", then=WAITS), start=3, vars=more["vars"], options=f"{more['options']} --requeue"
    )
    site.submit()
    pids(site, 4)
    again = [known_as(site, index) for index in (2, 3)]
    scontrol("update", f"nodename={last_node}", "state=down", "reason=test")
    assert site.until_missing(0, 1) == {0: "node failure", 1: "node failure"}
    # It may have come back by itself.
    subprocess.run(
        ["scontrol", "update", f"nodename={last_node}", "state=resume"], check=False, capture_output=True
    )
    time.sleep(4)  # the node is rid of the old ones

    def hurried():
        """Slurm waits for two minutes, and holds what it could not start."""
        for one in again:
            for change in (["release", one], ["update", f"jobid={one}", "starttime=now"]):
                subprocess.run(["scontrol", *change], check=False, capture_output=True)
        return starts(world.lines()) == {0: 1, 1: 1, 2: 2, 3: 2}

    site.until(hurried)
    for _ in range(10):
        site.look()
        time.sleep(0.3)
    assert [world.states()[index] for index in (2, 3)] == ["run"] * 2
    assert set(world.failures()) == {0, 1}
    (world.home / "go").touch()
    site.until(lambda: [world.states()[index] for index in (2, 3)] == ["complete"] * 2)
    assert len(world.attempts()) == 4


def test_a_job_that_is_queued_again_is_not_judged_by_its_first_end(site):
    """It is told to end, says that it ended, and starts again."""
    world = site.world
    world.add(world.says("$$", "$J", then=WAITS), vars={"GO": str(world.home / "go")}, options=["--requeue"])
    site.submit()
    pids(site, 1)
    one = known_as(site, 0)
    scontrol("requeue", one)
    until(lambda: psu.get_qstat(one).get("JobState") == "PENDING")
    until(lambda: list(world.home.glob("jobs/submissions/*/0.exit")))
    time.sleep(2)  # Slurm has heard of that too
    subprocess.run(["scontrol", "update", f"jobid={one}", "starttime=now"], check=False, capture_output=True)
    site.until(lambda: starts(world.lines()) == {0: 2})
    assert not list(world.home.glob("jobs/submissions/*/0.exit"))
    for _ in range(10):
        site.look()
        time.sleep(0.3)
    assert (world.states(), world.failures()) == ({0: "run"}, {})
    (world.home / "go").touch()
    site.until_complete()
    assert len(world.attempts()) == 1


def test_a_job_that_is_reset_while_its_old_task_waits_runs_once(site, wrap):
    """The deletion is lost on its way."""
    world = site.world
    world.add(world.says("$J"), options="--hold")
    site.submit()
    with wrap("scancel", instead="exit 0"):
        psu.set_job_field(BATCH, 0, {"state": "init", "options": None})
        assert site.submit().count == 1
        site.until_complete()
        scontrol(
            "release", world.query("SELECT cluster_id FROM submission ORDER BY claimed")[0]["cluster_id"]
        )
        site.until(lambda: not site.listed())
    assert world.lines() == ["0"]
    assert [row["ended"] is not None for row in world.attempts()] == [True, True]
    assert world.states() == {0: "complete"}


def different(site, number):
    """Add jobs that all ask for something else, so that each is a submission of its own."""
    site.world.add(
        *[site.world.says("$J")] * number,
        resources=lambda index: {"mem": f"{index + 1}mb"},
        complete_on_exit=True,
    )


def test_slurmctld_stops_in_the_middle_of_a_pass(site, wrap):
    """What it had is there when it starts again, the rest waits, and all run once."""
    if os.getuid():
        pytest.skip("only root can stop a daemon.")
    different(site, 5)
    pid = site.cluster.pid("slurmctld")
    stop = f"if [ $CALL = 3 ]; then kill {pid}; while kill -0 {pid} 2> /dev/null; do sleep 0.1; done; fi"
    with wrap("sbatch", after=stop):
        done = site.submit()
    assert any("sbatch failed" in one for one in done.left), done
    known = {index for index, state in site.world.states().items() if state == "submit"}
    assert {index for one in done.jobs.values() for index in one} <= known
    assert known != set(range(5))
    site.look()
    site.cluster.up("slurmctld")
    site.until(lambda: site.submit() and "init" not in site.world.states().values())
    site.until_complete()
    assert starts(site.world.lines()) == dict.fromkeys(range(5), 1)


def test_slurmctld_freezes_while_jobs_are_submitted(site, wrap):
    """Nobody knows whether it worked: it did, is found by its token, and runs once."""
    if os.getuid():
        pytest.skip("only root can freeze a daemon.")
    configure(site.world, command_timeout=3.0)
    site.world.add(*[site.world.says("$J")] * 3)
    pid = site.cluster.pid("slurmctld")
    try:
        with wrap("sbatch", before=f"kill -STOP {pid}"):
            done = site.submit()
        assert "did not answer within 3 s" in str(done)
        assert set(site.world.states().values()) == {"submit"}
        site.look()
        assert set(site.world.states().values()) == {"submit"}
    finally:
        os.kill(pid, signal.SIGCONT)
    site.until_complete()
    time.sleep(1)
    site.look()
    assert starts(site.world.lines()) == {0: 1, 1: 1, 2: 1}
    assert len(site.world.attempts()) == 3


def test_an_id_that_is_given_out_again_is_another_jobs(make_site):
    """Slurm dies before it has saved what it took, and gives the ids to jobs that somebody submits later."""
    if os.getuid():
        pytest.skip("only root can stop a daemon.")
    site = make_site("forgetful slurm")
    state, saved = site.cluster.folder / "state", site.world.home / "state"
    site.cluster.kill("slurmctld")
    shutil.copytree(state, saved)
    site.cluster.up("slurmctld")
    for batch in (BATCH, BATCH + 1, BATCH + 2):
        asked = {"mem": f"{batch - BATCH + 1}mb"}
        closed = batch == BATCH
        site.world.add(
            site.world.says("$J"), batch=batch, options="--hold", resources=asked, complete_on_exit=closed
        )
    site.submit()
    ours = sorted(site.ids(), key=int)
    site.cluster.kill("slurmctld", signal.SIGKILL)
    shutil.rmtree(state)
    shutil.copytree(saved, state)
    site.cluster.up("slurmctld")

    def sbatch(*options):
        command = ["sbatch", "--parsable", "--output=/dev/null", *options]
        return subprocess.check_output(command, text=True, timeout=60).strip()

    def theirs():
        # One of the two tasks of the array has an id of its own as well: that of the closer of ours.
        shown = ["squeue", "--noheader", "--format=%A %t", "--array", "--states=PD,R"]
        return dict(
            line.split() for line in subprocess.check_output(shown, text=True, timeout=60).splitlines()
        )

    held = [sbatch("--hold", "--wrap=true") for _ in range(2)]
    sbatch("--array=0-1", "--wrap=sleep 100")
    try:
        site.until(lambda: theirs() == dict(zip(ours, ["PD", "PD", "R", "R"], strict=True)))
        assert held == ours[:2]
        assert psu.qdel_batch(BATCH) == 1
        assert psu.qdel_batch(BATCH + 2) == 1
        assert site.until_missing(0, batch=BATCH + 1) == {0: "never started"}
        assert theirs().keys() == set(ours)
        assert [psu.get_qstat(one) for one in ours[:3]] == [{}] * 3
    finally:
        subprocess.run(["scancel", *theirs()], check=True, timeout=60)
