"""What is made for jobs can be read by their owner alone."""

from __future__ import annotations

import os
import subprocess

import pytest
from helpers import BATCH

import paraschut as psu

pytestmark = pytest.mark.process


def test_all_folders_are_of_their_owner_alone_whatever_the_umask_is(world, tmp_path):
    # Was: the folder of a batch, and all others above the last, were readable by all.
    before = os.umask(0o022)
    try:
        world.add("echo out; echo err >&2; sleep 0.2")
        world.add("echo out", batch=BATCH + 1)
        psu.generate_data({"BatchID": BATCH + 2, "JobIndex": 0}, [1])
        psu.submit_one_batch(BATCH, Verbose=False)
        world.until_complete()
        psu.submit_one_batch(BATCH + 1, "file", Verbose=False)
        subprocess.run(["sh", "jobs/jobs.sh"], check=True, stdout=subprocess.DEVNULL)
    finally:
        os.umask(before)
    folders = [path for path, _, _ in os.walk(world.home / "jobs")]
    assert {os.path.basename(path) for path in folders} >= {
        f"{BATCH}",
        f"{BATCH + 1}",
        f"{BATCH + 2}",
        "logs",
        "submissions",
    }
    assert [path for path in folders if os.stat(path).st_mode & 0o077] == []
