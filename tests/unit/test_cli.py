"""What a person or a script types, what is answered, and with which exit status."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import paraschut
from paraschut import __main__ as program
from paraschut import cli, cli_parts, demo, job_cli
from paraschut.cli_parts import Selector, selector
from paraschut.errors import ParaschutError
from paraschut.paths import Paths
from paraschut.prepare import add_job_to_queue, get_job_template

BATCH = 20260101000000
OLDER = 20250101000000
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
COMMANDS = [[name] for name in cli.cli.commands] + [
    ["job", verb] for verb in ("info", "progress", "complete")
]


class Keyboard(io.StringIO):
    """Somebody at a terminal, who has typed an answer already."""

    def isatty(self):
        return True


@pytest.fixture
def call(home, capfdbinary, monkeypatch):
    """Return a function that runs a command as the program does: ``call("queue", "--json").out``."""

    def run(*words, answer=None):
        monkeypatch.setattr(sys, "argv", ["paraschut", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if answer is None else Keyboard(answer))
        with pytest.raises(SystemExit) as left:
            program.main()
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(status=left.value.code, out=out.decode(), err=err.decode())

    return run


@pytest.fixture
def done(call):
    """Return a function that runs a command that must work, and returns what it printed."""

    def run(*words, **options):
        told = call(*words, **options)
        assert (told.status, told.err if "answer" not in options else "") == (0, ""), told
        return told.out

    return run


@pytest.fixture
def batch(configure, make_jobs):
    """A batch of four jobs, of which the last waits for the others; nothing here starts a process."""
    configure(executor="file")
    add_job_to_queue(make_jobs(3, name="lung/map", n=lambda index: index * 10))
    add_job_to_queue(make_jobs(1, start=3, name="lung/map", n=30, priority=0.5))
    return BATCH


@pytest.fixture
def inside(batch, done, home, monkeypatch):
    """Return a function that makes this process a job of the batch, by its index; an attempt of it was submitted."""
    done("submit")

    def become(index):
        for name, value in {
            "INDEX": home / "jobs" / "index.db", "BATCHID": batch, "JOBINDEX": index, "ATTEMPT": 1,
        }.items():  # fmt: skip
            monkeypatch.setenv(f"PARASCHUT_{name}", str(value))

    return become


def states(batch_id=BATCH):
    """Return the states of a batch's jobs."""
    return [job["state"] for job in paraschut.get_queue(Verbose=False)[batch_id]]


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
        (["reset", "last:0", "--state", "spawn", "--yes"], "cannot be set to state 'spawn'"),
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


