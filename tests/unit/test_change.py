"""What people change: nothing of it happens unless all of it can."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from stories import BATCH
from verbs import add, ask, end, no_needs, read, start, states, submission

import paraschut as psu
from paraschut import change
from paraschut.errors import ExecutorError, JobError, NotFoundError, ParaschutError
from paraschut.executors.local import LocalJobExecutor
from paraschut.paths import Paths
from paraschut.plan import Head, Limits, next_groups
from paraschut.process import host_name
from paraschut.store.runtime import Key

OTHER = BATCH + 1
NOBODY = BATCH + 9


@pytest.fixture
def queue(store, make_jobs):
    """Two batches of three jobs, and nobody has heard of a third."""
    add(store, [*make_jobs(3), *make_jobs(3, batch=OTHER, priority=0.5)])
    return store


@pytest.fixture
def woken(monkeypatch):
    """Whenever an agent would be woken or started."""
    calls = []
    monkeypatch.setattr(LocalJobExecutor, "wake", lambda _, index: calls.append(index))
    return calls


def claim(store, token="t", host=None, batch=BATCH):
    """Claim what is next, now."""

    def decide(ready):
        limits = Limits(1000, 0, ready.global_top)
        heads = next_groups((Head(*head) for head in ready.heads if head[0] == batch), limits)
        return [(head.batch_id, head.priority) for head in heads], 1000

    new = submission(token, host=host, executor="local" if host else "file", now=time.time())
    return [Key(one.batch_id, one.job_index, one.n) for one in store.claim(new, decide, no_needs).jobs]


# --- what is not there


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: psu.set_job_field(NOBODY, 0), f"batch {NOBODY}"),
        (lambda: psu.set_job_field(BATCH, 7), f"job {BATCH}:7"),
        (lambda: psu.set_job_field(BATCH, [0, 8, 7], {"priority": 3}), f"job {BATCH}:7"),
        (lambda: psu.set_batch_field(NOBODY, {"priority": 3}), f"batch {NOBODY}"),
        (lambda: psu.set_batch_field([BATCH, NOBODY], {"priority": 3}), f"batch {NOBODY}"),
        (lambda: psu.set_batch_field({BATCH: [{"JobIndex": 0}, {"JobIndex": 5}]}), f"job {BATCH}:5"),
        (lambda: psu.qdel_batch([OTHER, NOBODY]), f"batch {NOBODY}"),
        (lambda: psu.qdel_job(BATCH, [0, 7]), f"job {BATCH}:7"),
        (lambda: psu.boost_batch_priority([BATCH, NOBODY], 5), f"batch {NOBODY}"),
        (lambda: psu.remove_batch([BATCH, NOBODY]), f"batch {NOBODY}"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_else_is_changed(queue, unchanged, call, missing):
    with unchanged(NotFoundError, f"There is no {missing} in the index. Nothing was changed"):
        call()


def test_a_reserved_number_is_no_batch_that_could_be_changed(queue, unchanged):
    reserved = queue.reserve(NOBODY, lambda number: number + 1, 1.0)
    with unchanged(NotFoundError, f"There is no batch {reserved}"):
        psu.set_batch_field(reserved)


# --- what cannot be set


@pytest.mark.parametrize(
    "field", ["BatchID", "JobIndex", "ClusterID", "hostname", "subtime", "stdout", "stderr", "qstat"]
)
def test_what_is_fixed_or_filled_in_cannot_be_set(queue, unchanged, field):
    for call in (
        lambda: psu.set_job_field(BATCH, 0, {field: 5}),
        lambda: psu.set_batch_field(BATCH, {field: 5}),
    ):
        with unchanged(JobError, f"The field '{field}' of a job cannot be set. Nothing was changed"):
            call()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "submit"}, "cannot be set to state 'submit'; submit_jobs submits it. Nothing was changed"),
        ({"state": "spawn"}, "state 'spawn'"),
        ({"state": ""}, "state ''"),
        ({"state": None}, "state None"),
        ({"priority": "high"}, "cannot have priority 'high'; it is a number"),
        ({"priority": float("inf")}, "priority inf"),
        ({"mine": threading.Lock()}, "The field 'mine' cannot be kept"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_not_set(queue, unchanged, fields, words):
    with unchanged(JobError, words):
        psu.set_batch_field([BATCH, OTHER], {"fine": 1, **fields})


@pytest.mark.parametrize("by", ["5", None, float("nan"), True])
def test_a_boost_by_what_is_no_number_is_refused(queue, unchanged, by):
    with unchanged(JobError, "The priority cannot be raised by"):
        psu.boost_batch_priority(BATCH, by)


# --- what is set


def test_by_default_a_job_goes_again_unless_it_is_done(queue):
    for index, state in enumerate(("mine", "complete", "collected")):
        psu.set_job_field(BATCH, index, {"state": state}, Unless={})
    assert psu.set_job_field(BATCH, [0, 1, 2]) == 1
    assert [states(queue.index)[BATCH, index] for index in range(3)] == ["init", "complete", "collected"]
    assert psu.set_job_field(BATCH, [0, 1, 2], Unless={}) == 3
    assert set(states(queue.index).values()) == {"init"}


def test_unless_may_be_one_value(queue):
    psu.set_job_field(BATCH, 0, {"state": "mine", "kind": "a"})
    assert psu.set_batch_field(BATCH, {"priority": 9}, Unless={"state": "mine"}) == 2
    assert psu.set_batch_field(BATCH, {"priority": 8}, Unless={"kind": "a"}) == 2
    assert read(queue, BATCH, 0)["priority"] == 1


def test_fields_of_any_kind_are_set(queue):
    assert (
        psu.set_job_field(BATCH, 1, {"odd": (1, {2}), "name": ["x", "y"], "priority": np.float32(0.5)}) == 1
    )
    job = read(queue, BATCH, 1)
    assert (job["odd"], job["name"], job["priority"]) == ((1, {2}), ["x", "y"], 0.5)
    assert ask(queue.index, 'SELECT name FROM job WHERE "JobIndex" = 1 AND "BatchID" = ?', BATCH) == [
        ("x/y",)
    ]


def test_what_a_dashboard_gave_can_be_changed(queue):
    found = psu.get_queue(Filter=f"BatchID == {OTHER} AND JobIndex > 0", Verbose=False)
    assert psu.set_batch_field(found, {"state": "held"}) == 2
    assert {key for key, state in states(queue.index).items() if state == "held"} == {(OTHER, 1), (OTHER, 2)}


def test_nothing_named_is_nothing_changed(queue, index):
    assert psu.set_job_field(BATCH, []) == 0
    assert psu.set_batch_field([]) == 0
    assert psu.set_batch_field({}) == 0
    assert ask(index, "SELECT * FROM event") == []


def test_numbers_of_numpy_are_numbers(queue):
    # Was: TypeError, as a number of NumPy is neither an int nor can it be gone through.
    assert psu.set_job_field(np.int64(BATCH), np.int64(1), {"priority": 3}) == 1
    assert psu.set_batch_field(np.int64(BATCH), {"priority": 4}) == 3
    assert psu.set_job_field(BATCH, np.arange(2), {"priority": 5}) == 2


def test_a_boost_may_lift_a_batch_above_all_others(queue):
    assert psu.boost_batch_priority([OTHER], 100) == 3
    assert read(queue, OTHER, 0)["priority"] == 100.5
    assert queue.ready().global_top == 100.5


def test_a_job_that_failed_goes_again_with_a_clean_slate(queue, store):
    key = claim(store)[0]
    start(store, key)
    end(store, key, code=3, reason="exit code 3")
    assert read(store, BATCH, 0)["failure"] == "exit code 3"
    psu.set_job_field(BATCH, 0)
    assert "failure" not in read(store, BATCH, 0)
    assert Key(BATCH, 0, 2) in claim(store, "t2")


# --- taking jobs from their executor


def test_a_deleted_batch_is_held_so_that_nothing_sends_it_again(queue, store, woken):
    keys = claim(store, host=host_name())
    with store.writing() as (_, db):
        db.run("attempt_starts", **keys[0]._asdict(), now=3.0, process="1:2:3")
        db.run("job_runs", **keys[0]._asdict())
    psu.set_job_field(OTHER, 0, {"state": "complete"})
    assert psu.qdel_batch([BATCH, OTHER]) == 5
    assert list(states(store.index).values()).count("held") == 5
    assert states(store.index)[OTHER, 0] == "complete"
    # Those that waited have ended; the one that runs is for the agent to end.
    ended = ask(
        store.index, 'SELECT "JobIndex", ended IS NOT NULL, cancelled IS NOT NULL FROM attempt ORDER BY 1'
    )
    assert ended == [(0, 0, 1), (1, 1, 1), (2, 1, 1)]
    assert woken == [store.index]


def test_a_deleted_job_can_be_sent_again_on_request(queue, store, woken):
    claim(store, host=host_name())
    assert psu.qdel_job(BATCH, 1, state="init") == 1
    assert claim(store, "t2", host=host_name()) == [Key(BATCH, 1, 2)]


def test_deleting_leaves_alone_what_is_done_or_somebodys_own(queue, store):
    for index, state in enumerate(("complete", "collected", "mine")):
        psu.set_job_field(BATCH, index, {"state": state}, Unless={})
    assert psu.qdel_batch(BATCH) == 0
    assert psu.qdel_job(BATCH, [0, 1, 2]) == 0


def test_a_new_name_or_priority_takes_nothing_from_the_executor(queue, store, woken):
    claim(store, host=host_name())
    psu.set_batch_field(BATCH, {"name": "new", "priority": 3})
    assert ask(store.index, "SELECT count(*) FROM attempt WHERE cancelled IS NOT NULL") == [(0,)]
    assert woken == []


# --- removing


def test_a_batch_is_removed_with_its_folder(queue, store):
    paths = Paths(store.index)
    for batch in (BATCH, OTHER):
        psu.generate_data({"BatchID": batch, "JobIndex": 0}, 1)
    assert psu.remove_batch(BATCH) == 1
    assert {key[0] for key in states(store.index)} == {OTHER}
    import os

    assert not os.path.exists(paths.batch(BATCH))
    assert os.path.exists(paths.batch(OTHER))


def test_batches_are_removed_by_the_state_of_all_their_jobs(queue, store):
    psu.set_batch_field(OTHER, {"state": "collected"}, Unless={})
    psu.set_job_field(BATCH, 0, {"state": "collected"})
    assert psu.remove_batch_by_state("collected") == 1
    assert {key[0] for key in states(store.index)} == {BATCH}
    assert psu.remove_batch_by_state("collected") == 0
    assert psu.remove_batch_by_state("no such state") == 0


def test_what_still_runs_is_not_removed(queue, store, woken, monkeypatch):
    key = claim(store, host=host_name())[0]
    with store.writing() as (_, db):
        db.run("attempt_starts", **key._asdict(), now=3.0, process="1:2:3")
        db.run("job_runs", **key._asdict())
    monkeypatch.setattr(change, "REMOVE_WAIT", -1)
    with pytest.raises(
        ExecutorError, match=rf"Job {BATCH}:0 was deleted from local and has not ended yet.*held"
    ):
        psu.remove_batch(BATCH)
    assert {state for (batch, _), state in states(store.index).items() if batch == BATCH} == {"held"}
    end(store, key, signal=15, code=None)
    assert psu.remove_batch(BATCH) == 1


# --- where there is nothing


@pytest.mark.parametrize(
    "call",
    [
        lambda: psu.set_job_field(BATCH, 0),
        lambda: psu.qdel_batch(BATCH),
        lambda: psu.remove_batch(BATCH),
        lambda: psu.boost_batch_priority(BATCH, 1),
    ],
)
def test_without_an_index_that_is_said_and_none_is_made(home, call):
    with pytest.raises(ParaschutError, match="no batch was added yet"):
        call()
    assert not (home / "jobs").exists()
