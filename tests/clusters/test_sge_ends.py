"""How jobs end on the real Grid Engine, and what is said of it."""

from __future__ import annotations

import os
import signal
import subprocess

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
    walltime = [3, 600, 600, 600, 600]
    world.add(
        lasts,
        lasts,
        lasts,
        lasts,
        world.says("$$", "$J", then="exit 3"),
        resources=lambda index: {"walltime": walltime[index]},
    )
    site.submit()
    site.until(lambda: len(world.lines()) == 5)
    of = {int(line.split()[1]): int(line.split()[0]) for line in world.lines()}
    os.kill(of[1], signal.SIGKILL)
    os.kill(psutil.Process(of[2]).ppid(), signal.SIGKILL)
    site.until(lambda: "#" not in psu.get_job_info(BATCH, 3)["ClusterID"][-1])
    subprocess.run(["qdel", psu.get_job_info(BATCH, 3)["ClusterID"][-1]], check=True, capture_output=True)
    why = site.until_missing(*range(5))
    # Grid Engine ends what is deleted with the signal that others may send as well, and writes down no more; that it
    # is marked for deletion can be seen for a moment.
    assert why.pop(3) in {"cancelled", "signal 9 (SIGKILL)"}
    assert why == {0: "time limit", 1: "signal 9 (SIGKILL)", 2: "signal 9 (SIGKILL)", 4: "exit code 3"}
    assert starts(world.lines()) == dict.fromkeys(range(5), 1)


def test_what_was_seen_marked_for_deletion_was_cancelled(make_site):
    """That is certain; what ends between two looks is not, and is shown with its signal."""
    if os.getuid():
        pytest.skip("only root can freeze a daemon.")
    site = make_site("sge")
    site.world.add(site.world.says("$$", "$J", then="exec sleep 600"))
    site.submit()
    site.until(lambda: site.world.states() == {0: "run"})
    execd = site.cluster.pid("sge_execd")
    os.kill(execd, signal.SIGSTOP)
    try:
        subprocess.run(["qdel", *site.ids()], check=True, capture_output=True)
        site.until(lambda: [one["reason"] for one in site.world.attempts()] == ["cancelled"])
    finally:
        os.kill(execd, signal.SIGCONT)
    assert site.until_missing(0) == {0: "cancelled"}
