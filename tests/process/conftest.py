"""A world for each story: an index in a folder with an awkward name, and nothing left behind at its end."""

from __future__ import annotations

import pytest
from helpers import MARK, World


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
