"""Run a command in a folder and look at what it said; what the tests of the three fakes share."""

from __future__ import annotations

import subprocess


def said(line, folder, **more):
    """Return (standard output, standard error, exit code) of a line of shell."""
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, cwd=folder, check=False, **more
    )
    return done.stdout, done.stderr, done.returncode
