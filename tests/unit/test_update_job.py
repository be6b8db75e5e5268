"""What is written of a job's dict, and when another was faster."""

from __future__ import annotations

import json

import numpy as np
import pytest
from stories import BATCH, dump, held
from verbs import ME, add, ask, change, claim, read, start, states

import paraschut as psu
from paraschut.errors import (
    JobError,
    ParaschutError,
    StaleJobError,
)
from paraschut.process import host_name

# --- fields


def test_only_what_was_changed_is_written(store, in_job):
    job = psu.get_job_info()
    job["note"], job["result"] = "new", {1: np.float64(0.5)}
    del job["odd"]
    change(store, {"other": 1}, batch=BATCH, indices=[0])
    psu.update_job(job)
    found = read(store, BATCH, 0)
    assert (found["note"], found["result"], found["other"]) == ("new", {1: 0.5}, 1)
    assert type(found["result"][1]) is np.float64
    assert "odd" not in found
    assert json.loads(ask(store.index, "SELECT detail FROM event WHERE kind = 'set'")[0][0]) == {"other": 1}
    assert ask(store.index, "SELECT detail FROM event WHERE kind = 'edit'") == [("note, odd, result",)]


def test_what_was_not_changed_is_not_written(store, in_job):
    before = dump(store.index)
    psu.update_job(psu.get_job_info())
    assert dump(store.index) == before


def test_a_dict_can_be_changed_and_written_again_and_again(store, in_job):
    job = psu.get_job_info()
    for number in range(3):
        job["note"] = number
        psu.update_job(job)
        assert read(store, BATCH, 0)["note"] == number


def test_a_plain_dict_is_written_as_it_is(store, outside):
    psu.update_job({"BatchID": BATCH, "JobIndex": 1, "note": "plain", "priority": 7, "state": "held"})
    found = read(store, BATCH, 1)
    assert (found["note"], found["priority"], found["state"], found["odd"]) == ("plain", 7, "held", (1, 2))
    plain = {**psu.get_job_info(BATCH, 1), "note": "copied"}
    psu.update_job(plain)
    assert read(store, BATCH, 1)["note"] == "copied"


def test_the_same_field_changed_by_another_is_named_with_who_and_nothing_is_written(store, in_job, unchanged):
    job = psu.get_job_info()
    change(store, {"note": "theirs"}, batch=BATCH, indices=[0], why="set")
    job["note"], job["fine"] = "ours", 1
    words = rf"The field 'note' of job {BATCH}:0 was changed by process {ME.pid} on {ME.host} \(set\).*get_job_info"
    with unchanged(StaleJobError, words):
        psu.update_job(job)


@pytest.mark.parametrize(
    ("field", "ours", "theirs"),
    [("priority", 5, 6), ("state", "held", "mine"), ("odd", (3,), (4,)), ("array", np.ones(2), np.zeros(2))],
    ids=["priority", "state", "tuple", "array"],
)
def test_every_kind_of_field_can_be_stale(store, outside, unchanged, field, ours, theirs):
    job = psu.get_job_info(BATCH, 0)
    change(store, {field: theirs}, batch=BATCH)
    job[field] = ours
    with unchanged(StaleJobError, f"The field '{field}' of"):
        psu.update_job(job)


def test_a_field_that_another_removed_or_added_is_stale_too(store, outside, unchanged):
    mine, theirs = psu.get_job_info(BATCH, 0), psu.get_job_info(BATCH, 0)
    del theirs["note"]
    theirs["fresh"] = "theirs"
    psu.update_job(theirs)
    for field in ("note", "fresh"):
        stale = mine.copy()
        stale[field] = "ours"
        with unchanged(StaleJobError, f"The field '{field}'"):
            psu.update_job(stale)


def test_two_who_agree_do_not_disagree(store, outside):
    mine, theirs = psu.get_job_info(BATCH, 0), psu.get_job_info(BATCH, 0)
    for job in (mine, theirs):
        job["note"] = "the same"
        psu.update_job(job)
    assert read(store, BATCH, 0)["note"] == "the same"


