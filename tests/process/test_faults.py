"""The worked example with fewer jobs: random faults, three more tries for each, and every end as it was drawn."""

from __future__ import annotations

import subprocess
import sys

import pytest
from stories import ROOT

pytestmark = pytest.mark.process


def test_every_job_ends_complete_or_missing_with_the_right_reason(world):
    """Exit codes, SIGKILL, memory and time limits; attempts are all in the history."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.faults", "100", "--workers", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 jobs, as drawn" in done.stdout
    for reason in ("complete", "out of memory", "time limit", "signal 9 (SIGKILL)", "exit code 77"):
        assert f"attempts: {reason}\n" in done.stdout
