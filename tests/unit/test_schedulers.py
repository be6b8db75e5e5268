"""How schedulers are spoken to, and what their words mean: no scheduler, no index."""

from __future__ import annotations

import doctest
import os
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut import queues
from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors import cluster, cluster_script, pbs, queue, run, scheduler, sge, slurm
from paraschut.executors.base import Evidence, Exit, Mark
from paraschut.executors.pbs import PBSJobExecutor
from paraschut.executors.queue import Kind as Listed
from paraschut.executors.queue import Queue, Row, expanded, ranges
from paraschut.executors.run import Answer, NoAnswerError, run_command
from paraschut.executors.scheduler import Cause, TooManyError, UnreachableError, name_of
from paraschut.executors.sge import SGEJobExecutor
from paraschut.executors.slurm import SlurmJobExecutor
from paraschut.reconcile import Kind

ALL = [SlurmJobExecutor, SGEJobExecutor, PBSJobExecutor]
TEMPLATE = {"cput": "04:59:00", "mem": "1gb", "pmem": "1gb", "pvmem": "3gb", "vmem": "3gb"}


# --- what a job asks for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "queue", "resources", "flags"),
    [
        (SlurmJobExecutor, None, {}, []),
        (
            SlurmJobExecutor,
            "short",
            {"cpus": 4, "mem": "1.5gb", "walltime": "90m", "gpus": 2},
            ["--partition=short", "--cpus-per-task=4", "--mem=1572864K", "--time=0-01:30:00", "--gres=gpu:2"],
        ),
        (SlurmJobExecutor, None, {"mem": 1}, ["--mem=1K"]),
        (SlurmJobExecutor, None, {"walltime": 0.5}, ["--time=0-00:00:01"]),
        (SlurmJobExecutor, None, {"nodes": 2}, ["--nodes=2", "--ntasks-per-node=1"]),
        (SlurmJobExecutor, None, {"exclusive": True, "contiguous": False}, ["--exclusive"]),
        (SlurmJobExecutor, None, {"mem_per_cpu": "2G", "qos": "a b"}, ["--mem-per-cpu=2G", "--qos=a b"]),
        (SlurmJobExecutor, None, TEMPLATE, ["--mem=1048576K"]),
        (SGEJobExecutor, None, {"cpus": 4, "mem": "1gb"}, ["-pe", "smp", "4", "-l", "h_vmem=262144K"]),
        (SGEJobExecutor, "a.q", {"walltime": "1-00:00:00"}, ["-q", "a.q", "-l", "h_rt=86400"]),
        (SGEJobExecutor, None, {"gpus": 1, "exclusive": True}, ["-l", "gpu=1,exclusive=TRUE"]),
        (SGEJobExecutor, None, TEMPLATE, ["-l", "h_vmem=1048576K"]),
        (
            PBSJobExecutor,
            "w",
            {"cpus": 2, "walltime": 100_000},
            ["-q", "w", "-l", "ncpus=2", "-l", "walltime=27:46:40"],
        ),
        (PBSJobExecutor, None, {"nodes": 2, "cpus": 3, "mem": "1kb"}, ["-l", "select=2:ncpus=3:mem=1kb"]),
        (PBSJobExecutor, None, {"select": "1:ncpus=2+3", "cpus": 9}, ["-l", "select=1:ncpus=2+3"]),
        (
            PBSJobExecutor,
            None,
            {"cpus": 4, "place": "excl", "mpiprocs": 2, "cput": "1:00"},
            ["-l", "select=1:ncpus=4:mpiprocs=2", "-l", "place=excl", "-l", "cput=1:00"],
        ),
    ],
)
def test_what_a_job_asks_for_becomes_flags(kind, queue, resources, flags):
    before = dict(resources)
    assert kind().resource_flags(queue, resources) == flags
    assert resources == before


