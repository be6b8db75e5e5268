"""What docs/clusters.md shows is executed on a fake Slurm, and its tables are what the executors do."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing

import pytest
from stories import ROOT

import paraschut as psu
from paraschut import desk
from paraschut.config import load_config
from paraschut.errors import JobError, SubmitError
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.slurm import _REASONS
from paraschut.reconcile import Found, judge
from paraschut.resources import other_keys

PAGE = (ROOT / "docs" / "clusters.md").read_text("utf-8")
EXECUTORS = (psu.SlurmJobExecutor, psu.SGEJobExecutor, psu.PBSJobExecutor)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def table(head):
    """Return the rows below a heading row, each as its cells."""
    lines = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def configured(playground):
    (playground / "config.toml").write_text(
        blocks("toml")[0].replace("[paraschut]", "[paraschut]\nqueue_age = 0.2"), "utf-8"
    )
    yield playground
    desk._close_desks()
    desk._desks.clear()


def test_its_batches_go_in_as_one_array_and_go_on_by_themselves(configured, fake_slurm):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submitted 3 jobs of 1 batch\nsubmitted 1 job of 1 batch\n"
    calls = [call["argv"] for call in fake_slurm.calls() if call["command"] == "sbatch"]
    assert ["--array=0-2" in call for call in calls[:4]] == [True, False, False, False]
    assert {"--partition=main", "--mem=512000K", "--account=lab", "--nice=10"} <= set(calls[2])
    assert "--account=lab" in calls[3]
    # Nobody makes a pass here but the closers: looking would do what they do.
    deadline = time.monotonic() + 120
    while (known := states(configured)) != {"complete"}:
        assert time.monotonic() < deadline, known
        time.sleep(0.2)


def states(folder):
    """Return the states in the index as they are, without folding anything."""
    with closing(sqlite3.connect(folder / "jobs" / "index.db")) as connection:
        return {state for (state,) in connection.execute("SELECT state FROM job")}


@pytest.mark.parametrize("row", table("| a job's `resources`"), ids=lambda row: row[0])
def test_resources_become_the_flags_of_the_table(row):
    asked = ast.literal_eval(f"{{{row[0].strip('`')}}}")
    for kind, shown in zip(EXECUTORS, row[1:], strict=True):
        executor = kind()
        if shown == "refused":
            with pytest.raises(JobError):
                executor.asked({"resources": asked})
            continue
        flags = shlex.join(executor.flags_of(None, asked, None))
        assert flags == ("" if shown == "ignored" else shown.strip("`"))
        assert executor.ignored({"resources": asked}) == (
            list(other_keys(asked)) if shown == "ignored" else []
        )


def test_its_reasons_are_those_that_are_given():
    def reason(**found):
        return judge("run", Found(alive=False, **found), 1000, 10, complete_on_exit=False).reason

    given = {
        *_REASONS.values(),
        *(reason(started=1, ended=2, code=code) for code in (0, 3)),
        reason(started=1, ended=2, signal=9),
        *(reason(started=started, absent_since=1) for started in (None, 1)),
    }
    named = {one for row in table("| reason |") for one in re.findall(r"`([^`]+)`", row[0])}
    assert named == given


@pytest.mark.parametrize("block", blocks("toml"))
def test_its_settings_are_valid(block, playground):
    (playground / "config.toml").write_text(block, "utf-8")
    given = {key: value for key, value in tomllib.loads(block)["paraschut"].items() if key != "template"}
    config = load_config()
    assert json.dumps([getattr(config, key) for key in given]) == json.dumps(list(given.values()))


def test_what_it_names_is_there():
    names = set(re.findall(r"\bpsu\.(\w+)", PAGE))
    assert names - set(psu.__all__) == set()
    for name, value in re.findall(r"`(\w+)` seconds \((\d+)\)", PAGE):
        assert getattr(load_config(environ={}), name) == float(value)
    assert f"at most {ClusterJobExecutor.array_size:,} jobs" in PAGE
    assert f"running at once: {load_config(environ={}).max_jobs}" in PAGE


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"\bparaschut ((?:job )?[a-z]+)\b(?= --|`)", PAGE)))
)
def test_every_command_that_it_names_has_help(command, playground):
    done = subprocess.run(
        [sys.executable, "-m", "paraschut", *command.split(), "--help"], capture_output=True, timeout=60
    )
    assert done.returncode == 0


def test_a_scheduler_that_is_down_changes_nothing_and_is_told(configured, fake_slurm, capsys):
    job = psu.get_job_template(SetID=True) | {"name": "late", "script": "true", "complete_on_exit": True}
    psu.add_batch_to_queue(job["BatchID"], [job], set_index=True)
    fake_slurm.set(down=True)
    with pytest.raises(SubmitError, match="Nothing was submitted to slurm"):
        psu.submit_jobs(Verbose=False)
    assert states(configured) == {"init"}
    fake_slurm.set(down=False, paused=True)
    time.sleep(load_config().queue_age)  # the answer that there was none is shared, too
    psu.submit_jobs(Verbose=False)
    fake_slurm.set(down=True)
    time.sleep(load_config().queue_age)
    psu.get_queue()
    printed = capsys.readouterr().out
    assert "what became of jobs is not known" in printed
    assert "missing: 0" in printed
    assert states(configured) == {"submit"}


def test_lines_for_the_scheduler_are_honoured_but_those_that_are_ours(configured, fake_slurm):
    (configured / "job.sh").write_text(
        "#!/bin/sh\n#SBATCH --comment=kept\n#SBATCH --output=elsewhere\n#SBATCH --job-name=other\ntrue\n"
    )
    fake_slurm.set(paused=True)
    job = psu.get_job_template(SetID=True) | {"name": "mine", "script": "job.sh", "complete_on_exit": True}
    psu.add_batch_to_queue(job["BatchID"], [job], set_index=True)
    psu.submit_jobs(Verbose=False)
    [script] = (configured / "jobs" / "submissions").glob("*/script.sh")
    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert lines == ["#SBATCH --comment=kept"]
    assert psu.qdel_batch(job["BatchID"]) == 1
    assert states(configured) == {"held"}
    assert [call["command"] for call in fake_slurm.calls()].count("scancel") == 2


@pytest.mark.parametrize(("chosen", "kept"), [("auto", "delete"), ("wal", "wal")])
def test_the_index_gets_a_rollback_journal_unless_a_person_chose(configured, fake_slurm, chosen, kept):
    config = configured / "config.toml"
    config.write_text(config.read_text().replace("[paraschut]", f'[paraschut]\njournal_mode = "{chosen}"'))
    job = psu.get_job_template(SetID=True) | {"name": "one", "script": "true", "complete_on_exit": True}
    psu.add_batch_to_queue(job["BatchID"], [job], set_index=True)
    fake_slurm.set(paused=True)
    psu.submit_jobs(Verbose=False)
    with closing(sqlite3.connect(configured / "jobs" / "index.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (kept,)
