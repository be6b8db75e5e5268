"""What schedulers are asked and told: as little as possible, nothing that is not theirs, and nothing when in doubt."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from helpers import BATCH
from sites import HOLD, configure, starts
from stories import dump
from test_contract import on

import paraschut as psu
from paraschut.look.doctor import examine

pytestmark = pytest.mark.process
ASKS = {"slurm": "squeue", "sge": "qstat", "pbs": "qselect"}
SUBMITS = {"slurm": "sbatch", "sge": "qsub", "pbs": "qsub"}


@pytest.fixture
def site(make_site, request):
    return make_site(request.param)


# --- asking -------------------------------------------------------------------------------------------------------


@on("slurm", "fake pbs")
def test_many_looks_cost_a_handful_of_commands(site, wrap):
    configure(site.world, queue_age=5.0)
    site.world.add(*["true"] * 3, options=HOLD[site.executor])
    site.submit()
    began = time.monotonic()
    with wrap(ASKS[site.executor]) as calls:
        for _ in range(100):
            site.look()
        assert calls() <= 1 + (time.monotonic() - began) / 5
    assert set(site.world.states().values()) == {"submit"}


@on("slurm", "fake sge")
def test_a_pass_with_nothing_to_do_asks_once_and_says_nothing(site, wrap):
    configure(site.world, queue_age=0.0)
    site.world.add(*["true"] * 3, options=HOLD[site.executor], priority=lambda index: 9 - index)
    site.submit()
    with wrap(ASKS[site.executor]) as asked, wrap(SUBMITS[site.executor]) as submitted:
        for count in (1, 2, 3):
            assert site.submit().count == 0
            assert asked() == count
        assert submitted() == 0


@on("fake sge")
def test_why_a_job_waits_is_told_whoever_asked_the_scheduler(site):
    configure(site.world, queue_age=60.0)
    site.world.add("true", options=HOLD[site.executor])
    site.submit()
    for _ in range(2):
        assert "(Job is in hold state)" in str(psu.explain(BATCH, 0))


@on("slurm")
def test_ten_thousand_jobs_are_twelve_commands(site, wrap):
    configure(site.world, queue_age=0.0)
    site.world.add(*["true"] * 10_000, options="--hold")
    with wrap("sbatch") as submitted, wrap("squeue") as asked, wrap("scancel") as deleted:
        assert site.submit(MaxJobs=20_000).count == 10_000
        # Asked before anything is claimed, and whether the closer waits.
        assert (submitted(), asked()) == (11, 2)
        site.look()
        assert psu.qdel_batch(BATCH) == 10_000
        site.until(lambda: not site.listed())
        assert deleted() <= 3
    assert set(site.world.states().values()) == {"held"}


@on("fake slurm", "fake pbs")
def test_a_scheduler_that_is_down_changes_nothing(site, capsys):
    world = site.world
    world.add(*[world.says("$J", then="sleep 600")] * 2)
    world.add("true", batch=BATCH + 1)
    site.submit(Filter=f"BatchID={BATCH}")
    site.until(lambda: set(world.states().values()) == {"run"})
    site.cluster.set(down=True)
    time.sleep(0.5)

    for _ in range(6):
        psu.get_queue(ResetMissing=True)
        time.sleep(0.5)
    said = capsys.readouterr().out
    assert "not known" in said
    assert "missing: 0" in said
    assert "unknown" in said

    def index():
        return [
            line for line in dump(world.index) if "INTO snapshot" not in line and '"snapshot"' not in line
        ]

    configure(world, queue_age=60.0, executor=f'"{site.executor}"')

    def examined():
        return next(one for one in examine() if one.name == "executor")

    assert not examined().fine
    before = index()
    with pytest.raises(psu.SubmitError, match="Nothing was submitted"):
        site.submit()
    assert index() == before
    # That it is down is shared as long as any answer, but not with who asks to submit.
    site.cluster.set(down=False)
    assert examined().fine, examined().words
    assert site.submit().count == 1
    assert set(world.states().values()) == {"run"}


@on("sge", "fake pbs")
def test_jobs_are_those_of_the_user_who_runs_this_whatever_the_environment_says(site, monkeypatch):
    """cron, sudo and containers leave the name of another user there, or none."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "nobody")
    site.world.add(*[site.world.says("$J", then="sleep 600")] * 2)
    site.submit()
    site.until(lambda: set(site.world.states().values()) == {"run"})
    for _ in range(8):
        site.look()
        time.sleep(0.5)
    assert not site.world.failures()


