"""Real schedulers that take no more: what is left waits in ``init``, and it is said."""

from __future__ import annotations

import os
import subprocess

import pytest
from helpers import BATCH
from sites import starts

pytestmark = [pytest.mark.cluster, pytest.mark.process]
#: What jobs wait for.
WAITS = 'until [ -e "$GO" ]; do sleep 0.05; done'


def add(site, number, **more):
    """Add jobs that run until ``go`` is there."""
    go = site.world.home / "go"
    site.world.add(*[site.world.says("$J", then=WAITS)] * number, vars={"GO": str(go)}, **more)
    return go


def test_a_slurm_that_is_full(make_site):
    """Its sbatch tries again for two minutes: it is not waited for."""
    site = make_site("small slurm")
    go = add(site, 20)
    done = site.submit()
    # The closer finds no room either, and the next pass sends it.
    assert 6 <= done.count <= 12
    assert site.world.count("init") == 20 - done.count
    assert "temporarily unable to accept job" in str(done)
    go.touch()
    site.until(lambda: site.world.count("complete") >= done.count)
    site.until_rests()
    assert set(starts(site.world.lines()).values()) == {1}


@pytest.fixture
def few_jobs(make_site):
    """Return a Grid Engine that takes two jobs of a user, and a function that lifts that."""
    if os.getuid():
        pytest.skip("only an administrator can change that.")
    site = make_site("sge")

    def limit(number):
        known = subprocess.run(["qconf", "-sconf"], check=True, capture_output=True, text=True).stdout
        file = site.cluster.folder / "global"
        lines = [
            f"max_u_jobs {number}" if line.startswith("max_u_jobs") else line for line in known.splitlines()
        ]
        file.write_text("\n".join([*lines, ""]))
        subprocess.run(["qconf", "-Mconf", str(file)], check=True, capture_output=True)

    limit(2)
    yield site, lambda: limit(0)
    limit(0)


def test_a_grid_engine_that_takes_few_jobs_of_a_user(few_jobs):
    site, lift = few_jobs
    go = add(site, 5, resources=lambda index: {"mem": f"{index + 100}mb"})
    done = site.submit()
    assert done.jobs == {BATCH: [0, 1]}
    assert site.world.count("init") == 3
    assert "only 2 jobs are allowed per user" in str(done)
    lift()
    go.touch()
    site.until(lambda: site.submit() is not None and not site.world.count("init"))
    site.until_complete()
    assert starts(site.world.lines()) == dict.fromkeys(range(5), 1)
