"""What the pages of the guide show is executed, and the reference has every public name."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest
from stories import ROOT

import paraschut

DOCS = ROOT / "docs"
#: Pages that need a scheduler have tests of their own.
ELSEWHERE = {"clusters.md": "test_clusters_page.py", "executors.md": "test_executors_chapter.py"}
PAGES = sorted({path.name for path in DOCS.glob("*.md")} - set(ELSEWHERE))


def blocks(page, language):
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def on_path(playground, tmp_path, monkeypatch):
    """``paraschut`` is the one that is tested."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "paraschut"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m paraschut "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs_as_one_session(page, playground):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks(page, "python"))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "coming-from.md": ["2 of old", "45", "[0, 1, 4, 9, 16]"],
        "functions.md": [
            "[42]\nHello, World!\n\n\n'calcpi' (job ",
            f"pi = {math.pi}",
            "1045627278 in all",
            "[1, 3] True",
        ],
        "growing.md": ["435 is the sum of 0 to 29", "1 failure"],
        "index.md": ["9", "16", "all is well"],
        "local.md": ["0", "#!/bin/sh"],
        "trust.md": ["$(rm x); `id`"],
        "watching.md": ["n is 2", "[0, 1, 2]", "watching.html"],
    }
    for words in expected[page]:
        assert (words if words.endswith(" ") else f"{words}\n") in done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")])
def test_the_commands_of_a_page_run(page, on_path):
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(blocks(page, "sh"))], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if page == "command-line.md":
        assert "sample: two words" in done.stdout
        assert "WRONG" not in done.stdout


def test_every_other_page_has_a_test_of_its_own():
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / "docs" / test).read_text("utf-8")


def test_every_public_name_is_in_the_reference():
    told = set(
        re.findall(r"^::: paraschut\.\S*\.(\w+)$", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE)
    )
    errors = {name for name in paraschut.__all__ if name.endswith("Error")}
    elsewhere = {"ClusterID", "__version__", "JobFailed"}
    missing = set(paraschut.__all__) - errors - elsewhere - told
    assert not missing, "add a line '::: paraschut.MODULE.NAME' to docs/reference.md"
    assert told <= set(paraschut.__all__) | {"errors"}


def test_every_page_is_in_the_menu_and_links_lead_somewhere():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for path in DOCS.glob("*.md"):
        assert f": {path.name}" in menu
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text("utf-8")):
            assert (DOCS / link).exists(), f"{path.name}: {link}"