# --- nested -------------------------------------------------------------------------------------------------------

NESTED = """
import os
import paraschut as psu
from paraschut.look.doctor import examine

if os.environ["PARASCHUT_TASK"] == os.environ.get("FIRST", "0"):
    psu.submit_jobs(Filter=f"BatchID > {os.environ['PARASCHUT_BATCHID']}")
"""
#: Variables of a job that would change what the next one asks for, or who it takes itself for.
OF_A_JOB = ("SLURM_", "SBATCH_", "PBS_", "JOB_", "SGE_TASK", "NSLOTS", "PARASCHUT_")


@on("slurm", "sge", "fake pbs")
def test_a_pass_inside_an_array_task_hands_nothing_of_it_on(site, wrap):
    world = site.world
    inner = {"slurm": {"mem_per_cpu": "50M"}}.get(site.executor, {})
    (world.home / "nested.py").write_text(NESTED)
    configure(world, executor=f'"{site.executor}"'.lower())
    world.add(
        *[f"""exec '{sys.executable}' "$HERE/nested.py" """] * 2,
        vars={
            "HERE": str(world.home),
            "FIRST": "1" if site.executor == "sge" else "0",
            "SECRET": "of the outer",
        },
        resources={"mem": "200mb", "cpus": 2, "walltime": "20m"}
        if site.executor == "slurm"
        else {"walltime": "20m"},
    )
    shown = 'env > "$HERE/$PARASCHUT_BATCHID.env"; echo "$SECRET $J" >> "$LINES"'
    world.add(
        world.says("inner", "$J", then=shown),
        batch=BATCH + 1,
        resources=inner,
        vars={"HERE": str(world.home)},
    )
    with wrap(
        SUBMITS[site.executor], before=f"env > '{world.home.parent}/command.$CALL'".replace("'", '"')
    ) as calls:
        site.submit(Filter=f"BatchID={BATCH}")
        first = calls()
        world.until_lines(2)
        assert calls() > first
    inside = dict(
        line.split("=", 1)
        for line in (world.home.parent / f"command.{first + 1}").read_text().splitlines()
        if "=" in line
    )
    left = {name for name in inside if name.startswith(OF_A_JOB)}
    assert left <= {"SLURM_CONF"}
    assert {"SECRET", "HERE", "TMPDIR"}.isdisjoint(inside)
    if site.executor in ("slurm", "sge"):
        assert inside["SLURM_CONF" if site.executor == "slurm" else "SGE_ROOT"]
    job = (world.home / f"{BATCH + 1}.env").read_text()
    assert "SECRET" not in job
    assert "SLURM_MEM_PER_NODE" not in job
    assert "SLURM_ARRAY" not in job
    assert world.lines() == ["inner 0", " 0"]
    site.until_complete(BATCH + 1)


@on("fake sge")
def test_a_node_that_may_not_submit_says_so_and_the_next_pass_goes_on(site):
    world = site.world
    configure(world, executor='"sge"')
    last = "import paraschut as psu; psu.set_complete(Submit=True)"
    world.add(
        f"""PATH=/nonexistent exec '{sys.executable}' -c '{last}'""",
        world.says("$J"),
        priority=lambda index: 9 - index,
        complete_on_exit=lambda index: index > 0,
    )
    site.submit()
    world.until(lambda: world.states() == {0: "complete", 1: "init"})
    log = Path(psu.get_job_info(BATCH, 0)["stderr"][-1])
    said = "paraschut: this machine cannot submit to sge: the next pass elsewhere will\n"
    world.until(lambda: log.exists() and log.read_text() == said)
    assert site.submit().count == 1
    site.until_complete()


# --- pipelines ----------------------------------------------------------------------------------------------------


