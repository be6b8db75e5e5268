"""The real schedulers, for the tests that are about them: running, or skipped with a sentence that says why."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from machine import USER
from sge import GridEngine
from slurm import Slurm

#: Read here, because each test starts without any PARASCHUT_* variable.
REQUIRED = os.environ.get("PARASCHUT_TESTS_REQUIRE", "").split(",")
FOUND = {"slurm": Slurm(), "sge": GridEngine()}


@pytest.fixture(scope="session")
def _running():
    """Return which clusters run, looked up once."""
    return {name: cluster.running() for name, cluster in FOUND.items()}


def _given(name, running, monkeypatch):
    cluster = FOUND[name]
    if not running[name]:
        sentence = f"{cluster.title} does not run ({cluster.missing() or 'make clusters starts it'})"
        if "clusters" in REQUIRED:
            pytest.fail(f"{sentence}, and PARASCHUT_TESTS_REQUIRE=clusters wants it.")
        pytest.skip(f"{sentence}.")
    for variable, value in cluster.environment().items():
        monkeypatch.setenv(variable, value)
    yield cluster
    # A test may have stopped or frozen some of it.
    if not os.getuid():
        for daemon in cluster.daemons:
            cluster.up(daemon)


@pytest.fixture
def slurm(_running, monkeypatch):
    """Return the real Slurm, whose commands work in this test."""
    yield from _given("slurm", _running, monkeypatch)


@pytest.fixture
def sge(_running, monkeypatch):
    """Return the real Grid Engine, whose commands work in this test."""
    yield from _given("sge", _running, monkeypatch)


@pytest.fixture
def users_folder():
    """Return a folder that the ordinary user may write, and can reach; pytest's own are closed to others."""
    if os.getuid():
        pytest.skip("only root can do something as another user.")
    folder = tempfile.mkdtemp(prefix="psu-")
    shutil.chown(folder, USER, USER)
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
