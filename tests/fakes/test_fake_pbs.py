"""The fake PBS says what OpenPBS 23.06.06 was recorded to say, and runs what it is given."""

from __future__ import annotations

import json
import os

import pytest

from fakes.core import user_name
from fakes.said import said

pytestmark = pytest.mark.process
ME = user_name()


@pytest.fixture
def say(fake_pbs, tmp_path):
    return lambda line, **more: said(line, tmp_path, **more)


def summary(text):
    return [
        (name, job["job_state"], job.get("substate"), job.get("Exit_status"))
        for name, job in json.loads(text)["Jobs"].items()
    ]


def test_submitting_says_the_id(say, tmp_path):
    (tmp_path / "job.sh").write_text("#!/bin/sh\nexit 0\n")
    assert say("qsub job.sh") == ("1.host\n", "", 0)
    assert say("qsub -N direct -- /bin/echo hello 'two words'") == ("2.host\n", "", 0)
    assert say("qsub < job.sh") == ("3.host\n", "", 0)
    assert say("qsub -J 0-9%3 job.sh") == ("4[].host\n", "", 0)
    assert say("qsub -J 7-8:2 job.sh") == ("5[].host\n", "", 0)
    assert say("qsub -z job.sh") == ("", "", 0)
    assert say("qsub --version; qstat --version")[0] == "pbs_version = 23.06.06\n" * 2


@pytest.mark.parametrize("value", ["5", "0-0", "5-5", "5-5:1", "3-1", "1,3,5", "0-4:0"])
def test_arrays_that_are_refused(say, value):
    out, err, code = say(f"qsub -J {value} -- /bin/true")
    assert (out, code) == ("", 2)
    assert err.startswith(
        "qsub: illegal -J value\nusage: qsub [-a date_time] [-A account_string] [-c interval]\n\t[-C"
    )
    assert err.endswith("       qsub --version\n")


def test_arrays_must_be_rerunnable_and_not_too_large(say):
    out, err, code = say("qsub -r n -J 0-2 -- /bin/true")
    assert (out, code) == ("", 2)
    assert err.startswith("qsub:  cannot submit non-rerunable Array Job\nusage: ")
    too_large = "qsub: Array job exceeds server or queue size limit\n"
    assert say("qsub -J 0-10000 -- /bin/true") == ("", too_large, 3)
    assert say("qsub -J 0-9999 -h -- /bin/true")[0] == "2[].host\n"  # a number was used up


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("-q nosuch", "Unknown queue", 170),
        ("-q short -l walltime=02:00:00", "Job violates queue and/or server resource limits", 188),
        ("-q short -l ncpus=5", "Job violates queue and/or server resource limits", 188),
        ("-l select=1:ncpus=2 -l ncpus=2",
         '"-lresource=" cannot be used with "select" or "place", resource is: ncpus', 5),
        ("-l bogus=1", "Unknown resource Resource_List.bogus", 187),
        ("-l ngpus=1", "Unknown resource Resource_List.ngpus", 187),
        ("-l ncpus=abc", "Illegal attribute or resource value Resource_List.ncpus", 166),
        ("-l mem=4.5gb", "Illegal attribute or resource value Resource_List.mem", 166),
        ("-l walltime=1-00:00:00", "Illegal attribute or resource value Resource_List.walltime", 166),
        ("-l nodes=1:ppn=2", "Illegal attribute or resource value", 166),
        ("-W nonsense=1", "Error (15002) submitting job", 154),
        (f"-N {'B' * 231}", "Job name is too long ", 2),
    ],
)  # fmt: skip
def test_refusals(say, line, words, code):
    assert say(f"qsub {line} -- /bin/true") == ("", f"qsub: {words}\n", code)


@pytest.mark.parametrize("name", ["a b", "a/b", "a:b", "a,b", "a=b", "a@b", "é", "a[0]"])
def test_names_that_are_refused(say, name):
    assert say(f"qsub -N '{name}' -- /bin/true")[1].startswith("qsub: illegal -N value\nusage: ")


