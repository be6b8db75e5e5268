"""Jobs that make copies of themselves on real schedulers: one array, and exactly one that learns that all are done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from helpers import BATCH
from sites import configure
from test_contract import on
from test_spawned_copies import COPIES, TWIN, copies, go

import paraschut as psu

pytestmark = pytest.mark.process


@pytest.fixture
def site(make_site, request):
    return make_site(request.param)


@pytest.fixture
def spawns(site):
    """Return a function that adds a job that makes N copies of itself, which wait for their signs, and one below it."""
    world = site.world
    (world.home / "copies.py").write_text(COPIES, "utf-8")

    def add(count, program="copies.py", **more):
        script = f"""exec '{sys.executable}' {program} {count} waits"""
        below = world.says("next")
        world.add(script, below, complete_on_exit=lambda i: i == 1, priority=lambda i: 2 - i, **more)
        site.submit()

    return add


def until_copies(site, number):
    """Wait until so many copies have said who they are; return what each said of itself, by its number."""

    def said():
        found = {int(line.split()[1]): line for line in site.world.lines() if line.startswith("copy")}
        return len(found) >= number and found

    return site.until(said)


def process_of(site, copy):
    """Return the Python process of a copy."""
    (found,) = (
        one
        for one in site.world.of_job()
        if one.environ().get("PARASCHUT_SPAWNID", "0") == str(copy) and "copies.py" in one.cmdline()
    )
    return found


@on("slurm", "sge")
def test_copies_are_one_array_and_a_killed_one_alone_runs_again(site, spawns, capsys):
    world = site.world
    spawns(3, vars={"MINE": "a b"})
    said = until_copies(site, 4)
    assert said == {0: "copy 0 -", **{copy: f"copy {copy} {copy}" for copy in range(1, 4)}}
    site.until(lambda: len(copies(world, state="run")) == 4)
    # One submission, one array, a number of its own for each.
    first, array = world.query("SELECT token, cluster_id FROM submission ORDER BY claimed")
    assert ("#" in first["cluster_id"], "#" in array["cluster_id"]) == (False, True)
    ids = {one["SpawnID"]: one["ClusterID"] for one in psu.spawn_get_info(BATCH, 0)}
    assert len(set(ids.values())) == 4
    listed = {row.job for row in site.listed()}
    assert {ids[copy].split("_")[0].split(".")[0] for copy in range(1, 4)} < listed
    environments = [process_of(site, copy).environ() for copy in range(4)]
    assert {one["MINE"] for one in environments} == {"a b"}
    assert [one["PARASCHUT_CLUSTERID"] for one in environments] == list(ids.values())
    # One star for each that runs.
    psu.get_queue()
    assert "0****\n" in capsys.readouterr().out.replace(" ", "")
    os.kill(process_of(site, 2).pid, signal.SIGKILL)
    site.until(lambda: copies(world, state="missing"))
    assert copies(world, failure="signal 9 (SIGKILL)") == [2]
    assert world.failures() == {0: "copy 2: signal 9 (SIGKILL)"}
    psu.get_queue(ReportMissing=True)
    shown = capsys.readouterr().out
    assert "0***\n" in shown.replace(" ", "")
    assert "copy 2: signal 9 (SIGKILL)" in shown
    (killed,) = world.attempts(JobIndex=0, spawn_id=2)
    assert psu.spawn_resubmit(BATCH, 0) == [2]
    site.until(lambda: world.lines().count("copy 2 2") == 2)
    # Its twin, which comes late, is refused.
    (world.home / "now").touch()
    names = {"PARASCHUT_INDEX": world.index, "PARASCHUT_BATCHID": str(BATCH), "PARASCHUT_JOBINDEX": "0"}
    late = {**names, "PARASCHUT_ATTEMPT": str(killed["n"])}
    twin = world.python(TWIN, env=late, stdout=subprocess.PIPE, text=True)
    assert twin.communicate(timeout=60)[0] == "StaleJobError\n"
    go(world, *range(4))
    site.until_complete()
    lines = world.lines()
    assert sorted(line for line in lines if line.startswith("copy")) == sorted([*said.values(), "copy 2 2"])
    assert sum(line.endswith(" complete") for line in lines) == 1
    assert len([line for line in lines if line.startswith("said")]) == 4
    assert lines[-1] == "next"
    assert psu.get_job_info(BATCH, 0)["sum"] == 42
    for one in psu.spawn_get_info(BATCH, 0):
        with open(one["stdout"], encoding="utf-8") as log:
            assert log.read() == f"I am {one['SpawnID']}\n"
    site.until_rests()


@on("slurm", "sge")
def test_a_reset_in_the_middle_takes_the_copies_with_it(site, spawns):
    world = site.world
    spawns(3)
    until_copies(site, 4)
    before = [process_of(site, copy) for copy in range(4)]
    psu.set_job_field(BATCH, 0)
    site.until(lambda: not any(one.is_running() for one in before))
    site.until(lambda: all(row["ended"] for row in world.attempts(JobIndex=0)[:4]))
    go(world, *range(4))
    site.until(lambda: site.submit() and world.states()[0] != "init")
    site.until_complete()
    rows = world.attempts(JobIndex=0)
    assert [row["reason"] for row in rows] == ["cancelled"] * 4 + [None] * 4
    assert min(row["submitted"] for row in rows[4:]) >= max(row["ended"] for row in rows[:4])
    assert sum(line.endswith(" complete") for line in world.lines()) == 1
    site.until_rests()


@on("slurm", "sge")
def test_a_copy_of_a_job_with_retries_goes_again_by_itself(site, spawns):
    """Nobody makes a pass but the closer, when their array has ended."""
    world = site.world
    configure(world, executor=f'"{site.executor}"', retry_pause=1)
    spawns(2, retries=1)
    until_copies(site, 3)
    os.kill(process_of(site, 2).pid, signal.SIGKILL)
    go(world, 0, 1)
    world.until(lambda: world.lines().count("copy 2 2") == 2, 90)
    go(world, 2)
    world.until_complete(seconds=120)
    rows = world.attempts(JobIndex=0)
    assert [row["spawn_id"] for row in rows] == [0, 1, 2, 2]
    assert [row["reason"] for row in rows] == [None, None, "signal 9 (SIGKILL)", None]
    assert rows[3]["started"] - rows[2]["ended"] >= 1
    assert sum(line.endswith(" complete") for line in world.lines()) == 1
    site.until_rests()


#: What a scheduler starts: in one process that waits for the sign of all.
TOGETHER = COPIES.replace('f"go.{me}"', '"go.all"')


@pytest.fixture
def room(site):
    """Let a cluster run 65 jobs at once."""
    if os.getuid():
        pytest.skip("only root can give a cluster more room.")
    if site.executor == "slurm":
        change = ["scontrol", "update", "partitionname=main", "oversubscribe={}"]
        usual, more = "no", "force:2"
    else:
        host = socket.gethostname()
        change = ["qconf", "-rattr", "exechost", "complex_values", "slots={},gpu=2", host]
        usual, more = "16", "80"
    queue = ["qconf", "-rattr", "queue", "slots", "{}", "all.q"]
    commands = [change] if site.executor == "slurm" else [change, queue]

    def give(value):
        for command in commands:
            subprocess.run([word.format(value) for word in command], check=True, capture_output=True)

    give(more)
    yield
    give(usual)


@on("slurm", "sge")
@pytest.mark.usefixtures("room")
def test_of_64_that_end_at_the_same_moment_exactly_one_is_the_last(site, spawns):
    world = site.world
    (world.home / "together.py").write_text(TOGETHER, "utf-8")
    spawns(63, "together.py")
    until_copies(site, 64)
    (world.home / "go.all").touch()
    site.until_complete()
    said = [line for line in world.lines() if line.startswith("said")]
    assert len(said) == 64
    assert sum(line.endswith(" complete") for line in said) == 1
    assert [row["state"] for row in world.query("SELECT state FROM spawn")] == ["complete"] * 64
    arrays = world.query("SELECT cluster_id FROM submission WHERE cluster_id LIKE '%#%'")
    assert len(arrays) == 1
    site.until_rests()
