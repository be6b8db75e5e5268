"""A world for each story: an index in a folder with an awkward name, and nothing left behind at its end."""

from __future__ import annotations

import os

import pytest
from helpers import MARK, World, until, until_gone

import paraschut as psu


@pytest.fixture
def world(home, monkeypatch, request):
    """Return a world whose jobs find the file of lines as ``$LINES``."""
    mark = f"{request.node.name} {home}"
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("LINES", str(home / "lines"))
    (home / "config.toml").write_text(
        '[paraschut]\njob_dir = "jobs"\nenvironment = ["PATH", "HOME", "LANG", "PYTHONPATH", "LINES"]\n',
        "utf-8",
    )
    made = World(home, mark)
    try:
        yield made
    finally:
        made.end_all()


@pytest.fixture
def executor(world):
    with psu.BatchExecutor() as made:
        yield made


@pytest.fixture
def gate(world):
    """A file that keeps calls of ``until_gone`` from returning."""
    path = world.home / "gate"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def busy(executor, gate):
    """Calls that keep all processors busy, as long as there is a gate."""
    calls = [executor.submit(until_gone, str(gate)) for _ in range(os.cpu_count())]
    until(lambda: all(call.running() for call in calls))
    return calls
