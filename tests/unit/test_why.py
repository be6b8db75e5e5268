"""Why a job is not running: the very rule or job that holds it back."""

from __future__ import annotations

import doctest

import pytest
from stories import BATCH
from verbs import claim, end, start

import paraschut as psu
from paraschut import why
from paraschut.store.runtime import Key
from paraschut.why import Attempt, Facts, Other, reasons

NEXT = BATCH + 1


def told(**facts):
    return reasons(Facts(1, 0, **{"state": "init", **facts}), now=100.0)


TABLE = [
    ({"state": "complete"}, "It is complete."),
    (
        {"state": "run", "failure": "exit code 1"},
        "It is missing: exit code 1. Nothing sends it again by itself",
    ),
    ({"state": "run", "last": Attempt(1, "slurm", "node3", 1.0, None, False, None)}, "It runs on node3."),
    ({"state": "held"}, "It is in state 'held', which is not submitted."),
    ({"state": "waiting for Anna"}, "It is in state 'waiting for Anna', which"),
    ({"state": "submit", "scheduler": "PENDING (Priority)"}, "The scheduler says: PENDING (Priority)."),
    ({"state": "submit", "ahead": 2}, "2 jobs were submitted to this machine before it"),
    ({"ending": True}, "Its former attempt was cancelled, and has not been seen to end yet."),
    ({"needs": (Other(2, 3, "run"),)}, "It comes after job 2:3, which is in 'run'."),
    ({"needs": (Other(2, 3, "run", "vanished"),)}, "It comes after job 2:3, which is missing (vanished)."),
    (
        {"needs": (Other(2, None, "init", None, 5),)},
        "It comes after batch 2, of which 5 jobs are not complete.",
    ),
    ({"needs": (Other(2, None, None),)}, "It comes after batch 2, which is no longer in the index."),
    (
        {"above": Other(1, 7, "run", "signal 9 (SIGKILL)")},
        "Job 1:7 of a higher priority is missing (signal 9 (SIGKILL)).",
    ),
    ({"above": Other(1, 7, "held")}, "Job 1:7 of a higher priority is in 'held'."),
    (
        {"above": Other(1, 7, "init", None, 3)},
        "3 jobs of a higher priority in its batch are not complete; the first",
    ),
    (
        {"first": Other(9, 0, "run")},
        "Job 9:0 of a priority above 100 is in 'run', and goes before all others.",
    ),
    ({"not_before": 130.0}, "It ended badly and is tried again in 30 s."),
    ({"refused": "it asks for 9 cpus."}, "Its executor does not take it: it asks for 9 cpus."),
    ({"active": 7, "limit": 7}, "7 jobs are queued or running, which is the limit (MaxJobs 7)."),
    (
        {"last": Attempt(1, "slurm", None, None, 5.0, False, "no such partition")},
        "it was given back: no such partition",
    ),
    ({"goes_on": False}, "No pass over its whole batch was made yet"),
    ({}, "Nothing holds it back: the next pass takes it, unless the Filter or the MinPrior"),
]


@pytest.mark.parametrize(("facts", "words"), TABLE, ids=[words[:40] for _, words in TABLE])
def test_each_cause_has_its_sentence(facts, words):
    found = told(**facts)
    assert any(words in one for one in found), found
    assert not any(one[0].islower() for one in found)


def test_all_that_holds_it_back_is_told():
    found = told(above=Other(1, 7, "run"), needs=(Other(2, 3, "run"),), active=5, limit=5, not_before=101.0)
    assert len(found) == 4


def test_the_examples_are_true():
    assert doctest.testmod(why).failed == 0


# --- what the index knows


def test_the_group_above_and_who_is_missing_in_it(store, make_jobs):
    psu.add_job_to_queue(make_jobs(4, priority=lambda index: 2 if index < 3 else 1))
    keys = claim(store, "a", now=2e9)
    start(store, keys[1], 2e9)
    end(store, keys[1], code=3, reason="exit code 3")
    (first, *_) = psu.explain(BATCH, 3)
    assert first == (
        f"3 jobs of a higher priority in its batch are not complete; the first is job {BATCH}:1, which is missing "
        f"(exit code 3)."
    )


