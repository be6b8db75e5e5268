"""What the stories about the command line share, besides their fixtures."""

from __future__ import annotations

import subprocess
import sys

import paraschut

BATCH = 20260101000000
OLDER = 20250101000000


def states(batch_id=BATCH):
    """Return the states of a batch's jobs."""
    return [job["state"] for job in paraschut.get_queue(Verbose=False)[batch_id]]


def run_program(*words, **options):
    """Run the program as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "paraschut", *words],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        **options,
    )