@on("slurm", "sge", "fake pbs")
def test_a_pipeline_of_shell_commands_goes_on_with_nobody_there(site):
    """The only process of ours is the one that makes the first pass, and it has ended."""
    world = site.world
    world.add(*[world.says("$J", then="sleep 0.3")] * 6, priority=lambda index: 9 - index // 2)
    program = "import sys; import paraschut as psu; psu.submit_jobs(sys.argv[1])"
    assert world.python(program, site.executor).wait(60) == 0
    world.until_complete(seconds=120)
    assert [int(line) // 2 for line in world.lines()] == [0, 0, 1, 1, 2, 2]


@on("slurm", "sge", "fake pbs")
def test_a_closer_that_does_not_wait_is_made_up_for_at_once(site, wrap):
    """The jobs have ended before it is sent, and the scheduler drops it: the submitter looks, and goes on itself."""
    site.world.add(*[site.world.says("$J")] * 2, priority=lambda index: 9 - index)
    command = SUBMITS[site.executor]
    ended = shlex.quote(str(site.world.home / "jobs" / "submissions"))
    real, delete = shlex.quote(str(shutil.which(command))), "scancel" if site.executor == "slurm" else "qdel"
    # Held, so that it cannot have begun before it is dropped.
    hold = "--hold" if site.executor == "slurm" else "-h"
    submitted = f'ID=$({real} {hold} "$@"); {delete} "$ID" >&2; echo "$ID"'
    dropped = f"until ls {ended}/*/*.exit; do sleep 0.1; done > /dev/null 2>&1; {submitted}"
    with wrap(command, instead=f'if [ $CALL = 2 ]; then {dropped}; else exec {real} "$@"; fi') as calls:
        assert site.submit().jobs == {BATCH: [0, 1]}
        # The second is sent in the place of the first; then come the next job and its closer.
        assert calls() == 5
    site.until_complete()
    assert starts(site.world.lines()) == {0: 1, 1: 1}


@on("fake sge")
def test_a_closer_whose_prologue_ends_it_says_so(site):
    configure(site.world, prologue='["echo no such module; exit 7"]')
    site.world.add("true")
    site.submit()
    assert site.until_missing(0) == {0: "exit code 7"}
    log = site.world.home / "jobs" / "submissions" / "closers.log"
    ended = f"no such module\nbatch {BATCH}: its closer ended before it began; look at the prologue\n"
    site.until(lambda: log.exists() and log.read_text().startswith(ended))


@on("fake slurm")
def test_a_closer_that_was_started_too_early_lets_another_one_wait(site):
    """It gives up while the job still runs; the one that it sends goes on when that has ended."""
    world = site.world
    go = shlex.quote(str(world.home / "go"))
    configure(world, executor=f'"{site.executor}"', command_timeout=4.0)
    waits = world.says("$J", then=f"until [ -e {go} ]; do sleep 0.1; done")
    world.add(waits, world.says("$J"), priority=lambda index: 9 - index)
    site.submit()
    world.until_lines(1)
    closer = "SELECT closer FROM submission"
    (first,) = world.query(closer)
    early = "import sys; from paraschut.closer import carry_on; carry_on(sys.argv[1], int(sys.argv[2]))"
    world.python(early, str(world.index), str(BATCH)).wait(60)
    (second,) = world.query(closer)
    assert second["closer"] not in {None, first["closer"]}
    (world.home / "go").touch()
    world.until_complete(seconds=60)
    assert starts(world.lines()) == {0: 1, 1: 1}


@on("slurm", "sge", "fake pbs")
def test_what_was_deleted_stays_deleted(site):
    world = site.world
    world.add(
        *[world.says("$J", then="sleep 600")] * 2,
        *[world.says("$J")] * 2,
        priority=lambda index: 9 - index // 2,
    )
    site.submit()
    world.until_lines(2)
    psu.qdel_batch(BATCH)
    time.sleep(float(os.environ.get("DELETED_FOR", "5")))
    assert sorted(world.lines()) == ["0", "1"]
    assert set(world.states().values()) == {"held"}
    assert len(world.attempts()) == 2
    site.until_rests()


# --- arrays -------------------------------------------------------------------------------------------------------


def submitted(site):
    """Return how many tasks each job had that the fake was given, closers aside."""
    jobs = site.cluster.jobs().values()
    return [
        len(job["waiting"]) + len(job["tasks"]) if job["array"] else 0
        for job in jobs
        if not job["name"].startswith("closer")
    ]


@on("fake slurm", "fake pbs")
def test_an_array_is_no_larger_than_the_scheduler_takes(site):
    site.cluster.set(array_limit=4)
    site.world.add(*[site.world.says("$J")] * 9)
    assert site.submit().count == 9
    assert sorted(submitted(site)) == [0, 4, 4]
    site.until_complete()
    assert starts(site.world.lines()) == dict.fromkeys(range(9), 1)


@on("fake slurm")
def test_what_is_too_many_waits_and_is_said(site):
    site.cluster.set(user_limit=7, paused=True)
    site.world.add(*[site.world.says("$J")] * 12)
    done = site.submit()
    assert 5 <= done.count <= 7
    assert site.world.count("init") == 12 - done.count
    assert "limit" in str(done) or "allowed" in str(done)
    site.cluster.set(user_limit=None, paused=False)
    site.until(lambda: site.submit() is not None and not site.world.count("init"))
    site.until_complete()
    assert starts(site.world.lines()) == dict.fromkeys(range(12), 1)


@on("fake slurm", "fake sge", "fake pbs")
def test_jobs_of_several_batches_share_an_array_unless_a_closer_carries_them(site):
    site.cluster.set(paused=True)
    for batch in range(3):
        site.world.add("true", "true", batch=BATCH + batch, complete_on_exit=False)
    site.submit()
    assert submitted(site) == [6]
    for batch in range(3, 5):
        site.world.add("true", "true", batch=BATCH + batch)
    site.submit()
    assert submitted(site) == [6, 2, 2]


@on("fake slurm", "fake sge", "fake pbs")
def test_scripts_with_other_lines_for_the_scheduler_are_other_arrays(site):
    site.cluster.set(paused=True)
    prefix = {"slurm": "#SBATCH --comment=", "sge": "#$ -A ", "pbs": "#PBS -A "}[site.executor]
    for name in "ab":
        (site.world.home / name).write_text(f"#!/bin/sh\n{prefix}{name}\ntrue\n")
    site.world.add(*[str(site.world.home / name) for name in "abab"])
    site.submit()
    assert submitted(site) == [2, 2]


# --- several executors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "found"),
    [(["sbatch"], "slurm"), (["qsub", "qconf"], "sge"), (["qsub"], "pbs"), ([], "local")],
    ids=str,
)
def test_auto_takes_what_is_there(world, monkeypatch, commands, found):
    from paraschut.config import load_config
    from paraschut.executors.choice import executor_of

    folder = world.home / "bin"
    folder.mkdir()
    for command in commands:
        (folder / command).write_text("#!/bin/sh\n")
        (folder / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert executor_of("auto", load_config()).name == found


def test_each_executor_judges_its_own_jobs(make_site):
    """Some batches of an index are on a cluster that is down, some on another, some on this machine."""
    down, up, here = (make_site(name) for name in ("fake slurm", "fake pbs", "local"))
    world = here.world
    for number, site in enumerate((down, up, here)):
        world.add(*[world.says("$J", then="sleep 600")] * 2, batch=BATCH + number)
        psu.submit_one_batch(BATCH + number, site.executor, Verbose=False)
    journal = _journal(world)
    here.until(lambda: len(world.lines()) == 6)
    down.cluster.set(down=True)
    for job in up.cluster.jobs():
        up.cluster.forget(job)
    here.until(lambda: set(world.failures(BATCH + 1)) == {0, 1})
    for process in [one for index in range(2) for one in world.of_job(index, BATCH + 2)]:
        process.kill()
    here.until(lambda: set(world.failures(BATCH + 2)) == {0, 1})
    assert not world.failures(BATCH)
    assert set(world.states(BATCH).values()) == {"run"}
    assert journal == "delete"


def _journal(world):
    with sqlite3.connect(world.index) as connection:
        found = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    return found


def test_an_index_leaves_wal_when_a_cluster_gets_its_first_jobs(make_site):
    world = make_site("local").world
    world.add("true")
    psu.submit_jobs("local", Verbose=False)
    world.until_complete()
    assert _journal(world) == "wal"
    site = make_site("fake sge")
    world.add("true", batch=BATCH + 1)
    site.submit()
    assert _journal(world) == "delete"
    site.until_complete(BATCH + 1)
    assert json.dumps(world.states(BATCH))
