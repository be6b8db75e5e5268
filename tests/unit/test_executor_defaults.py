"""A batch remembers how its executor was given: later passes over it, that name none, use it so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from stories import BATCH, jobs_of
from verbs import ask

import paraschut as psu
from paraschut.agent.passes import pass_is_due
from paraschut.config import load_config
from paraschut.dispatch import go_on
from paraschut.errors import ExecutorError, JobError
from paraschut.executors.choice import executor_of, kept_defaults
from paraschut.executors.file import FileJobExecutor
from paraschut.executors.local import LocalJobExecutor
from paraschut.store.runtime import Key


@pytest.fixture
def batch(index):
    """Three jobs, one after the other."""
    psu.add_batch_to_queue(BATCH, jobs_of(BATCH, 3, priority=lambda number: 3 - number, script="true"))


def queued(script):
    """Return how many submissions a script is to run."""
    return len(
        [line for line in script.with_name(script.name + ".queue").read_text("utf-8").split("\n") if line]
    )


def test_a_script_that_was_given_runs_what_comes_next(batch, index, home):
    # Was: the next pass wrote jobs.sh beside the index.
    night = home / "night.sh"
    psu.submit_jobs(FileJobExecutor(night), Verbose=False)
    one = queued(night)
    psu.set_complete(BATCH, 0)
    assert psu.submit_jobs(Verbose=False).jobs == {BATCH: [1]}
    psu.set_complete(BATCH, 1)
    assert go_on(index).jobs == {BATCH: [2]}
    assert queued(night) == 3 * one
    assert not (home / "jobs" / "jobs.sh").exists()


def test_one_job_goes_where_its_batch_goes(batch, home):
    night = home / "night.sh"
    psu.submit_jobs(FileJobExecutor(night), Verbose=False)
    one = queued(night)
    psu.submit_one_job(BATCH, 2, Verbose=False)
    assert queued(night) == 2 * one


def test_resources_that_an_executor_was_given_hold_for_what_comes_next(batch, index, home):
    # Was: only those of the first pass asked for them.
    psu.submit_jobs(FileJobExecutor(home / "a.sh", resources={"mem": "2gb"}), Verbose=False)
    psu.set_complete(BATCH, 0)
    psu.submit_jobs(Verbose=False)
    assert [json.loads(asked)["mem"] for (asked,) in ask(index, "SELECT asked FROM attempt")] == [2 << 30] * 2


def test_an_executor_that_is_named_is_as_configured_each_time(batch, index):
    psu.submit_jobs("file", Verbose=False)
    assert ask(index, "SELECT executor, executor_defaults FROM batch") == [("file", None)]


def test_batches_whose_executors_were_given_differently_keep_apart(batch, home):
    psu.add_batch_to_queue(
        BATCH + 1, jobs_of(BATCH + 1, 2, priority=lambda number: 2 - number, script="true")
    )
    for number in (0, 1):
        psu.submit_one_batch(BATCH + number, FileJobExecutor(home / f"{number}.sh"), Verbose=False)
        psu.set_complete(BATCH + number, 0)
    assert psu.submit_jobs(Verbose=False).jobs == {BATCH: [1], BATCH + 1: [1]}
    assert queued(home / "0.sh") == queued(home / "1.sh") > 0


@pytest.mark.parametrize(
    "given",
    [
        FileJobExecutor("/data/night.sh", "long", {"mem": "1gb"}, ["--exclusive"]),
        LocalJobExecutor(3, 2, 1 << 30, resources={"cpus": np.int64(2)}),
        LocalJobExecutor(),
    ],
)
def test_an_executor_is_made_again_as_it_was_given(given, home):
    again = executor_of(given.name, load_config(), kept_defaults(given))
    assert type(again) is type(given)
    assert kept_defaults(again) == kept_defaults(given)
    assert repr(again) == repr(given)


def test_what_json_cannot_keep_is_refused_and_nothing_submitted(batch, index):
    with pytest.raises(ExecutorError, match="the index cannot keep for later passes"):
        psu.submit_jobs(FileJobExecutor(options=[object()]), Verbose=False)
    assert ask(index, "SELECT count(*) FROM submission") == [(0,)]


def test_defaults_that_an_executor_no_longer_takes_are_said(batch, index, home):
    with pytest.raises(
        ExecutorError, match=r"'file' cannot be made as it was given .*Give the pass an Executor"
    ):
        executor_of("file", load_config(), '{"flavour": 1}')


# --- the limit of jobs


def test_the_limit_of_a_pass_holds_for_what_goes_on_by_itself(index, store):
    # Was: only the pass itself heeded it; the next one went up to the configured limit.
    psu.add_batch_to_queue(BATCH, jobs_of(BATCH, 6, script="true"))
    assert psu.submit_jobs("file", MaxJobs=2, Verbose=False).jobs == {BATCH: [0, 1]}
    assert go_on(index).jobs == {}
    psu.set_complete(BATCH, 0)
    with store.writing() as (_, db):
        assert pass_is_due(db, 1000, 5.0, idle=False)
    assert go_on(index).jobs == {BATCH: [2]}
    with store.writing() as (_, db):
        assert not pass_is_due(db, 1000, 5.0, idle=False)
    assert psu.submit_jobs(MaxJobs=3, Verbose=False).jobs == {BATCH: [3]}
    psu.set_complete(BATCH, 1)
    assert go_on(index).jobs == {BATCH: [4]}
    assert psu.submit_jobs(Verbose=False).jobs == {BATCH: [5]}


def test_the_limit_of_a_pass_holds_for_what_its_jobs_submit(index, monkeypatch, become):
    psu.add_batch_to_queue(BATCH, jobs_of(BATCH, 6, script="true"))
    psu.submit_jobs("file", MaxJobs=np.int64(2), Verbose=False)
    ((token,),) = ask(index, "SELECT token FROM submission")
    become(Key(BATCH, 0, 1), token)
    psu.set_complete(Submit=True)
    assert ask(index, "SELECT count(*) FROM job WHERE state = 'submit'") == [(2,)]
    assert psu.submit_jobs(Verbose=False).jobs == {}
    assert psu.submit_jobs(MaxJobs=4, Verbose=False).jobs == {BATCH: [3, 4]}


def test_each_batch_goes_on_with_its_own_limit(index):
    for number, limit in ((0, 1), (1, 3)):
        psu.add_batch_to_queue(BATCH + number, jobs_of(BATCH + number, 4, script="true"))
        psu.submit_one_batch(BATCH + number, "file", MaxJobs=limit, Verbose=False)
    assert ask(index, "SELECT count(*) FROM job WHERE state = 'submit'") == [(3,)]
    for job_index in (0, 1):
        psu.set_complete(BATCH + 1, job_index)
    assert go_on(index).jobs == {BATCH + 1: [2, 3]}


@pytest.mark.parametrize("limit", [-1, True, 1.5, "2", 1 << 64])
def test_a_limit_that_is_no_number_of_jobs_is_said(batch, limit):
    with pytest.raises(JobError, match=r"MaxJobs is .*; it must be a number of jobs of 0 or more"):
        psu.submit_jobs("file", MaxJobs=limit)


# --- what a pass returns


def test_a_notebook_shows_what_a_pass_did_once(batch, capsys):
    # Was: the printed line, and behind it the same once more as the value of the cell.
    done = psu.submit_jobs("file")
    assert DisplayFormatter().format(done) == ({}, {})
    assert capsys.readouterr().out == "submitted 1 job of 1 batch\n"
    DisplayFormatter().format(done)
    assert capsys.readouterr().out == "submitted 1 job of 1 batch\n"
    quiet = psu.submit_jobs(Verbose=False)
    DisplayFormatter().format(quiet)
    assert capsys.readouterr().out == "nothing to submit\n"
