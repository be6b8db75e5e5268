"""What every executor keeps: the same stories on this machine, in a script, on real schedulers and on fakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time

import psutil
import pytest
from helpers import BATCH
from machine import USER
from sites import HOLD, PREFIX, qstat, starts
from stories import ROOT

import paraschut as psu

REAL = ("slurm", "sge")
SITES = ("local", "file", *REAL, "fake slurm", "fake sge", "fake pbs")
pytestmark = pytest.mark.process


def on(*names):
    """Let a story run at several sites; those on the real schedulers have a mark of their own."""
    marks = dict.fromkeys(REAL, pytest.mark.cluster)
    return pytest.mark.parametrize(
        "site", [pytest.param(name, marks=marks.get(name, ())) for name in names], indirect=True
    )


@pytest.fixture
def site(make_site, request):
    return make_site(request.param)


VALUES = {
    "COMMAS": "a,b=c,,d",
    "QUOTES": """it's "so" `date`""",
    "LINES_OF": "first\nsecond\n\n",
    "DOLLARS": "$HOME \\n \\\\ %s %% !x",
    "WORDS": "é ā 中 * ? ~ [a-z]",
    "JSON": '{"a": 1, "b": [2]}',
    "EMPTY": "",
    "SPACES": "  ",
}
SHOW = """import json, os, sys
print(json.dumps([{name: os.environ.get(name) for name in sys.argv[1:]}, os.getcwd()]))
print("to the other log", file=sys.stderr)
open(os.environ["LINES"], "a").write(os.environ["PARASCHUT_JOBINDEX"] + "\\n")
"""


@on(*SITES)
def test_a_job_runs_once_with_all_that_is_its(site):
    world = site.world
    (world.home / "show.py").write_text(SHOW)
    workdir = world.home / "work 'dir' %j"
    workdir.mkdir()
    names = " ".join(f"'{name}'" for name in VALUES)
    script = f"""exec '{sys.executable}' "$SHOW" {names}"""
    # As an array of two and, of another shape, a plain job.
    shown = {**VALUES, "SHOW": str(world.home / "show.py")}
    world.add(*[script] * 3, vars=shown, workdir=str(workdir), resources=[{}, {}, {"cpus": 2}].__getitem__)
    assert site.submit().count == 3
    site.until_complete()
    for index in range(3):
        said = json.loads(log(index))
        assert said == [VALUES, str(workdir)]
        assert log(index, "stderr") == "to the other log\n"
        job = psu.get_job_info(BATCH, index)
        assert len(job["ClusterID"]) == len(job["stdout"]) == len(job["hostname"]) == 1
    assert starts(world.lines()) == {0: 1, 1: 1, 2: 1}
    ended = world.attempts()
    assert [(row["code"], row["signal"]) for row in ended] == [(0, None)] * 3
    assert all(row["submitted"] - 1 <= row["started"] <= row["ended"] <= time.time() + 1 for row in ended)
    site.until_rests()


def log(index, key="stdout"):
    with open(psu.get_job_info(BATCH, index)[key][-1], encoding="utf-8") as file:
        return file.read()


CALLS_BACK = """
import os
import paraschut as psu

job = psu.get_job_info(SetID=True)
assert psu.get_job_info(SetID=True)["state"] == "run"
job["result"] = {"seen": [1, 2], "by": psu.ClusterID}
with open(os.environ["LINES"], "a") as file:
    file.write(f"{job['JobIndex']}\\n")
psu.set_complete(JobInfo=job, Submit=True)
"""


@on(*SITES)
def test_a_python_job_says_that_it_is_complete_and_opens_the_next_group(site):
    world = site.world
    (world.home / "job.py").write_text(CALLS_BACK)
    script = f"""exec '{sys.executable}' "$HERE/job.py" """
    world.add(
        *[script] * 3,
        complete_on_exit=False,
        vars={"HERE": str(world.home)},
        priority=lambda index: 2 - index // 2,
    )
    assert site.submit().jobs == {BATCH: [0, 1]}
    site.until_complete()
    jobs = [psu.get_job_info(BATCH, index) for index in range(3)]
    assert all(job["result"]["by"] == job["ClusterID"][-1] for job in jobs)
    assert starts(world.lines()) == {0: 1, 1: 1, 2: 1}
    site.until_rests()
    assert {row["closer"] for row in world.query("SELECT closer FROM submission")} == {None}


