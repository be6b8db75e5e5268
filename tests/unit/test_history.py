"""What happened to a job, as data and as tables."""

from __future__ import annotations

import pytest
from stories import BATCH
from verbs import add, change, claim, end, start

import paraschut as psu
from paraschut.process import host_name


@pytest.fixture
def twice(store, make_jobs):
    """A job that ran, was killed, was reset, and waits."""
    add(store, make_jobs(2))
    key = claim(store, "t", host=host_name())[0]
    start(store, key)
    end(store, key, signal=9, code=None, reason="out of <memory>")
    change(store, {"state": "init"}, batch=BATCH, indices=[0], why="reset")


def test_attempts_and_events_are_data(twice):
    found = psu.history(BATCH, 0)
    (attempt,) = found["attempts"]
    assert (attempt["n"], attempt["signal"], attempt["reason"]) == (1, 9, "out of <memory>")
    assert [event["kind"] for event in found["events"]] == ["reset"]


def test_they_are_shown_as_tables(twice):
    found = psu.history(BATCH, 0)
    assert "out of <memory>" in repr(found)
    assert "reset" in repr(found)
    shown = found._repr_html_()
    assert "out of &lt;memory&gt;" in shown
    assert f"Job {BATCH}:0" in shown
    assert "nobody changed it" in psu.history(BATCH, 1)._repr_html_()


def test_a_job_that_is_not_there_has_none(twice):
    with pytest.raises(psu.NotFoundError, match=f"no job {BATCH}:9"):
        psu.history(BATCH, 9)
