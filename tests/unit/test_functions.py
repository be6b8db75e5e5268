"""What is decided about function jobs without starting any: which calls a job makes, what is alike, what came of a call."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verbs import add, claim

from paraschut import _run
from paraschut.functions.calling import Layout, PartlyFailedError
from paraschut.functions.likeness import likeness
from paraschut.functions.mapping import chunk_of
from paraschut.paths import Paths
from paraschut.store import calls, spool
from paraschut.store.calls import Outcome, Payload
from paraschut.store.runtime import Ended, Key

NOBODY = {"started": 1.0, "ended": 2.0, "code": 0, "signal": None}


# --- layout


@given(st.integers(1, 200), st.integers(0, 20), st.integers(1, 50))
def test_every_call_is_made_by_one_job(total, pilots, chunk):
    layout = Layout(total, min(pilots, total), chunk)
    made = [item for job in range(layout.jobs) for item in layout.items_of(job)]
    assert made == list(range(total))
    assert all(item in layout.items_of(layout.job_of(item)) for item in made)


@given(
    st.lists(st.floats(0, 100), max_size=5),
    st.integers(0, 10_000),
    st.floats(0.01, 100),
    st.integers(1, 1000),
)
def test_auto_makes_chunks_that_leave_nobody_idle(seconds, left, target, jobs):
    chunk = chunk_of(seconds, left, target, jobs)
    assert chunk >= 1
    assert chunk <= max(1, -(-left // jobs))


# --- likeness


def test_what_is_alike_does_not_depend_on_the_session():
    program = (
        "import functools, numpy as np\n"
        "from paraschut.functions.likeness import likeness\n"
        "def f(x, y=2, *, z={'a', 'b'}):\n    return [g for g in {'p', 'q'} if x in {1, 2}]\n"
        "items = [(1, 'a' + 'b'), ({'k': [1.5]},), (np.arange(3),)]\n"
        "print(likeness([f, functools.partial(f, 1), None, len], items))"
    )
    said = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1


def test_one_object_twice_is_like_two_that_are_equal():
    one, other = [1, 2], [1, 2]
    assert likeness([len], [(one, one)]) == likeness([len], [(one, other)])


def made(number):
    def inner(x):
        return x + number

    return inner


class Scaled:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return self.by * x

    def call(self, x):
        return self.by * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x, lambda x: x + 1),
        (made(1), made(2)),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (Scaled(1), Scaled(2)),
        (Scaled(1).call, Scaled(2).call),
        (len, None),
    ],
)
def test_other_functions_are_not_alike(one, other):
    assert likeness([one], []) == likeness([one], [])
    assert likeness([one], [])["functions"] != likeness([other], [])["functions"]


def test_a_function_that_calls_itself_and_an_item_that_contains_itself():
    def down(x):
        return down(x - 1) if x else 0

    loop = []
    loop.append(loop)
    assert likeness([down], [loop]) == likeness([down], [loop])


# --- what came of a call


def kept(value, kind):
    return repr((kind, value)).encode(), False


@pytest.mark.parametrize(
    ("work", "summary"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: sys.exit("no"), "sys.exit('no')"),
        (lambda: exec("raise KeyboardInterrupt"), "KeyboardInterrupt"),
        (lambda: exec("raise ValueError('a\\n b')"), "ValueError: a b"),
        (lambda: exec("raise ValueError('x' * 1000)"), "ValueError: " + "x" * 287 + "…"),
    ],
)
def test_whatever_goes_wrong_is_said_in_one_line(work, summary, capfd):
    outcome = _run.outcome_of(work, kept)
    assert (outcome.kind, outcome.summary) == ("error", summary)
    assert (
        summary.split(":", 1)[0].split("(")[0].split(".")[-1][:5] in capfd.readouterr().err
        or "exit" in summary
    )


def test_a_value_is_kept_and_one_that_cannot_be_is_an_error(capfd):
    assert _run.outcome_of(lambda: 3, kept)._replace(seconds=0) == Outcome("value", data=b"('value', 3)")

    def refuse(value, kind):
        if kind == "value":
            raise OSError("no room")
        return kept(value, kind)

    outcome = _run.outcome_of(lambda: 3, refuse)
    assert outcome.summary == "TypeError: the result cannot be pickled: OSError: no room"


def test_a_chunk_that_failed_in_part_says_how_much_of_it():
    error = PartlyFailedError([Outcome("value"), Outcome("error", "KeyError: 1"), Outcome("error", "x")])
    assert str(error) == "2 of 3 calls failed, the first with KeyError: 1"


# --- in the index


@pytest.fixture
def started(store, make_jobs):
    """Return the attempt of a function job that runs."""
    add(store, make_jobs(2))
    with store.writing() as (_, db):
        calls.add_payload(db, Payload(20260101000000, -1, b"function", about="{}"))
        calls.add_payload(db, Payload(20260101000000, 0, b"mine", -1, warm=True))
    key = claim(store, "t", host="here")[0]
    with store.writing() as (_, db):
        db.run("attempt_starts", **key._asdict(), now=1.0, process="1:2:boot")
        db.run("job_runs", **key._asdict())
    return key


def test_a_payload_comes_with_the_one_that_it_shares(store, started):
    with store.writing() as (_, db):
        mine, shared = calls.read_payloads(db, started.batch_id, 0)
        assert (mine.data, shared.data) == (b"mine", b"function")
        again = calls.read_payloads(db, started.batch_id, 0, {-1: shared})
        assert again[1] is shared
        assert calls.read_payloads(db, started.batch_id, 1) == []


@pytest.mark.parametrize("outcome", [Outcome("value", data=b"v"), Outcome("error", "KeyError: 1", "text")])
def test_a_short_call_is_written_down_like_any_other(store, started, outcome):
    ended = Ended(1.0, 2.0, 0 if outcome.kind == "value" else 1, None)
    with store.writing() as (_, db):
        assert calls.finish_and_end(db, started, outcome, ended)
        assert not calls.finish_and_end(db, started, outcome, ended)
        (standing, _) = calls.standings(db, started.batch_id)
        answers, since = calls.results_since(db, started.batch_id, 0)
        assert calls.results_since(db, started.batch_id, since) == ([], since)
    assert answers == [calls.Answer(0, 1, outcome)]
    assert (standing.state, standing.failure) == (
        ("complete", None) if outcome.kind == "value" else ("run", "KeyError: 1")
    )


@pytest.mark.parametrize("what", ["cancelled", "reason"])
def test_a_call_whose_end_was_asked_for_is_not_written_down_as_a_short_one(store, started, what):
    with store.writing() as (_, db):
        db.connection.execute(f"UPDATE attempt SET {what} = 'x'")
        assert not calls.finish_and_end(db, started, Outcome("value"), Ended(1.0, 2.0, 0, None))


def test_what_stopped_without_an_answer(store, started):
    with store.writing() as (_, db):
        assert calls.stopped(db, started.batch_id) == []
        db.run("job_missing", **started._asdict(), reason="vanished")
        assert [one.failure for one in calls.stopped(db, started.batch_id)] == ["vanished"]
        db.run("job_state", batch_id=started.batch_id, job_index=1, state="held")
        assert {one.job_index for one in calls.stopped(db, started.batch_id)} == {0, 1}
        db.run("job_state", batch_id=started.batch_id, job_index=0, state="complete")
        assert {one.job_index: one.state for one in calls.stopped(db, started.batch_id)} == {
            0: "complete",
            1: "held",
        }
        calls.add_result(db, started, Outcome("value"))
        assert [one.state for one in calls.stopped(db, started.batch_id)] == ["held"]


def test_a_result_that_was_kept_beside_the_index_is_folded_once(store, index, started):
    paths = Paths(index)
    spool.spool(paths, started, spool.describe_result(Outcome("value", data=b"\0v"), 5.0))
    events = spool.load(spool.pending(paths))
    with store.writing() as (_, db):
        for _ in range(2):
            spool.fold(db, index, events, ())
        answers, _ = calls.results_since(db, started.batch_id, 0)
    assert [one.outcome.data for one in answers] == [b"\0v"]


def test_what_an_attempt_of_before_says_no_longer_counts(store, index, started):
    old = Key(started.batch_id, started.job_index, started.n)
    with store.writing() as (_, db):
        db.connection.execute("UPDATE job SET attempt = 2 WHERE JobIndex = 0")
        calls.add_result(db, Key(*old[:2], 1), Outcome("value", data=b"old"))
        assert calls.results_since(db, old.batch_id, 0)[0] == []


def test_items_may_be_arrays():
    assert likeness([], [np.arange(3)]) != likeness([], [np.arange(4)])