def test_scripts_that_are_none(say):
    assert say("qsub nosuchfile.sh") == ("", "qsub: script file:: No such file or directory\n", 1)
    assert say("qsub .") == ("", "qsub: script not a file\n", 1)
    assert say("qsub -d /tmp -- /bin/true")[1].startswith("qsub: invalid option -- 'd'\nusage: ")


def test_how_jobs_end(fake_pbs, say, tmp_path):
    say("qsub -N ok0 -- /bin/true")
    say("qsub -N ex3 -- /bin/sh -c 'exit 3'")
    say("qsub -N sig9 -- /bin/sh -c 'kill -9 $$'")
    say("printf '#!/bin/sh\nkill -9 $$\n' | qsub -N script9")
    say("qsub -N wall -l walltime=1 -k oed -o /dev/null -e wall.err -- /bin/sleep 60")
    say("qsub -N delrun -- /bin/sleep 60")
    say(
        f"qsub -N traps -- /bin/sh -c 'trap \"exit 7\" TERM; touch {tmp_path}/ready; while :; do sleep 0.2; done'"
    )
    say("qsub -N delheld -h -- /bin/true")
    fake_pbs.until(lambda: ("6", "") in fake_pbs.tasks("running") and (tmp_path / "ready").exists())
    assert say("qdel 6 7 8.host") == ("", "", 0)
    fake_pbs.wait()
    assert summary(say("qstat -x -f -F json")[0]) == [
        ("1.host", "F", 92, 0),
        ("2.host", "F", 93, 3),
        ("3.host", "F", 93, 265),
        ("4.host", "F", 93, 137),
        ("5.host", "F", 93, -29),
        ("6.host", "F", 91, 271),
        ("7.host", "F", 91, 7),
        ("8.host", "F", 91, None),
    ]
    words = [job.get("comment", "").rpartition(" and ")[2] for job in
             json.loads(say("qstat -x -f -F json")[0])["Jobs"].values()]  # fmt: skip
    gone = f"terminated by {ME}@host"
    assert words == ["finished", "failed", "failed", "failed", "exceeded resource walltime", gone, gone, ""]
    assert say("cat wall.err")[0].startswith("=>> PBS: job killed: walltime ")


def test_an_array_while_it_lives_and_after(fake_pbs, say):
    fake_pbs.set(slots=2)
    say(
        "qsub -N arr -J 0-4%2 -- /bin/sh -c 'case $PBS_ARRAY_INDEX in 0) exit 0;; 1) exit 1;; *) sleep 60;; esac'"
    )
    fake_pbs.until(lambda: len(fake_pbs.tasks("ended")) == 2 and len(fake_pbs.tasks("running")) == 2)
    assert summary(say("qstat -t -f -F json")[0]) == [
        ("1[].host", "B", 70, 1),
        ("1[0].host", "X", 92, 0),
        ("1[1].host", "X", 93, 1),
        ("1[2].host", "R", 42, None),
        ("1[3].host", "R", 42, None),
        ("1[4].host", "Q", 10, 1),
    ]
    parent = json.loads(say("qstat -f -F json '1[]'")[0])["Jobs"]["1[].host"]
    assert parent["array_state_count"] == "Queued:1 Running:2 Exiting:0 Expired:2"
    assert (parent["array_indices_submitted"], parent["array_indices_remaining"]) == ("0-4", "4")
    assert parent["max_run_subjobs"] == 2
    waiting = json.loads(say("qstat -f -F json '1[4]'")[0])["Jobs"]["1[4].host"]
    assert "array_index" not in waiting
    assert say("qdel '1[0]'") == ("", "qdel: Request invalid for finished array subjob 1[0].host\n", 55)
    assert say("qdel '1[99]'") == ("", "qdel: Invalid request 1[99].host\n", 156)
    assert say("qdel 1") == ("", "qdel: Unknown Job Id 1\n", 153)
    assert say("qdel '1[]'") == ("", "", 0)
    fake_pbs.wait()
    assert summary(say("qstat -x -t -f -F json '1[]'")[0]) == [
        ("1[].host", "F", 91, 1),
        ("1[0].host", "F", 91, 1),
        ("1[1].host", "F", 91, 1),
        ("1[2].host", "F", 91, 271),
        ("1[3].host", "F", 91, 271),
        ("1[4].host", "F", 91, 1),
    ]
    assert say("qdel '1[]'") == ("", "qdel: Job has finished 1[].host\n", 35)


