"""The real schedulers of the tests do what the other tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from machine import BARE, USER, alive

pytestmark = pytest.mark.cluster


def said(*argv, **more):
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, **more)


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return found


def slurm_state(job):
    return said("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").stdout.strip()


def sge_ended(job):
    return [
        tuple(line.split()[:2])
        for line in said("qacct", "-j", job).stdout.splitlines()
        if line.startswith(("failed", "exit_status"))
    ]


def test_slurm_has_nodes_and_listens_only_here(slurm):
    nodes = said("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N").stdout.split()
    assert nodes == slurm.nodes
    listening = {
        line.split()[3]
        for line in said("ss", "--tcp", "--listening", "--numeric", "--no-header").stdout.splitlines()
    }
    ports = {slurm.port, *(int(node[1:]) for node in slurm.nodes)}
    assert {address for address in listening if int(address.rpartition(":")[2]) in ports} == {
        f"127.0.0.1:{port}" for port in ports
    }


def test_slurm_ends_a_job_that_takes_more_memory_than_it_asked_for(slurm, tmp_path):
    if not slurm.limits_memory():
        pytest.skip("this machine has no memory cgroup (v1) that may be written.")
    greedy = f"exec {os.sys.executable} -c 'x = bytearray(b\"x\") * 400_000_000'"
    job = said(
        "sbatch", "--parsable", "--mem=50", f"--output={tmp_path}/log", f"--wrap={greedy}"
    ).stdout.strip()
    assert wait_for(
        lambda: slurm_state(job) not in ("PENDING", "RUNNING", "COMPLETING") and slurm_state(job)
    ) == ("OUT_OF_MEMORY")


def test_an_ordinary_user_submits_to_slurm(slurm, users_folder):
    submit = slurm.command(
        "sbatch", "--parsable", "--wait", "--output=log", "--wrap=id --user --name", user=USER
    )
    assert said(*submit, cwd=users_folder).returncode == 0
    assert (users_folder / "log").read_text().strip() == USER


def test_an_ordinary_user_has_a_python_with_this_package(users_python):
    python, path = users_python
    program = "import os, sqlalchemy, paraschut; print(os.getuid() > 0)"
    done = said(
        "runuser", "--user", USER, "--", python, "-c", program, env={**BARE, "PYTHONPATH": path}, cwd="/"
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_slurmctld_stops_freezes_and_comes_back(slurm):
    if os.getuid():
        pytest.skip("only root can stop a daemon.")
    slurm.kill("slurmctld", signal.SIGSTOP)
    pid = slurm.pid("slurmctld")
    assert pid
    assert alive(pid, "slurmctld")
    slurm.up("slurmctld")
    assert slurm.pid("slurmctld") == pid
    slurm.kill("slurmctld")
    assert slurm.pid("slurmctld") is None
    slurm.up("slurmctld")
    wait_for(slurm.running)


def test_a_slurm_that_forgets_and_one_that_keeps_books(forgetful_slurm, accounting_slurm, monkeypatch):
    for cluster in (forgetful_slurm, accounting_slurm):
        monkeypatch.setenv("SLURM_CONF", cluster.environment()["SLURM_CONF"])
        job = said("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 3").stdout.strip()
        asked = ("squeue", "--noheader", "--states=all", f"--jobs={job}")
        gone = wait_for(lambda asked=asked: (found := said(*asked)).returncode and found)
        assert "Invalid job id specified" in gone.stderr
        books = (
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            f"--jobs={job}",
            "--format=state,exitcode",
        )
        if cluster.accounting:
            assert wait_for(lambda books=books: said(*books).stdout) == "FAILED|3:0\n"
        else:
            assert said(*books).stderr == "Slurm accounting storage is disabled\n"


def test_a_node_of_slurm_goes_and_comes_back(slurm):
    if os.getuid():
        pytest.skip("only root can stop a daemon.")
    slurm.kill("slurmd-2")
    assert slurm.pid("slurmd-2") is None
    slurm.up("slurmd-2")
    assert slurm.answers("slurmd-2")
    said("scontrol", "update", f"nodename={slurm.node('slurmd-2')}", "state=down", "reason=test")
    assert not slurm.answers("slurmd-2")
    slurm.up("slurmd-2")
    assert slurm.answers("slurmd-2")


def test_grid_engine_listens_in_no_network_but_its_own(sge):
    listening = said("ss", "--tcp", "--listening", "--processes", "--no-header").stdout
    assert "sge_" not in listening


def test_an_array_runs_on_grid_engine(sge, tmp_path):
    # Root can reach a folder of pytest's, and is who runs this.
    script = tmp_path / "script"
    script.write_text("exit $((SGE_TASK_ID - 1))\n")
    answer = said(
        "qsub", "-terse", "-t", "1-2", "-S", "/bin/sh", "-o", "/dev/null", "-e", "/dev/null", str(script)
    )
    job = answer.stdout.partition(".")[0]
    ended = wait_for(lambda: len(found := sge_ended(job)) == 4 and found)
    assert [value for name, value in ended if name == "exit_status"] == ["0", "1"]


def test_an_ordinary_user_submits_to_grid_engine_from_inside_its_network(sge, users_folder):
    submit = sge.command(
        "qsub", "-terse", "-sync", "y", "-S", "/bin/sh", "-b", "y", "-wd", str(users_folder), "-j", "y",
        "-o", "log", "id", "-un", user=USER,
    )  # fmt: skip
    done = said(*submit, cwd=users_folder)
    assert done.returncode == 0, done.stderr
    assert (users_folder / "log").read_text().strip() == USER


def test_sge_qmaster_stops_freezes_and_comes_back(sge):
    if os.getuid():
        pytest.skip("only root can stop a daemon.")
    # Killed with SIGKILL it would give the same ids out again.
    sge.kill("sge_qmaster")
    assert said("qstat").returncode == 1
    sge.up("sge_qmaster")
    assert said("qstat").returncode == 0
    sge.kill("sge_qmaster", signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["qstat"], timeout=2, check=False)
    sge.up("sge_qmaster")
    assert said("qstat").returncode == 0