@on(*SITES)
def test_what_became_of_jobs_is_shown_and_a_reset_runs_them_again(site):
    world = site.world
    once = 'if [ ! -e "$HERE/$PARASCHUT_JOBINDEX.done" ]; then : > "$HERE/$PARASCHUT_JOBINDEX.done";'
    world.add(
        world.says("$J", then=f"{once} exit 3; fi"),
        world.says("$J", then=f"{once} kill -KILL $$; fi"),
        world.says("$J"),
        world.says("$J", then=f"{once} exit 99; fi"),
        world.says("$J", then=f"{once} exit 100; fi"),
        vars={"HERE": str(world.home)},
    )
    site.submit()
    why = site.until_missing(0, 1, 3, 4)
    assert why == {0: "exit code 3", 1: "signal 9 (SIGKILL)", 3: "exit code 99", 4: "exit code 100"}
    site.until(lambda: world.states()[2] == "complete")
    assert psu.set_job_field(BATCH, [0, 1, 3, 4]) == 4
    # The closer of the first submission may be as quick.
    site.until(lambda: (site.submit(), len(world.attempts(n=2)))[1] == 4)
    site.until_complete()
    assert starts(world.lines()) == {0: 2, 1: 2, 2: 1, 3: 2, 4: 2}
    site.until_rests()


@on(*SITES)
def test_what_is_deleted_while_it_waits_never_runs(site):
    world = site.world
    if site.executor == "local":
        world.add("sleep 1000", batch=BATCH + 1, resources={"cpus": os.cpu_count()}, priority=9)
    wait = HOLD.get(site.executor)
    held = {"options": wait} if wait else {"resources": {"cpus": os.cpu_count()}}
    world.add(*[world.says("$J")] * 3, **held)
    psu.submit_jobs(site.executor, Verbose=False)
    assert psu.qdel_job(BATCH, 1) == 1
    assert psu.qdel_batch(BATCH) == 2
    site.until(lambda: [row["ended"] is not None for row in world.attempts()] == [True] * 3)
    assert not site.online()
    site.run_by_hand()
    site.tend()
    assert world.lines() == []
    assert set(world.states().values()) == {"held"}
    assert not world.failures()
    if site.executor == "local":
        psu.qdel_batch(BATCH + 1)


@on(*SITES)
def test_what_is_deleted_while_it_runs_ends_and_the_rest_goes_on(site):
    world = site.world
    world.add(*[world.says("$$", "$J", then="sleep 600 & wait")] * 2, world.says("$$", "$J"))
    site.submit()
    started = {int(line.split()[1]): int(line.split()[0]) for line in _lines(site, 2)}
    assert psu.qdel_job(BATCH, 0) == 1
    site.until(lambda: not psutil.pid_exists(started[0]) or _is_zombie(started[0]))
    site.until(lambda: world.attempts(JobIndex=0)[0]["ended"] is not None)
    # The file executor runs one after the other.
    site.until(lambda: world.states()[1] == "run")
    assert psu.qdel_batch(BATCH, state="init") >= 1
    site.until(lambda: world.attempts(JobIndex=1)[0]["ended"] is not None)
    assert world.states()[0] == "held"
    # What goes on by itself may hand it over again at once.
    assert world.states()[1] in {"init", "submit", "run"}
    assert starts(world.lines())[0] == 1


def _lines(site, number):
    number = 1 if site.executor == "file" else number
    return site.until(
        lambda: len(lines := [x for x in site.world.lines() if not x.endswith(" 2")]) >= number and lines
    )


