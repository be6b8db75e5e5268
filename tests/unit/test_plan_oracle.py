"""What the store and the plan choose together, against a slow and obvious reading of the rules."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbs import add, claim

from paraschut.errors import JobError
from paraschut.store.ending import end_attempt
from paraschut.store.filters import compile_filter
from paraschut.store.runtime import Key
from paraschut.store.store import Store

FINISHED = {"complete", "collected"}
ACTIVE = {"submit", "run", "spawn"}


class Filter(NamedTuple):
    text: str
    fits: object


FILTERS = [
    Filter("", lambda _: True),
    Filter('kind == "a"', lambda job: job["kind"] == "a"),
    Filter("size > 2 AND priority >= 1", lambda job: job["size"] > 2 and job["priority"] >= 1),
    Filter('name LIKE "story/1%" OR JobIndex == 0', lambda job: job["size"] == 1 or job["JobIndex"] == 0),
    Filter("NOT (BatchID == 1)", lambda job: job["BatchID"] != 1),
    Filter('state == "run"', lambda _: False),
]


def unfinished(job):
    return job["state"] not in FINISHED


def waits(job, jobs):
    """Return whether something that a job is to come after is not done."""
    return any(
        unfinished(other) and need in ((other["BatchID"], other["JobIndex"]), other["BatchID"])
        for need in job["after"]
        for other in jobs
    )


def oracle(jobs, max_jobs, min_prior, only, fits, refused):
    """Say of each job, on its own, whether it may go; then let them go in order until there is no room."""

    def may_go(job):
        return (
            job["state"] == "init"
            and not job["ending"]
            and job["priority"] >= min_prior
            and (only is None or job["BatchID"] in only)
            # Its group is open: all above it in its batch is done.
            and not any(
                unfinished(other)
                and other["BatchID"] == job["BatchID"]
                and other["priority"] > job["priority"]
                for other in jobs
            )
            # Nothing above 100 anywhere is undone and higher, unless it has to wait itself.
            and not any(
                unfinished(other)
                and other["priority"] > 100
                and other["priority"] > job["priority"]
                and not waits(other, jobs)
                for other in jobs
            )
            and not waits(job, jobs)
            and fits(job)
            and not refused(job)
        )

    room = max_jobs - sum(job["state"] in ACTIVE and job["failure"] is None for job in jobs)
    order = sorted(jobs, key=lambda job: (-job["priority"], job["BatchID"], job["JobIndex"]))
    return [job for job in order if may_go(job)][: max(0, room)]


priorities = st.sampled_from([0.5, 1, 2, 1.5, 100, 100.5, 101, 150, 150.5, -1, 0])
states = st.sampled_from(
    ["init"] * 6 + ["held", "complete", "complete", "collected", "submit", "run", "spawn", "mine"]
)


@st.composite
def pipelines(draw):
    """Some batches of a few priority groups, with jobs in any state."""
    jobs = []
    for batch in range(1, 1 + draw(st.integers(1, 4))):
        groups = draw(st.lists(priorities, min_size=1, max_size=3))
        for index in range(draw(st.integers(1, 6))):
            state = draw(states)
            jobs.append(
                {
                    "BatchID": batch,
                    "JobIndex": index,
                    "priority": draw(st.sampled_from(groups)),
                    "name": ["story", str(index)],
                    "data_type": "",
                    "state": state,
                    "size": index,
                    "kind": draw(st.sampled_from("ab")),
                    "failure": draw(st.sampled_from([None, None, "vanished"])) if state in ACTIVE else None,
                    "ending": draw(st.booleans()) and draw(st.booleans()) if state == "init" else False,
                    "after": [],
                }
            )
    named = st.sampled_from(
        [(job["BatchID"], job["JobIndex"]) for job in jobs] + [job["BatchID"] for job in jobs]
    )
    for job in jobs:
        if draw(st.integers(0, 3)) == 0:
            job["after"] = draw(st.lists(named, max_size=3))
    return jobs


def deadlocked(jobs):
    """Return whether some jobs could never go, if all begin anew, whatever ends well goes away at once."""
    left = [{**job, "state": "init", "failure": None, "ending": False} for job in jobs]
    while True:
        free = oracle(left, 10**6, -(10**6), None, lambda _: True, lambda _: False)
        if not free:
            return any(map(unfinished, left))
        for job in free:
            job["state"] = "complete"


def put(store, jobs):
    """Bring an index into the very state that the jobs describe."""
    columns = {"failure", "ending"}
    add(
        store,
        [
            {key: value for key, value in job.items() if key not in columns} | {"state": "init"}
            for job in jobs
        ],
    )
    with closing(sqlite3.connect(store.index, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            'UPDATE job SET state = ?, failure = ?, ending = ?, attempt = ? WHERE "BatchID" = ? AND "JobIndex" = ?',
            [
                (
                    job["state"],
                    job["failure"],
                    1 if job["ending"] else None,
                    1,
                    job["BatchID"],
                    job["JobIndex"],
                )
                for job in jobs
            ],
        )
        connection.execute("COMMIT")


def finish(store, keys, now):
    """Let attempts end well."""
    from paraschut.store.runtime import Ended

    with store.writing() as (_, db):
        for key in keys:
            end_attempt(db, key, Ended(now, now, 0, None), None, complete=True)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Return a function that opens an empty index: copying one takes a tenth of the time that making one does."""
    folder = tmp_path_factory.mktemp("oracle")
    with Store(folder / "empty.db", create=True):
        pass

    def make():
        path = folder / "index.db"
        shutil.copyfile(folder / "empty.db", path)
        return Store(path)

    return make