def test_what_it_comes_after(store, make_jobs):
    psu.add_job_to_queue(make_jobs(2))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, after=[BATCH, (BATCH, 1)]))
    assert psu.explain(NEXT, 0)[:2] == [
        f"It comes after batch {BATCH}, of which 2 jobs are not complete.",
        f"It comes after job {BATCH}:1, which is in 'init'.",
    ]


def test_a_global_priority(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    psu.add_job_to_queue(make_jobs(1, batch=NEXT, priority=150, state="held"))
    assert psu.explain(BATCH, 0)[0].startswith(f"Job {NEXT}:0 of a priority above 100 is in 'held'")


def test_the_limit_of_jobs(store, make_jobs, configure):
    configure(max_jobs=1)
    psu.add_job_to_queue(make_jobs(2))
    claim(store, "a", now=2e9, max_jobs=1)
    assert "which is the limit (MaxJobs 1)" in psu.explain(BATCH, 1)[0]


def test_what_its_executor_would_not_take(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, resources={"cpus": 10_000}))
    assert "it asks for 10000 cpus" in psu.explain(BATCH, 0)[0]


def test_the_pause_before_it_is_tried_again(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=1))
    claim(store, "a", now=2e9)
    end(store, Key(BATCH, 0, 1), code=1, reason="exit code 1", now=2e9)
    with store.writing() as (connection, _):
        connection.exec_driver_sql("UPDATE job SET not_before = 4e9")
    assert psu.explain(BATCH, 0)[0].endswith("(it was: exit code 1).")


def test_a_job_that_is_free(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    found = psu.explain(BATCH, 0)
    assert found[0].startswith("Nothing holds it back")
    assert str(found) == "\n".join(found)


def test_what_the_last_pass_was_given(store, make_jobs, configure):
    """A Filter, or a MinPrior, that leaves the job out; the next pass without one takes that back."""
    configure(executor="file")
    psu.add_job_to_queue(make_jobs(2, kind=lambda index: "ab"[index], priority=lambda index: 2 - index))
    psu.submit_jobs(Filter='kind == "b"', Verbose=False)
    (said,) = [one for one in psu.explain(BATCH, 0) if "The last submit_jobs" in one]
    assert said.startswith(
        "The last submit_jobs was given Filter='kind == \"b\"', which leaves it out (since 20"
    )
    psu.submit_jobs(MinPrior=3, Verbose=False)
    assert any("was given MinPrior=3, which leaves it out" in one for one in psu.explain(BATCH, 0))
    psu.submit_one_batch(NEXT, Filter="kind IS NULL", Verbose=False)
    assert not any("The last submit_jobs" in one for one in psu.explain(BATCH, 0))
    psu.submit_jobs(MinPrior=1.5, Verbose=False)
    assert not any("The last submit_jobs" in one for one in psu.explain(BATCH, 0))
    psu.submit_jobs(Verbose=False)
    assert not any("The last submit_jobs" in one for one in psu.explain(BATCH, 1))


def test_passes_of_the_same_kind_are_noted_once(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    for text in ("", "priority > 5", "priority > 5", "", ""):
        psu.submit_jobs(Filter=text, MinPrior=9, Verbose=False)
    with store.reading() as connection:
        kinds = connection.exec_driver_sql("SELECT detail FROM event WHERE kind = 'pass'").scalars().all()
    assert len(kinds) == 3


def test_the_schedulers_own_words(store, make_jobs, fake_slurm, configure):
    configure(executor="slurm", queue_age=0)
    fake_slurm.set(slots=1)
    psu.add_job_to_queue(make_jobs(3, script="sleep 60"))
    psu.submit_jobs(Verbose=False)
    fake_slurm.until(lambda: fake_slurm.tasks("running"))
    found = psu.explain(BATCH, 2)
    assert any("The scheduler says: PENDING" in one for one in found), found


def test_a_job_that_is_not_there(index):
    with pytest.raises(psu.NotFoundError, match=f"There is no job {BATCH}:0"):
        psu.explain(BATCH, 0)
