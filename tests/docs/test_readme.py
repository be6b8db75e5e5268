"""What the README shows is executed, and what it names exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tomllib

import pytest
from stories import ROOT

import paraschut as psu
from paraschut.look.render import render_queue
from paraschut.look.summary import BatchRow, MissingRow, Span, StateRow, Totals

README = (ROOT / "README.md").read_text("utf-8")
#: Runs the blocks as one session; a traceback names the line of the README.
SESSION = """
import json, sys
names = {"__name__": "__main__"}
for line, text in json.load(sys.stdin):
    exec(compile("\\n" * line + text, "README.md", "exec"), names)
"""


def blocks(language):
    """Return the blocks of a language, each with the number of lines above it."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(README.count("\n", 0, match.start(1)), match[1]) for match in found]


COMMANDS = sorted(
    {
        tuple(match[1].split())
        for match in re.finditer(
            r"\bparaschut ((?:job )?[a-z]+)\b", "\n".join(text for _, text in blocks("sh"))
        )
    }
    | {tuple(match[1].split()) for match in re.finditer(r"`paraschut ((?:job )?[a-z]+)\b", README)}
)


def test_the_python_blocks_run_in_order_in_one_session_in_an_empty_folder(playground):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SESSION],
        input=json.dumps(blocks("python")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "[0, 1, 4, 9]" in done.stdout
    assert "the square of 3 is 9" in done.stdout
    # What it leaves is what the text around it promises: the script runs its job, the rest goes on by itself.
    subprocess.run(["sh", "later.sh"], check=True, capture_output=True, timeout=60)
    deadline = time.monotonic() + 60
    while (states := states_of_all()) != {"complete"}:
        assert time.monotonic() < deadline, states
        time.sleep(0.2)


def states_of_all():
    found = psu.get_queue(Verbose=False)
    return {job["state"] for jobs in found.values() for job in jobs}


def test_what_it_tells_of_the_shell_is_there():
    assert ("queue",) in COMMANDS


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_of_ours_that_it_names_has_help(command, playground):
    done = subprocess.run(
        [sys.executable, "-m", "paraschut", *command, "--help"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"paraschut {' '.join(command)}" in done.stdout


def test_the_pictures_are_there_in_both_themes_and_small():
    """``make pictures`` takes them from a JupyterLab, with a test that goes through the example."""
    watching = (ROOT / "docs" / "watching.md").read_text("utf-8")
    for name in ("dashboard", "missing"):
        assert f"pictures/{name}-light.png" in watching
        for theme in ("light", "dark"):
            picture = (ROOT / "docs" / "pictures" / f"{name}-{theme}.png").read_bytes()
            assert picture.startswith(b"\x89PNG")
            assert len(picture) < 150_000
    assert all(f"docs/pictures/dashboard-{theme}.png" in README for theme in ("light", "dark"))


def test_a_terminal_is_shown_what_the_guide_shows():
    genomes = BatchRow(
        20260721170233,
        "ecoli/genome_map",
        "reads",
        (StateRow("complete", 1, (Span(40, 40),)), StateRow("collected", 40, (Span(0, 39),))),
        elapsed=8040,
    )
    digits = BatchRow(
        20260722092014,
        "digits/model_selection",
        "image",
        (
            StateRow("init", 2, (Span(16, 17),)),
            StateRow("submit", 3, (Span(13, 15),)),
            StateRow("run", 4, (Span(9, 12),), (Span(10, 12),)),
            StateRow("complete", 9, (Span(0, 8),)),
        ),
        (MissingRow(9, "out of memory", 1),),
        ((10, 0.6, "fold 3 of 5"), (12, 0.2, "fold 1 of 5")),
        elapsed=312,
        left=240,
    )
    shown = render_queue([genomes, digits], Totals(6, 3, 1, 50, 59))
    assert f"```text\n{shown}\n```" in (ROOT / "docs" / "watching.md").read_text("utf-8")


def test_the_targets_extras_and_files_that_it_names_are_there():
    targets = re.findall(r"`make (\w+)`", README)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "demo" in targets
    assert [one for one in targets if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []
    extras = re.findall(r"\[(\w+)\]\"", README)
    with (ROOT / "pyproject.toml").open("rb") as file:
        there = tomllib.load(file)["project"]["optional-dependencies"]
    assert "demo" in extras
    assert set(extras) <= set(there)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [one for one in links if not (ROOT / one).exists()] == []


def test_it_is_short():
    assert README.count("\n") <= 200
    assert max(map(len, README.splitlines())) <= 120
