"""The field ``after``: what jobs wait for besides their priority group, across batches."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import BATCH
from verbs import add, ask, claim, end, start, states

import paraschut as psu
from paraschut import after, checks
from paraschut.after import Need, find_circle
from paraschut.errors import JobError

NEXT = BATCH + 1


def go(store, token):
    """Let a pass take what is free; return the jobs as (BatchID, JobIndex), and their keys."""
    keys = claim(store, token)
    return [key[:2] for key in keys], keys


def done(store, keys):
    for key in keys:
        start(store, key)
        end(store, key, complete=True)


def test_a_job_waits_for_a_job_of_another_batch(store, make_jobs):
    psu.add_job_to_queue(make_jobs(2))
    psu.add_job_to_queue(make_jobs(2, batch=NEXT, after=lambda index: (BATCH, index)))
    first, keys = go(store, "a")
    assert first == [(BATCH, 0), (BATCH, 1)]
    assert go(store, "b")[0] == []
    done(store, keys[1:])
    assert go(store, "c")[0] == [(NEXT, 1)]
    done(store, keys[:1])
    assert go(store, "d")[0] == [(NEXT, 0)]


def test_a_job_waits_for_a_whole_batch(store, make_jobs):
    psu.add_job_to_queue(make_jobs(3))
    psu.add_job_to_queue(make_jobs(2, batch=NEXT, after=BATCH))
    _, keys = go(store, "a")
    done(store, keys[:2])
    assert go(store, "b")[0] == []
    psu.set_job_field(BATCH, 2, {"state": "collected"}, Unless={})
    assert go(store, "c")[0] == [(NEXT, 0), (NEXT, 1)]


def test_a_job_that_is_missing_holds_back_those_after_it(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=[(BATCH, 0)]))
    _, (key,) = go(store, "a")
    end(store, key, code=1, reason="exit code 1")
    assert go(store, "b")[0] == []


def test_one_that_is_reset_is_waited_for_again(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(2, batch=NEXT, after=lambda index: [BATCH, (BATCH, 0)][index]))
    _, keys = go(store, "a")
    done(store, keys)
    psu.set_job_field(BATCH, 0, Unless={})
    assert go(store, "b")[0] == [(BATCH, 0)]


def test_a_batch_that_grows_is_waited_for_again(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=BATCH))
    done(store, go(store, "a")[1])
    psu.add_job_to_queue(make_jobs(1, start=1))
    taken, keys = go(store, "b")
    assert taken == [(BATCH, 1)]
    done(store, keys)
    assert go(store, "c")[0] == [(NEXT, 0)]


def test_jobs_that_are_added_together_may_wait_for_one_another(store, make_jobs):
    psu.add_batch_to_queue(BATCH, make_jobs(3, after=lambda index: [(BATCH, index - 1)] if index else None))
    order = []
    for token in "abc":
        taken, keys = go(store, token)
        order.extend(taken)
        done(store, keys)
    assert order == [(BATCH, index) for index in range(3)]


def test_the_field_is_kept_as_it_was_given_and_may_be_changed(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=[(BATCH, 0)]))
    job = psu.get_job_info(NEXT, 0)
    assert job["after"] == [(BATCH, 0)]
    del job["after"]
    psu.update_job(job)
    assert (NEXT, 0) in go(store, "a")[0]
    psu.set_job_field(NEXT, 0, {"state": "init", "after": BATCH})
    assert (NEXT, 0) not in go(store, "b")[0]
    assert psu.get_job_info(NEXT, 0)["after"] == BATCH


def test_what_is_done_already_is_not_waited_for(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, state="complete"))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=[BATCH, (BATCH, 0)]))
    assert go(store, "a")[0] == [(NEXT, 0)]


def test_these_very_jobs_are_submitted_whatever_they_wait_for(store, make_jobs, fake_slurm):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=BATCH))
    done_ = psu.submit_one_job(NEXT, 0, Executor="slurm", Verbose=False)
    assert done_.jobs == {NEXT: [0]}


def test_a_removed_batch_that_was_done_stays_so_and_another_never_is(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, state="complete"))
    psu.add_job_to_queue(make_jobs(1, batch=BATCH + 5))
    psu.add_job_to_queue(make_jobs(2, batch=NEXT, after=lambda index: [BATCH, BATCH + 5][index]))
    psu.remove_batch([BATCH, BATCH + 5])
    psu.set_batch_field(NEXT)
    assert go(store, "a")[0] == [(NEXT, 0)]


def test_a_batch_takes_its_own_needs_with_it(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=BATCH))
    psu.remove_batch(NEXT)
    assert ask(store.index, "SELECT * FROM dependency") == []
    psu.add_job_to_queue(make_jobs(1, batch=NEXT))
    assert len(go(store, "a")[0]) == 2


# --- what makes no sense


@pytest.mark.parametrize("wrong", ["x", 1.5, [[1, 2, 3]], [None], True, {"a": 1}, -1, [(1, -2)], (1, 2, "x")])
def test_what_is_no_job_and_no_batch_is_refused(index, make_jobs, unchanged, wrong):
    with unchanged(JobError, match=r"has after = .*it must be a BatchID, a job as \(BatchID, JobIndex\)"):
        psu.add_job_to_queue(make_jobs(1, after=lambda _: wrong))
    psu.add_job_to_queue(make_jobs(1))
    with unchanged(JobError, match="has after = "):
        psu.set_job_field(BATCH, 0, {"after": wrong})


@pytest.mark.parametrize(
    ("need", "named"), [((BATCH, 7), f"job {BATCH}:7"), (77, "batch 77"), ([(77, 0)], "job 77:0")]
)
def test_what_does_not_exist_is_named(store, make_jobs, unchanged, need, named):
    psu.add_job_to_queue(make_jobs(1))
    with unchanged(JobError, match=rf"job {NEXT}:0 is to come after {named}, which is not in the index"):
        psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=lambda _: need))


def test_a_number_that_was_only_reserved_is_no_batch(store, make_jobs, unchanged):
    store.reserve(77, lambda number: number + 1, 1.0)
    with unchanged(JobError, match="batch 77, which is not in the index"):
        psu.add_job_to_queue(make_jobs(1, after=77))


def test_jobs_that_wait_for_one_another_are_named(store, make_jobs, unchanged):
    ring = {0: [(BATCH, 2)], 1: [(BATCH, 0)], 2: [(BATCH, 1)]}
    with unchanged(JobError, match="so none of them could ever start") as caught:
        psu.add_job_to_queue(make_jobs(3, after=ring.get))
    assert all(f"job {BATCH}:{index}" in str(caught.value) for index in ring)


@pytest.mark.parametrize("need", [(BATCH, 0), BATCH])
def test_a_job_does_not_wait_for_itself(store, make_jobs, unchanged, need):
    with unchanged(
        JobError, match=rf"job {BATCH}:0 would wait for (batch {BATCH} would wait for )?job {BATCH}:0"
    ):
        psu.add_job_to_queue(make_jobs(1, after=lambda _: need))


def test_a_job_does_not_wait_for_one_below_it(store, make_jobs, unchanged):
    with unchanged(JobError, match=f"job {BATCH}:0 would wait .*higher priority in its batch"):
        psu.add_job_to_queue(
            make_jobs(2, priority=lambda index: 2 - index, after=lambda index: [[(BATCH, 1)], None][index])
        )


def test_a_change_that_would_close_a_circle_is_refused(store, make_jobs, unchanged):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=BATCH))
    with unchanged(JobError, match="would wait for"):
        psu.set_job_field(BATCH, 0, {"after": NEXT})
    psu.set_job_field(BATCH, 0, {"state": "complete"})
    psu.set_job_field(BATCH, 0, {"after": NEXT}, Unless={})


def test_one_above_100_that_waits_holds_nobody_back(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, priority=150, after=BATCH))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT + 1))
    taken, keys = go(store, "a")
    assert taken == [(BATCH, 0), (NEXT + 1, 0)]
    done(store, keys[:1])
    psu.add_job_to_queue(make_jobs(1, batch=NEXT + 2))
    assert go(store, "b")[0] == [(NEXT, 0)]


def test_jobs_that_wait_for_nothing_are_found_without_looking_at_the_others(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    add(store, make_jobs(50, batch=NEXT, after=lambda index: BATCH if index else None))
    assert go(store, "a")[0] == [(BATCH, 0), (NEXT, 0)]
    assert set(states(store.index).values()) == {"init", "submit"}


# --- circles


@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4)))
def test_a_circle_is_found_if_there_is_one(graph):
    def needs(node):
        return graph.get(node, [])

    def reaches(start, goal, seen=frozenset()):
        return any(
            one == goal or (one not in seen and reaches(one, goal, seen | {one})) for one in needs(start)
        )

    found = find_circle(range(9), needs)
    assert (found is not None) == any(reaches(node, node) for node in range(9))
    if found is not None:
        for node, following in zip(found, [*found[1:], found[0]], strict=True):
            assert following in needs(node)


def test_a_long_chain_is_no_trouble():
    assert find_circle([0], lambda node: [node + 1] if node < 100_000 else []) is None
    assert len(find_circle([0], lambda node: [(node + 1) % 100_000])) == 100_000


def test_the_examples_are_true():
    assert doctest.testmod(after).failed == 0
    assert doctest.testmod(checks).failed == 0
    assert (str(Need(7)), str(Need(7, 0))) == ("batch 7", "job 7:0")
