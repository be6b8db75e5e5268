"""Copies of a job, as the index keeps them; nothing runs here."""

from __future__ import annotations

import pytest
from stories import BATCH, held
from verbs import ask, claim, end, fold_events, states

import paraschut as psu
from paraschut.errors import JobError, NotInJobError, StaleJobError
from paraschut.store import copies as copies_module
from paraschut.store.runtime import Key


@pytest.fixture
def three(store, in_job, become):
    """We are the job that began, and it has two copies more; returns a function that makes us another one."""
    psu.spawn_submit(N=2)
    tokens = dict(ask(store.index, 'SELECT n, token FROM attempt WHERE "JobIndex" = 0'))
    return lambda n: become(Key(BATCH, 0, n), tokens[n])


def copies():
    return [(one["SpawnID"], one["state"], one["failure"]) for one in psu.spawn_get_info(BATCH, 0)]


def test_a_job_that_spawns_is_a_copy_of_itself(store, three):
    job = psu.get_job_info(SetID=True)
    assert (job["state"], job["SpawnID"]) == ("spawn", 0)
    assert copies() == [(0, "run", None), (1, "submit", None), (2, "submit", None)]
    query = 'SELECT n, spawn_id FROM attempt WHERE "JobIndex" = 0 ORDER BY n'
    assert ask(store.index, query) == [(1, 0), (2, 1), (3, 2)]
    three(3)
    assert psu.get_job_info(SetID=True)["SpawnID"] == 2
    assert copies()[2] == (2, "run", None)


def test_the_last_one_is_the_job_again(store, three):
    for n in (1, 3):
        three(n)
        assert psu.spawn_complete()["state"] == "spawn"
        assert psu.spawn_complete()["state"] == "spawn"
    three(2)
    job = psu.spawn_complete()
    assert job["state"] == "complete"
    assert states(store.index)[BATCH, 0] == "run"
    job["note"] = "new"
    psu.update_job(job)
    assert states(store.index)[BATCH, 0] == "run"
    psu.set_complete(JobInfo=job)
    assert states(store.index)[BATCH, 0] == "complete"
    assert psu.get_job_info(BATCH, 0)["note"] == "new"


def test_a_copy_does_not_complete_the_job_alone(hurried, store, three):
    with pytest.raises(JobError, match=r"is in 'spawn'.*spawn_complete\(\)"):
        psu.set_complete()
    with held(store.index):
        psu.set_complete()  # kept beside the index, which cannot be asked now
    fold_events(store)
    assert states(store.index)[BATCH, 0] == "spawn"


def test_one_that_is_lost_is_named_and_another_takes_its_place(store, three):
    end(store, Key(BATCH, 0, 2), code=3, reason="exit code 3")
    assert copies()[1] == (1, "missing", "exit code 3")
    assert ask(store.index, 'SELECT failure FROM job WHERE "JobIndex" = 0') == [("copy 1: exit code 3",)]
    assert psu.spawn_resubmit(BATCH, 0) == [1]
    assert copies()[1] == (1, "submit", None)
    assert ask(store.index, 'SELECT failure FROM job WHERE "JobIndex" = 0') == [(None,)]
    three(2)
    with pytest.raises(StaleJobError, match="Attempt 2 of job"):
        psu.spawn_complete()


def pause_ends(store):
    with store.writing() as (_, db):
        return [row["not_before"] for row in copies_module.due(db)]


def test_one_that_is_lost_goes_again_by_itself_as_often_as_the_job_may(store, three, configure):
    """The pass after its pause takes it; what is left of the job's retries is for all copies together."""
    psu.set_job_field(BATCH, 0, {"retries": 1})
    end(store, Key(BATCH, 0, 2), code=3, reason="exit code 3")
    assert copies() == [(0, "run", None), (1, "init", None), (2, "submit", None)]
    assert ask(store.index, 'SELECT failure, retried FROM job WHERE "JobIndex" = 0') == [(None, 1)]
    assert len(pause_ends(store)) == 1
    end(store, Key(BATCH, 0, 3), code=4, reason="exit code 4")
    assert copies()[1:] == [(1, "init", None), (2, "missing", "exit code 4")]
    assert ask(store.index, 'SELECT failure FROM job WHERE "JobIndex" = 0') == [("copy 2: exit code 4",)]
    with store.writing() as (_, db):
        db.connection.execute("UPDATE job SET not_before = 1")
    psu.submit_jobs(Verbose=False)
    assert copies()[1:] == [(1, "submit", None), (2, "missing", "exit code 4")]
    assert ask(store.index, 'SELECT failure FROM job WHERE "JobIndex" = 0') == [("copy 2: exit code 4",)]
    assert pause_ends(store) == []
    assert psu.spawn_resubmit(BATCH, 0) == [2]


def test_one_that_waits_for_another_try_is_not_done(store, three):
    psu.set_job_field(BATCH, 0, {"retries": 1})
    end(store, Key(BATCH, 0, 2), code=3, reason="exit code 3")
    for n in (1, 3):
        three(n)
        assert psu.spawn_complete()["state"] == "spawn"
    assert psu.spawn_resubmit(BATCH, 0) == [1]  # a person does not wait for the pause


def test_one_that_was_complete_may_end_as_it_likes(store, three):
    three(2)
    psu.spawn_complete()
    end(store, Key(BATCH, 0, 2), code=1, reason=None)
    assert copies()[1] == (1, "complete", None)
    assert ask(store.index, 'SELECT failure FROM job WHERE "JobIndex" = 0') == [(None,)]


def test_after_all_that_the_numbers_of_attempts_go_on(store, three):
    for n in (1, 2, 3):
        three(n)
        psu.spawn_complete()
        end(store, Key(BATCH, 0, n))
    psu.set_job_field(BATCH, 0)
    assert claim(store, "again", now=2e9)[0] == Key(BATCH, 0, 4)
    assert copies() == []


def test_a_copy_may_spawn_more(three):
    three(3)
    psu.spawn_submit(N=1)
    assert [one[0] for one in copies()] == [0, 1, 2, 3]


def test_a_removed_batch_takes_its_copies_with_it(store, three):
    for n in (1, 2, 3):
        end(store, Key(BATCH, 0, n), reason="vanished")
    psu.remove_batch(BATCH)
    assert ask(store.index, "SELECT * FROM spawn") == []


# --- without copies


def test_a_job_without_copies_is_its_own_last_one(in_job):
    psu.spawn_submit(N=0)
    assert psu.spawn_complete()["state"] == "complete"
    assert copies() == []
    assert psu.spawn_resubmit(BATCH, 0) == []


@pytest.mark.parametrize("wrong", [-1, 1.5, "2", None])
def test_a_number_of_copies_is_one(in_job, wrong):
    with pytest.raises(JobError, match="it must be a number of copies"):
        psu.spawn_submit(N=wrong)


def test_outside_of_a_job_there_is_nothing_to_spawn(outside):
    for call in (psu.spawn_submit, psu.spawn_complete):
        with pytest.raises(NotInJobError, match="works inside a job"):
            call()
    with pytest.raises(JobError, match="was not submitted yet"):
        psu.spawn_resubmit(BATCH, 0)


def test_a_job_spawns_only_itself(in_job):
    with pytest.raises(JobError, match=f"was given job {BATCH}:1"):
        psu.spawn_submit({"BatchID": BATCH, "JobIndex": 1})