@pytest.mark.parametrize("kind", ALL)
def test_the_template_asks_every_scheduler_for_something(kind):
    """Its keys are those of PBS: others leave out what they do not have, and say so."""
    ignored = kind().ignored({"resources": TEMPLATE}) if kind is not PBSJobExecutor else []
    assert ignored == ([] if kind is PBSJobExecutor else ["cput", "pmem", "pvmem", "vmem"])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"mem": "4 apples"}, "mem"),
        ({"mem": -1}, "mem"),
        ({"walltime": "1:2:3:4:5"}, "walltime"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": 1.5}, "cpus"),
        ({"a b": 1}, "a b"),
        ([], "dict"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_submitted(kind, resources, words):
    with pytest.raises(JobError, match=words):
        kind().asked({"resources": resources or [1]})


def test_other_keys_are_refused_with_those_that_are_valid():
    with pytest.raises(JobError, match=r"'colour'.*cpus.*qos"):
        SlurmJobExecutor().asked({"resources": {"colour": "red"}})
    with pytest.raises(JobError, match="'output'"):
        SlurmJobExecutor().asked({"resources": {"output": "mine"}})
    with pytest.raises(JobError, match="-pe mpi"):
        SGEJobExecutor().asked({"resources": {"nodes": 2}})


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("options", ["it's", 3, ["a", 1], {"a": 1}])
def test_options_are_a_text_or_words(kind, options):
    with pytest.raises(JobError, match="options"):
        kind().asked({"resources": {}, "options": options})


@pytest.mark.parametrize("kind", ALL)
def test_options_come_last(kind):
    flags = kind(queue="q", resources={"cpus": 2}, options=["--mine", "a b"]).flags_of(
        "q", {}, "--last 'c d'"
    )
    assert flags[-4:] == ("--mine", "a b", "--last", "c d")


# --- lines for the scheduler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("--array=0-9", None),
        ("-a0-9", None),
        ("-a 0-9 --time=5", "--time=5"),
        ("--time=5 --arr 1-2 -p short", "--time=5 -p short"),
        ("--wait", None),
        ("--wait-all-nodes=1", "--wait-all-nodes=1"),
        ("-J name", None),
        ("--comment='a  b' -o x", "--comment='a  b'"),
        ("--comment=it's", "--comment=it's"),
        ("--account lab   --qos=x", "--account lab   --qos=x"),
        ("-n 2 # -N 3", "-n 2 # -N 3"),
    ],
)
def test_the_options_that_are_ours_are_taken_out_of_a_line(tmp_path, line, left):
    path = tmp_path / "script"
    path.write_text(f"#!/bin/sh\n\n# text\n#SBATCH {line}\n#SBATCHER no\necho\n#SBATCH -n 9\n")
    found = cluster_script.directives_of(str(path), "#SBATCH", SlurmJobExecutor.ours)
    assert found == (() if left is None else (f"#SBATCH {left}",))


def test_options_of_grid_engine_are_whole_words(tmp_path):
    path = tmp_path / "script"
    path.write_text("#$ -tc 5 -pe smp 2\n#$ -t 1-5 -l h_rt=5,mem=1G\n#$ -j y\n#$ -terse -q a.q\n")
    found = cluster_script.directives_of(str(path), "#$", SGEJobExecutor.ours, joined=False)
    assert found == ("#$ -pe smp 2", "#$ -l h_rt=5,mem=1G", "#$ -q a.q")


def test_grid_engine_also_reads_lines_behind_the_first_command(tmp_path):
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\n#$-l h_rt=5\n. ./settings\n#$ -A lab\n#$foo\n")
    (group,) = SGEJobExecutor().arrange([SimpleNamespace(source=str(path))])
    assert SGEJobExecutor()._directives(group[0]) == ("#$-l h_rt=5", "#$ -A lab")


def test_a_script_that_is_not_there_has_no_lines(tmp_path):
    assert cluster_script.directives_of(str(tmp_path / "none"), "#PBS", PBSJobExecutor.ours) == ()


def test_a_quote_that_is_alone_breaks_nothing(tmp_path):
    path = tmp_path / "script"
    path.write_text("#SBATCH --comment=it's\n#SBATCH -A lab\n")
    task = SimpleNamespace(source=str(path))
    assert list(SlurmJobExecutor()._directive_words(task)) == ["--comment=it's", "-A", "lab"]


@given(st.lists(st.sampled_from(["-a", "-a1", "--array", "--array=1", "-p", "short", "--time=5", "-Q", "x"])))
def test_no_word_is_lost_or_turned(words):
    ours, others = cluster_script.picked(words, SlurmJobExecutor.ours)
    assert sorted([*ours, *others]) == sorted(words)
    again, rest = cluster_script.picked(others, SlurmJobExecutor.ours)
    assert (again, rest) == ([], others)


