"""Jobs that multiply while they run: copies beside the job, and exactly one that learns that all are done."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest
from helpers import BATCH, kill
from test_retries import configured

import paraschut as psu

pytestmark = pytest.mark.process

#: Spawns; each copy says who it is, waits for its sign, and the last one ends the job.
COPIES = """
import os, sys, time
import paraschut as psu

job = psu.get_job_info(SetID=True)
if job["state"] != "spawn":
    job = psu.spawn_submit(job, int(sys.argv[1]))
me = job["SpawnID"]
def say(*words):
    with open(os.environ["LINES"], "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
say("copy", me, os.environ.get("PARASCHUT_SPAWNID", "-"))
print("I am", me)
while sys.argv[2:] and not os.path.exists(f"go.{me}"):
    time.sleep(0.02)
job = psu.spawn_complete(job)
say("said", me, job["state"])
if job["state"] == "complete":
    psu.set_complete(JobInfo={**psu.get_job_info(), "sum": 42}, Submit=True)
"""


@pytest.fixture
def spawns(world):
    """Return a function that adds a job that makes N copies of itself; with ``waits``, each waits for its sign."""
    (world.home / "copies.py").write_text(COPIES, "utf-8")

    def add(count, waits=False, **fields):
        script = f"{sys.executable} copies.py {count}{' waits' if waits else ''}"
        world.add(
            script, world.says("next"), complete_on_exit=lambda i: i == 1, priority=lambda i: 2 - i, **fields
        )

    return add


def go(world, *copies):
    for copy in copies:
        (world.home / f"go.{copy}").touch()


def copies(world, **having):
    found = psu.spawn_get_info(BATCH, 0)
    return [one["SpawnID"] for one in found if all(one[key] == value for key, value in having.items())]


def test_each_copy_knows_itself_and_exactly_one_is_the_last(world, spawns):
    """Logs and numbers of their own; the next group comes after the job, and its dict is whole."""
    spawns(5)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=3, cpus=3), Verbose=False)
    world.until_complete()
    lines = world.lines()
    assert sorted(one for one in lines if one.startswith("copy")) == [
        "copy 0 -",
        *(f"copy {k} {k}" for k in range(1, 6)),
    ]
    assert sum(one.endswith("complete") for one in lines) == 1
    assert lines[-1] == "next"
    assert psu.get_job_info(BATCH, 0)["sum"] == 42
    # What a copy printed is in its log when it has ended, which is after it said that it is complete.
    world.until(lambda: not world.attempts(ended=None))
    for one in psu.spawn_get_info(BATCH, 0):
        with open(one["stdout"], encoding="utf-8") as log:
            assert log.read() == f"I am {one['SpawnID']}\n"
        assert (one["state"], one["failure"]) == ("complete", None)


def test_the_queue_shows_a_star_for_each_copy_that_runs(world, spawns, capsys):
    spawns(2, waits=True)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(3)
    psu.get_queue()
    shown = capsys.readouterr().out
    assert "0***" in shown, shown
    (batch,), _ = psu.get_queue(Verbose=False).summary()
    assert {row.state: row.copies for row in batch.states}["spawn"] == ((0, 3),)
    assert "spawn" in shown
    go(world, 1)
    world.until(lambda: copies(world, state="complete") == [1])
    world.until(lambda: len(world.attempts(ended=None)) == 2)
    psu.get_queue()
    assert "0**\n" in capsys.readouterr().out.replace(" ", "")
    go(world, 0, 2)
    world.until_complete()


def test_a_copy_that_was_killed_is_missing_by_its_number_and_only_it_runs_again(world, spawns, capsys):
    spawns(3, waits=True)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(4)
    (attempt,) = world.attempts(JobIndex=0, spawn_id=2)
    kill(int(attempt["process"].partition(":")[0]))
    world.until(lambda: copies(world, state="missing") == [2])
    assert world.failures() == {0: "copy 2: vanished"}
    psu.get_queue()
    shown = capsys.readouterr().out
    assert "0***\n" in shown, shown
    assert "on queue: 1 · online: 1 · missing: 1" in shown
    (batch,), totals = psu.get_queue(Verbose=False).summary()
    assert {row.state: row.copies for row in batch.states}["spawn"] == ((0, 3),)
    assert (totals.queued, totals.online, totals.missing) == (1, 1, 1)
    go(world, 0, 1, 3)
    world.until(lambda: copies(world, state="complete") == [0, 1, 3])
    assert world.states()[0] == "spawn"
    assert psu.spawn_resubmit(BATCH, 0) == [2]
    assert psu.spawn_resubmit(BATCH, 0) == []
    go(world, 2)
    world.until_complete()
    assert world.lines().count("copy 2 2") == 2
    assert [one for one in world.lines() if one.endswith("complete")] == ["said 2 complete"]


def test_copies_of_a_job_with_retries_go_again_by_themselves(world, spawns):
    """The agent stays for the pause; only those that died run again, and the job is never missing."""
    configured(world, retry_pause=0.5)
    spawns(3, waits=True, retries=2)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(4)
    for copy in (0, 2):
        (attempt,) = world.attempts(JobIndex=0, spawn_id=copy)
        kill(int(attempt["process"].partition(":")[0]))
    world.until(lambda: len(world.attempts(JobIndex=0)) == 6)
    assert world.failures() == {}
    go(world, *range(4))
    world.until_complete()
    assert [len(world.attempts(JobIndex=0, spawn_id=copy)) for copy in range(4)] == [2, 1, 2, 1]
    assert sum(one.endswith("complete") for one in world.lines()) == 1


def test_the_one_that_began_may_be_killed_too(world, spawns):
    spawns(1, waits=True)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(2)
    (attempt,) = world.attempts(JobIndex=0, spawn_id=0)
    kill(int(attempt["process"].partition(":")[0]))
    world.until(lambda: copies(world, state="missing") == [0])
    assert psu.spawn_resubmit(BATCH, 0) == [0]
    go(world, 0, 1)
    world.until_complete()
    assert world.lines().count("copy 0 0") == 1
    assert sum(one.endswith("complete") for one in world.lines()) == 1


def test_a_reset_takes_all_copies_with_it(world, spawns):
    """They end, and the job begins anew only then, with new copies."""
    spawns(2, waits=True)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(3)
    psu.set_job_field(BATCH, 0)
    world.until(lambda: not world.of_job())
    world.until(lambda: all(row["ended"] for row in world.attempts(n=1) + world.attempts(n=2)))
    go(world, 0, 1, 2)
    world.until_complete()
    rows = world.attempts(JobIndex=0)
    assert [row["reason"] for row in rows] == ["cancelled"] * 3 + [None] * 3
    assert min(row["submitted"] for row in rows[3:]) >= max(row["ended"] for row in rows[:3])
    assert sum(one.endswith("complete") for one in world.lines()) == 1


def test_the_last_one_that_dies_before_it_completes_the_job_is_a_missing_job(world):
    """Once all copies are complete, it is an ordinary job again."""
    text = COPIES.replace("psu.set_complete", "os._exit(3)\n    psu.set_complete")
    (world.home / "copies.py").write_text(text, "utf-8")
    world.add(f"{sys.executable} copies.py 2", complete_on_exit=False)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=3, cpus=3), Verbose=False)
    world.until(world.failures)
    assert (world.failures(), world.states()) == ({0: "exit code 3"}, {0: "run"})


TWIN = """
import os, sys
import paraschut as psu
while not os.path.exists("now"):
    pass
try:
    print(psu.spawn_complete()["state"])
except psu.ParaschutError as error:
    print(type(error).__name__)
"""


#: Makes copies of this process, round after round, that all end at the sign of one pipe; prints what each was told.
ROUNDS = """
import os, sys
from paraschut import spawn
from paraschut.store import copies

rounds, count = map(int, sys.argv[1:])
for number in range(rounds):
    ready, waiting = os.pipe()
    said, saying = os.pipe()
    for copy in range(count):
        if not os.fork():
            os.close(waiting)
            os.environ.update(PARASCHUT_JOBINDEX=str(number), PARASCHUT_ATTEMPT=str(copy + 1))
            os.read(ready, 1)
            state = spawn.spawn_complete()["state"]
            os.write(saying, f"{copy + 1} {state};".encode())
            os._exit(0)
    for end in (ready, waiting, saying):
        os.close(end)
    with open(said) as file:
        print(file.read())
    for copy in range(count):
        os.wait()
"""


def copies_of(world, indices, count):
    """Let jobs that were submitted have copies that run, without anything that runs."""
    with contextlib.closing(sqlite3.connect(world.index, timeout=60)) as connection, connection:
        for index in indices:
            mine = (BATCH, index)
            (token,) = connection.execute(
                'SELECT token FROM attempt WHERE ("BatchID", "JobIndex") = (?, ?)', mine
            ).fetchone()
            connection.execute('UPDATE job SET state=\'spawn\' WHERE ("BatchID", "JobIndex") = (?, ?)', mine)
            for copy in range(count):
                if copy:
                    connection.execute(
                        'INSERT INTO attempt ("BatchID", "JobIndex", n, token, task, submitted, started, spawn_id) '
                        "VALUES (?, ?, ?, ?, ?, 1, 1, ?)",
                        (*mine, copy + 1, token, copy, copy),
                    )
                connection.execute("INSERT INTO spawn VALUES (?, ?, ?, ?, 'spawn')", (*mine, copy, copy + 1))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_of_64_that_end_at_the_same_moment_exactly_one_is_the_last_50_times_over(world, journal):
    """Real processes, each an attempt of its own; on a disk of this machine, and as where other hosts write too."""
    rounds, count = (50 if journal == "wal" else 5), 64
    (world.home / "config.toml").write_text(
        f'[paraschut]\njob_dir = "jobs"\njournal_mode = "{journal}"\n', "utf-8"
    )
    world.add(*["true"] * rounds, complete_on_exit=False)
    psu.submit_jobs(psu.FileJobExecutor(), Verbose=False)
    copies_of(world, range(rounds), count)
    names = {"PARASCHUT_INDEX": world.index, "PARASCHUT_BATCHID": str(BATCH)}
    program = world.python(ROUNDS, rounds, count, env=names, stdout=subprocess.PIPE, text=True)
    printed = program.communicate(timeout=300)[0].splitlines()
    assert len(printed) == rounds
    last = []
    for line in printed:
        said = dict(one.split() for one in line.split(";") if one)
        assert sorted(said.values()) == ["complete"] + ["spawn"] * (count - 1)
        last += [("run", int(n)) for n, state in said.items() if state == "complete"]
    assert [
        tuple(row.values()) for row in world.query('SELECT state, attempt FROM job ORDER BY "JobIndex"')
    ] == last
    assert world.query("PRAGMA journal_mode") == [{"journal_mode": journal}]


def test_a_late_twin_of_a_copy_that_runs_again_is_refused(world, spawns):
    spawns(1, waits=True)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=4, cpus=4), Verbose=False)
    world.until_lines(2)
    (attempt,) = world.attempts(JobIndex=0, spawn_id=1)
    kill(int(attempt["process"].partition(":")[0]))
    world.until(lambda: copies(world, state="missing") == [1])
    psu.spawn_resubmit(BATCH, 0)
    (world.home / "now").touch()
    names = {"PARASCHUT_INDEX": world.index, "PARASCHUT_BATCHID": str(BATCH), "PARASCHUT_JOBINDEX": "0"}
    late = world.python(
        TWIN, env={**names, "PARASCHUT_ATTEMPT": str(attempt["n"])}, stdout=subprocess.PIPE, text=True
    )
    assert late.communicate(timeout=60)[0] == "StaleJobError\n"
    go(world, 0, 1)
    world.until_complete()


def test_a_written_script_runs_the_copies_after_the_job(world, spawns):
    """What is appended while it runs is run too."""
    spawns(3)
    psu.submit_jobs(psu.FileJobExecutor(), Verbose=False)
    subprocess.run(["sh", str(world.home / "jobs" / "jobs.sh")], timeout=120, check=True, env={**os.environ})
    psu.get_queue(Verbose=False)
    assert set(world.states().values()) == {"complete"}
    assert [one for one in world.lines() if one.endswith("complete")] == ["said 3 complete"]


def test_on_a_cluster_the_copies_are_one_array(world, spawns, fake_slurm):
    (world.home / "config.toml").write_text(
        '[paraschut]\njob_dir = "jobs"\nexecutor = "slurm"\ngrace = 0.5\nqueue_age = 0.2\n'
        'environment = ["PATH", "HOME", "LANG", "PYTHONPATH", "LINES"]\n',
        "utf-8",
    )
    spawns(4)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: (psu.get_queue(Verbose=False), set(world.states().values()))[1] == {"complete"})
    assert sum(one.endswith("complete") for one in world.lines()) == 1
    arrays = [
        call["argv"] for call in fake_slurm.calls("sbatch") if any("--array" in word for word in call["argv"])
    ]
    assert len(arrays) == 1
    assert "--array=0-3" in arrays[0]