def test_what_is_unknown_finished_or_not_kept(fake_pbs, say):
    say("qsub -- /bin/true")
    fake_pbs.wait()
    finished = "qstat: 1.host Job has finished, use -x or -H to obtain historical job information\n"
    assert say("qstat 1") == ("", finished, 35)
    assert say("qstat 999999") == ("", "qstat: Unknown Job Id 999999.host\n", 153)
    out, err, code = say("qstat -f -F json 999999")
    assert (set(json.loads(out)), err, code) == (
        {"timestamp", "pbs_version", "pbs_server"}, "qstat: Unknown Job Id 999999.host\n", 153,
    )  # fmt: skip
    assert say("qstat abc") == ("", "qstat: Unknown queue destination abc\n", 170)
    assert say("qstat") == ("", "", 0)
    assert "Jobs" not in json.loads(say("qstat -f -F json")[0])
    assert say("qdel 1.host 999") == ("", "qdel: Job has finished 1.host\nqdel: Unknown Job Id 999\n", 153)
    assert say("qdel abc") == ("", "qdel: illegally formed job identifier: abc\n", 1)
    fake_pbs.set(accounting=False)
    assert say("qstat -x 1.host") == ("", "qstat: PBS is not configured to maintain job history 1.host\n", 0)
    assert say("qstat 1.host") == ("", "qstat: Unknown Job Id 1.host\n", 153)
    assert say("qdel 1.host") == ("", "qdel: Unknown Job Id 1.host\n", 153)


def test_dependencies(fake_pbs, say):
    fake_pbs.set(paused=True)
    say("qsub -N bad -- /bin/sh -c 'exit 3'")
    say("qsub -W depend=afterok:1.host -- /bin/true")
    say("qsub -W depend=afterany:1,umask=022 -- /bin/true")
    say("qsub -W depend=afterany:999999 -- /bin/true")
    assert summary(say("qstat -x -f -F json")[0]) == [
        ("1.host", "Q", 10, None), ("2.host", "H", 22, None), ("3.host", "H", 22, None), ("4.host", "F", 92, None),
    ]  # fmt: skip
    assert say("qsub -W depend=afterok:abc -- /bin/true")[1].startswith("qsub: illegal -W value\n")
    assert say("qsub -W 'depend=afterok:1[1].host' -- /bin/true")[1].startswith("qsub: illegal -W value\n")
    fake_pbs.set(paused=False)
    fake_pbs.wait()
    assert summary(say("qstat -x -f -F json 2 3")[0]) == [("2.host", "F", 92, None), ("3.host", "F", 92, 0)]


def test_who_waits_for_a_job_that_was_deleted_before_it_ran_waits_for_ever(fake_pbs, say):
    say("qsub -h -N parent -- /bin/true")
    say("qsub -W depend=afterany:1 -- /bin/true")
    say("qdel 1")
    assert summary(say("qstat -f -F json")[0]) == [("2.host", "H", 22, None)]


def test_finding_jobs_by_name(fake_pbs, say):
    fake_pbs.set(paused=True)
    say("qsub -N findme -- /bin/true; qsub -N findme_2 -h -- /bin/true; qsub -N findme -J 0-2 -- /bin/true")
    assert say("qselect -N findme")[0] == "1.host\n3[].host\n"
    assert say("qselect -T -N findme")[0] == "1.host\n3[0].host\n3[1].host\n3[2].host\n"
    assert say("qselect -N nosuch") == ("", "", 0)
    assert say("qselect -s H")[0] == "2.host\n"
    say("qdel 1")
    assert say("qselect -N findme; qselect -x -N findme")[0] == "3[].host\n1.host\n3[].host\n"
    assert say("qselect -q nosuch") == ("", "qselect: Unknown queue destination\n", 170)


