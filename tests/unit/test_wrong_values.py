"""Values that no index can hold are refused with a sentence, and nothing changes; numbers of NumPy are numbers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from stories import BATCH, jobs_of
from verbs import ask, read, states

import paraschut as psu
from paraschut.errors import FilterError, JobError, NotFoundError, NotInJobError

pytest_plugins = ("cli_fixtures",)

HUGE = 1 << 64


@pytest.fixture
def queue(store, make_jobs):
    """Two jobs that wait."""
    psu.add_batch_to_queue(BATCH, make_jobs(2))
    return store


# --- adding


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"script": "echo \0"}, r"has script 'echo \\x00'"),
        ({"script": Path("a\0b")}, "has script .*without NUL"),
        ({"workdir": "a\0b"}, "has workdir"),
        ({"workdir": 5}, "has workdir 5; it must be a path"),
        ({"workdir": b"/tmp"}, "has workdir"),
        ({"priority": HUGE}, "has priority 18446744073709551616"),
        ({"priority": -HUGE}, "has priority"),
        ({"priority": np.uint64(HUGE - 1)}, "has priority"),
        ({"BatchID": HUGE}, "has BatchID"),
        ({"JobIndex": HUGE}, "has JobIndex"),
        ({"state": "half \ud800"}, "has state"),
        ({"state": "a\0b"}, "has state"),
    ],
    ids=str,
)
def test_a_job_that_no_index_can_hold_is_not_added(queue, unchanged, make_jobs, fields, words):
    # Was: OverflowError, errors of the driver, and jobs that never start.
    with unchanged(JobError, words):
        psu.add_job_to_queue({**make_jobs(1, start=5)[0], **fields})


def test_the_number_of_a_new_batch_has_64_bits(queue, unchanged, make_jobs):
    with unchanged(JobError, "too large for a number of a batch"):
        psu.add_batch_to_queue(HUGE, make_jobs(1))


# --- changing


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": HUGE},
        {"script": "a\0b"},
        {"script": " "},
        {"workdir": "a\0b"},
        {"workdir": np.arange(2)},
        {"state": np.arange(2)},
        {"state": "\ud800"},
        {"state": "a\0b"},
        {"state": "run"},
        {"state": "submit"},
        {"state": "spawn"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "verb",
    [
        lambda fields: psu.set_job_field(BATCH, 0, fields),
        lambda fields: psu.set_batch_field(BATCH, fields),
        lambda fields: psu.update_job({"BatchID": BATCH, "JobIndex": 0, **fields}),
    ],
    ids=["set_job_field", "set_batch_field", "update_job"],
)
def test_what_no_index_can_hold_is_not_set(queue, unchanged, verb, fields):
    with unchanged(JobError, "cannot"):
        verb(fields)


NUMBERED = {
    "get_job_info": lambda n: psu.get_job_info(n, 0),
    "get_job_info of": lambda n: psu.get_job_info(BATCH, n),
    "set_job_field": lambda n: psu.set_job_field(n, 0, {"x": 1}),
    "set_job_field of": lambda n: psu.set_job_field(BATCH, [0, n], {"x": 1}),
    "set_batch_field": lambda n: psu.set_batch_field(n, {"x": 1}),
    "set_batch_field in": lambda n: psu.set_batch_field({n: [{"JobIndex": 0}]}, {"x": 1}),
    "qdel_job": lambda n: psu.qdel_job(n, 0),
    "qdel_job of": lambda n: psu.qdel_job(BATCH, n),
    "qdel_batch": psu.qdel_batch,
    "boost": lambda n: psu.boost_batch_priority(n, 1),
    "remove_batch": psu.remove_batch,
    "update_job": lambda n: psu.update_job({"BatchID": n, "JobIndex": 0, "x": 1}),
    "set_complete": lambda n: psu.set_complete(n, 0),
    "set_progress": lambda n: psu.set_progress(0.5, "", BATCH, n),
    "print_log": lambda n: psu.print_log(n, 0),
    "submit_one_batch": lambda n: psu.submit_one_batch(n, "file"),
    "submit_one_job": lambda n: psu.submit_one_job(BATCH, n, "file"),
}


@pytest.mark.parametrize("verb", NUMBERED)
@pytest.mark.parametrize("number", [HUGE, -HUGE, "x", None, 0.5, True], ids=str)
def test_what_is_no_number_of_a_batch_or_job_is_said(queue, unchanged, verb, number):
    with unchanged((JobError, NotInJobError), "[Nn]umber|outside of a job"):
        NUMBERED[verb](number)


def test_a_boost_beyond_all_numbers_is_refused(queue, unchanged):
    with unchanged(JobError, "cannot be raised by"):
        psu.boost_batch_priority(BATCH, HUGE)


def test_boosts_add_up_beyond_64_bits(queue):
    for _ in range(2):
        psu.boost_batch_priority(BATCH, (1 << 63) - 1)
    assert read(queue, BATCH, 0)["priority"] == pytest.approx(2.0**64)


@pytest.mark.parametrize(
    "words", [["reset", f"{HUGE}"], ["reset", f"{BATCH}:{HUGE}"], ["log", f"{HUGE}:0"]], ids=str
)
def test_the_command_line_says_so_too(queue, call, words):
    told = call(*words)
    assert told.status not in {0, None}
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "text", [f"BatchID == {HUGE}", f"priority < {'9' * 400}", "name == '\ud800'", "name == 'a\0b'"]
)
def test_a_filter_finds_nothing_or_says_why(queue, text):
    with contextlib.suppress(FilterError):
        assert psu.get_queue(Verbose=False, Filter=text) in (
            {},
            {BATCH: [read(queue, BATCH, i) for i in (0, 1)]},
        )


# --- numbers of NumPy


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_numbers_of_numpy_work_everywhere(queue, kind, home):
    # Was: errors of the driver, or that there is no such job.
    batch, zero = kind(BATCH), kind(0)
    assert psu.get_job_info(batch, zero)["JobIndex"] == 0
    assert psu.set_job_field(batch, [zero, kind(1)], {"x": 1}) == 2
    assert psu.set_batch_field(batch, {"x": 2}) == 2
    assert psu.set_batch_field({batch: [{"JobIndex": zero}]}, {"x": 3}) == 1
    psu.update_job({"BatchID": batch, "JobIndex": zero, "y": 4})
    assert psu.qdel_job(batch, zero) == 1
    assert psu.qdel_batch(batch, state="init") == 1
    assert psu.boost_batch_priority(batch, np.float32(0.5)) == 2
    assert psu.set_job_field(batch, zero) == 1
    assert psu.submit_one_job(batch, zero, "file", Verbose=False).jobs == {BATCH: [0]}
    assert psu.submit_one_batch(batch, "file", Verbose=False).jobs == {BATCH: [1]}
    psu.set_progress(np.float32(0.5), "", batch, zero)
    with pytest.raises(NotFoundError, match=rf"job {BATCH}:0 has not started yet"):
        psu.print_log(batch, zero)
    job = psu.get_job_info(batch, zero)
    assert (job["x"], job["y"], job["progress"], job["priority"]) == (3, 4, 0.5, 1.5)
    psu.set_complete(batch, zero)
    psu.set_complete(batch, kind(1))
    assert psu.remove_batch(batch) == 1
    assert states(queue.index) == {}


def test_data_and_scripts_are_named_by_numbers_of_numpy_too(home):
    job = {**jobs_of(BATCH)[0], "BatchID": np.int64(BATCH), "JobIndex": np.int64(3)}
    assert os.path.basename(psu.generate_data(job, [1])["data"]) == "3.pkl"
    (home / "template.sh").write_text("echo {JobIndex}\n")
    assert Path(psu.generate_script(job, home / "template.sh")["script"]).read_text() == "echo 3\n"


# --- folders


def test_a_relative_folder_is_meant_from_where_the_job_is_added(queue, home, monkeypatch, make_jobs):
    # Was: from the folder of the agent.
    monkeypatch.setenv("HOME", str(home / "me"))
    given = make_jobs(4, start=5, workdir=lambda index: ["sub", Path("sub"), "~/x", "/data"][index - 5])
    psu.add_job_to_queue(given)
    found = [psu.get_job_info(BATCH, index)["workdir"] for index in range(5, 9)]
    assert found == [str(home / "sub"), str(home / "sub"), str(home / "me" / "x"), "/data"]
    assert [job["workdir"] for job in given] == ["sub", Path("sub"), "~/x", "/data"]


def test_a_relative_folder_is_meant_from_where_it_is_set(queue, home, monkeypatch):
    (home / "there").mkdir()
    monkeypatch.chdir(home / "there")
    fields = {"workdir": "a"}
    psu.set_job_field(BATCH, 0, fields)
    job = psu.get_job_info(BATCH, 1)
    job["workdir"] = "b"
    psu.update_job(job)
    assert [psu.get_job_info(BATCH, index)["workdir"] for index in (0, 1)] == [
        str(home / "there" / "a"),
        str(home / "there" / "b"),
    ]
    assert (fields, job["workdir"]) == ({"workdir": "a"}, "b")
    psu.set_complete(BATCH, 0, {"BatchID": BATCH, "JobIndex": 0, "workdir": "c"})
    assert psu.get_job_info(BATCH, 0)["workdir"] == str(home / "there" / "c")


# --- states that only submission sets


def test_a_job_may_call_its_state_what_it_likes_and_run_again(in_job, store):
    job = psu.get_job_info(SetID=True)
    for state in ("phase 2", "run"):
        job["state"] = state
        psu.update_job(job)
        assert states(store.index)[BATCH, 0] == state


def test_others_may_write_back_the_state_that_a_job_has(in_job, store):
    job = dict(psu.get_job_info(SetID=True))
    psu.update_job({**job, "note": "new"})
    assert read(store, BATCH, 0)["note"] == "new"


def test_nobody_else_says_that_a_job_runs(in_job, store, unchanged):
    with unchanged(JobError, r"cannot be set to state 'run': submit_jobs submits it"):
        psu.update_job({"BatchID": BATCH, "JobIndex": 1, "state": "run"})
    assert ask(store.index, "SELECT count(*) FROM event WHERE kind = 'edit'") == [(0,)]
