"""The life of jobs as a game: anything may happen at any time, and some things never do.

The index is a real one; what runs, and what an executor would do, is played here. Time is a number that grows.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stories import BATCH, jobs_of
from verbs import HOST, ME, add, ask, claim, fold_events

from paraschut.agent import ends
from paraschut.errors import StaleJobError
from paraschut.job import Job
from paraschut.paths import Paths
from paraschut.process import boot_id
from paraschut.store import runtime, spool
from paraschut.store.ending import end_attempt
from paraschut.store.runtime import Ended
from paraschut.store.store import Store

DONE = {"complete", "collected"}
#: Where nobody waits for a disk.
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Attempt:
    """One attempt, as the world outside of the index knows it.

    It is *waiting*, *committed* (the agent wrote down that it starts, and no process was told yet), *alive*,
    *dead* (and nobody wrote that down yet), or *over*.
    """

    def __init__(self, key, token, local):
        self.key, self.token, self.local = key, token, local
        self.phase = "waiting"
        self.has_run = False
        # Whether the right to start was taken away from it.
        self.barred = False
        self.process = None
        self.code = 0
        self.started = 0.0

    def __repr__(self):
        return f"<{self.key.job_index}.{self.key.n} {'local' if self.local else 'file'} {self.phase}>"


def with_one(*phases, local=None):
    """Let a rule happen to one of the attempts in some phases, when there are any."""

    def fits(self):
        return [one for one in self.every if one.phase in phases and local in {None, one.local}]

    def decorated(do):
        def chosen(self, data, **given):
            do(self, data.draw(st.sampled_from(fits(self)), label="attempt"), **given)

        chosen.__name__ = do.__name__
        return precondition(lambda self: hasattr(self, "every") and fits(self))(chosen)

    return decorated


class Life(RuleBasedStateMachine):
    @initialize(
        groups=st.lists(st.sampled_from([1, 1, 2, 150]), min_size=2, max_size=3),
        on_exit=st.booleans(),
        local=st.booleans(),
    )
    def begin(self, groups, on_exit, local):
        self.folder = tempfile.mkdtemp(dir=FOLDER)
        # Two processes that both work with the index.
        self.stores = [Store(f"{self.folder}/index.db", create=True), Store(f"{self.folder}/index.db")]
        self.paths = Paths(self.stores[0].index)
        self.now, self.serial = 10.0, 0
        self.every = []
        #: Jobs that are done, until somebody asks for them again.
        self.done = set()
        self.x = {}
        self.told = {}
        self.add(0, groups, on_exit)
        self.a_pass_is_made(local=local, max_jobs=6)

    def add(self, start, groups, on_exit):
        jobs = jobs_of(
            BATCH,
            len(groups),
            start=start,
            complete_on_exit=on_exit,
            priority=lambda index: groups[index - start],
        )
        add(self.tick(), jobs, new=start == 0)

    def teardown(self):
        if hasattr(self, "folder"):
            try:
                self.let_everything_end()
            finally:
                shutil.rmtree(self.folder)

    def tick(self):
        self.now += 1.0
        self.serial += 1
        return self.stores[self.serial % 2]

    def rows(self):
        return {
            index: row
            for index, *row in ask(
                self.paths.index, 'SELECT "JobIndex", state, attempt, ending, failure FROM job'
            )
        }

    def counts(self, attempt):
        """Return whether what an attempt says still counts."""
        found = ask(
            self.paths.index,
            'SELECT 1 FROM job JOIN attempt USING ("BatchID", "JobIndex") '
            'WHERE "JobIndex" = ? AND n = ? AND n = attempt AND cancelled IS NULL',
            *attempt.key[1:],
        )
        return bool(found)

    # -- what people and passes do

    @precondition(lambda self: len(self.rows()) < 5)
    @rule(priority=st.sampled_from([1, 2, 150]), on_exit=st.booleans())
    def a_job_is_added(self, priority, on_exit):
        self.add(len(self.rows()), [priority], on_exit)

    @rule(local=st.booleans(), max_jobs=st.integers(2, 6))
    def a_pass_is_made(self, local, max_jobs):
        store = self.tick()
        token = f"t{self.serial}"
        for key in claim(store, token, host=HOST if local else None, now=self.now, max_jobs=max_jobs):
            # An attempt is only ever handed out when the one before it is over, as far as anybody can know.
            for former in self.every:
                if former.key.job_index == key.job_index:
                    assert former.phase == "over", (key, former)
                    assert former.key.n < key.n
            self.every.append(Attempt(key, token, local))

    @rule(data=st.data())
    @with_one("waiting", "alive", "dead", "over", local=False)
    def its_submitter_records_it(self, attempt):
        self.tick().record({attempt.token: "123"}, self.now)

    @rule(data=st.data())
    @with_one("waiting", local=False)
    def its_submitter_died_and_it_is_released(self, attempt):
        mine = [one for one in self.every if one.token == attempt.token]
        ((recorded,),) = ask(
            self.paths.index, "SELECT recorded FROM submission WHERE token = ?", attempt.token
        )
        if recorded is None and not any(one.has_run for one in mine):
            self.tick().release(attempt.token, "its submitter died", self.now)
            for one in mine:
                one.phase, one.barred = "over", True

    @precondition(lambda self: self.every)
    @rule(
        data=st.data(),
        state=st.sampled_from(["init", "init", "held", "complete", "collected"]),
        sparing=st.booleans(),
    )
    def somebody_sets_a_state(self, data, state, sparing):
        index = data.draw(st.sampled_from([one.key.job_index for one in self.every]), label="job")
        unless = {"state": list(DONE)} if sparing else {}
        count, taken = self.tick().change(
            {BATCH: [index]}, {"state": state}, unless, who=ME, now=self.now, why="set"
        )
        if count:
            (self.done.add if state in DONE else self.done.discard)(index)
            for one in self.every:
                # An executor first bars what has not started, then deletes.
                if one.key.job_index == index and one.phase == "waiting":
                    one.barred = True
                    if one.local:
                        one.phase = "over"
        for running in taken:
            assert any(one.key == (BATCH, index, running.n) and one.phase != "over" for one in self.every)

    @rule()
    def what_is_missing_is_set_back(self):
        missing = {index for index, (*_, failure) in self.rows().items() if failure is not None}
        store = self.tick()
        count, taken = store.change(
            {BATCH: None}, {"state": "init"}, {}, who=ME, now=self.now, why="", missing=True
        )
        assert (count, taken) == (len(missing), [])

    @rule(by=st.sampled_from([1, 100]))
    def somebody_boosts_all(self, by):
        self.tick().boost([BATCH], by, who=ME, now=self.now)

    @rule(index=st.integers(0, 4))
    def somebody_edits_a_field(self, index):
        store = self.tick()
        if index in self.rows():
            store.change({BATCH: [index]}, {"x": self.serial}, {}, who=ME, now=self.now, why="set")
            self.x[index] = self.serial

    # -- what starts and ends attempts

    @rule(data=st.data())
    @with_one("waiting", "committed", "alive", "over", local=True)
    def the_agent_commits_a_start(self, attempt):
        self.commit(attempt)

    def commit(self, attempt):
        process = f"{self.serial}:1:{boot_id()}"
        with self.tick().writing() as (_, db):
            started = db.changed("attempt_starts", **attempt.key._asdict(), now=self.now, process=process)
            if started:
                db.run("job_runs", **attempt.key._asdict())
        assert started == (attempt.phase == "waiting"), attempt
        if started:
            attempt.phase, attempt.process, attempt.started = "committed", process, self.now

    @rule(data=st.data())
    @with_one("waiting")
    def it_starts_without_ado(self, attempt):
        if attempt.local:
            self.commit(attempt)
            self.it_lives(attempt)
        elif not attempt.barred:
            attempt.started = self.now
            self.it_lives(attempt)

    @rule(data=st.data())
    @with_one("committed")
    def the_agent_opens_the_gate(self, attempt):
        self.it_lives(attempt)

    @rule(data=st.data())
    @with_one("committed")
    def the_agent_died_before_it_opened_the_gate(self, attempt):
        cancelled = not self.counts(attempt)
        with self.tick().writing() as (_, db):
            ends.fold(db, HOST, [{"not_started": True, "process": attempt.process.rpartition(":")[0]}])
        # If somebody asked for its end meanwhile, this is it: nothing else would ever end it.
        attempt.phase = "over" if cancelled else "waiting"

    @rule(data=st.data())
    @with_one("waiting", local=False)
    def a_node_starts_it(self, attempt):
        if not attempt.barred:
            attempt.started = self.now
            self.it_lives(attempt)

    def it_lives(self, attempt):
        attempt.phase, attempt.has_run = "alive", True
        others = [
            one for one in self.every if one.phase == "alive" and one.key.job_index == attempt.key.job_index
        ]
        assert others == [attempt], "two attempts of a job run at once"

    @rule(data=st.data(), code=st.sampled_from([0, 3]))
    @with_one("alive")
    def its_process_ends(self, attempt, code):
        attempt.phase, attempt.code = "dead", code

    @rule(data=st.data())
    @with_one("dead")
    def its_end_is_folded(self, attempt):
        self.fold_end(attempt)

    @rule(data=st.data())
    @with_one("over", "waiting")
    def its_end_is_folded_once_more(self, attempt):
        if attempt.has_run or attempt.barred:
            self.fold_end(attempt)

    def fold_end(self, attempt):
        before = self.rows()[attempt.key.job_index]
        with self.tick().writing() as (_, db):
            on_exit = bool(db.row("job_and_reason", **attempt.key._asdict())["complete_on_exit"])
            if attempt.has_run:
                ends.fold(db, HOST, [self.line(attempt)])
            else:
                end_attempt(db, attempt.key, Ended(None, self.now, None, None), "cancelled", complete=False)
        if attempt.phase == "over":
            assert self.rows()[attempt.key.job_index] == before, "an end was folded twice"
            return
        attempt.phase = "over"
        active = before[1] == attempt.key.n and before[0] in {"submit", "run"}
        if attempt.has_run and active and on_exit and attempt.code == 0:
            self.done.add(attempt.key.job_index)

    def line(self, attempt):
        """Return what the wrapper of an attempt wrote down at its end."""
        process = attempt.process or f"{attempt.key.n}:1:{boot_id()}"
        known = {"process": process.rpartition(":")[0], "key": list(attempt.key), "token": attempt.token}
        told = {"started": attempt.started, "ended": self.now, "code": attempt.code}
        return {**known, **told, "signal": None, "max_rss": None, "cpu": None}

    # -- what a job says

    @rule(data=st.data())
    @with_one("alive")
    def it_says_that_it_runs(self, attempt):
        self.say(attempt, lambda db: runtime.mark_run(db, attempt.key, self.now))

    @rule(data=st.data(), value=st.integers())
    @with_one("alive")
    def it_is_complete(self, attempt, value):
        job = Job({"BatchID": BATCH, "JobIndex": attempt.key.job_index, "x": value})
        where = attempt.key[:2]
        if self.say(attempt, lambda db: runtime.mark_complete(db, attempt.key, job, where, self.now)):
            self.done.add(attempt.key.job_index)
            self.x[attempt.key.job_index] = value

    def say(self, attempt, do):
        """Let a job write; it is refused if, and only if, it no longer counts. Its event files go in first."""
        counts = self.counts(attempt)
        try:
            folded = fold_events(self.tick(), key=attempt.key, also=do)
        except StaleJobError:
            assert not counts, attempt
            return False
        assert counts, attempt
        self.events_were_folded(folded)
        return True

    @rule(data=st.data(), kind=st.sampled_from(["run", "x", "complete"]), value=st.integers())
    @with_one("alive")
    def it_cannot_get_in_and_writes_an_event(self, attempt, kind, value):
        self.tick()
        if kind == "run":
            what = {"kind": "run", "at": self.now, "host": HOST}
        else:
            what = spool.describe(Job({"x": value}), kind="fields", at=self.now, host=HOST)
            if kind == "complete":
                what["columns"]["state"] = "complete"
        self.told[spool.spool(self.paths, attempt.key, what)] = (attempt, kind, value)

    @precondition(lambda self: spool.pending(self.paths))
    @rule()
    def the_next_writer_folds_all_events(self):
        self.events_were_folded(fold_events(self.tick()))

    @precondition(lambda self: spool.pending(self.paths))
    @rule()
    def who_folds_dies_before_it_removes_the_files(self):
        self.events_were_folded(fold_events(self.tick(), unlink=False))

    def events_were_folded(self, files):
        for path in files:
            attempt, kind, value = self.told.pop(path, (None, None, None))
            if attempt is not None and self.counts(attempt) and kind != "run":
                self.x[attempt.key.job_index] = value
                if kind == "complete":
                    self.done.add(attempt.key.job_index)

    # -- what never happens

    @invariant()
    def all_is_in_order(self):
        if not hasattr(self, "paths"):
            return
        with closing(sqlite3.connect(self.paths.index)) as connection:
            open_ones = connection.execute('SELECT "JobIndex", n FROM attempt WHERE ended IS NULL').fetchall()
            jobs = connection.execute(
                'SELECT "JobIndex", state, attempt, ending, failure, metadata FROM job'
            ).fetchall()
        # No job has two attempts that did not end; and the index and the world agree on which those are.
        assert len({index for index, _ in open_ones}) == len(open_ones), open_ones
        assert set(open_ones) == {one.key[1:] for one in self.every if one.phase != "over"}
        # What is done stays done, and nothing else is.
        assert {index for index, state, *_ in jobs if state in DONE} == self.done
        for index, state, n, ending, failure, _ in jobs:
            # No job waits for an end that nobody will report.
            assert ending is None or (index, ending) in open_ones, (index, state, ending)
            # What is shown as active has somebody who is at it, or is shown as missing.
            if state in {"submit", "run"} and failure is None:
                assert (index, n) in open_ones, (index, state, n)
        # Fields hold what was said last.
        kept = {index: json.loads(text).get("x") for index, *_, text in jobs}
        assert {index: x for index, x in kept.items() if x is not None} == self.x

    def let_everything_end(self):
        """Whatever happened: when all that runs has ended and all is folded, every job can be accounted for."""
        for attempt in self.every:
            if attempt.phase == "committed" or (attempt.phase == "waiting" and not attempt.barred):
                attempt.started, attempt.code = self.now, 1
                self.it_lives(attempt)
            if attempt.phase == "alive":
                attempt.phase = "dead"
            self.fold_end(attempt)
        self.events_were_folded(fold_events(self.tick()))
        for index, (state, _, ending, failure) in self.rows().items():
            assert ending is None, index
            assert state in {"init", "held", *DONE} or failure is not None, (index, state)
        # And what waits can go, once nothing is in its way.
        waiting = {index for index, (state, *_) in self.rows().items() if state == "init"}
        gone = set()
        while waiting - gone:
            store = self.tick()
            store.change(
                {BATCH: None}, {"state": "collected"}, {"state": ["init"]}, who=ME, now=self.now, why=""
            )
            keys = claim(store, f"t{self.serial}", now=self.now)
            assert keys, (waiting, gone)
            gone |= {key.job_index for key in keys}
        assert gone == waiting


class TestLife:
    def test_anything_may_happen_at_any_time_and_nothing_is_lost(self):
        run_state_machine_as_test(
            Life, settings=settings(max_examples=60, stateful_step_count=50, report_multiple_bugs=False)
        )