def test_a_name_like_a_number_breaks_the_json(fake_pbs, say):
    say("qsub -h -N 123 -- /bin/true")
    assert json.loads(say("qstat -f -F json")[0])["Jobs"]["1.host"]["Job_Name"] == 123
    say("qsub -h -N nan -- /bin/true; qsub -h -N 00 -- /bin/true")
    text = say("qstat -f -F json")[0]
    assert '"Job_Name":nan,' in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert "    Job_Name = 00\n" in say("qstat -f -w 3")[0]


def test_output_at_once_or_at_the_end(fake_pbs, say, tmp_path):
    say("qsub -N now -k oed -o now.out -e now.err -- /bin/sh -c 'echo out; sleep 60'")
    say("qsub -N late -W umask=022 -o late.out -- /bin/sh -c 'echo out; umask; sleep 60'")
    fake_pbs.until(lambda: (tmp_path / "now.out").exists() and (tmp_path / "now.out").read_text() == "out\n")
    assert not (tmp_path / "late.out").exists()
    say("qdel 1 2")
    fake_pbs.wait()
    assert (tmp_path / "late.out").read_text() == "out\n0022\n"
    assert (tmp_path / "late.e2").exists()
    assert (tmp_path / "now.out").stat().st_mode & 0o777 == 0o600


def test_a_subjob_finds_itself_and_starts_at_home(fake_pbs, say, tmp_path):
    show = "env | grep -E '^(PBS_ARRAY|PBS_JOBID|PBS_JOBNAME|PBS_O_WORKDIR|NCPUS|P_)' | sort; pwd; umask"
    say(f"qsub -N envarr -l ncpus=2 -J 3-7:2 -k oed -v P_C -o '{tmp_path}/e.^array_index^' -- /bin/sh -c \"{show}\"",
        env={**os.environ, "P_C": "a,b", "P_X": "x"})  # fmt: skip
    fake_pbs.wait()
    assert (tmp_path / "e.5").read_text().splitlines() == [
        "NCPUS=2", "PBS_ARRAY_ID=1[].host", "PBS_ARRAY_INDEX=5", "PBS_JOBID=1[5].host", "PBS_JOBNAME=envarr",
        f"PBS_O_WORKDIR={tmp_path}", "P_C=a,b", str(fake_pbs.folder / "home"), "0077",
    ]  # fmt: skip


def test_a_job_that_runs_again_shows_an_old_exit_status(fake_pbs, say):
    say("qsub -- /bin/sleep 60")
    fake_pbs.until(lambda: fake_pbs.tasks("running"))
    fake_pbs.end(1, verdict="REQUEUE")
    fake_pbs.until(lambda: fake_pbs.jobs()["1"]["tasks"].get("", {}).get("restarts") == 1)
    job = json.loads(say("qstat -f -F json")[0])["Jobs"]["1.host"]
    assert (job["job_state"], job["run_count"], job["Exit_status"]) == ("R", 2, -11)


def test_nobody_answers(fake_pbs, say):
    fake_pbs.set(down=True)
    refused = "Connection refused\n{}: cannot connect to server host (errno=15010)\n"
    assert say("qsub -- /bin/true") == ("", refused.format("qsub"), 162)
    assert say("qstat") == ("", refused.format("qstat"), 255)
    assert say("qdel 1") == ("", "Connection refused\nCouldn't connect to cluster: host\n", 162)
    out, err, code = say("qstat -f -F json")
    assert ("Jobs" in json.loads(out), err, code) == (False, refused.format("qstat"), 255)


def test_the_server_and_its_nodes(fake_pbs, say):
    assert "    max_array_size = 10000\n" in say("qstat -Bf")[0]
    assert "state = free" in say("pbsnodes -a")[0]