# --- what they print ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "printed", "array", "known_as"),
    [
        (SlurmJobExecutor, "2\n", False, "2"),
        (SlurmJobExecutor, "14;alpha\n", True, "14_#"),
        (SlurmJobExecutor, "Welcome to the cluster\nquota: 12\n15\n", False, "15"),
        (SGEJobExecutor, "2\n", False, "2"),
        (SGEJobExecutor, "11.1-10:3\n", True, "11.#"),
        (PBSJobExecutor, "123.host\n", False, "123.host"),
        (PBSJobExecutor, "123[].host.domain\n", True, "123[#].host.domain"),
    ],
)
def test_the_id_is_read(kind, printed, array, known_as):
    executor = kind()
    found = executor.id_of(printed, array=array)
    assert found == known_as
    task = found.replace("#", "7")
    assert executor.pattern_of(task) == found
    assert executor.job_of(task) == executor.job_of(found)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("printed", ["", "\n", "Submitted", "error: 12"])
def test_what_names_no_job_is_no_id(kind, printed):
    with pytest.raises(ValueError):
        kind().id_of(printed, array=False)


@pytest.mark.parametrize(
    ("kind", "said", "meaning"),
    [
        (SlurmJobExecutor, "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", SubmitError),
        (SlurmJobExecutor, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", UnreachableError),
        (SlurmJobExecutor, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", ExecutorError),
        (SlurmJobExecutor, "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", ExecutorError),
        (SlurmJobExecutor, "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", TooManyError),
        (SlurmJobExecutor, "", ExecutorError),
        (SGEJobExecutor, 'Unable to run job: unknown queue "nosuch.q".\nExiting.', SubmitError),
        (SGEJobExecutor, "Unable to run job: job rejected: Only 5 jobs are allowed per user (current job count: 5).", TooManyError),
        (SGEJobExecutor, 'error: unable to send message to qmaster using port 6444 on host "h": got send error', UnreachableError),
        (SGEJobExecutor, 'error: unable to send message to qmaster using port 6444 on host "h": got read error', ExecutorError),
        (PBSJobExecutor, "qsub: Unknown queue", SubmitError),
        (PBSJobExecutor, "Connection refused\nqsub: cannot connect to server host (errno=15010)", UnreachableError),
        (PBSJobExecutor, "qsub: would exceed queue generic's per-user limit of jobs in 'Q' state", TooManyError),
        (PBSJobExecutor, "", ExecutorError),
    ],
)  # fmt: skip
def test_a_failure_means_refused_or_too_many_or_nobody_there_or_nobody_knows(kind, said, meaning):
    assert kind().refusal(Answer(1, "", said)) is meaning


def test_what_squeue_prints():
    printed = "14|3-9%3|PENDING|JobArrayTaskLimit|a.f00\n14|1|RUNNING|None|a.f00\n20|N/A|OUT_OF_MEMORY|OutOfMemory|x|y.f01\nnoise\n"
    rows = slurm.rows_of(printed)
    assert [(row.job, row.tasks, row.kind) for row in rows] == [
        ("14", "3-9", Listed.WAITS),
        ("14", "1", Listed.RUNS),
        ("20", "", Listed.ENDED),
    ]
    found = Queue(0.0, rows)
    assert sorted(found.tasks("14")) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert found.tasks("20").keys() == {-1}
    assert (found.named("f01"), found.named("01"), found.count) == ("20", None, 8)


def test_what_scontrol_remembers():
    lines = [
        "JobId=22 ArrayJobId=21 ArrayTaskId=0 JobName=x JobState=FAILED Reason=None ExitCode=0:9 RunTime=1",
        "JobId=21 ArrayJobId=21 ArrayTaskId=5-9%2 JobState=PENDING ExitCode=0:0 RunTime=0",
        "JobId=23 ArrayJobId=21 ArrayTaskId=1 JobState=TIMEOUT ExitCode=0:15 DerivedExitCode=0:0",
        "JobId=24 ArrayJobId=21 ArrayTaskId=2 JobState=COMPLETED DerivedExitCode=9:0 ExitCode=0:0",
    ]
    assert slurm.remembered("\n".join(lines)) == [(0, 0, 9), (2, 0, 0)]
    assert slurm.remembered("JobId=9 JobName=x JobState=FAILED ExitCode=7:0\n") == [(None, 7, 0)]


def test_what_sacct_prints_of_an_array_that_it_has_not_taken_apart_yet():
    found = slurm.accounted(
        "117|COMPLETED|0:0|\n117.batch|COMPLETED|0:0|3308K\n118_[4-6]|CANCELLED by 0|0:0|\n", {1, 5}
    )
    assert found[1].code == 0
    assert found[5].reason == "cancelled"
    assert found[1].max_rss == 3308 * 1024


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"Exit_status": 0, "substate": 92}, Cause(code=0)),
        ({"Exit_status": 3, "substate": 93}, Cause(code=3)),
        ({"Exit_status": 137, "substate": 93}, Cause(signal=9)),
        ({"Exit_status": 265, "substate": 93}, Cause(signal=9)),
        ({"Exit_status": -29, "substate": 93}, Cause("time limit")),
        ({"Exit_status": -27, "substate": 93}, Cause("out of memory")),
        ({"Exit_status": -4, "substate": 93}, Cause("node failure")),
        ({"Exit_status": -1, "substate": 93}, Cause("never started")),
        ({"Exit_status": -25, "substate": 93}, Cause()),
        ({"Exit_status": 271, "substate": 91}, Cause("cancelled")),
        ({"substate": 92}, Cause("never started")),
    ],
)
def test_what_pbs_says_of_an_end(fields, cause):
    assert pbs._cause(fields) == cause


