"""How jobs end on the real Grid Engine, and what is said of it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

import psutil
import pytest
from helpers import BATCH
from sites import starts

import paraschut as psu

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_each_end_has_its_reason(make_site):
    site = make_site("sge")
    world = site.world
    lasts = world.says("$$", "$J", then="exec sleep 600")
    asked = [{"walltime": 3}, {}, {}, {}, {}, {"mem": "100mb", "walltime": 600}]
    takes = f"{shlex.quote(sys.executable)} -c 'import time; x = bytearray(40 << 20); time.sleep(600)' &"
    world.add(
        lasts,
        lasts,
        lasts,
        lasts,
        world.says("$$", "$J", then="exit 3"),
        world.says("$$", "$J", then=f"{4 * takes} wait"),
        resources=asked.__getitem__,
    )
    site.submit()
    site.until(lambda: len(world.lines()) == 6)
    of = {int(line.split()[1]): int(line.split()[0]) for line in world.lines()}
    os.kill(of[1], signal.SIGKILL)
    os.kill(psutil.Process(of[2]).ppid(), signal.SIGKILL)
    site.until(lambda: "#" not in psu.get_job_info(BATCH, 3)["ClusterID"][-1])
    subprocess.run(["qdel", psu.get_job_info(BATCH, 3)["ClusterID"][-1]], check=True, capture_output=True)
    why = site.until_missing(*range(6))
    # Grid Engine ends what is deleted with the signal that others may send as well, and writes down no more; that it
    # is marked for deletion can be seen for a moment.
    assert why.pop(3) in {"cancelled", "signal 9 (SIGKILL)"}
    assert why == {
        0: "time limit",
        1: "signal 9 (SIGKILL)",
        2: "signal 9 (SIGKILL)",
        4: "exit code 3",
        5: "out of memory",
    }
    assert starts(world.lines()) == dict.fromkeys(range(6), 1)


def test_what_cannot_be_started_is_explained(make_site):
    site = make_site("sge")
    site.world.add("true", "true", options="-S /no/such")
    site.submit()
    said = 'Eqw (unable to find shell "/no/such"; Job is in error state)'
    site.until(lambda: said in str(psu.explain(BATCH, 1)))
    assert psu.qdel_batch(BATCH) == 2
    site.until_rests()


@pytest.fixture
def odd_defaults(sge):
    """Lines of a file of defaults that the site, or a user, may have."""
    if os.getuid():
        pytest.skip("only an administrator can change that.")
    file = sge.folder / "root/default/common/sge_request"
    file.write_text("-b y -shell n\n-now y -V -cwd -j n\n-N mine\n")
    yield
    file.unlink()


def test_files_of_defaults_change_nothing(make_site, odd_defaults):
    site = make_site("sge")
    site.world.add(*[site.world.says("$J")] * 3, priority=lambda index: 2 - index // 2)
    site.submit()
    site.world.until_complete()
    assert starts(site.world.lines()) == {0: 1, 1: 1, 2: 1}


def test_what_an_administrator_starts_again_runs_again_as_a_recorded_restart(make_site):
    site = make_site("sge")
    path = site.world.home / "again.sh"
    once = "[ -e done ] || { : > done; exec sleep 600; }"
    path.write_text(f"#!/bin/sh\n#$ -r y\n{site.world.says('$J', then=once)}\n")
    site.world.add(str(path), workdir=str(site.world.home))
    site.submit()
    site.until(lambda: site.world.states() == {0: "run"} and (site.world.home / "done").exists())
    subprocess.run(["qmod", "-rj", *site.ids()], check=False, capture_output=True)
    site.until_complete()
    assert site.world.lines() == ["0", "0"]
    (event,) = psu.history(BATCH, 0)["events"]
    assert (event["kind"], event["detail"]) == ("restart", "attempt 1 was started 2 times by its scheduler")


@pytest.fixture
def execd(make_site):
    """Return a site, the pid of a job that runs there, and of the daemon of its node."""
    if os.getuid():
        pytest.skip("only root can freeze or kill a daemon.")
    site = make_site("sge")
    site.world.add(site.world.says("$$", then="exec sleep 600"))
    site.submit()
    site.until(lambda: site.world.lines() and site.world.states() == {0: "run"})
    return site, int(site.world.lines()[0]), site.cluster.pid("sge_execd")


def test_a_node_that_dies_and_comes_back(execd):
    """Its daemon and a job are gone, and everything that could have said so."""
    site, pid, daemon = execd
    around = [one for one in psutil.Process(pid).parents()[:2] if one.pid != daemon]
    site.cluster.kill("sge_execd", signal.SIGKILL)
    for one in (*reversed(around), psutil.Process(pid)):
        one.kill()
    site.cluster.up("sge_execd")
    assert site.until_missing(0) == {0: "node failure"}


def test_what_was_seen_marked_for_deletion_was_cancelled(execd):
    """That is certain; what ends between two looks is not, and is shown with its signal."""
    site, _, daemon = execd
    os.kill(daemon, signal.SIGSTOP)
    try:
        subprocess.run(["qdel", *site.ids()], check=True, capture_output=True)
        site.until(lambda: [one["reason"] for one in site.world.attempts()] == ["cancelled"])
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert site.until_missing(0) == {0: "cancelled"}
