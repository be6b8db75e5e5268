"""The fake Slurm says what Slurm 22.05 was recorded to say, and runs what it is given."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from fakes.said import said

pytestmark = pytest.mark.process


@pytest.fixture
def say(fake_slurm, tmp_path):
    return lambda line, **more: said(line, tmp_path, **more)


def test_submitting_says_the_id(fake_slurm, say):
    assert say("sbatch --wrap true") == ("Submitted batch job 1\n", "", 0)
    assert say("sbatch --parsable --wrap true") == ("2\n", "", 0)
    assert say("sbatch --parsable --quiet --wrap true") == ("", "", 0)
    assert say("sbatch --version") == ("slurm-wlm 22.05.8\n", "", 0)


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("-p nosuch", ("invalid partition specified: nosuch\nsbatch: error: Batch job submission failed: "
         "Invalid partition name specified"), 1),
        ("--mem=999G", ("Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: "
         "Requested node configuration is not available"), 1),
        ("--gres=gpu:9", "Batch job submission failed: Requested node configuration is not available", 1),
        ("--gres=nosuch:1", "Invalid generic resource (gres) specification", 1),
        ("--mem=abc", "Invalid --mem specification", 255),
        ("--time=abc", "Invalid --time specification", 255),
        ("--array=0-200000", "Batch job submission failed: Invalid job array specification", 1),
        ("--array=5-2", "Batch job submission failed: Invalid job array specification", 1),
        ("-d afterok:abc", "Batch job submission failed: Job dependency problem", 1),
        (f"--comment={'n' * 1500}", ("Batch job submission failed: Pathname of a file, directory or other "
         "parameter too long"), 1),
    ],
)  # fmt: skip
def test_refusals(say, line, words, code):
    assert say(f"sbatch --parsable {line} --wrap true") == ("", f"sbatch: error: {words}\n", code)


def test_an_unknown_option_and_scripts_that_are_none(say, tmp_path):
    assert say("sbatch --nosuchflag") == (
        "",
        "sbatch: unrecognized option '--nosuchflag'\nTry \"sbatch --help\" for more information\n",
        255,
    )
    assert say("sbatch missing.sh") == ("", "sbatch: error: Unable to open file missing.sh\n", 1)
    (tmp_path / "bare.sh").write_text("echo no shebang\n")
    assert say("sbatch bare.sh")[1].startswith(
        "sbatch: error: This does not look like a batch script.  The first\n"
    )
    (tmp_path / "dos.sh").write_bytes(b"#!/bin/sh\r\ntrue\r\n")
    assert say("sbatch dos.sh")[1].startswith(
        "sbatch: error: Batch script contains DOS line breaks (\\r\\n)\n"
    )


def test_an_array_in_the_queue(fake_slurm, say):
    fake_slurm.set(slots=3)
    say("sbatch --parsable -o /dev/null --array=0-9%3 --wrap 'sleep 60'")
    fake_slurm.until(lambda: len(fake_slurm.tasks("running")) == 3)
    assert say('squeue -h -o "%i|%F|%K|%A|%T|%r"')[0].splitlines() == [
        "1_[3-9%3]|1|3-9%3|1|PENDING|JobArrayTaskLimit",
        "1_0|1|0|2|RUNNING|None",
        "1_1|1|1|3|RUNNING|None",
        "1_2|1|2|4|RUNNING|None",
    ]
    assert say('squeue --noheader --me --array --format="%i|%K|%A|%T"')[0].splitlines() == [
        *(f"1_{i}|{i}|1|PENDING" for i in range(3, 10)),
        "1_0|0|2|RUNNING",
        "1_1|1|3|RUNNING",
        "1_2|2|4|RUNNING",
    ]
    say("scancel 1_5 1_[7-8]")
    assert say('squeue -h -t PD -o "%i"')[0] == "1_[3-4,6,9%3]\n"


def test_a_long_list_of_tasks_is_cut_with_no_sign(fake_slurm, say):
    fake_slurm.set(paused=True)
    say(f"sbatch --hold -o /dev/null --array={','.join(map(str, range(1, 200, 3)))} --wrap true")
    cut = say('squeue -h -o "%i"')[0].strip()
    assert cut.startswith("1_[1,4,7,")
    assert not cut.endswith("]")
    assert (
        say('squeue -h -o "%i"', env={**os.environ, "SLURM_BITSTR_LEN": "0"})[0].strip().endswith("196,199]")
    )
    assert len(say("squeue -h -r")[0].splitlines()) == 67


def test_how_tasks_end(fake_slurm, say, tmp_path):
    say("sbatch -J ok -o /dev/null --wrap true")
    say("sbatch -J fail -o /dev/null --wrap 'exit 7'")
    say("sbatch -J segv -o /dev/null --wrap 'kill -SEGV $$'")
    say("sbatch -J nolog -o /nonexistent/dir/x.out --wrap true")
    say("sbatch -J time --time=0:01 -o time.out --wrap 'sleep 60'")
    say("sbatch -J memory -o memory.out --wrap 'sleep 60'")
    say("sbatch -J cancelled -o cancelled.out --wrap 'sleep 60'")
    say(
        "sbatch -J traps -o /dev/null --wrap 'trap \"exit 5\" TERM; touch ready; while :; do sleep 0.2; done'"
    )
    fake_slurm.until(lambda: len(fake_slurm.tasks("ended")) == 5 and (tmp_path / "ready").exists())
    fake_slurm.end(6, verdict="OUT_OF_MEMORY")
    say("scancel -n cancelled; scancel 8")
    fake_slurm.wait()
    assert say('squeue -h --states=all -o "%j|%t|%T|%r" | sort')[0].splitlines() == [
        "cancelled|CA|CANCELLED|None",
        "fail|F|FAILED|NonZeroExitCode",
        "memory|OOM|OUT_OF_MEMORY|OutOfMemory",
        "nolog|F|FAILED|JobLaunchFailure",
        "ok|CD|COMPLETED|None",
        "segv|F|FAILED|JobLaunchFailure",
        "time|TO|TIMEOUT|TimeLimit",
        "traps|CA|CANCELLED|None",
    ]
    exits = {
        number: say(f"scontrol -o show job {number} | grep -o ' ExitCode=[^ ]*'")[0].strip()
        for number in range(1, 9)
    }
    assert list(exits.values()) == [
        f"ExitCode={code}" for code in ("0:0", "7:0", "0:11", "0:53", "0:15", "0:125", "0:15", "5:0")
    ]
    assert say("sacct -X -P -n -j 2,3,5,6 -o jobid,jobname,state,exitcode")[0].splitlines() == [
        "2|fail|FAILED|7:0",
        "3|segv|FAILED|0:11",
        "5|time|TIMEOUT|0:0",
        "6|memory|OUT_OF_MEMORY|0:125",
    ]
    assert "CANCELLED AT" in (tmp_path / "time.out").read_text()
    assert "DUE TO TIME LIMIT ***" in (tmp_path / "time.out").read_text()
    assert "Detected 1 oom-kill event(s) in StepId=6.batch." in (tmp_path / "memory.out").read_text()


def test_what_is_unknown_and_what_is_forgotten(fake_slurm, say):
    assert say("squeue -j 99999") == ("", "slurm_load_jobs error: Invalid job id specified\n", 1)
    assert say("squeue -h -j 99999,98888") == ("", "", 0)
    assert say("scontrol show job 99999") == ("", "slurm_load_jobs error: Invalid job id specified\n", 1)
    assert say("scancel 99999") == ("", "", 0)
    assert say("scancel abc") == ("", "scancel: error: Invalid job id abc\n", 1)
    say("sbatch -o /dev/null --wrap 'exit 3'")
    fake_slurm.wait()
    assert say("squeue -h -j 1") == ("", "", 0)
    assert say("squeue -h --states=all -j 1 -o '%i|%T'")[0] == "1|FAILED\n"
    fake_slurm.set(forget=0)
    assert say("squeue -h --states=all -j 1") == ("", "slurm_load_jobs error: Invalid job id specified\n", 1)
    assert say("sacct -X -P -n -j 1 -o jobid,state")[0] == "1|FAILED\n"
    fake_slurm.set(accounting_delay=60)
    assert say("sacct -X -P -n -j 1 -o jobid,state") == ("", "", 0)
    fake_slurm.set(accounting=False)
    assert say("sacct -j 1") == ("", "Slurm accounting storage is disabled\n", 1)


def test_dependencies(fake_slurm, say):
    fake_slurm.set(paused=True)
    say("sbatch -J first -o /dev/null --wrap 'exit 1'")
    say("sbatch -J any -o /dev/null -d afterany:1 --wrap true")
    say("sbatch -J ok -o /dev/null -d afterok:1 --wrap true")
    say("sbatch -J unknown -o /dev/null -d afterany:99999 --wrap true")
    assert say('squeue -h -n any,ok -o "%i|%r|%E"')[0].splitlines() == [
        "2|Dependency|afterany:1(unfulfilled)",
        "3|Dependency|afterok:1(unfulfilled)",
    ]
    fake_slurm.set(paused=False)
    fake_slurm.until(lambda: len(fake_slurm.tasks("ended")) == 3)
    assert say('squeue -h -o "%j|%T|%r"')[0] == "ok|PENDING|DependencyNeverSatisfied\n"


def test_a_job_finds_itself(fake_slurm, say, tmp_path):
    say("sbatch -o e-%A_%a.out --array=4-6:2%1 --wrap 'env | grep ^SLURM_ARRAY | sort; pwd; echo $OWN'",
        env={**os.environ, "OWN": "a,b"})  # fmt: skip
    fake_slurm.wait()
    assert (tmp_path / "e-1_6.out").read_text().splitlines() == [
        "SLURM_ARRAY_JOB_ID=1",
        "SLURM_ARRAY_TASK_COUNT=2",
        "SLURM_ARRAY_TASK_ID=6",
        "SLURM_ARRAY_TASK_MAX=6",
        "SLURM_ARRAY_TASK_MIN=4",
        "SLURM_ARRAY_TASK_STEP=2",
        str(tmp_path),
        "a,b",
    ]


def test_only_what_is_exported_arrives(fake_slurm, say, tmp_path):
    own = {**os.environ, "P_C": "a,b", "P_X": "x"}
    show = "env | grep ^P_ | sort"
    say(f"sbatch --export=P_C,P_D=plain -o some --wrap '{show}'", env=own)
    say(f"sbatch --export=NIL -o nil --wrap '{show}'", env=own)
    say(f"sbatch --export=ALL,P_C=a,b -o cut --wrap '{show}'", env=own)
    fake_slurm.wait()
    assert (tmp_path / "some").read_text() == "P_C=a,b\nP_D=plain\n"
    assert (tmp_path / "nil").read_text() == ""
    assert (tmp_path / "cut").read_text() == "P_C=a\nP_X=x\n"


def test_a_failed_node_runs_its_jobs_again_unless_they_asked_not_to(fake_slurm, say, tmp_path):
    line = "echo ${SLURM_RESTART_COUNT:-0} >> runs; sleep 60"
    say(f"sbatch -o /dev/null --wrap '{line}'")
    say("sbatch --no-requeue -o /dev/null --wrap 'sleep 60'")
    runs = tmp_path / "runs"
    fake_slurm.until(lambda: len(fake_slurm.tasks("running")) == 2 and runs.exists())
    fake_slurm.end(1, verdict="REQUEUE")
    fake_slurm.end(2, verdict="REQUEUE")
    fake_slurm.until(lambda: runs.read_text() == "0\n1\n" and fake_slurm.tasks("ended"))
    assert say('squeue -h --states=all -o "%i|%T|%r"')[0].splitlines() == [
        "1|RUNNING|None",
        "2|NODE_FAIL|NodeDown",
    ]


def test_a_limit_of_jobs(fake_slurm, say):
    fake_slurm.set(user_limit=5, paused=True)
    assert say("sbatch --array=0-2 --wrap true")[2] == 0
    words, code = say("sbatch --array=0-2 --wrap true")[1:]
    assert (code, "Job violates accounting/QOS policy" in words) == (1, True)
    assert say("sbatch --array=0-1 --wrap true")[2] == 0


def test_nobody_answers(fake_slurm, say):
    fake_slurm.set(down=True)
    nobody = "Unable to contact slurm controller (connect failure)"
    assert say("sbatch --wrap true") == ("", f"sbatch: error: Batch job submission failed: {nobody}\n", 1)
    assert say("squeue -h") == ("", f"slurm_load_jobs error: {nobody}\n", 1)
    assert say("scancel 1") == ("", f"scancel: error: Kill job error on job id 1: {nobody}\n", 8)
    assert say("scontrol ping")[2] == 1
    assert not fake_slurm.jobs()


@pytest.mark.parametrize(("at", "submitted"), [("before", 0), ("after", 1)])
def test_a_rule_kills_the_caller(fake_slurm, at, submitted, tmp_path):
    fake_slurm.rule("sbatch", "kill", at=at, skip=1)
    calls = [
        "python3",
        "-c",
        "import subprocess; [subprocess.run(['sbatch', '--wrap=true']) for _ in range(3)]",
    ]
    done = subprocess.run(calls, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert len(fake_slurm.jobs()) == 1 + submitted
    assert len(fake_slurm.calls("sbatch")) == 2


def test_a_rule_makes_a_command_hang_that_has_worked(fake_slurm):
    fake_slurm.rule("sbatch", "hang", at="after", seconds=60, words="sbatch: error: sleeping and retrying")
    with pytest.raises(subprocess.TimeoutExpired) as hung:
        subprocess.run(["sbatch", "--hold", "--wrap=true"], timeout=2, capture_output=True, check=False)
    assert hung.value.stderr == b"sbatch: error: sleeping and retrying\n"
    assert len(fake_slurm.jobs()) == 1


def test_a_rule_makes_a_command_fail_before_or_after_it_has_worked(fake_slurm, say):
    late = "Socket timed out on send/recv operation"
    fake_slurm.rule("sbatch", "fail", at="after", words=f"sbatch: error: Batch job submission failed: {late}")
    assert say("sbatch --hold --wrap true") == (
        "",
        f"sbatch: error: Batch job submission failed: {late}\n",
        1,
    )
    assert len(fake_slurm.jobs()) == 1
    fake_slurm.rule("squeue", "fail", words=f"slurm_load_jobs error: {late}", times=2)
    for _ in range(2):
        assert say("squeue") == ("", f"slurm_load_jobs error: {late}\n", 1)
    assert say("squeue -h -o %i")[0] == "1\n"


def test_a_job_submits_the_next_one(fake_slurm, say, tmp_path):
    say("sbatch -o /dev/null --wrap 'sbatch -o /dev/null --export=NIL --wrap \"touch done\"'")
    fake_slurm.until((tmp_path / "done").exists)
    fake_slurm.wait()
    assert fake_slurm.calls("sbatch")[1]["environment"]["SLURM_JOB_ID"] == "1"