def test_a_set_that_nobody_touched_makes_nobody_stale(store, make_jobs, python):
    # Was: in another process a set has another order, so it looks changed, is written, and makes others stale.
    add(store, make_jobs(1, tags={"anna", "ben", "carl", "dora", "emil"}))
    job = psu.get_job_info(BATCH, 0)
    edit = (
        f"import paraschut as psu; job = psu.get_job_info({BATCH}, 0); job['theirs'] = 1; psu.update_job(job)"
    )
    for seed in "1", "2", "3":
        python(edit, env={"PYTHONHASHSEED": seed})
    assert ask(store.index, "SELECT detail FROM event") == [("theirs",)]
    job["ours"] = 1
    psu.update_job(job)


def test_a_boost_in_the_middle_of_a_run_harms_nobody(store, in_job):
    # Was: as below.
    job = psu.get_job_info(SetID=True)
    store.boost([BATCH], 100, who=ME, now=9.0)
    job["note"] = "new"
    psu.update_job(job)
    assert read(store, BATCH, 0)["priority"] == 101
    psu.set_complete(JobInfo=job)
    assert read(store, BATCH, 0)["priority"] == 101


def test_what_others_changed_is_not_undone_by_a_dict_that_was_written_before(store, in_job):
    # Was: after update_job the dict is taken for read anew, so what it holds of before looks like changes of ours.
    job = psu.get_job_info(SetID=True)
    change(store, {"note": "theirs", "other": 1}, batch=BATCH, indices=[0])
    job["step"] = 1
    psu.update_job(job)
    job["step"] = 2
    psu.update_job(job)
    psu.set_complete(JobInfo=job)
    found = read(store, BATCH, 0)
    assert (found["step"], found["note"], found["other"]) == (2, "theirs", 1)


def test_being_submitted_and_started_is_no_change_by_another(store, outside):
    job = psu.get_job_info(BATCH, 0)
    start(store, claim(store, "t")[0])
    job["note"] = "new"
    psu.update_job(job)
    assert (read(store, BATCH, 0)["note"], states(store.index)[BATCH, 0]) == ("new", "run")


def test_a_partial_dict_leaves_alone_what_it_does_not_have(store, outside):
    from paraschut.store import views

    with store.reading() as connection:
        job = views.job_dicts(store, connection, None)[BATCH][0]
    assert job.partial
    job["note"] = "new"
    psu.update_job(job)
    found = read(store, BATCH, 0)
    assert (found["note"], found["odd"]) == ("new", (1, 2))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"state": ""}, "cannot have state ''"),
        ({"state": None}, "cannot have state None"),
        ({"priority": "high"}, "cannot have priority 'high'"),
        ({"priority": float("nan")}, "cannot have priority nan"),
        ({"BatchID": None}, "must have BatchID and JobIndex"),
        ({"JobIndex": "0"}, "must have BatchID and JobIndex"),
        ({"note": (n for n in "x")}, "The field 'note' cannot be kept"),
        ({3: 1}, "names of fields are strings"),
    ],
    ids=str,
)
def test_a_bad_update_is_refused_and_nothing_is_written(outside, unchanged, bad, words):
    with unchanged(JobError, words):
        psu.update_job({"BatchID": BATCH, "JobIndex": 0, "fine": 1, **bad})


def test_a_running_job_that_is_set_back_by_its_dict_does_not_run_twice_at_once(store, in_job, monkeypatch):
    # Was: update_job writes the state alone; the attempt is neither asked to end nor in the way of the next one.
    psu.get_job_info(SetID=True)
    for name in ("BATCHID", "JOBINDEX", "ATTEMPT"):
        monkeypatch.delenv(f"PARASCHUT_{name}")
    try:
        psu.update_job({"BatchID": BATCH, "JobIndex": 0, "state": "init"})
    except ParaschutError:
        return
    assert claim(store, "t2", host=host_name()) == []


def test_a_job_is_not_made_stale_by_its_own_words(store, in_job, hurried):
    # Was: the dict does not remember what went into the event file, so its own fold looks like somebody else's change.
    job = psu.get_job_info(SetID=True)
    with held(store.index):
        job["note"] = 1
        psu.update_job(job)
    job["note"] = 2
    psu.update_job(job)
    assert read(store, BATCH, 0)["note"] == 2