def run_program(*words, **options):
    """Run the program as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "paraschut", *words],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        **options,
    )


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
    told = done("reset", f"{BATCH}:0", f"{BATCH}:1-2,0", OLDER, f"{OLDER}:0", "--state", "later", "--yes")
    assert told == "Set 5 jobs to 'later'.\n"
    assert states() == ["later"] * 3 + ["init"]


# -- the commands -------------------------------------------------------------------------------------------------------


def test_init_writes_a_configuration_once(call, done, home):
    """Here, in another folder, or under another name; what is there is left alone."""
    (home / "config.toml").unlink()
    assert "config.toml" in done("init")
    assert "[paraschut]" in (home / "config.toml").read_text("utf-8")
    told = call("init", ".")
    assert told.status == 1
    assert "exists already" in told.err
    assert "new folder" in done("init", home / "new folder")
    assert (home / "new folder" / "config.toml").is_file()
    done("init", home / "mine.toml")
    assert (home / "mine.toml").is_file()


def test_init_says_when_another_configuration_holds(done, home, monkeypatch):
    """Else one would edit the new one in vain."""
    monkeypatch.setenv("PARASCHUT_CONFIG", str(home / "config.toml"))
    assert "PARASCHUT_CONFIG" in done("init", "below")


def test_demo_shows_the_ranking_and_where_the_figures_are(done, monkeypatch):
    """The demo itself has its own tests."""
    found = demo.DemoResult(
        BatchID=BATCH,
        ranking=[
            {
                "rank": 1,
                "JobIndex": 0,
                "model": "SVC",
                "params": {"C": 1},
                "mean": 0.98,
                "std": 0.01,
                "seconds": 1.0,
            }
        ],
        tested={"accuracy": 0.97, "low": 0.95, "high": 0.99, "errors": 9, "images": 360, "confusion": [[1]]},
        table=Path("/data/ranking.csv"),
        figures=(Path("/data/ranking.png"), Path("/data/confusion.png")),
    )
    asked = []
    monkeypatch.setattr(demo, "run", lambda **options: asked.append(options) or found)
    told = done("demo", "--models", 4)
    for words in ("SVC", "0.98", "97.0%", "360 images", "/data/ranking.csv", "/data/confusion.png"):
        assert words in told
    assert asked[-1]["models"] == 4
    assert asked[-1]["show"] is paraschut.get_queue
    told = json.loads(done("demo", "--json"))
    assert told["figures"] == ["/data/ranking.png", "/data/confusion.png"]
    assert set(told) == {"BatchID", "ranking", "tested", "table", "figures"}
    assert asked[-1]["show"] is None


def test_submit_sends_the_next_group(done, batch):
    """And says so in the line of ``submit_jobs``."""
    assert done("submit") == "submitted 3 jobs of 1 batch\n"
    assert states() == ["submit"] * 3 + ["init"]
    assert done("submit").startswith("nothing to submit")


def test_submit_as_json(done, batch, make_jobs):
    """What, and what was left."""
    add_job_to_queue(make_jobs(1, batch=OLDER))
    told = json.loads(done("submit", "--json", "--filter", "n = 10"))
    assert told == {"count": 1, "jobs": {str(BATCH): [1]}, "left": []}
    told = json.loads(done("submit", "last", "--max-jobs", 2, "--json"))
    assert told["jobs"] == {str(OLDER): [0]}
    told = json.loads(done("submit", "all", "--min-prior", 5, "--force", "--json"))
    assert told["count"] == 0


def test_submit_single_jobs_at_once(done, batch, make_jobs):
    """Whatever their priority, next to whole batches."""
    add_job_to_queue(make_jobs(1, batch=OLDER))
    told = json.loads(done("submit", f"{BATCH}:3,1", OLDER, "--executor", "file", "--json"))
    assert told["jobs"] == {str(BATCH): [1, 3], str(OLDER): [0]}
    assert states() == ["init", "submit", "init", "submit"]


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_what_was_submitted_before_an_error_is_told(call, batch, make_jobs, monkeypatch, option):
    """Because it was submitted."""
    add_job_to_queue(make_jobs(1, batch=OLDER))

    def refuses(*_, **__):
        raise ParaschutError("The executor refuses.")

    monkeypatch.setattr(paraschut, "submit_one_batch", refuses, raising=False)
    told = call("submit", f"{BATCH}:0", OLDER, *option)
    assert told.status == 1
    assert told.err == "Error: The executor refuses.\n"
    assert told.out == "submitted 1 job of 1 batch\n" or json.loads(told.out)["count"] == 1


def test_queue_shows_batches_and_states(done, batch, make_jobs):
    """All, or some; by state, by condition."""
    add_job_to_queue(make_jobs(1, batch=OLDER, name="old"))
    told = done("queue")
    assert "lung/map" in told
    assert "old" in told
    assert "lung/map" not in done("queue", "last")
    assert "old" not in done("queue", "--filter", 'name = "lung/map"')
    assert "0-3" in done("queue", "--display", "init,run", "--display", "missing")
    assert "No job is in the states" in done("queue", "--display", "run")


def test_queue_as_json_has_the_fields_of_each_job(done, batch, make_jobs):
    """What JSON cannot hold is its likeness; nothing is unpickled for it."""
    add_job_to_queue(make_jobs(1, batch=OLDER, when=dt.date(2026, 1, 2), pair=(1, 2), what=object()))
    told = json.loads(done("queue", "--json"))
    assert list(told) == [str(OLDER), str(BATCH)]
    assert [job["n"] for job in told[str(BATCH)]] == [0, 10, 20, 30]
    job = told[str(OLDER)][0]
    assert (job["when"], job["pair"], job["what"]) == ("2026-01-02", [1, 2], None)
    told = json.loads(done("queue", BATCH, "--filter", "n > 5 AND n < 25", "--json"))
    assert {key: [job["JobIndex"] for job in jobs] for key, jobs in told.items()} == {str(BATCH): [1, 2]}


@pytest.mark.parametrize("which", [[], [BATCH]])
def test_a_mistake_in_a_filter_is_shown_in_the_users_own_words(call, batch, which):
    """Also where a condition of ours is added to it."""
    told = call("queue", *which, "--filter", "n >> 5")
    assert told.status == 1
    assert "\n  n >> 5\n" in told.err
    assert "BatchID IN" not in told.err


def test_a_filter_cannot_reach_around_the_batches_that_are_named(call, batch, make_jobs):
    """It is a condition of its own."""
    add_job_to_queue(make_jobs(1, batch=OLDER))
    told = call("queue", OLDER, "--json", "--filter", "JobIndex >= 0 OR JobIndex < 0")
    assert list(json.loads(told.out)) == [str(OLDER)]


def test_queue_is_status_0_also_when_jobs_are_missing(done, batch, store):
    """Its status says whether the command worked."""
    done("submit")
    with store.writing() as (_, db):
        db.run("job_missing", batch_id=BATCH, job_index=1, n=1, reason="out of memory")
    assert "out of memory: 1" in done("queue", "--report-missing")
    assert "init" in done("queue", "--reset-missing")
    assert states()[1] == "init"


def write_log(home, index, text, attempt=1):
    """Let an attempt have written something."""
    path = Path(Paths(home / "jobs" / "index.db").log(BATCH, index, attempt, "stdout"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_log_of_one_job(call, done, home, inside, monkeypatch):
    """All of it, its end, the lines that match; and what is not there."""
    inside(0)
    done("job", "info")
    write_log(home, 0, "one\ntwo é\nthree\n")
    told = call("log", "last:1")
    assert told.status == 1
    assert "has not started yet" in told.err
    assert done("log", "last:0") == "one\ntwo é\nthree\n"
    assert done("log", f"{BATCH}:0", "--lines", 1) == "three\n"
    assert done("log", f"{BATCH}:0", "--regex", "^t", "--attempt", 1) == "two é\nthree\n"
    assert done("log", f"{BATCH}:0", "--stderr") == ""
    for attempt in (2, -2):
        told = call("log", "last:0", "--attempt", attempt)
        assert told.status == 1
        assert f"has 1 attempt, and --attempt {attempt} is none of them" in told.err


def test_log_of_a_batch_is_of_the_jobs_that_have_started(done, home, inside):
    """Each below a line that says whose it is."""
    for index in (0, 2):
        inside(index)
        done("job", "info")
        write_log(home, index, f"I am {index}\n")
    told = done("log", "last")
    assert "I am 0" in told
    assert "I am 2" in told
    assert told.count("---") == 2
    assert done("log", "all", "--filter", "n = 20") == "I am 2\n"


def test_info_prints_the_dict(done, batch, make_jobs):
    """For the eye, and for programs."""
    values = {"note": "two\nlines\x1b[31m", "nothing": None, "sure": True, "nan": float("nan")}
    add_job_to_queue(make_jobs(1, batch=OLDER, path=Path("a b"), **values))
    told = dict(line.split(maxsplit=1) for line in done("info", "last:0").splitlines() if " " in line.strip())
    assert told["BatchID"] == str(OLDER)
    assert told["note"] == "two lines"
    assert (told["sure"], told["path"], told["nan"]) == ("true", "a b", "nan")
    told = json.loads(done("info", "last", "--json"))
    assert told["note"] == values["note"]
    assert (told["nan"], told["nothing"], told["resources"]) == (None, None, {})


def test_one_job_is_asked_for(call, batch):
    """A whole batch is too much, unless it is one job."""
    told = call("info", "last")
    assert told.status == 2
    assert "4 jobs" in told.err


def test_history_tells_attempts_and_changes(done, inside):
    """When, where, by whom."""
    assert "Nobody changed it." in done("history", "last:1")
    inside(1)
    done("job", "info")
    done("reset", "last:1", "--yes")
    told = json.loads(done("history", f"{BATCH}:1", "--json"))
    assert list(told) == ["BatchID", "JobIndex", "attempts", "events"]
    (attempt,) = told["attempts"]
    assert {key: attempt[key] for key in ("n", "executor", "host")} == {
        "n": 1, "executor": "file", "host": os.uname().nodename,
    }  # fmt: skip
    assert attempt["submitted"] <= attempt["started"] <= attempt["cancelled"]
    assert set(attempt) == {
        *("n", "executor", "host", "submitted", "started", "cancelled", "ended"),
        *("code", "signal", "reason", "max_rss", "cpu", "ClusterID"),
    }
    assert set(told["events"][-1]) == {"at", "kind", "JobIndex", "host", "pid", "detail"}
    assert told["events"][-1]["pid"] == os.getpid()
    text = done("history", "last:1")
    assert "file" in text
    assert f"process {os.getpid()} on" in text


def test_history_of_a_job_that_was_never_submitted(done, batch):
    """Says so."""
    assert done("history", "last:3").startswith(f"Job {BATCH}:3 was not submitted yet.")


def test_boost_up_and_down(done, batch):
    """A number below 0 is no option."""
    assert done("boost", "last", 100) == "Added 100 to the priority of 4 jobs.\n"
    done("boost", BATCH, "-99.5")
    done("boost", "all", 1)
    assert [job["priority"] for job in paraschut.get_queue(Verbose=False)[BATCH]] == [2.5, 2.5, 2.5, 2.0]


def test_submitter_makes_its_passes(done, batch):
    """So many, and ends."""
    told = done("submitter", "--period", 0, "-n", 2, "--filter", "n = 0")
    assert told.splitlines()[0] == "submitted 1 job of 1 batch"
    assert told.splitlines()[-1] == "Ended after 2 passes."
    assert states() == ["submit", "init", "init", "init"]


# -- what is asked first ------------------------------------------------------------------------------------------------

DEEDS = [
    (["reset", "last", "--state", "later"], "set 4 jobs of 1 batch to 'later'", "Set 4 jobs to 'later'.\n"),
    (
        ["cancel", "last:0-2"],
        "take 3 jobs of 1 batch off the queue",
        "Took 3 jobs off the queue, to 'held'.\n",
    ),
    (["remove", BATCH], "remove 4 jobs of 1 batch for good", "Removed 1 batch.\n"),
]


@pytest.mark.parametrize(("words", "deed", "result"), DEEDS)
def test_without_a_terminal_and_without_yes_nothing_is_done(call, batch, words, deed, result):
    """And it says what would have been."""
    told = call(*words)
    assert (told.status, told.out) == (1, "")
    assert told.err.startswith(f"Error: This would {deed}")
    assert "--yes" in told.err
    assert states() == ["init"] * 4


@pytest.mark.parametrize(("words", "deed", "result"), DEEDS)
def test_who_says_no_keeps_everything(call, batch, words, deed, result):
    """The question says what it is about."""
    told = call(*words, answer="n\n")
    assert (told.status, told.out) == (1, "")
    assert f"This will {deed}" in told.err
    assert f"  {BATCH}  lung/map  (" in told.err
    assert told.err.endswith("Error: You said no, so nothing was changed.\n")
    assert states() == ["init"] * 4


@pytest.mark.parametrize(("words", "deed", "result"), DEEDS)
@pytest.mark.parametrize("agreed", ["answer", "--yes", "-y"])
def test_who_agrees_gets_what_was_said(call, batch, words, deed, result, agreed):
    """Before or when asked."""
    told = call(*words, answer="y\n") if agreed == "answer" else call(*words, agreed)
    assert (told.status, told.out) == (0, result)
    assert (told.err == "") == (agreed != "answer")
    assert set(paraschut.get_queue(Verbose=False)) == (set() if words[0] == "remove" else {BATCH})


def test_a_question_lists_ten_batches_and_their_names_are_harmless(call, batch, make_jobs):
    """Names come from anywhere, and a hundred lines are not read."""
    for number in range(1, 12):
        add_job_to_queue(make_jobs(1, batch=number, name="bad\x1b[2Jname\nline"))
    told = call("remove", "all", answer="n\n")
    assert "15 jobs of 12 batches" in told.err
    assert "and 2 more batches" in told.err
    assert "\x1b" not in told.err
    assert "badname line" in told.err


def test_a_question_tells_that_jobs_will_be_deleted_from_their_executor(call, inside):
    """Because that cannot be taken back."""
    assert "executor" in call("reset", "last", answer="n\n").err
    assert "executor" not in call("reset", "last:3", "--state", "later", answer="n\n").err


def test_reset_leaves_alone_what_is_done(call, done, batch):
    """Unless it is told not to."""
    done("reset", "last:0-1", "--state", "complete", "--yes")
    assert "nothing to reset" in done("reset", "last", "--yes")
    told = call("reset", "last", "--all-states")
    assert "2 jobs of 1 batch" in told.err
    assert done("reset", "last:0", "--all-states", "--yes") == "Set 1 job to 'init'.\n"
    assert states() == ["init", "complete", "init", "init"]


def test_a_filter_alone_chooses_from_all_batches(done, batch, make_jobs):
    """And together with a selector, from those."""
    add_job_to_queue(make_jobs(2, batch=OLDER, n=10))
    done("cancel", "--filter", "n = 10", "--yes")
    assert (states(), states(OLDER)) == (["init", "held", "init", "init"], ["held"] * 2)
    done("reset", OLDER, "--filter", "JobIndex = 1", "--yes")
    assert (states()[1], states(OLDER)) == ("held", ["held", "init"])


def test_cancel_takes_submitted_jobs_off_the_queue(done, inside):
    """They are held, and what is done stays done."""
    done("reset", "last:1", "--state", "complete", "--yes")
    assert done("cancel", "last", "--yes") == "Took 3 jobs off the queue, to 'held'.\n"
    assert states() == ["held", "complete", "held", "held"]
    assert "nothing to cancel" in done("cancel", "last")


def test_remove_by_state_takes_batches_that_are_all_in_it(done, batch, make_jobs):
    """Of all, or of those that are named."""
    for number in (1, 2):
        add_job_to_queue(make_jobs(2, batch=number, state="collected"))
    done("reset", "last", "--state", "collected", "--yes")
    done("reset", f"{BATCH}:0", "--state", "collected", "--yes")
    assert done("remove", 1, BATCH, "--state", "collected", "--yes") == "Removed 1 batch.\n"
    assert set(paraschut.get_queue(Verbose=False)) == {2, BATCH}
    assert done("remove", "--state", "collected", "--yes") == "Removed 1 batch.\n"
    assert set(paraschut.get_queue(Verbose=False)) == {BATCH}
    assert "nothing to remove" in done("remove", "--state", "collected")


# -- inside a shell job -------------------------------------------------------------------------------------------------


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
    assert [name for name in loaded if name in BANNED or name.startswith("paraschut.dispatch")] == []


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
