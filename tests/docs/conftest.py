"""A fresh folder for what the documents show, and an end for all that was started from it."""

from __future__ import annotations

import contextlib
import os
import time

import psutil
import pytest
from stories import ROOT

#: Marks what a test starts, directly or not: sessions, kernels, agents and what wraps jobs.
MARK = "PLAYGROUND"


@pytest.fixture
def playground(tmp_path, monkeypatch):
    """Return an empty folder, as somebody has who begins; programs started from here find the package."""
    folder = tmp_path / "play ground"
    folder.mkdir(mode=0o700)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv(MARK, str(folder))
    try:
        yield folder
    finally:
        _end_all(folder)


def _end_all(folder):
    deadline = time.monotonic() + 30
    while left := [process for process in psutil.process_iter() if _is_ours(process, folder)]:
        assert time.monotonic() < deadline, left
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.1)


def _is_ours(process, folder):
    if process.pid == os.getpid():
        return False
    try:
        environ = process.environ()
        index = environ.get("PARASCHUT_INDEX", "")  # jobs are given no variables of ours but these
        ours = environ.get(MARK) == str(folder) or index.startswith(f"{folder.parent}{os.sep}")
        return ours and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