@pytest.mark.parametrize(
    ("failed", "status", "cause"),
    [
        ("0", 7, (None, 7, None)),
        ("100 : assumedly after job", 139, (None, None, 11)),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", 137, ("time limit", None, None)),
        ("26  : opening input/output file", 0, ("never started", None, None)),
        ("15  : in epilog", 3, (None, 3, None)),
        ("19  : before writing exit_status", 0, ("node failure", None, None)),
    ],
)
def test_what_qacct_says_of_an_end(failed, status, cause):
    printed = f"{'=' * 62}\njobname  a\ntaskid   undefined\nfailed   {failed}\nexit_status  {status}\nru_maxrss  2.0KB\n"
    found = sge.accounted(printed)[-1]
    others = printed.replace("failed ", "deleted_by  ann\nfailed ")
    assert sge.accounted(others)[-1].reason == ("time limit" if cause[0] == "time limit" else "cancelled")
    assert found[:3] == cause
    assert found.max_rss == 2048 * 1024


@pytest.mark.parametrize(
    ("category", "wall", "memory", "reason"),
    [
        ("-l h_vmem=307200K", "1s", "485.117MB", "out of memory"),
        ("-l h_vmem=307200K,h_rt=5", "6s", "1.6MB", "time limit"),
        ("-l h_vmem=307200K,h_rt=5 -pe smp 2", "6s", "485.117MB", "time limit"),
        ("-l h_rt=1:00:00", "9s", "3G", "out of memory"),
        ("-l h_rt=1:00:00,h_cpu=9", "9s", "3G", "time limit"),
        ("NONE", "7s", "3G", "time limit"),
    ],
)
def test_grid_engine_has_one_word_for_its_limits(category, wall, memory, reason):
    slots = 2 if "smp" in category else 1
    printed = f"====\nslots  {slots}\nfailed  37  : qmaster enforced h_rt, h_cpu, or h_vmem limit\nexit_status  137\n"
    printed += f"ru_wallclock {wall}\nmaxvmem  {memory}\ncategory  {category}\n"
    assert sge.accounted(printed)[-1].reason == reason


def test_a_comma_in_a_complex_is_refused():
    with pytest.raises(JobError, match=r"h_vmem = '1,2', but a comma"):
        SGEJobExecutor().asked({"resources": {"h_vmem": "1,2"}})


def test_books_of_years_have_others_that_had_the_number_of_a_job():
    old = "====\njobname  sim.1\nfailed  0\nexit_status  9\n"
    ours = "====\njobname  story.f00\nfailed  0\nexit_status  3\n"
    assert sge.accounted(old + ours + old, "f00")[-1].code == 3
    assert sge.accounted(old, "f00") == {}


def test_why_a_job_of_grid_engine_is_in_error_comes_first():
    said = '11/29/2026 00:01:12 [1001:2107{}]: unable to find shell "/no/such"'
    printed = (
        f"error reason          1:      {said.format(0)}\nerror reason          2:      {said.format(1)}\n"
    )
    printed += "scheduling info:            Job is in error state\n"
    assert sge.scheduling_info(printed) == 'unable to find shell "/no/such"; Job is in error state'


@given(st.text(max_size=200))
def test_no_text_breaks_the_parsers(text):
    slurm.rows_of(text)
    slurm.accounted(text, {1})
    slurm.remembered(text)
    sge.accounted(text)
    pbs._from_text(text)
    list(expanded(text.replace("-", ",")))


# --- numbers and names ----------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 5000)))
def test_ranges_are_read_back(numbers):
    assert set(expanded(ranges(numbers))) == numbers


