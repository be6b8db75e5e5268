"""How the command line is used: help, mistakes, exit statuses, selectors of jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest
from cli_world import BATCH, OLDER, run_program, states

import paraschut
from paraschut.cli import job as job_cli
from paraschut.cli import main as cli
from paraschut.cli import parts as cli_parts
from paraschut.cli.parts import Selector, selector
from paraschut.prepare import add_job_to_queue, get_job_template

pytest_plugins = ("cli_fixtures",)

COMMANDS = [[name] for name in cli.cli.commands] + [
    ["job", verb] for verb in ("info", "progress", "complete")
]


# -- help, usage, exit statuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself_with_an_example(call, command, option):
    """... that is a command, and fits into a terminal."""
    told = call(*command, option)
    assert (told.status, told.err) == (0, "")
    example = told.out.partition("For example")[2]
    assert f"paraschut {' '.join(command)}".strip() in example
    assert max(map(len, told.out.splitlines())) <= 80


def test_the_main_help_tells_the_exit_statuses_and_all_commands(done):
    """In the order of their use."""
    told = done("--help")
    for words in ("Exit status: 0", "1 it could not be done", "2 wrong usage", "130 Ctrl-C", "A SELECTOR"):
        assert words in told
    places = [told.index(f"\n  {name} ") for name in cli.cli.commands]
    assert places == sorted(places)
    assert "..." not in told.partition("Commands:")[2].partition("SELECTOR")[0], "a line of the list is cut"


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["queue", "--nothing"],
        ["info"],
        ["info", "last:1", "last:2"],
        ["info", "5;6"],
        ["info", "all:3"],
        ["info", "last:3-1"],
        ["log", "last:x"],
        ["log", "last", "--attempt", "0"],
        ["remove", "last:3"],
        ["remove"],
        ["reset"],
        ["cancel", "--yes"],
        ["boost", "last", "much"],
        ["submit", "--max-jobs", "-1"],
        ["submit", "last:1", "--max-jobs", "5"],
        ["queue", "--json", "--report-missing"],
        ["job", "nothing"],
        ["job", "info", "one", "two"],
        ["job", "info", "--nothing"],
        ["job", "info", "--json=5"],
        ["job", "progress"],
        ["job", "progress", "half"],
        ["job", "complete", "score=5"],
        ["job", "complete", "--set"],
        ["job", "complete", "--set", "score"],
        ["job", "complete", "--set", "=5"],
        ["job", "complete", "--set", "BatchID=5"],
        ["job", "complete", "--set", "state=init"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_changes_nothing(call, batch, inside, words):
    """And says what is wrong on standard error."""
    before = paraschut.get_queue(Verbose=False)
    inside(0)
    told = call(*words)
    assert told.status == 2
    assert told.out == ""
    assert "Error: " in told.err
    assert paraschut.get_queue(Verbose=False) == before


def test_without_a_command_the_help_is_shown(call):
    """As a mistake: a script that forgot the command should notice."""
    told = call()
    assert told.status == 2
    assert "Commands:" in told.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["info", "20260101000000:99"], "There is no job 20260101000000:99"),
        (["history", "20260101000000:99"], "There is no job 20260101000000:99"),
        (["log", "20260101000000:0"], "was not submitted yet"),
        (["log", "last"], "None of the jobs"),
        (["log", "1"], "There is no batch 1 in the index"),
        (["submit", "1"], "There is no batch 1 in the index"),
        (["submit", "last:0,99"], "There is no job 20260101000000:99"),
        (["boost", "1", "5"], "There is no batch 1 in the index"),
        (["boost", "last", "nan"], "priority"),
        (["reset", "1", "--yes"], "There is no batch 1 in the index"),
        (["queue", "1"], "There is no batch 1 in the index"),
        (["reset", "last:0", "--to", "spawn", "--yes"], "cannot be set to state 'spawn'"),
        (["log", "last:0", "--regex", "("], "not a regular expression"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_cannot_be_done_is_one_sentence_and_status_1(call, batch, words, sentence):
    """Never a traceback."""
    told = call(*words)
    assert told.status == 1
    assert told.out == ""
    assert told.err.startswith("Error: ")
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert states() == ["init"] * 4


def test_there_is_no_index_yet(call, done):
    """The queue is empty then; what needs jobs says that there are none."""
    assert "empty" in done("queue")
    assert json.loads(done("queue", "--json")) == {}
    told = call("submit", "last")
    assert (told.status, told.out) == (1, "")
    assert told.err.startswith("Error: There is no index at ")


def test_a_broken_configuration_is_told_by_file_and_line(call, home):
    """Also by commands that only look."""
    (home / "config.toml").write_text("[paraschut]\nmax_jobz = 5\n", "utf-8")
    told = call("queue")
    assert told.status == 1
    assert "config.toml" in told.err
    assert "max_jobz" in told.err


def test_ctrl_c_ends_quietly(call, batch, monkeypatch):
    """With the status that shells know, in every part of the program."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(paraschut, "submit_jobs", interrupted, raising=False)
    told = call("submit")
    assert (told.status, told.out, told.err) == (130, "", "")
    monkeypatch.setattr(job_cli, "get_job_info", interrupted)
    told = call("job", "info")
    assert (told.status, told.out, told.err) == (130, "", "")


