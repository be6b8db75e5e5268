"""What a shell script calls inside of its job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_world import BATCH, states
from click.testing import CliRunner

import paraschut
from paraschut.cli import job as job_cli
from paraschut.cli import main as cli
from paraschut.prepare import add_job_to_queue

pytest_plugins = ("cli_fixtures",)

BANNED = (
    "click",
    "sqlalchemy",
    "dataclasses",
    "inspect",
    "logging",
    "psutil",
    "pathlib",
    "subprocess",
    "argparse",
)


@pytest.mark.parametrize(
    "words", [["info"], ["info", "--no-set-id"], ["progress", "0.5"], ["complete", "--submit"]]
)
def test_outside_of_a_job_its_commands_say_so(call, batch, words):
    """And what works there."""
    told = call("job", *words)
    assert (told.status, told.out) == (1, "")
    assert told.err.startswith(
        f"Error: 'paraschut job {words[0]}' works inside a job, and this process is none"
    )


def test_job_info_says_that_it_runs_and_who_it_is(done, inside):
    """In JSON; and with --no-set-id it only looks."""
    inside(1)
    assert json.loads(done("job", "info", "--no-set-id"))["state"] == "submit"
    assert states() == ["submit"] * 3 + ["init"]
    told = json.loads(done("job", "info"))
    assert (told["state"], told["JobIndex"], told["n"]) == ("run", 1, 10)
    assert states()[1] == "run"
    assert json.loads(done("job", "info", "--no-set-id", "--set-id", "--json"))["n"] == 10


@pytest.mark.parametrize(
    ("value", "text", "as_json"),
    [
        ("a b\nc é", "a b\nc é", '"a b\\nc é"'),
        (0.5, "0.5", "0.5"),
        (7, "7", "7"),
        (True, "true", "true"),
        (None, "", "null"),
        (["a", 1], '["a", 1]', '["a", 1]'),
        ({"mem": "1gb"}, '{"mem": "1gb"}', '{"mem": "1gb"}'),
        (float("inf"), "inf", "null"),
        (Path("a b"), "a b", '"a b"'),
        ((1, 2), "[1, 2]", "[1, 2]"),
    ],
)
def test_job_info_of_one_field(configure, done, make_jobs, monkeypatch, home, value, text, as_json):
    """As a shell wants it, or as JSON."""
    configure(executor="file")
    add_job_to_queue(make_jobs(1, given=value))
    done("submit")
    for name, number in {"BATCHID": BATCH, "JOBINDEX": 0, "ATTEMPT": 1}.items():
        monkeypatch.setenv(f"PARASCHUT_{name}", str(number))
    assert done("job", "info", "given") == text + "\n"
    assert done("job", "info", "--json", "given") == as_json + "\n"
    assert done("job", "info", "--", "given") == text + "\n"


def test_a_name_that_is_not_utf8_goes_out_as_it_is(batch, monkeypatch, capfdbinary):
    """Because it is the name of a file; and JSON escapes it."""
    job_cli.put("caf\udce9\n")
    job_cli.put("\ud800\n")
    job_cli.put(job_cli.json_text("caf\udce9") + "\n")
    assert capfdbinary.readouterr().out == b'caf\xe9\n?\n"caf\\udce9"\n'


def test_job_info_of_a_field_that_is_not_there(call, inside):
    """Names those that are."""
    inside(0)
    told = call("job", "info", "m")
    assert told.status == 1
    assert f"Error: job {BATCH}:0 has no field 'm'. It has: BatchID, " in told.err
    assert told.out == ""


def test_job_progress(done, call, inside):
    """A number, and words with or without quotes."""
    inside(0)
    done("job", "info")
    done("job", "progress", "0.25", "epoch", "5", "-x", "of 20")
    job = paraschut.get_job_info(BATCH, 0)
    assert (job["progress"], job["progress_message"]) == (0.25, "epoch 5 -x of 20")
    done("job", "progress", "--", "1")
    assert paraschut.get_job_info(BATCH, 0)["progress"] == 1
    for wrong in ("50", "-0.5", "nan"):
        told = call("job", "progress", wrong)
        assert told.status == 1
        assert "between 0 and 1" in told.err


def test_job_complete_keeps_values(done, inside):
    """JSON where it is JSON, and text where it is not."""
    inside(2)
    given = {
        "score=0.93": 0.93, "sizes=[1, 2]": [1, 2], 'quoted="007"': "007", "plain=007": "007", "words=a = b": "a = b",
        "empty=": "", "none=null": None, "nan=NaN": "NaN", "n=-5": -5, "nested=" + "[" * 10**5: "[" * 10**5,
    }  # fmt: skip
    words = [word for one in given for word in ("--set", one)]
    done("job", "complete", *words, "--set=last=1", "--set=last=2")
    job = paraschut.get_job_info(BATCH, 2)
    assert job["state"] == "complete"
    assert {text: job[text.partition("=")[0]] for text in given} == given
    assert job["last"] == 2
    assert job["name"] == "lung/map"


def test_job_complete_submits_the_next_group_if_asked(done, inside, monkeypatch):
    """The last of a group opens the next."""
    for index in (0, 1):
        inside(index)
        done("job", "complete")
    assert states() == ["complete", "complete", "submit", "init"]
    inside(2)
    done("job", "complete", "--submit")
    assert states() == ["complete"] * 3 + ["submit"]


@pytest.mark.parametrize("words", [["info"], ["complete"]])
def test_a_job_that_was_reset_meanwhile_is_told_to_end(call, done, inside, words):
    """It no longer counts."""
    inside(0)
    done("reset", f"{BATCH}:0", "--yes")
    told = call("job", *words)
    assert told.status == 1
    assert "no longer counts" in told.err
    assert states()[0] == "init"


@pytest.mark.parametrize(
    "words",
    [
        ["job", "info"],
        ["job", "info", "--json", "n"],
        ["job", "progress", "0.5", "half"],
        ["job", "complete", "--submit", "--set", "score=0.5"],
        ["job", "complete", "--help"],
        ["job", "nothing"],
    ],
    ids=" ".join,
)
def test_the_commands_of_jobs_import_little(python, inside, words):
    """A shell script may call them thousands of times, on a file system that feels it."""
    inside(0)
    text = """
import json, sys
from paraschut.__main__ import main
sys.argv[0] = "paraschut"
try:
    main()
except SystemExit:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    loaded = json.loads(python(text, *words).stderr.splitlines()[-1])
    assert [
        name
        for name in loaded
        if name in BANNED or name.startswith(("paraschut.dispatch", "paraschut.submitting"))
    ] == []


@pytest.mark.parametrize(
    "words", [["--help"], ["info", "--help"], ["progress", "-h"], ["complete", "--help"], []]
)
def test_both_roads_to_the_commands_of_jobs_say_the_same(done, words):
    """The short one, and the one that lists all commands."""
    told = CliRunner().invoke(cli.cli, ["job", *words])
    assert told.exit_code == 0
    assert told.stdout == done("job", *words)
    assert CliRunner().invoke(cli.cli, ["job", "info"]).exit_code == 1
    assert CliRunner().invoke(cli.cli, ["job", "nothing"]).exit_code == 2
