"""The life of jobs as a game: anything may happen at any time, and some things never do.

The index is a real one; what runs, and what an executor would do, is played here. Time is a number that grows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from stories import BATCH, jobs_of
from verbs import HOST, ME, add, ask, claim, fold_events

from paraschut.agent import ends
from paraschut.errors import StaleJobError
from paraschut.job import Job
from paraschut.paths import Paths
from paraschut.process import boot_id
from paraschut.reconcile import Found, judge
from paraschut.store import runtime, spool
from paraschut.store.runtime import Ended, end_attempt
from paraschut.store.store import Store

DONE = {"complete", "collected"}


class Attempt:
    """One attempt, as the world outside of the index knows it.

    It is *waiting*, *committed* (the agent wrote down that it starts, and no process was told yet), *alive*,
    *dead* (and nobody wrote that down yet), or *over*.
    """

    def __init__(self, key, token, local):
        self.key, self.token, self.local = key, token, local
        self.phase = "waiting"
        # Whether the right to start was taken away from it.
        self.barred = False
        self.process = None
        self.code = 0
        self.started = 0.0

    def __repr__(self):
        return f"<{self.key.job_index}.{self.key.n} {'local' if self.local else 'file'} {self.phase}>"


class Life(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    @initialize(groups=st.lists(st.sampled_from([1, 2, 150]), min_size=1, max_size=3), on_exit=st.booleans())
    def begin(self, groups, on_exit):
        self.folder = tempfile.mkdtemp()
        # Two processes that both work with the index.
        self.stores = [Store(f"{self.folder}/index.db", create=True), Store(f"{self.folder}/index.db")]
        self.paths = Paths(self.stores[0].index)
        self.now, self.serial = 10.0, 0
        self.every = []
        #: Jobs that are done, until somebody asks for them again.
        self.done = set()
        self.x = {}
        self.told = {}
        add(
            self.stores[0],
            [job | {"priority": groups[job["JobIndex"]]} for job in self.fresh(len(groups), on_exit)],
        )

    def fresh(self, number, on_exit, start=0):
        return jobs_of(BATCH, number, start=start, complete_on_exit=on_exit)

    def teardown(self):
        if not hasattr(self, "folder"):
            return
        try:
            self.let_everything_end()
        finally:
            shutil.rmtree(self.folder)

    def tick(self):
        self.now += 1.0
        self.serial += 1
        return self.stores[self.serial % 2]

    def current(self, attempt):
        """Whether what an attempt says still counts."""
        ((n, cancelled),) = ask(
            self.paths.index,
            'SELECT j.attempt, a.cancelled FROM job j, attempt a WHERE j."JobIndex" = ? AND a."JobIndex" = ? AND a.n = ?',
            *(attempt.key.job_index, attempt.key.job_index, attempt.key.n),
        )
        return n == attempt.key.n and cancelled is None

    def rows(self):
        return {
            index: (state, n, ending, failure)
            for index, state, n, ending, failure in ask(
                self.paths.index, 'SELECT "JobIndex", state, attempt, ending, failure FROM job'
            )
        }

    # -- what people and passes do

    @rule(priority=st.sampled_from([1, 2, 150]), on_exit=st.booleans())
    def a_job_is_added(self, priority, on_exit):
        store = self.tick()
        (job,) = self.fresh(1, on_exit, start=len(self.rows()))
        if job["JobIndex"] < 5:
            add(store, [job | {"priority": priority}], new=False, now=self.now)

    @rule(target=attempts, local=st.booleans(), max_jobs=st.integers(1, 4))
    def a_pass_is_made(self, local, max_jobs):
        store = self.tick()
        token = f"t{self.serial}"
        keys = claim(store, token, host=HOST if local else None, now=self.now, max_jobs=max_jobs)
        for key in keys:
            # An attempt is only ever handed out when the one before it is over, as far as anybody can know.
            for former in self.every:
                if former.key.job_index == key.job_index:
                    assert former.phase == "over", (key, former)
                    assert former.key.n < key.n
        made = [Attempt(key, token, local) for key in keys]
        self.every.extend(made)
        return multiple(*made)

    @rule(attempt=attempts)
    def its_submitter_records_it(self, attempt):
        if not attempt.local:
            self.tick().record(attempt.token, "123", self.now)

    @rule(attempt=attempts)
    def its_submitter_died_and_it_is_released(self, attempt):
        mine = [one for one in self.every if one.token == attempt.token]
        if attempt.local or any(one.phase in {"alive", "dead"} for one in mine):
            return
        ((recorded, settled),) = ask(
            self.paths.index, "SELECT recorded, settled FROM submission WHERE token = ?", attempt.token
        )
        if recorded is None and settled is None:
            self.tick().release(attempt.token, "its submitter died", self.now)
            for one in mine:
                one.phase, one.barred = "over", True

    @rule(
        index=st.integers(0, 4),
        state=st.sampled_from(["init", "held", "complete", "collected"]),
        all_of_them=st.booleans(),
    )
    def somebody_sets_a_state(self, index, state, all_of_them):
        store = self.tick()
        before = self.rows()
        if index not in before:
            return
        unless = {} if all_of_them else {"state": list(DONE)}
        count, taken = store.change(
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
            assert any(
                one.key == (BATCH, running.job_index, running.n) and one.phase != "over" for one in self.every
            )

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

    @rule(attempt=attempts)
    def the_agent_commits_a_start(self, attempt):
        if not attempt.local:
            return
        process = f"{self.serial}:1:{boot_id()}"
        with self.tick().writing() as (_, db):
            started = db.changed("attempt_starts", **attempt.key._asdict(), now=self.now, process=process)
            if started:
                db.run("job_runs", **attempt.key._asdict())
        assert started == (attempt.phase == "waiting" and not attempt.barred), attempt
        if started:
            attempt.phase, attempt.process, attempt.started = "committed", process, self.now

    @rule(attempt=attempts)
    def the_agent_opens_the_gate(self, attempt):
        if attempt.phase == "committed":
            self.it_lives(attempt)

    @rule(attempt=attempts)
    def the_agent_died_before_it_opened_the_gate(self, attempt):
        if attempt.phase != "committed":
            return
        with self.tick().writing() as (_, db):
            ends.fold(db, HOST, [{"not_started": True, "process": attempt.process.rpartition(":")[0]}])
            ((cancelled,),) = db.connection.execute(
                'SELECT cancelled FROM attempt WHERE "JobIndex" = ? AND n = ?', attempt.key[1:]
            ).fetchall()
        attempt.phase = "waiting" if cancelled is None else "over"

    @rule(attempt=attempts)
    def a_node_starts_it(self, attempt):
        if not attempt.local and attempt.phase == "waiting" and not attempt.barred:
            attempt.started = self.now
            self.it_lives(attempt)

    def it_lives(self, attempt):
        attempt.phase = "alive"
        others = [
            one for one in self.every if one.phase == "alive" and one.key.job_index == attempt.key.job_index
        ]
        assert others == [attempt], "two attempts of a job run at once"

    @rule(attempt=attempts, code=st.sampled_from([0, 3]))
    def its_process_ends(self, attempt, code):
        if attempt.phase == "alive":
            attempt.phase, attempt.code = "dead", code

    @rule(attempt=consumes(attempts))
    def its_end_is_folded(self, attempt):
        self.fold_end(attempt)

    @rule(attempt=attempts)
    def its_end_is_folded_and_will_be_again(self, attempt):
        self.fold_end(attempt)

    def fold_end(self, attempt):
        if attempt.phase not in {"dead", "over"} and not (attempt.barred and attempt.phase == "waiting"):
            return
        never_ran = attempt.phase == "waiting"
        before = self.rows()[attempt.key.job_index]
        with self.tick().writing() as (_, db):
            if never_ran:
                end_attempt(db, attempt.key, Ended(None, self.now, None, None), "cancelled", complete=False)
            else:
                row = db.row("job_and_reason", **attempt.key._asdict())
                on_exit = bool(row["complete_on_exit"])
                ends.fold_end(db, attempt.key, Ended(attempt.started, self.now, attempt.code, None))
        if attempt.phase == "over":
            assert self.rows()[attempt.key.job_index] == before, "an end was folded twice"
            return
        attempt.phase = "over"
        current = before[1] == attempt.key.n and before[0] in {"submit", "run"}
        found = Found(attempt.started, self.now, attempt.code)
        if not never_ran and current and judge("run", found, 0, 0, complete_on_exit=on_exit).complete:
            self.done.add(attempt.key.job_index)

    # -- what a job says

    @rule(attempt=attempts)
    def it_says_that_it_runs(self, attempt):
        if attempt.phase == "alive":
            self.say(attempt, lambda db: runtime.mark_run(db, attempt.key, self.now))

    @rule(attempt=attempts, value=st.integers())
    def it_is_complete(self, attempt, value):
        if attempt.phase != "alive":
            return
        job = Job({"BatchID": BATCH, "JobIndex": attempt.key.job_index, "x": value})
        where = attempt.key[:2]
        if self.say(attempt, lambda db: runtime.mark_complete(db, attempt.key, job, where, self.now)):
            self.done.add(attempt.key.job_index)
            self.x[attempt.key.job_index] = value

    def say(self, attempt, do):
        """Let a job write; it is refused if, and only if, it no longer counts. Its event files go in first."""
        counts = self.current(attempt)
        try:
            folded = fold_events(self.tick(), key=attempt.key, also=do)
        except StaleJobError:
            assert not counts, attempt
            return False
        assert counts, attempt
        self.events_were_folded(folded)
        return True

    @rule(attempt=attempts, kind=st.sampled_from(["run", "x", "complete"]), value=st.integers())
    def it_cannot_get_in_and_writes_an_event(self, attempt, kind, value):
        if attempt.phase != "alive":
            return
        self.tick()
        if kind == "run":
            what = {"kind": "run", "at": self.now, "host": HOST}
        else:
            what = spool.describe(Job({"x": value}), kind="fields", at=self.now, host=HOST)
            if kind == "complete":
                what["columns"]["state"] = "complete"
        self.told[spool.spool(self.paths, attempt.key, what)] = (attempt, kind, value)

    @rule()
    def the_next_writer_folds_all_events(self):
        self.events_were_folded(fold_events(self.tick()))

    @rule()
    def who_folds_dies_before_it_removes_the_files(self):
        self.events_were_folded(fold_events(self.tick(), unlink=False))

    def events_were_folded(self, files):
        for path in files:
            attempt, kind, value = self.told.pop(path, (None, None, None))
            if attempt is not None and self.current(attempt) and kind != "run":
                self.x[attempt.key.job_index] = value
                if kind == "complete":
                    self.done.add(attempt.key.job_index)

    # -- what never happens

    @invariant()
    def no_job_has_two_attempts_that_did_not_end(self):
        if hasattr(self, "paths"):
            open_ones = ask(self.paths.index, 'SELECT "JobIndex", n FROM attempt WHERE ended IS NULL')
            assert all(count == 1 for count in Counter(index for index, _ in open_ones).values()), open_ones

    @invariant()
    def the_index_and_the_world_agree_on_what_is_over(self):
        if hasattr(self, "paths"):
            open_ones = set(ask(self.paths.index, 'SELECT "JobIndex", n FROM attempt WHERE ended IS NULL'))
            assert open_ones == {one.key[1:] for one in self.every if one.phase != "over"}

    @invariant()
    def what_is_done_stays_done(self):
        if hasattr(self, "paths"):
            states = {index: state for index, (state, *_) in self.rows().items()}
            assert {index for index, state in states.items() if state in DONE} == self.done

    @invariant()
    def no_job_waits_for_an_end_that_nobody_will_report(self):
        if not hasattr(self, "paths"):
            return
        open_ones = set(ask(self.paths.index, 'SELECT "JobIndex", n FROM attempt WHERE ended IS NULL'))
        for index, (state, n, ending, failure) in self.rows().items():
            assert ending is None or (index, ending) in open_ones, (index, state, ending)
            if state in {"submit", "run"} and failure is None:
                assert (index, n) in open_ones, (index, state, n)

    @invariant()
    def fields_hold_what_was_said_last(self):
        if hasattr(self, "paths"):
            import json

            kept = {
                index: json.loads(text).get("x")
                for index, text in ask(self.paths.index, 'SELECT "JobIndex", metadata FROM job')
            }
            assert {index: x for index, x in kept.items() if x is not None} == self.x

    def let_everything_end(self):
        """Whatever happened: when all that runs has ended and all is folded, every job can be accounted for."""
        for attempt in self.every:
            if attempt.phase == "committed":
                self.it_lives(attempt)
            if attempt.phase == "alive":
                attempt.phase = "dead"
            if attempt.phase == "waiting" and not attempt.barred:
                attempt.phase, attempt.started, attempt.code = "dead", self.now, 1
            self.fold_end(attempt)
        self.the_next_writer_folds_all_events()
        for index, (state, _, ending, failure) in self.rows().items():
            assert ending is None
            assert state in {"init", "held", *DONE} or failure is not None, (index, state)
        # And what waits can go.
        waiting = [index for index, (state, *_) in self.rows().items() if state == "init"]
        keys = []
        while taken := claim(self.tick(), f"t{self.serial}", now=self.now):
            keys.extend(key.job_index for key in taken)
            self.stores[0].change(
                {BATCH: None}, {"state": "collected"}, {"state": ["init"]}, who=ME, now=self.now, why=""
            )
        if not any(state == "held" for state, *_ in self.rows().values()):
            assert set(waiting) <= set(keys) | {
                index for index, (state, *_) in self.rows().items() if state in DONE
            }


class TestLife:
    def test_anything_may_happen_at_any_time_and_nothing_is_lost(self):
        from hypothesis.stateful import run_state_machine_as_test

        run_state_machine_as_test(Life, settings=settings(max_examples=40, stateful_step_count=40, report_multiple_bugs=False))