@given(st.text(max_size=300), st.from_regex(r"[0-9a-f]{16}", fullmatch=True))
def test_a_name_is_one_that_every_scheduler_takes_and_ends_in_the_token(label, token):
    name = name_of(label, token)
    assert name.isascii()
    assert name[0].isalpha()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
    assert len(name) < 64
    assert Queue(0.0, [Row("7", "", "waits", "", "", name)]).named(token) == "7"


@given(st.sets(st.integers(1, 3000), min_size=1))
def test_all_tasks_are_named_to_the_command_that_deletes(tasks):
    of_slurm = SlurmJobExecutor().task_ids("21_#", sorted(tasks))
    assert {n for one in of_slurm for n in expanded(one.partition("[")[2].rstrip("]"))} == tasks
    of_sge = SGEJobExecutor().task_ids("11.#", sorted(tasks))
    assert {n for one in of_sge for n in expanded(one.partition(".")[2])} == tasks
    of_pbs = PBSJobExecutor().task_ids("9[#].h", sorted(tasks))
    assert {n for one in of_pbs for n in expanded(one[2:-3])} == tasks


def test_an_id_that_was_given_out_again_is_another_job():
    """slurmctld was killed before it had written down what it said."""
    ours, theirs = "0123456789abcdef", "fedcba9876543210"
    rows = [
        Row("21", "0-2", "waits", "PENDING", "", f"a.{theirs}"),
        Row("22", "0", "waits", "PENDING", "", "by hand"),
        Row("23", "0", "waits", "PENDING", "", f"a.{ours}"),
        Row("24", "0", "waits", "PENDING", "", ""),
    ]
    given = {job: Queue(0.0, rows).tasks(job, ours) for job in ("21", "22", "23", "24")}
    assert [sorted(tasks) for tasks in given.values()] == [[], [0], [0], [0]]

    def there(job, *, mark):
        return look(mark, None, given[job], 50.0, token=ours).listed

    assert [there(job, mark=False) for job in given] == [False, False, True, True]
    # A script may have given its job another name.
    assert [there(job, mark=True) for job in given] == [False, True, True, True]


def test_the_books_know_others_that_had_the_same_id():
    token = "0123456789abcdef"
    printed = (
        f"21_3|FAILED|2:0||a.{token}\n21_3.batch|FAILED|2:0|8K|batch\n"
        f"21_3|TIMEOUT|0:0||a.fedcba9876543210\n21_3.batch|CANCELLED|0:15|9K|batch\n21_3|COMPLETED|0:0||by | hand\n"
    )
    assert slurm.accounted(printed, {3}, token) == {3: Cause(code=2, max_rss=8192, words="sacct: FAILED 2:0")}
    assert slurm.accounted(printed, {3}, "0" * 16) == {}
    # What is started again is not over.
    again = printed.replace("COMPLETED|0:0||by | hand", f"PENDING|0:0||a.{token}")
    assert slurm.accounted(again, {3}, token) == {}
    shown = f"JobId=21 JobName=a.{token} JobState=FAILED ExitCode=7:0\n"
    assert slurm.remembered(shown, token) == [(None, 7, 0)]
    assert slurm.remembered(shown, "0" * 16) == []


# --- what evidence means --------------------------------------------------------------------------------------------

ROWS = st.none() | st.builds(
    Row, st.just("21"), st.just("0"), st.sampled_from(list(Listed)), st.just("W"), st.just(""), st.just("a.t")
)
ENDS = st.none() | st.builds(
    Exit, st.just(0), st.sampled_from([None, 0, 3]), st.sampled_from([None, 9, 15]), st.just(10.0), st.floats(10, 60),
    cause=st.sampled_from([None, "out of memory"]),
)  # fmt: skip
CAUSES = st.none() | st.builds(
    Cause,
    st.sampled_from([None, "time limit", "never started"]),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([None, 9]),
)


def look(mark, end, listed, asked, token="t", **more):
    given = {
        "n": 1,
        "current": 1,
        "state": "submit",
        "started": None,
        "cancelled": None,
        "absent_since": None,
    }
    attempt = SimpleNamespace(task=0, submitted=5.0, reason=None, complete_on_exit=1, **{**given, **more})
    evidence = Evidence({0: Mark(0, "21_0 h 1 2", 9.0)} if mark else {}, {0: end} if end else {})
    return queues.look_at(attempt, evidence, listed, asked, token=token, array=True)


