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
    # Grid Engine ends what is deleted with the signal that others may send as well, and writes down no more.
    assert site.until_missing(*range(5)) == {
        0: "time limit",
        1: "signal 9 (SIGKILL)",
        2: "signal 9 (SIGKILL)",
        3: "signal 9 (SIGKILL)",
        4: "exit code 3",
    }
    assert starts(world.lines()) == dict.fromkeys(range(5), 1)
