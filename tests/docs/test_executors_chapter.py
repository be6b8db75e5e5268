"""The executor of docs/executors.md, installed as a package would be, runs jobs through a real Task Spooler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import pytest
from stories import ROOT

import paraschut as psu
from paraschut import desk

CHAPTER = (ROOT / "docs" / "executors.md").read_text("utf-8")
TSP = shutil.which("tsp")
#: Read here, because each test starts without any PARASCHUT_* variable.
REQUIRED = "clusters" in os.environ.get("PARASCHUT_TESTS_REQUIRE", "").split(",")
GRACE = 1


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)


@pytest.fixture
def spooler(playground, monkeypatch):
    """Return the command of a Task Spooler of this test alone, with the chapter's package and configuration."""
    if TSP is None:
        sentence = "there is no tsp (as root: make clusters installs it)"
        if REQUIRED:
            pytest.fail(f"{sentence}, and PARASCHUT_TESTS_REQUIRE=clusters wants it.")
        pytest.skip(sentence)
    module, package = playground / "site" / "paraschut_tsp.py", tomllib.loads(blocks("toml")[0])["project"]
    metadata = module.parent / "paraschut_tsp-1.0.dist-info"
    metadata.mkdir(parents=True)
    module.write_text(blocks("python")[0], "utf-8")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package['name']}\nVersion: {package['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in package["entry-points"].items()
        )
    )
    (playground / "config.toml").write_text(
        f'{blocks("toml")[1]}job_dir = "jobs"\nqueue_age = 0.2\ngrace = {GRACE}\n'
    )
    monkeypatch.syspath_prepend(str(module.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(module.parent), os.environ["PYTHONPATH"]]))
    # Its socket lies in TMPDIR, which commands of schedulers do not get, so a program on PATH says it.
    with tempfile.TemporaryDirectory(prefix="psu-tsp-") as folder:
        command = Path(folder) / "tsp"
        command.write_text(f'#!/bin/sh\nTMPDIR={folder} exec {shlex.quote(TSP)} "$@"\n')
        command.chmod(0o700)
        monkeypatch.setenv("PATH", os.pathsep.join([folder, os.environ["PATH"]]))
        subprocess.run([command, "-S", "2"], check=True)
        yield command
        subprocess.run([command, "-K"], check=True)
    desk._close_desks()
    desk._desks.clear()
    sys.modules.pop("paraschut_tsp", None)


def until(condition):
    """Make passes, as a submitter does, until something is so."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, psu.get_queue(Verbose=False)
        psu.submit_jobs(Verbose=False)
        time.sleep(0.1)
    return found


def jobs():
    [found] = psu.get_queue(Verbose=False).values()
    return found


def prepared(*scripts, **fields):
    job = psu.get_job_template(SetID=True)
    job |= {"name": "mine", "complete_on_exit": True, "resources": {"cpus": 1}, **fields}
    psu.add_batch_to_queue(job["BatchID"], [{**job, "script": one} for one in scripts], set_index=True)
    return job["BatchID"]


def listed(command):
    return subprocess.run([command], capture_output=True, text=True, check=True).stdout


def test_it_is_short():
    assert blocks("python")[0].count("\n") < 60


def test_the_batch_of_the_chapter_runs_group_after_group(spooler):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[1]], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("submitted 3 jobs of 1 batch\n", "")
    assert listed(spooler).count("[spooled.") == 3
    until(lambda: {job["state"] for job in jobs()} == {"complete"})
    assert listed(spooler).count("[spooled.") == 4
    *counts, report = (psu.get_job_info(job["BatchID"], job["JobIndex"]) for job in jobs())
    for job, count in zip(counts, (10, 100, 1000), strict=True):
        assert Path(job["stdout"][-1]).read_text() == "".join(f"{n + 1}\n" for n in range(count))
    assert min(report["subtime"]) >= max(job["subtime"][0] for job in counts)
    assert all(re.fullmatch(r"\d+", job["ClusterID"][-1]) for job in [*counts, report])


def test_a_job_that_fails_is_missing_with_its_reason(spooler):
    prepared("exit 3", "kill -9 $$")
    psu.submit_jobs(Verbose=False)
    until(lambda: all(job.get("failure") for job in jobs()))
    assert [job["failure"] for job in jobs()] == ["exit code 3", "signal 9 (SIGKILL)"]


def test_what_waits_and_what_runs_can_be_deleted(spooler):
    batch = prepared("sleep 1000", "sleep 1000", "true")
    psu.submit_jobs(Verbose=False)
    until(lambda: [job["state"] for job in jobs()] == ["run", "run", "submit"])
    assert psu.get_qstat(psu.get_job_info(batch, 0)["ClusterID"][-1])["word"] == "running"
    assert psu.qdel_batch(batch) == 3
    until(lambda: "sleep" not in listed(spooler) and not re.search("running|queued", listed(spooler)))
    assert [job["state"] for job in jobs()] == ["held"] * 3
    # Of one that is set back, the former start is proved to be over, and it runs as if nothing had been.
    psu.set_job_field(batch, 2)
    until(lambda: jobs()[2]["state"] == "complete")


def test_what_died_before_it_knew_the_id_is_found_by_its_token(spooler):
    for _ in range(2):  # so that the job waits, and leaves no other trace than its name in the queue
        subprocess.run([spooler, "sleep", "1000"], check=True, capture_output=True)
    batch = prepared("echo once")
    # A program on PATH that kills who called it, after it has done what it was called for.
    killer = spooler.parent / "killing" / "tsp"
    killer.parent.mkdir()
    killer.write_text(f'#!/bin/sh\n{spooler} "$@"\ncase $1 in -L) kill -9 $PPID ;; esac\n')
    killer.chmod(0o700)
    path = os.pathsep.join([str(killer.parent), os.environ["PATH"]])
    died = subprocess.run(
        [sys.executable, "-m", "paraschut", "submit"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -9
    assert psu.get_job_info(batch, 0)["ClusterID"] == [None]
    until(lambda: psu.get_job_info(batch, 0)["ClusterID"] == ["2"])
    subprocess.run([spooler, "-k", "0"], check=True)
    until(lambda: jobs()[0]["state"] == "complete")
    assert listed(spooler).count("[mine.") == 1


def test_what_it_cannot_be_told_is_refused(spooler):
    prepared("true", resources={"cpus": 1, "licenses": 2})
    left = psu.submit_jobs(Verbose=False).left
    assert "licenses" in left[0]
    assert "tsp does not know" in left[0]
    assert not listed(spooler).count("[mine.")