@given(
    st.booleans(),
    ENDS,
    st.none() | ROWS,
    st.booleans(),
    CAUSES,
    st.floats(0, 200),
    st.floats(60, 300),
    st.floats(0, 90),
)
def test_a_job_is_missing_only_by_evidence(mark, end, row, knows, cause, asked, now, grace):
    listed = ({} if row is None else {0: row}) if knows else None
    seen = look(mark, end, listed, asked, absent_since=1.0)
    verdict = queues._verdict(seen, cause, now, grace)
    there = row is not None and row.kind != Listed.ENDED
    if seen.end is None and not knows:
        assert verdict.kind in {Kind.QUEUED, Kind.RUNNING}
    if seen.end is None and knows and there:
        assert verdict.kind in {Kind.QUEUED, Kind.RUNNING}
    if seen.end is None and asked < 7.0 and row is None:
        assert verdict.kind in {Kind.QUEUED, Kind.RUNNING}
    if verdict.complete:
        assert (end is not None and end.code == 0) or (mark and cause is not None and cause.code == 0)
    if mark and verdict.kind is Kind.MISSING:
        assert verdict.reason != "never started"


def test_the_end_of_a_script_that_never_ran_the_job_completes_nothing():
    """Its folder was taken away while it waited: it says so, and exits 0."""
    seen = look(
        False, None, {0: Row("21", "0", Listed.ENDED, "COMPLETED", "None", "a.t")}, 50.0, absent_since=20.0
    )
    verdict = queues._verdict(seen, Cause(code=0), 60.0, 10.0)
    assert (verdict.kind, verdict.reason, verdict.complete) == (Kind.MISSING, "never started", False)


def test_what_the_scheduler_still_ends_it_has_a_reason_for():
    """A signal is on record; whether it was a time limit is known when the scheduler is done with the job."""
    end = Exit(0, None, 15, 10.0, 20.0)
    ending = {0: Row("21", "0", Listed.ENDS, "COMPLETING", "", "a.t")}
    assert queues._verdict(look(True, end, ending, 50.0), None, 50.0, 10.0).kind is Kind.RUNNING
    ended = {0: Row("21", "0", Listed.ENDED, "TIMEOUT", "", "a.t")}
    assert (
        queues._verdict(look(True, end, ended, 50.0), Cause("time limit"), 50.0, 10.0).reason == "time limit"
    )


# --- commands -------------------------------------------------------------------------------------------------------


def test_a_command_is_told_nothing_of_the_job_that_it_is_given_in():
    environ = {
        "PATH": os.environ["PATH"], "SLURM_CONF": "/c", "SLURM_MEM_PER_NODE": "5", "SLURM_JOB_ID": "1", "SBATCH_ARRAY_INX": "1-2",
        "SGE_ROOT": "/r", "SGE_TASK_ID": "1", "JOB_ID": "1", "PBS_JOBID": "1", "PBS_CONF_FILE": "/p", "MINE": "1", "LC_ALL": "C",
        "PARASCHUT_INDEX": "/i",
    }  # fmt: skip
    answer = run_command(["env"], 10, environ=environ, more={"SLURM_BITSTR_LEN": "0"})
    names = {line.partition("=")[0] for line in answer.out.splitlines()}
    assert names == {"PATH", "SLURM_CONF", "SGE_ROOT", "PBS_CONF_FILE", "LC_ALL", "SLURM_BITSTR_LEN"}


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path):
    """Its children hold the pipes open."""
    script = f"sleep 987 & echo $! > '{tmp_path}/pid'; wait"
    with pytest.raises(NoAnswerError, match=r"sh did not answer within 0\.5 s"):
        run_command(["sh", "-c", script], 0.5)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and "Z" not in open_stat(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_command_that_is_not_there_is_said():
    with pytest.raises(ExecutorError, match="no-such-command cannot be run here"):
        run_command(["no-such-command"], 1)


def test_what_a_command_says_need_not_be_text():
    answer = run_command(
        [sys.executable, "-c", "import os, sys; os.write(2, b'\\xff bad\\n'); sys.exit(3)"], 20
    )
    assert (answer.code, answer.words) == (3, "\ufffd bad")


def test_a_user_is_who_this_process_is(monkeypatch):
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "somebody-else")
    assert run.user_name() != "somebody-else"


@pytest.mark.parametrize("module", [cluster, cluster_script, pbs, queue, run, scheduler, sge, slurm])
def test_the_examples_are_true(module):
    assert doctest.testmod(module).failed == 0
