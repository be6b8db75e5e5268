"""The fake Grid Engine says what 8.1.9 was recorded to say, and runs what it is given."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET

import pytest

from fakes.core import user_name
from fakes.said import said

pytestmark = pytest.mark.process
ME = user_name()
QSUB = "qsub -terse -cwd -S /bin/sh -j y"


@pytest.fixture
def say(fake_sge, tmp_path):
    return lambda line, **more: said(line, tmp_path, **more)


def test_submitting_says_the_id(say, tmp_path):
    (tmp_path / "ok.sh").write_text("exit 0\n")
    assert say("qsub -cwd ok.sh") == ('Your job 1 ("ok.sh") has been submitted\n', "", 0)
    assert say("qsub -terse -cwd ok.sh") == ("2\n", "", 0)
    assert say("qsub -cwd -t 1-10 -tc 3 -N arr -b y true") == (
        'Your job-array 3.1-10:1 ("arr") has been submitted\n', "", 0,
    )  # fmt: skip
    assert say("qsub -terse -t 1-10:3 -h -b y true")[0] == "4.1-10:3\n"
    assert say("qsub -terse -t 7 -h -b y true")[0] == "5.7-7:1\n"
    assert say("qsub -terse -t 5-2 -h -b y true")[0] == "6.2-5:1\n"
    assert say("qsub missing.sh") == (
        "", "Unable to read script file because of error: error opening missing.sh: No such file or directory\n", 14,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-q nosuch.q", 'Job was rejected because job requests unknown queue "nosuch.q"'),
        ("-l nosuch=1", 'unknown resource "nosuch"'),
        ("-w e -l gpu=9", "error: no suitable queues"),
        ("-pe nosuch 2", 'job rejected: the requested parallel environment "nosuch" does not exist'),
        ("-w e -pe smp 64", "error: no suitable queues"),
        ("-l h_vmem=abc", 'attribute "h_vmem" is not a memory value'),
        ("-l h_rt=abc", 'attribute "h_rt" is not a time value'),
        ("-N 1abc", 'denied: "1abc" is not a valid object name (cannot start with a digit)'),
        ("-N 'a b'", "Error reading answer list from qmaster"),
        ("-N a:b", "Colon (':') not allowed in objectname"),
        ("-N a@b", "At ('@') not allowed in objectname"),
        ("-N 'a*b'", "Asterisk ('*') not allowed in objectname"),
        ("-P nosuch", 'job rejected: the requested project "nosuch" does not exist'),
        ("-t 0-3", "job rejected: 0 is an invalid task id"),
        ("-t 1-80000", "job rejected: you tried to submit a job with more than 10000 tasks"),
    ],
)
def test_refusals(say, line, words):
    assert say(f"{QSUB} {line} -b y true") == ("", f"Unable to run job: {words}\nExiting.\n", 1)


def test_options_that_are_none(say):
    assert say("qsub -nosuchflag") == ("", 'qsub: invalid option argument "-nosuchflag"\n', 2)
    assert say("qsub -t 1,3,7 -b y true") == ("", "qsub: -t option only allows one range specification\n", 7)
    assert say("qsub -N a/b -b y true") == ("", "qsub: argument to -N option must not contain / \n", 2)


def test_the_queue_as_a_table_and_as_xml(fake_sge, say):
    say("qsub -terse -t 1-10 -tc 3 -N averyverylongname -S /bin/sh -o /dev/null -j y -b y sleep 60")
    say("qsub -terse -h -N held -pe smp 2 -b y true")
    fake_sge.until(lambda: len(fake_sge.tasks("running")) == 3)
    columns = [line.split() for line in say("qstat")[0].splitlines()[2:]]
    assert [(line[0], line[2], line[4], line[-2], line[-1]) for line in columns] == [
        ("1", "averyveryl", "r", "1", "1"),
        ("1", "averyveryl", "r", "1", "2"),
        ("1", "averyveryl", "r", "1", "3"),
        ("1", "averyveryl", "qw", "1", "4-10:1"),
        ("2", "held", "hqw", columns[-1][-2], "2"),
    ]
    found = ET.fromstring(say(f"qstat -xml -u {ME} -s prsz")[0])
    assert [one.tag for one in found] == ["queue_info", "job_info"]
    assert [(job.get("state"), job.findtext("state"), job.findtext("tasks")) for job in found.iter("job_list")] == [
        ("running", "r", "1"), ("running", "r", "2"), ("running", "r", "3"),
        ("pending", "qw", "4-10:1"), ("pending", "hqw", None),
    ]  # fmt: skip
    assert next(found.iter("JB_name")).text == "averyverylongname"
    each = ET.fromstring(say("qstat -xml -u '*' -g d")[0])
    assert [job.findtext("tasks") for job in each.iter("job_list") if job.get("state") == "pending"] == [
        *map(str, range(4, 11)), None,
    ]  # fmt: skip
    say("qdel 1.6")
    assert "<tasks>4,5,7-10:1</tasks>" in say("qstat -xml")[0]
    assert say("qstat -u nobody") == ("", "", 0)


def test_how_tasks_end(fake_sge, say):
    say(f"{QSUB} -o /dev/null -N arr -t 1-3 -b y 'exit $SGE_TASK_ID'")
    say(f"{QSUB} -o /dev/null -N segv -b y 'kill -SEGV $$'")
    say(f"{QSUB} -o /dev/null -N rt -l h_rt=0:0:1 -b y sleep 60")
    say(f"{QSUB} -o /dev/null -N gone -b y sleep 60")
    fake_sge.until(lambda: ("4", "") in fake_sge.tasks("running"))
    assert say("qdel gone") == (f"{ME} has registered the job 4 for deletion\n", "", 0)
    fake_sge.wait()
    short = "grep -E '^(taskid|failed|exit_status)' | tr -s ' '"
    lines = say(f"qacct -j 1 | {short}")[0].splitlines()
    assert sorted(lines[0::3]) == ["taskid 1 ", "taskid 2 ", "taskid 3 "]
    assert sorted(lines[2::3]) == ["exit_status 1 ", "exit_status 2 ", "exit_status 3 "]
    assert say(f"qacct -j 1 -t 2 | {short}")[0] == "taskid 2 \nfailed 0 \nexit_status 2 \n"
    for name, failed, status in (
        ("segv", "100 : assumedly after job", "139 (Segmentation fault)"),
        ("rt", "37 : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137 (Killed)"),
        ("gone", "100 : assumedly after job", "137 (Killed)"),
    ):
        said_of = [line.strip() for line in say(f"qacct -j {name} | {short}")[0].splitlines()]
        assert said_of[1:] == [f"failed {failed}", f"exit_status {status}"]


def test_exit_codes_that_are_requests(fake_sge, say, tmp_path):
    say(f"{QSUB} -o /dev/null -N again -b y 'echo $RESTARTED >> runs; [ $RESTARTED = 1 ] || exit 99'")
    say(f"{QSUB} -o /dev/null -N err -b y 'exit 100'")
    say(f"{QSUB} -o /nonexistent/dir/x.out -N nolog -b y true")
    say(f"{QSUB} -o /dev/null -wd /nonexistent/dir -N nocwd -b y true")
    say("qsub -terse -cwd -o /dev/null -j y -N noshell -S /no/such/sh -b y true")
    fake_sge.until(lambda: len(fake_sge.tasks("error")) == 4 and fake_sge.tasks("ended"))
    assert (tmp_path / "runs").read_text() == "0\n1\n"
    assert [line.split()[4] for line in say("qstat")[0].splitlines()[2:]] == ["Eqw"] * 4
    for name, words in (
        ("err", "exit_status of job start = 100"),
        ("nolog", 'error: can\'t open output file "/nonexistent/dir/x.out": No such file or directory'),
        ("nocwd", "error: can't chdir to /nonexistent/dir: No such file or directory"),
        ("noshell", 'unable to find shell "/no/such/sh"'),
    ):
        line = say(f"qstat -j {name} | grep '^error reason'")[0]
        assert line.startswith("error reason          1:      ")
        assert line.endswith(f"{words}\n")
    assert say("qdel err nolog nocwd noshell")[2] == 0
    assert say("qstat") == ("", "", 0)


def test_what_is_unknown(say):
    assert say("qstat -j 99999") == ("", "Following jobs do not exist: \n99999\n", 1)
    assert say("qstat -j nosuchname") == ("", "Following jobs do not exist: \nnosuchname\n", 1)
    assert say("qacct -j 99999") == ("", "error: job id 99999 not found\n", 1)
    assert say("qacct -j nosuchname") == ("", "error: job name nosuchname not found\n", 1)
    assert say("qdel 99999") == ('denied: job "99999" does not exist\n', "", 1)
    assert say("qdel nosuch") == (f"The job nosuch of user(s) {ME} does not exist\n", "", 1)
    xml = "<?xml version='1.0'?>\n<unknown_jobs >\n    <ST_name>9999</ST_name>\n</unknown_jobs>\n"
    assert say("qstat -xml -j 9999") == (xml, "", 0)


def test_deleting(fake_sge, say):
    fake_sge.set(slots=2)
    say(f"{QSUB} -o /dev/null -N carr -t 1-10 -b y sleep 60")
    say("qsub -terse -h -N held -b y true")
    fake_sge.until(lambda: len(fake_sge.tasks("running")) == 2)
    fake_sge.set(paused=True)
    assert say("qdel 1.3")[0] == f"{ME} has deleted job-array task 1.3\n"
    assert say("qdel 1 -t 5-6")[0] == f"{ME} has deleted job-array tasks 5,6 of job 1\n"
    assert say("qdel 1.7-9")[0] == f"{ME} has deleted job-array tasks 7-9:1 of job 1\n"
    assert say("qdel 1.3") == ('job "1" task "3" does not exist\n', "", 1)
    assert say("qdel 1 2 77")[::2] == (
        (f"{ME} has registered the job-array task 1.1 for deletion\n"
        f"{ME} has registered the job-array task 1.2 for deletion\n"
        f"{ME} has deleted job 1\n{ME} has deleted job 2\n"
        'denied: job "77" does not exist\n'), 1,
    )  # fmt: skip
    fake_sge.wait()
    assert say("qacct -j held") == ("", "error: job name held not found\n", 1)


def test_finding_a_job_by_its_name_and_context(fake_sge, say):
    fake_sge.set(paused=True)
    say("qsub -terse -h -N my_job-1 -ac paraschut=run42,k=v -A acct42 -o /dev/null -b y true")
    say("qsub -terse -hold_jid my_job-1,999 -t 1-3 -N waits -o /dev/null -b y true")
    text = say("qstat -j my_job-1 | grep -E '^(job_number|account|job_name|context)'")[0]
    assert text.splitlines() == [
        "job_number:                 1",
        "account:                    acct42",
        "job_name:                   my_job-1",
        "context:                    paraschut=run42,k=v",
    ]
    element = ET.fromstring(say("qstat -xml -j 'my_*'")[0]).find("djob_info/element")
    context = {
        one.findtext("VA_variable"): one.findtext("VA_value")
        for one in element.iterfind("JB_context/context_list")
    }
    assert context == {"paraschut": "run42", "k": "v"}
    waits = say("qstat -j 2")[0]
    assert "jid_predecessor_list (req): my_job-1,999" in waits.replace("  ", " ")
    assert "job-array tasks:            1-3:1" in waits
    say("qdel 1")
    fake_sge.set(paused=False)
    fake_sge.wait()


def test_a_task_finds_itself_and_starts_at_home(fake_sge, say, tmp_path):
    show = "env | grep -E '^(SGE_TASK|JOB_ID|JOB_NAME|NSLOTS|P_)' | sort; pwd"
    say(f"qsub -N enva -S /bin/sh -pe smp 2 -o '{tmp_path}/e.$TASK_ID' -j y -v P_C,P_D=plain -t 4-6:2 -b y \"{show}\"",
        env={**os.environ, "P_C": "a,b", "P_X": "x"})  # fmt: skip
    fake_sge.wait()
    assert (tmp_path / "e.6").read_text().splitlines() == [
        "JOB_ID=1", "JOB_NAME=enva", "NSLOTS=2", "P_C=a,b", "P_D=plain", "SGE_TASK_FIRST=4", "SGE_TASK_ID=6",
        "SGE_TASK_LAST=6", "SGE_TASK_STEPSIZE=2", str(fake_sge.folder / "home"),
    ]  # fmt: skip


def test_nobody_answers_and_a_limit_of_jobs(fake_sge, say):
    fake_sge.set(user_limit=1, paused=True)
    assert say("qsub -terse -t 1-5 -b y true")[2] == 0
    words = "job rejected: only 1 jobs are allowed per user (current job count: 1)"
    assert say("qsub -terse -b y true") == ("", f"Unable to run job: {words}\nExiting.\n", 25)
    fake_sge.set(down=True)
    assert (
        "got select error (Connection refused)\nUnable to run job: unable to send" in say("qsub -b y true")[1]
    )
    assert say("qstat")[::2] == ("", 1)
    assert say("qdel 1")[0].startswith("unable to send message to qmaster")


def test_parts_of_the_configuration(fake_sge, say):
    assert say("qconf -spl")[0] == "make\nsmp\n"
    assert "max_aj_tasks                 10000\n" in say("qconf -sconf")[0]
    assert say("qconf -ssconf")[0].startswith("algorithm ")
    assert say("qhost")[0].startswith("HOSTNAME  ")