def test_ctrl_c_at_a_question_changes_nothing(call, batch, monkeypatch):
    """It is no answer."""

    def interrupted(*_, **__):
        raise click.Abort

    monkeypatch.setattr(click, "confirm", interrupted)
    told = call("remove", "last", answer="")
    assert (told.status, told.out) == (130, "")
    assert states() == ["init"] * 4


@pytest.mark.parametrize(
    "words", [["queue"], ["queue", "--json"], ["--help"], ["job", "--help"], ["info", "last:0"]]
)
def test_who_reads_may_leave_early(batch, words):
    """As ``head`` does: no traceback, no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    told = run_program(*words, stdout=writer)
    os.close(writer)
    assert told.stderr == b""
    assert told.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["queue"], ["job", "--help"]])
def test_a_full_disk_is_an_error_and_no_traceback(batch, words):
    """A script must not go on as if all had been written."""
    with open("/dev/full", "wb") as full:
        told = run_program(*words, stdout=full)
    assert told.returncode == 1
    assert told.stderr.decode().startswith("Error: ")
    assert b"Traceback" not in told.stderr


@pytest.mark.parametrize("words", [["queue"], ["--help"], ["job", "--help"]])
def test_nobody_needs_to_listen(batch, words):
    """Standard output may be closed, as by ``>&-``."""
    told = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "paraschut", *words],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, b"")


def test_a_terminal_that_knows_only_ascii_shows_the_queue(batch):
    """With question marks; and JSON is UTF-8 all the same."""
    add_job_to_queue({**get_job_template(), "BatchID": 7, "JobIndex": 0, "name": "élan", "script": "true"})
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    told = run_program("queue", stdout=subprocess.PIPE, env=env)
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"?lan" in told.stdout
    told = run_program("queue", "--json", stdout=subprocess.PIPE, env=env)
    assert json.loads(told.stdout.decode("utf-8"))["7"][0]["name"] == "élan"


# -- selectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("20260101000000", Selector(BATCH)),
        ("20260101000000:7", Selector(BATCH, (7,))),
        (" last : 1, 3-5 ", Selector("last", (1, 3, 4, 5))),
        ("last", Selector("last")),
        ("all", Selector("all")),
    ],
)
def test_selectors(text, meaning):
    """What they mean."""
    assert selector(text) == meaning


@pytest.mark.parametrize(
    "text", ["", "LAST", "-1", "1.5", "\uff19", "9" * 40, "last:", "last:1-", "all:1", ":1", "1:-1"]
)
def test_what_is_no_selector(text):
    """Says how one is written."""
    with pytest.raises(click.BadParameter):
        selector(text)


def test_the_last_batch_is_the_one_that_was_added_last(done, batch, make_jobs):
    """Whatever its number; and one that is only reserved has no jobs."""
    add_job_to_queue(make_jobs(1, batch=OLDER))
    get_job_template(SetID=True)
    assert list(json.loads(done("queue", "last", "--json"))) == [str(OLDER)]


def test_selectors_add_up(done, batch, make_jobs):
    """The same batch may be named again, and all of it is more than some of it."""
    add_job_to_queue(make_jobs(2, batch=OLDER))
    told = done("reset", f"{BATCH}:0", f"{BATCH}:1-2,0", OLDER, f"{OLDER}:0", "--to", "later", "--yes")
    assert told == "Set 5 jobs to 'later'.\n"
    assert states() == ["later"] * 3 + ["init"]


def test_the_shell_may_ask_how_a_word_goes_on(home):
    """Completion is click's; it finds our commands."""
    env = {
        **os.environ,
        "_PARASCHUT_COMPLETE": "bash_complete",
        "COMP_WORDS": "paraschut su",
        "COMP_CWORD": "1",
    }
    told = run_program(stdout=subprocess.PIPE, env=env)
    assert told.stdout.decode().split() == ["plain,submit", "plain,submitter"]


def test_numbers_of_things():
    """In words."""
    assert [cli_parts.plural(2, word) for word in ("job", "batch", "pass")] == [
        "2 jobs",
        "2 batches",
        "2 passes",
    ]
