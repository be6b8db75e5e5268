from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut import reconcile
from paraschut.reconcile import Found, Kind, Verdict, judge

NOW = 1_000_000.0
ACTIVE = ("submit", "run", "spawn")
states = st.sampled_from(["init", "submit", "run", "spawn", "complete", "collected", "held", "mine", ""])
times = st.floats(0, NOW)
found = st.builds(
    Found,
    started=st.none() | times,
    ended=st.none() | times,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    alive=st.sampled_from([None, True, False]),
    absent_since=st.none() | times,
    cause=st.sampled_from([None, "time limit", "out of memory", "cancelled"]),
)
graces = st.floats(0, 200)


def verdict(state, evidence, now=NOW, grace=10, complete_on_exit=True):
    return judge(state, evidence, now, grace, complete_on_exit=complete_on_exit)


@given(states, found, st.floats(0, 2 * NOW), graces, st.booleans())
def test_whatever_is_found_there_is_one_verdict(state, evidence, now, grace, on_exit):
    made = judge(state, evidence, now, grace, complete_on_exit=on_exit)
    assert isinstance(made, Verdict)
    assert made == judge(state, evidence, now, grace, complete_on_exit=on_exit)
    assert (made.reason is not None) == (made.kind is Kind.MISSING)
    assert not made.complete or made.kind is Kind.ENDED


@given(states, found, graces, st.booleans())
def test_what_never_started_waits_unless_its_queue_says_that_it_is_not_there(state, evidence, grace, on_exit):
    waiting = evidence._replace(started=None, ended=None)
    if waiting.alive is not False:
        assert judge(state, waiting, NOW, grace, complete_on_exit=on_exit) == Verdict(Kind.QUEUED)
        return
    made = judge(state, waiting._replace(cause=None), NOW, grace, complete_on_exit=on_exit)
    since = NOW if waiting.absent_since is None else waiting.absent_since
    if NOW - since < grace:
        assert made == Verdict(Kind.QUEUED, absent_since=since)
    else:
        assert (made.kind, made.reason) == (Kind.MISSING, "never started")


@given(states, found, graces)
def test_an_end_waits_for_the_words_of_who_may_know_why_but_not_for_ever(state, evidence, grace):
    seen = evidence._replace(ended=NOW - 5.0, final=False, alive=True)
    made = judge(state, seen, NOW, grace, complete_on_exit=True)
    assert (made.kind in {Kind.QUEUED, Kind.RUNNING}) == (grace > 5.0)


@given(states, found, times, graces, st.booleans())
def test_absence_counts_only_after_the_grace_and_from_when_it_was_first_seen(
    state, evidence, started, grace, on_exit
):
    gone = evidence._replace(started=started, ended=None, alive=False)
    made = judge(state, gone, NOW, grace, complete_on_exit=on_exit)
    since = NOW if gone.absent_since is None else gone.absent_since
    assert made.absent_since == since
    assert made.kind is (Kind.MISSING if NOW - since >= grace else Kind.RUNNING)


@given(states, found, times, graces, st.booleans())
def test_who_is_not_known_to_be_gone_runs_and_its_absence_is_forgotten(
    state, evidence, started, grace, on_exit
):
    there = evidence._replace(started=started, ended=None)
    if there.alive is not False:
        assert judge(state, there, NOW, grace, complete_on_exit=on_exit) == Verdict(Kind.RUNNING)


@given(states, found, graces)
def test_an_end_is_an_end_whatever_else_is_known(state, evidence, grace):
    seen = evidence._replace(ended=5.0, final=True)
    assert judge(state, seen, NOW, grace, complete_on_exit=True) == judge(
        state, seen._replace(alive=None, absent_since=None, started=1.0), 0, 10**9, complete_on_exit=True
    )
    assert judge(state, seen, NOW, grace, complete_on_exit=True).kind in {Kind.ENDED, Kind.MISSING}


@given(st.sampled_from(["complete", "collected", "init", "held", "mine", ""]), found)
def test_the_end_of_what_is_no_longer_active_says_nothing_of_its_job(state, evidence):
    assert verdict(state, evidence._replace(ended=5.0, final=True)) == Verdict(Kind.ENDED)


@given(st.sampled_from(ACTIVE), found)
def test_only_a_clean_exit_that_says_so_completes(state, evidence):
    seen = evidence._replace(ended=5.0, final=True)
    clean = seen.code == 0 and seen.signal is None and seen.cause is None
    assert verdict(state, seen).complete == clean
    assert not verdict(state, seen, complete_on_exit=False).complete


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Found(1, 2, code=3), "exit code 3"),
        (Found(1, 2, code=0), "exited 0 without saying complete"),
        (Found(1, 2, signal=9), "signal 9 (SIGKILL)"),
        (Found(1, 2, signal=34), "signal 34"),
        (Found(1, 2, code=1, signal=9), "signal 9 (SIGKILL)"),
        (Found(1, 2, signal=9, cause="out of memory"), "out of memory"),
        (Found(1, 2, code=0, cause="time limit"), "time limit"),
        (Found(1, 2), "vanished"),
        (Found(1, alive=False, absent_since=NOW - 10), "vanished"),
        (Found(1, alive=False, absent_since=NOW - 10, cause="cancelled"), "cancelled"),
    ],
    ids=str,
)
@pytest.mark.parametrize("state", ACTIVE)
def test_the_reason_names_the_cause_before_its_effect(state, evidence, reason):
    made = verdict(state, evidence, complete_on_exit=False)
    assert (made.kind, made.reason) == (Kind.MISSING, reason)


def test_a_job_that_is_seen_gone_is_remembered_and_given_up_when_the_grace_has_passed():
    seen = Found(started=1.0, alive=False)
    first = verdict("run", seen, now=100.0, grace=10)
    assert first == Verdict(Kind.RUNNING, absent_since=100.0)
    again = seen._replace(absent_since=first.absent_since)
    assert verdict("run", again, now=109.9, grace=10).kind is Kind.RUNNING
    assert verdict("run", again, now=110.0, grace=10).kind is Kind.MISSING
    assert verdict("run", again._replace(alive=True), now=200.0, grace=10) == Verdict(Kind.RUNNING)


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(reconcile).failed == 0
