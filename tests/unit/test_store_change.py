from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import BATCH
from verbs import HOST, ME, add, ask, change, claim, decide, end, no_needs, read, start, states, submission

from paraschut.store.runtime import Key
from paraschut.store.store import Store

OTHER = BATCH + 1


# --- recording and releasing


def row_of(store, token):
    ((recorded, cluster_id, settled),) = ask(
        store.index, "SELECT recorded, cluster_id, settled FROM submission WHERE token = ?", token
    )
    return recorded, cluster_id, settled


def test_a_submission_is_recorded_once(store, make_jobs):
    add(store, make_jobs(1))
    claim(store, "t")
    assert row_of(store, "t") == (None, None, None)
    assert store.record({"t": "123"}, 9.0) == {"t"}
    assert row_of(store, "t") == (9.0, "123", None)
    assert store.record({"t": "456"}, 10.0) == set()
    assert row_of(store, "t") == (9.0, "123", None)


def test_the_claim_of_a_local_queue_is_the_whole_submission(store, make_jobs):
    add(store, make_jobs(1))
    claim(store, "t", host=HOST, now=2.0)
    assert row_of(store, "t") == (2.0, "t", 2.0)
    assert ask(store.index, "SELECT host FROM attempt") == [(HOST,)]


def test_an_owner_that_comes_too_late_finds_its_claim_released(store, make_jobs):
    add(store, make_jobs(2))
    claim(store, "t")
    assert store.release("t", "too slow", 9.0) == 2
    assert store.record({"t": "123"}, 10.0) == set()
    assert set(states(store.index).values()) == {"init"}
    assert ask(store.index, "SELECT ended, reason FROM attempt") == [(9.0, "too slow")] * 2
    assert claim(store, "again") == [Key(BATCH, 0, 2), Key(BATCH, 1, 2)]


def test_a_release_leaves_alone_what_went_on_meanwhile(store, make_jobs):
    add(store, make_jobs(3))
    keys = claim(store, "t")
    start(store, keys[0])
    change(store, {"state": "held"}, batch=BATCH, indices=[1])
    assert store.release("t", "no", 9.0) == 1
    assert [states(store.index)[BATCH, number] for number in range(3)] == ["run", "held", "init"]


def test_a_job_that_was_reset_before_its_claim_was_released_can_go_again(store, make_jobs):
    # Was: release() ends the attempt, but leaves the column "ending" set: the job is never eligible again.
    add(store, make_jobs(1))
    claim(store, "t1")
    change(store, {"state": "init"}, batch=BATCH)
    store.release("t1", "it never happened", 9.0)
    assert claim(store, "t2") == [Key(BATCH, 0, 2)]


# --- changing


def test_fields_are_set_and_it_is_written_down(store, make_jobs):
    add(store, make_jobs(2))
    count, taken = change(store, {"note": (1, 2), "priority": 7, "state": "held"}, batch=BATCH, indices=[1])
    assert (count, taken) == (1, [])
    job = read(store, BATCH, 1)
    assert (job["note"], job["priority"], job["state"]) == ((1, 2), 7, "held")
    assert "note" not in read(store, BATCH, 0)
    ((at, host, pid, index, kind, detail),) = ask(
        store.index, 'SELECT at, host, pid, "JobIndex", kind, detail FROM event'
    )
    assert (at, host, pid, index, kind) == (5.0, ME.host, ME.pid, 1, "set")
    assert json.loads(detail) == {"note": [1, 2], "priority": 7, "state": "held"}


