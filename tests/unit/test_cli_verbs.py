"""What each command answers, and what is asked before anything is lost."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest
from cli_world import BATCH, OLDER, states

import paraschut
from paraschut import demo
from paraschut.errors import ParaschutError
from paraschut.paths import Paths
from paraschut.prepare import add_job_to_queue

pytest_plugins = ("cli_fixtures",)


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
    assert "0-3" in done("queue", "--state", "init,run", "--state", "missing")
    assert "No job is in these states" in done("queue", "--state", "run")


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


@pytest.mark.parametrize("verb", ["queue", "watch", "submit", "reset", "log all"])
def test_a_field_that_no_job_has_is_told_where_nothing_is_found(call, batch, verb):
    told = call(*verb.split(), "--filter", "naem = 3")
    assert "No job has a field naem that a Filter can see; is name meant?" in told.out + told.err
    assert "naem" not in call(*verb.split(), "--filter", "JobIndex >= 0").err


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
    told = call("log", f"{BATCH}:0", "--stderr")
    assert (told.status, told.out) == (0, "")
    assert "0.1.err" in told.err, "where it would be"
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


def test_explain_says_why_a_job_is_not_running(done, batch):
    first, *_ = done("explain", "last:3").splitlines()
    assert first.startswith("3 jobs of a higher priority in its batch are not complete")
    assert json.loads(done("explain", "last:3", "--json"))[0] == first


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
    (["reset", "last", "--to", "later"], "set 4 jobs of 1 batch to 'later'", "Set 4 jobs to 'later'.\n"),
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
    assert "executor" not in call("reset", "last:3", "--to", "later", answer="n\n").err


def test_reset_leaves_alone_what_is_done(call, done, batch):
    """Unless it is told not to."""
    done("reset", "last:0-1", "--to", "complete", "--yes")
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
    done("reset", "last:1", "--to", "complete", "--yes")
    assert done("cancel", "last", "--yes") == "Took 3 jobs off the queue, to 'held'.\n"
    assert states() == ["held", "complete", "held", "held"]
    assert "nothing to cancel" in done("cancel", "last")


def test_remove_by_state_takes_batches_that_are_all_in_it(done, batch, make_jobs):
    """Of all, or of those that are named."""
    for number in (1, 2):
        add_job_to_queue(make_jobs(2, batch=number, state="collected"))
    done("reset", "last", "--to", "collected", "--yes")
    done("reset", f"{BATCH}:0", "--to", "collected", "--yes")
    assert done("remove", 1, BATCH, "--state", "collected", "--yes") == "Removed 1 batch.\n"
    assert set(paraschut.get_queue(Verbose=False)) == {2, BATCH}
    assert done("remove", "--state", "collected", "--yes") == "Removed 1 batch.\n"
    assert set(paraschut.get_queue(Verbose=False)) == {BATCH}
    assert "nothing to remove" in done("remove", "--state", "collected")
    assert "nothing to remove" in done(
        "remove", "--filter", "JobIndex = 0", "--yes"
    )  # only some of its jobs meet it
    assert done("remove", "--state", "init,collected", "--filter", "n >= 0", "--yes") == "Removed 1 batch.\n"


def test_log_in_parts(done, call, home, inside):
    """The beginning, some lines, what is found; and only one of these."""
    inside(0)
    done("job", "info")
    write_log(home, 0, "one\ntwo\nthree\nfour\n")
    assert done("log", "last:0", "--head", 1) == "one\n"
    assert done("log", "last:0", "--range", "1,3-4") == "one\nthree\nfour\n"
    assert done("log", "last", "--grep", "t[wh]") == f"{BATCH}:0:2: two\n{BATCH}:0:3: three\n"
    told = call("log", "last", "--grep", "five")
    assert (told.status, told.out, told.err) == (1, "", "")
    for words in (
        ["--head", 1, "--lines", 1],
        ["--range", "x"],
        ["--grep", "x", "-f"],
        ["-f", "--head", 1],
    ):
        assert call("log", "last:0", *words).status == 2
    assert "not a regular expression" in call("log", "last", "--grep", "(").err


def test_what_changes_jobs_says_what_it_did_as_data_too(call, done, batch):
    """For scripts; also when there was nothing to do, and only after somebody agreed."""

    def told(*words):
        return json.loads(done(*words, "--json"))

    assert told("cancel", "last:1-2", "--yes") == {"count": 2, "state": "held", "jobs": {str(BATCH): [1, 2]}}
    assert told("cancel", "last:1-2", "--yes") == {"count": 0, "state": "held", "jobs": {}}
    assert told("reset", "last:2", "--yes") == {"count": 1, "state": "init", "jobs": {str(BATCH): [2]}}
    assert told("boost", "last", "-1.5") == {"count": 4, "by": -1.5, "batches": [BATCH]}
    assert call("remove", "last", "--json").out == ""
    assert told("remove", "last", "--yes") == {"count": 1, "batches": [BATCH]}
    assert told("remove", "--state", "collected", "--yes") == {"count": 0, "batches": []}


def test_jobs_are_chosen_by_their_state(done, batch):
    """``--state`` says what they are in; ``--to``, where there is one, what they get."""
    done("cancel", "last:1", "--yes")
    told = json.loads(done("reset", "last", "--state", "held", "--yes", "--json"))
    assert told["jobs"] == {str(BATCH): [1]}
    told = json.loads(done("cancel", "last", "--state", "run,missing", "--yes", "--json"))
    assert told["count"] == 0
    told = json.loads(done("cancel", "--state", "init", "--filter", "n > 10", "--yes", "--json"))
    assert told["jobs"] == {str(BATCH): [2, 3]}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete(python, shell, home):
    """As the help says."""
    program = "import sys; sys.argv = ['paraschut']; from paraschut.__main__ import main; main()"
    assert (
        "_PARASCHUT_COMPLETE"
        in python(program, env={"_PARASCHUT_COMPLETE": f"{shell}_source"}, check=False).stdout
    )


def test_the_shell_is_offered_options_batches_and_states(python, batch):
    """What is asked as bash asks it."""

    def offered(*words):
        program = "import sys; sys.argv = ['paraschut']; from paraschut.__main__ import main; main()"
        asked = {
            "_PARASCHUT_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["paraschut", *words]),
            "COMP_CWORD": str(len(words)),
        }
        return [
            line.partition(",")[2] for line in python(program, env=asked, check=False).stdout.splitlines()
        ]

    assert offered("re") == ["report", "reset", "remove"]
    assert offered("log", "l") == ["last"]
    assert offered("info", "20") == [str(BATCH)]
    assert offered("reset", "--state", "m") == ["missing"]
    assert offered("reset", "--to", "h") == ["held"]
    assert "--each-line" in offered("run", "--e")
    assert offered("job", "pr") == ["progress"]
    assert "progress" not in offered("job", "progress", "p"), "its number is no command"