#: Two thousand random pipelines in both tests together; by hand, many more.
EXAMPLES = int(os.environ.get("PARASCHUT_TESTS_PIPELINES", "1800"))


@settings(max_examples=EXAMPLES)
@given(pipelines(), st.data())
def test_pass_after_pass_takes_what_the_rules_say(fresh, jobs, data):
    refusing = data.draw(st.sampled_from([lambda _: False, lambda job: job["size"] % 3 == 1]))

    def vet(job):
        if refusing(job):
            raise JobError("no.")
        return {}

    if deadlocked(jobs):
        for job in jobs:
            job["after"] = []
    with fresh() as store:
        put(store, jobs)
        by_key = {(job["BatchID"], job["JobIndex"]): job for job in jobs}
        for number in range(data.draw(st.integers(1, 4))):
            max_jobs = data.draw(st.integers(0, 12), label="MaxJobs")
            min_prior = data.draw(st.sampled_from([-5, 0, 0, 1, 100.5, 150]), label="MinPrior")
            only = data.draw(st.none() | st.sets(st.integers(1, 4)), label="only these batches")
            chosen = data.draw(st.sampled_from(FILTERS), label="Filter")
            expected = oracle(jobs, max_jobs, min_prior, only, chosen.fits, refusing)
            keys = claim(
                store,
                f"t{number}",
                max_jobs=max_jobs,
                min_prior=min_prior,
                only=only,
                condition=compile_filter(chosen.text) if chosen.text else None,
                vet=vet,
            )
            assert keys == [Key(job["BatchID"], job["JobIndex"], 2) for job in expected]
            for job in expected:
                job["state"] = "submit"
            done = data.draw(st.lists(st.sampled_from(keys), unique=True), label="done") if keys else []
            finish(store, done, 10.0 + number)
            for key in done:
                by_key[key.batch_id, key.job_index]["state"] = "complete"


@settings(max_examples=EXAMPLES // 9)
@given(pipelines())
def test_a_pipeline_comes_to_its_end_in_order_or_is_refused(fresh, jobs):
    for job in jobs:
        job.update(state="init", failure=None, ending=False)
    if deadlocked(jobs):
        with fresh() as store, pytest.raises(JobError, match="would wait for"):
            put(store, jobs)
        return
    with fresh() as store:
        put(store, jobs)
        priority = {(job["BatchID"], job["JobIndex"]): job["priority"] for job in jobs}
        done = []
        for number in range(len(jobs) + 1):
            keys = claim(store, f"t{number}", min_prior=-5)
            if not keys:
                break
            finish(store, keys, 1.0)
            done.extend(keys)
    assert len(done) == len(jobs)
    place = {key[:2]: number for number, key in enumerate(done)}
    for job in jobs:
        for need in job["after"]:
            those = [key for key in place if need in (key, key[0])]
            assert all(place[key] < place[job["BatchID"], job["JobIndex"]] for key in those)
    if any(job["after"] for job in jobs):
        return  # those above 100 that wait let others go first
    for batch in {job["BatchID"] for job in jobs}:
        order = [priority[key[:2]] for key in done if key.batch_id == batch]
        assert order == sorted(order, reverse=True)
    above = [priority[key[:2]] for key in done if priority[key[:2]] > 100]
    assert above == sorted(above, reverse=True)
    assert all(priority[key[:2]] > 100 for key in done[: len(above)])
