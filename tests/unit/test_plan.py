from __future__ import annotations

import doctest
import itertools

from hypothesis import given
from hypothesis import strategies as st

from paraschut import plan
from paraschut.plan import Head, Limits, next_groups, worth_a_pass

priorities = st.one_of(st.integers(-5, 300), st.floats(-5, 300), st.sampled_from([0.5, 1, 100, 100.5, 150]))
heads = st.lists(
    st.builds(Head, st.integers(1, 20), st.sampled_from([None, "local", "file"]), priorities),
    unique_by=lambda head: head.batch_id,
    max_size=10,
)
limits = st.builds(
    Limits,
    room=st.integers(-3, 5),
    min_prior=st.one_of(st.just(0), priorities),
    global_top=st.none() | st.floats(100.1, 300),
)


@given(heads, limits)
def test_what_may_go_is_part_of_what_is_next_each_once(given_heads, given_limits):
    chosen = next_groups(given_heads, given_limits)
    assert set(chosen) <= set(given_heads)
    assert len(set(chosen)) == len(chosen)


@given(heads, limits)
def test_a_head_goes_unless_a_limit_speaks_against_it(given_heads, given_limits):
    chosen = set(next_groups(given_heads, given_limits))
    for head in given_heads:
        blocked = (
            given_limits.room <= 0
            or head.priority < given_limits.min_prior
            or (given_limits.global_top is not None and head.priority < given_limits.global_top)
        )
        assert (head in chosen) is not blocked


@given(heads, limits)
def test_the_highest_goes_first_and_of_equals_the_older_batch(given_heads, given_limits):
    chosen = next_groups(given_heads, given_limits)
    for before, after in itertools.pairwise(chosen):
        assert (-before.priority, before.batch_id) < (-after.priority, after.batch_id)


@given(heads, limits, st.randoms())
def test_the_order_of_asking_does_not_matter(given_heads, given_limits, random):
    mixed = list(given_heads)
    random.shuffle(mixed)
    assert next_groups(mixed, given_limits) == next_groups(iter(given_heads), given_limits)


@given(heads, limits, priorities)
def test_a_higher_bar_never_lets_more_through(given_heads, given_limits, other):
    higher = given_limits._replace(min_prior=max(given_limits.min_prior, other))
    assert set(next_groups(given_heads, higher)) <= set(next_groups(given_heads, given_limits))


def test_a_global_job_holds_back_all_that_is_lower_even_while_it_runs():
    waiting = [Head(1, None, 1), Head(2, None, 101)]
    assert next_groups(waiting, Limits(10, 0, 150)) == []
    assert next_groups([*waiting, Head(3, None, 150)], Limits(10, 0, 150)) == [Head(3, None, 150)]


@given(st.integers(0, 10**6), st.integers(0, 2000), st.integers(1, 2000))
def test_a_pass_is_made_when_all_or_a_tenth_of_the_limit_fits(eligible, active, limit):
    room = limit - active
    worth = worth_a_pass(eligible, active, limit)
    if eligible == 0 or room <= 0:
        assert not worth
    elif eligible <= room or room >= max(1, limit // 10):
        assert worth
    else:
        assert not worth


@given(st.integers(1, 10**6), st.integers(1, 2000))
def test_with_nothing_active_whatever_can_go_is_worth_a_pass(eligible, limit):
    assert worth_a_pass(eligible, 0, limit)


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(plan).failed == 0