@pytest.mark.parametrize(
    ("unless", "changed"),
    [
        ({}, [0, 1, 2, 3]),
        ({"state": ["complete", "collected"]}, [0, 1]),
        ({"state": ["complete"]}, [0, 1, 3]),
        ({"kind": ["a"]}, [1, 3]),
        ({"kind": ["a"], "state": ["complete", "collected"]}, [1]),
        ({"priority": [1]}, []),
        ({"unknown": [None]}, [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_unless_spares_what_has_one_of_its_values(store, make_jobs, unless, changed):
    state = ["init", "held", "complete", "collected"]
    add(store, make_jobs(4, state=lambda index: state[index], kind=lambda index: "ab"[index % 2]))
    count, _ = change(store, {"mark": 1}, batch=BATCH, unless=unless)
    assert count == len(changed)
    assert [index for index in range(4) if "mark" in read(store, BATCH, index)] == changed


def test_only_spares_what_is_in_another_state(store, make_jobs):
    add(store, make_jobs(2, state=lambda index: ["init", "held"][index]))
    assert change(store, {"mark": 1}, batch=BATCH, only=["held"])[0] == 1
    assert "mark" in read(store, BATCH, 1)


def test_many_jobs_can_be_named(store, make_jobs):
    add(store, make_jobs(1300))
    assert change(store, {"priority": 5}, batch=BATCH, indices=range(1, 1300))[0] == 1299
    assert ask(store.index, "SELECT count(*) FROM job WHERE priority = 5") == [(1299,)]


def test_a_reset_job_is_not_eligible_until_the_end_of_its_former_attempt_is_proved(store, make_jobs):
    add(store, make_jobs(1))
    (key,) = claim(store, "t1")
    store.record({"t1": "123"}, 2.5)
    start(store, key)
    _, (running,) = change(store, {"state": "init"}, batch=BATCH)
    assert (running.n, running.executor, running.token, running.cluster_id) == (1, "file", "t1", "123")
    assert claim(store, "t2") == []
    assert end(store, key, signal=15, code=None) is True
    assert states(store.index) == {(BATCH, 0): "init"}
    assert claim(store, "t3") == [Key(BATCH, 0, 2)]


def test_a_reset_job_holds_back_what_is_below_it(store, make_jobs):
    add(store, make_jobs(2, priority=lambda index: 2 - index))
    (key,) = claim(store, "t1")
    start(store, key)
    change(store, {"state": "init"}, batch=BATCH, indices=[0])
    assert claim(store, "t2") == []


def test_a_job_that_waits_in_the_index_itself_ends_with_its_reset(store, make_jobs):
    add(store, make_jobs(1))
    claim(store, "t1", host=HOST)
    assert change(store, {"state": "init"}, batch=BATCH)[1] == []
    assert claim(store, "t2", host=HOST) == [Key(BATCH, 0, 2)]
    ((cancelled, ended, reason),) = ask(
        store.index, "SELECT cancelled, ended, reason FROM attempt WHERE n = 1"
    )
    assert (cancelled, ended, reason) == (5.0, 5.0, "cancelled")


def test_a_boost_in_the_middle_of_a_run_takes_nothing_from_the_executor(store, make_jobs):
    add(store, make_jobs(1))
    (key,) = claim(store, "t")
    start(store, key)
    assert change(store, {"priority": 120}, batch=BATCH)[1] == []
    assert store.boost([BATCH], 0.5, who=ME, now=6.0) == 1
    assert (read(store, BATCH, 0)["priority"], states(store.index)[BATCH, 0]) == (120.5, "run")


def test_a_batch_is_removed_with_its_history_and_its_number_is_free(store, make_jobs):
    add(store, [*make_jobs(2), *make_jobs(1, batch=OTHER)])
    for key in claim(store, "t"):
        end(store, key, complete=True)
    store.remove(BATCH, who=ME, now=9.0)
    assert set(states(store.index)) == {(OTHER, 0)}
    assert ask(store.index, 'SELECT count(*) FROM attempt WHERE "BatchID" = ?', BATCH) == [(0,)]
    assert ask(store.index, 'SELECT kind FROM event WHERE "BatchID" = ?', BATCH) == [("remove",)]
    add(store, make_jobs(1))


# --- the submitter's variables


def test_variables_that_are_the_same_are_kept_once(store, make_jobs):
    add(store, make_jobs(4))
    tokens = {
        "a": {"A": "1", "B": "2"},
        "b": {"B": "2", "A": "1"},
        "c": {"A": "1"},
        "d": {"A": "caf\udce9\n"},
    }
    for number, (token, variables) in enumerate(tokens.items()):
        new = submission(token, environment=variables)
        store.claim_jobs(new, [(BATCH, number)], no_needs)
    assert ask(store.index, "SELECT count(*) FROM environment") == [(3,)]
    for token, variables in tokens.items():
        ((digest,),) = ask(store.index, "SELECT environment FROM submission WHERE token = ?", token)
        assert store.environment(digest) == variables


def test_a_submission_that_goes_on_by_itself_has_the_variables_of_the_one_before(store, make_jobs):
    add(store, make_jobs(2, priority=lambda index: 2 - index))
    (key,) = claim(store, "t1")
    end(store, key, complete=True)
    digest = store.ready().environments[BATCH]
    store.claim(submission("t2", environment=digest), decide(), no_needs)
    assert ask(store.index, "SELECT DISTINCT environment FROM submission") == [(digest,)]


def test_a_batch_remembers_the_executor_of_its_first_submission(store, make_jobs):
    add(store, make_jobs(2))
    store.claim(submission("t1", defaults='{"queue": "long"}'), decide(max_jobs=1), no_needs)
    store.claim(submission("t2", executor="local", defaults="{}"), decide(), no_needs)
    assert ask(store.index, "SELECT executor, executor_defaults FROM batch") == [
        ("file", '{"queue": "long"}')
    ]


# --- numbers


@settings(max_examples=25)
@given(st.lists(st.one_of(st.integers(-10, 200), st.floats(-10, 200)), min_size=1, max_size=5))
def test_the_ready_group_is_the_highest(tmp_path_factory, priorities):
    with Store(tmp_path_factory.mktemp("ready") / "index.db", create=True) as store:
        jobs = [
            {
                "BatchID": 1,
                "JobIndex": number,
                "priority": priority,
                "name": "",
                "data_type": "",
                "state": "init",
            }
            for number, priority in enumerate(priorities)
        ]
        add(store, jobs)
        ready = store.ready()
        assert ready.heads == [(1, None, max(priorities))]
        assert ready.global_top == (max(priorities) if max(priorities) > 100 else None)
        assert len(claim(store, "t", min_prior=-10)) == sum(
            priority == max(priorities) for priority in priorities
        )


def test_numbers_of_numpy_are_numbers(store, make_jobs):
    # Was: only JobIndex and priority are made plain; the BatchID reaches the driver as it is.
    np = pytest.importorskip("numpy")
    add(store, make_jobs(1, batch=np.int64(BATCH), start=np.int64(0), priority=np.float32(0.5)))
    job = read(store, BATCH, 0)
    assert (job["priority"], type(job["priority"]), type(job["BatchID"])) == (0.5, float, int)