def _is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@on(*SITES)
def test_two_batches_go_on_by_themselves_and_their_groups_never_overlap(site):
    world = site.world
    script = world.says(
        "start", "$PARASCHUT_BATCHID", "$J", then='sleep 0.2; echo "end $PARASCHUT_BATCHID $J" >> "$LINES"'
    )
    for batch in (BATCH, BATCH + 1):
        world.add(*[script] * 5, batch=batch, priority=lambda index: 9 - index // 2)
    assert site.submit().count == 4
    for batch in (BATCH, BATCH + 1):
        site.until_complete(batch)
    for batch in (BATCH, BATCH + 1):
        seen = [line.split() for line in world.lines() if line.split()[1] == str(batch)]
        assert sorted(int(index) for what, _, index in seen if what == "start") == list(range(5))
        groups = [int(index) // 2 for _, _, index in seen]
        assert groups == sorted(groups)
    site.until_rests()


@on(*SITES)
def test_lines_for_the_scheduler_in_a_script_are_honoured_and_the_shell_that_it_names_runs_it(site):
    world = site.world
    (world.home / "logs").mkdir()
    mine = {
        "slurm": ["--comment=twenty,two", "--job-name=mine --hold", "--array=5-9 --time=77", "-a5-9"],
        "sge": ["-l h_rt=4620", "-N mine -h", "-t 5-9 -o mine.log", "-A twenty"],
        "pbs": ["-l walltime=01:17:00", "-N mine -h", "-J 5-9", "-o mine.log"],
    }.get(site.executor, ["--nonsense"])
    prefix = PREFIX.get(site.executor, "#SBATCH")
    lines = [
        "#!/bin/bash",
        *(f"{prefix} {one}" for one in mine),
        'echo "${BASH_VERSION:+bash} $PARASCHUT_JOBINDEX" >> "$LINES"',
    ]
    path = world.home / "job %j's.sh"
    path.write_text("\n".join(lines) + "\n")
    world.add(str(path), str(path), resources=[{}, {"cpus": 2}].__getitem__)
    psu.submit_jobs(site.executor, Verbose=False)
    if site.scheduled:
        for index in range(2):
            told = json.dumps(site.until(lambda index=index: qstat(site, index)))
            wanted = {"slurm": ["twenty,two", "01:17:00"], "sge": ["4620", "twenty"], "pbs": ["01:17:00"]}
            assert all(word in told for word in wanted[site.executor]), told
        jobs = [row for row in site.listed() if not row.name.startswith("closer")]
        assert [(row.tasks, row.name[:5]) for row in jobs] == [("", "story")] * 2
        assert psu.qdel_batch(BATCH) == 2
        site.until_rests()
    else:
        site.run_by_hand()
        site.until_complete()
        assert sorted(world.lines()) == ["bash 0", "bash 1"]


@pytest.mark.cluster
def test_an_ordinary_user_finds_the_same(slurm, sge, users_folder):
    """All of the above that is about real schedulers, once more by somebody who is not root."""
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    runs = []
    for name, cluster in (("slurm", slurm), ("sge", sge)):
        given = [
            "PARASCHUT_TESTS_REQUIRE=clusters",
            "PARASCHUT_TESTS_HELD=yes",
            f"PARASCHUT_SLURM_DIR={slurm.folder}",
            f"PARASCHUT_SLURM_PORT={slurm.port}",
            f"PARASCHUT_SGE_DIR={sge.folder}",
            f"PYTHONPATH={ROOT}{os.pathsep}{sysconfig.get_path('purelib')}",
        ]
        for python in (sys.executable, shutil.which(same, path="/usr/bin:/usr/local/bin") or "false"):
            run = cluster.command("env", *given, python, "-Bm", "pytest", user=USER)
            if not subprocess.run([*run, "--version"], cwd="/", capture_output=True, check=False).returncode:
                break
        else:
            pytest.skip(f"an ordinary user can run neither {sys.executable} nor another {same} here.")
        options = [
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            f"--basetemp={users_folder}/{name}",
            "-k",
            f"[{name}]",
        ]
        argv = [*run, *options, f"--rootdir={ROOT}", __file__]
        runs.append(
            subprocess.Popen(
                argv, cwd=users_folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    for run in runs:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said[-20000:]
        assert "7 passed" in said
