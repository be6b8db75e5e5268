"""The agent: runs what waits in the index for this machine, and goes on with what comes next.

One process for each index, host and user. It holds a lock for its life, sleeps until it is woken or a job ends,
and in each turn makes one transaction: fold what ended, take what fits, commit; then it opens the gates of the
wrappers that were taken. It may die at any moment; the wrappers write down how their jobs end, and start the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from paraschut.agent import ear, ends, limits
from paraschut.agent.crew import Crew
from paraschut.agent.enforcing import Enforcer
from paraschut.agent.job import Kind, Running, Wrapper, spec_of
from paraschut.agent.limits import Capacity
from paraschut.agent.link import Link
from paraschut.errors import ParaschutError
from paraschut.paths import Paths, make_folder
from paraschut.process import boot_id, host_name, identity
from paraschut.store import bell, copies, spool
from paraschut.store.ending import end_attempt
from paraschut.store.runtime import Ended, Key, Statements

#: Seconds without work after which the agent leaves.
LINGER = 20.0
#: Seconds without work after which it tidies up, and lets go of the index.
REST = 1.0
#: Seconds between two looks when nobody wakes it: only a safety net.
SAFETY = 2.0
#: Seconds that a new agent waits for the one before it to let go of the lock.
TAKE_OVER = 10.0


class Agent:
    """The agent of one index on this machine.

    Parameters
    ----------
    index : str
        The path of the index.
    capacity : Capacity
        What its jobs may use.
    limits_given : list[int]
        The same as it was given, for the agent after this one, and whether a person said so.
    """

    def __init__(self, index: str, capacity: Capacity, limits_given: list[int]) -> None:
        self.paths = Paths(index)
        self.index = self.paths.index
        self.host = host_name()
        self.boot = boot_id()
        self.folder = self.paths.agent(self.host)
        self.capacity = capacity
        self._processors = os.cpu_count() or 1
        self.limits_given = limits_given
        self._link = Link(self.index, float(os.environ.get("PARASCHUT_LOCK_TIMEOUT", "60")))
        self.trusted = tuple(filter(None, os.environ.get("PARASCHUT_TRUSTED", "").split(":")))
        self.running: dict[str, Running] = {}
        self.crew = Crew(self.folder, lambda: [self.paths.agent_lock(self.host), *self._command()])
        self._done = False
        self._environments: dict[str, dict[str, str]] = {}
        self._enforcer = Enforcer(self._write_reason, float(os.environ.get("PARASCHUT_WARNING", "60")))
        self._next_look = 0.0
        self._next_pass = 0.0
        self._idle_since = time.monotonic()
        self._look = True
        self._pass_wanted = True
        #: When the pause of the next job that is tried again ends; None if none waits for that.
        self._begin: float | None = None
        self._ear = ear.Ear(self.index, self.crew.selector)
        self._lock = -1

    # -- life ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Work until there is nothing left to do."""
        make_folder(self.folder)
        lock = self._take_lock()
        if lock is None:
            return
        self._lock = lock
        self._be_nobodys_child()
        try:
            self.crew.start()
            self._ear.open()
            gone = self._link.read(lambda db: ends.dead(db, self.host))
            lines = self.crew.new_lines()
            with self._link.writing() as db:
                db.run("agent_state", **identity()._asdict(), state="running", now=time.time())
                self._adopt(db, gone, lines)
            while self._turn():
                self.crew.sleep(self._pause())
            self._done = True
        except Exception:
            with contextlib.suppress(OSError):
                self._complain()
            time.sleep(1)  # still holding the lock: whoever follows may find the same fault
            raise
        finally:
            self._ear.close()
            self.crew.dismiss(for_good=self._done)
            self._link.let_go()

    def _take_lock(self) -> int | None:
        lock = os.open(self.paths.agent_lock(self.host), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + TAKE_OVER
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Either another agent lives, and then it is enough to have woken it, or one is just leaving.
                if time.monotonic() > deadline or ear.call(self.index, self.limits_given):
                    os.close(lock)
                    return None
                time.sleep(0.02)
            else:
                return lock

    def _be_nobodys_child(self) -> None:
        os.chdir("/")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(os, "sched_setaffinity"):
            # It may have been started by a job that is kept on one processor.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, range(os.cpu_count() or 1))

    def _complain(self) -> None:
        with open(os.path.join(self.folder, "agent.log"), "a", encoding="utf-8") as log:
            log.write(
                f"{time.strftime('%Y-%m-%d %H:%M:%S')} agent {os.getpid()} ends:\n{traceback.format_exc()}\n"
            )

    # -- the index ----------------------------------------------------------------------------------------------

    def _adopt(self, db: Statements, gone: set[str], lines: list[dict[str, Any]]) -> None:
        """Take over what the last agent left: fold what it had not, and wait for what still runs."""
        self._fold_lines(db, lines)
        self._judge_dead(db, gone)
        for row in db.rows("running", host=self.host):
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            if row["process"] in self.running:  # its worker has taken several calls
                continue
            wrapper = Wrapper.adopted(row["process"])
            known_as = f"{row['token']}.{row['task']}"
            self.running[wrapper.process] = Running(
                key, known_as, json.loads(row["asked"]), wrapper, row["started"]
            )
            self.crew.watch(wrapper)

    def _fold_lines(self, db: Statements, lines: list[dict[str, Any]]) -> bool:
        for folded in ends.fold(db, self.host, lines):
            self._forget(f"{folded.process}:{self.boot}")
        return bool(lines)

    def _judge_dead(self, db: Statements, gone: set[str]) -> None:
        """Give up the wrappers that were killed; whatever they left behind must not go on unseen."""
        self._enforcer.orphans.extend(ends.fold_dead(db, self.host, self.folder, gone, time.time(), 0))
        for process in gone:
            if process in self.running:
                self._rescue_logs(self.running[process])
            self._forget(process)

    def _rescue_logs(self, running: Running) -> None:
        """Give the logs of a job their names whose wrapper was killed before it could."""
        name = running.wrapper.process.rpartition(":")[0]
        for number, key in ((1, "stdout"), (2, "stderr")):
            path = self.paths.log(*running.key, key)
            with contextlib.suppress(OSError):
                make_folder(os.path.dirname(path))
                os.rename(os.path.join(self.folder, f"log.{name}.{number}"), path)

    def _forget(self, process: str) -> None:
        running = self.running.pop(process, None)
        if running is None:
            return
        if running.killed_at is not None:
            # The job itself heeded the request to end; what it had started may not have.
            self._enforcer.orphans.append(running.cluster_id)
        self.crew.give_back(running.wrapper)

    # -- a turn -------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Do all there is to do now; return False when the agent may leave."""
        if not os.path.exists(self.index) or os.fstat(self._lock).st_nlink == 0:
            return False  # all was removed, and perhaps another index has taken its place
        self._drain()
        gone = {
            process
            for process, one in self.running.items()
            if one.wrapper.left and not ends.is_alive(process)
        }
        starts: list[tuple[Running, dict[str, Any]]] = []
        events = spool.load(spool.pending(self.paths))
        lines = self.crew.new_lines(surely=bool(gone))
        bad = bool(gone or events) or any(line.get("code") != 0 for line in lines)
        # Who cancels a job wakes us, so that not every end of a job has to ask.
        looks = self._look or bad or self._look_is_due()
        with self._link.writing() as db:
            # First what jobs could not write themselves: their end means something else after they said complete.
            spool.fold(db, self.index, events, self.trusted)
            ended = self._fold_lines(db, lines) or bool(events) or bool(gone)
            if gone:
                self._judge_dead(db, gone & self.running.keys())
            if looks:
                self._heed_cancelled(db)
            waiting = self._take_waiting(db, starts)
            if looks:
                self._await_begin(db)
        for running, spec in starts:
            running.wrapper.send(spec)
        if bad:
            bell.ring(self.index)  # who has a result has rung already
        spool.unlink(self.paths, events)
        self._enforcer.enforce(list(self.running.values()))
        # While enough waits here, a pass could only make the line longer.
        self._pass_wanted |= self._look or (ended and waiting < self.capacity.workers)
        self._look = False
        self._go_on(waiting)
        if self.running or waiting or self._begin is not None:
            self._idle_since = time.monotonic()
        if self.running or waiting:
            return True
        idle = time.monotonic() - self._idle_since
        if idle >= REST:
            self.crew.clear_ends()
            self._link.let_go()
        # A pass that was put off is one that nobody else will make.
        return idle < LINGER or self._pass_wanted or not self._may_leave()

    def _look_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_look and (self._begin is None or time.time() < self._begin):
            return False
        self._next_look = now + SAFETY
        return True

    def _await_begin(self, db: Statements) -> None:
        """Look when the next pause ends, and whether one has."""
        now = time.time()
        self._pass_wanted |= self._begin is not None and self._begin <= now
        (begin,) = db.run("next_begin", now=now, executor="local").fetchone()
        self._begin = copies.earliest(begin, db, now, executor="local")

    def _drain(self) -> None:
        for told in self._ear.heard():
            self._look = True
            with contextlib.suppress(TypeError, IndexError):
                # What a person asked for is not undone by passes that go on by themselves.
                if told[3] or not self.limits_given[3]:
                    self.limits_given = told
                    self.capacity = limits.capacity_of(*told[:3])

    def _heed_cancelled(self, db: Statements) -> None:
        for row in db.rows("cancelled", host=self.host):
            # By its process: a worker may be at another job than the one that it was told.
            running = self.running.get(row["process"])
            if running is None or running.killed_at is not None:
                continue
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            running.doomed |= ends.is_at(db, self.folder, row["process"], key)

    def _take_waiting(self, db: Statements, starts: list[tuple[Running, dict[str, Any]]]) -> int:
        """Commit the next jobs to wrappers; return how many wait on (as many as there are workers, at most)."""
        slots = self.capacity.workers - len(self.running)
        if slots <= 0:
            return self.capacity.workers
        rows = db.rows("waiting", host=self.host, most=slots + self.capacity.workers)
        asked = [json.loads(row["asked"]) for row in rows[:slots]]
        count = limits.fitting(asked, (running.asked for running in self.running.values()), self.capacity)
        now = time.time()
        for row, needs in zip(rows[:count], asked, strict=False):
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            wrapper = self.crew.take(self._kind(db, row))
            running = Running(key, f"{row['cluster_id']}.{row['task']}", needs, wrapper, now)
            try:
                spec = self._spec(db, row, running)
            except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
                # One job that nobody can start, by whatever was done to its fields, must not stop the others.
                self.crew.give_back(wrapper)
                end_attempt(
                    db, key, Ended(None, now, None, None), f"could not be started: {error}", complete=False
                )
                self._look = True
                continue
            if not db.changed("attempt_starts", **key._asdict(), now=now, process=wrapper.process):
                self.crew.give_back(wrapper)
                continue
            db.run("job_runs", **key._asdict())
            starts.append((running, spec))
            self.running[wrapper.process] = running
        return len(rows) - count

    def _kind(self, db: Statements, row: dict[str, Any]) -> Kind | None:
        try:
            if row["warm"] is None:
                return None
            return Kind.of(row, self._environment(db, row["environment"]), self.index)
        except (
            TypeError,
            ValueError,
            KeyError,
        ):  # what is wrong with it is said when it is told to a wrapper
            return None

    def _environment(self, db: Statements, digest: str) -> dict[str, str]:
        if digest not in self._environments:
            (text,) = db.run("environment", digest=digest).fetchone()
            self._environments[digest] = json.loads(text)
        return self._environments[digest]

    def _spec(self, db: Statements, row: dict[str, Any], running: Running) -> dict[str, Any]:
        return {
            **spec_of(row, running, self._environment(db, row["environment"]), self.paths),
            # Where jobs may use more processors than there are, none is kept on its own.
            "cpus": running.asked.get("cpus", 1) if self.capacity.cpus <= self._processors else 0,
            "processors": os.path.dirname(os.path.dirname(self._ear.path)) if self._ear.path else None,
            "ends": self.crew.ends_file(),
            "lock": self.paths.agent_lock(self.host),
            "agent": self._command(),
        }

    def _command(self) -> list[str]:
        """Return what starts the agent after this one."""
        return [sys.executable, "-P", "-m", "paraschut.agent", self.index, json.dumps(self.limits_given)]

    def _write_reason(self, key: Key, reason: str) -> None:
        with self._link.writing() as db:
            db.run("attempt_reason", **key._asdict(), reason=reason)

    # -- what comes next ----------------------------------------------------------------------------------------

    def _go_on(self, waiting: int) -> None:
        """Make a pass if one is worth it, as a closer does."""
        before = time.monotonic()
        if not self._pass_wanted or before < self._next_pass:
            return
        self._pass_wanted = False
        from paraschut.agent.passes import pass_is_due

        usual = int(os.environ.get("PARASCHUT_MAX_JOBS", "1000"))
        due = self._link.read(lambda db: pass_is_due(db, usual, time.time(), idle=not waiting))
        made = 0
        if due:
            from paraschut.dispatch import go_on

            before = time.monotonic()  # what is imported once says nothing about the next pass
            try:
                made = go_on(self.index).count
            except ParaschutError:
                self._complain()
            # What a pass leaves alone is no reason for the next one.
            self._look = made > 0
        # On an index with thousands of open batches a look costs milliseconds: not after every job.
        self._next_pass = time.monotonic() + (0 if made else 10 * (time.monotonic() - before))

    def _may_leave(self) -> bool:
        """Say goodbye, unless somebody submits at this very moment.

        First the ear is closed: who finds it gone starts the next agent, which waits for the lock. Who was still
        heard has claimed before, and what it claimed is seen here.
        """
        self._ear.close()
        with self._link.writing() as db:
            self._await_begin(db)
            if self._begin is None and db.row("any_waiting", host=self.host) is None:
                db.run("agent_state", **identity()._asdict(), state="leaving", now=time.time())
                return True
        self._ear.open()
        return False

    def _pause(self) -> float:
        if self._look:
            return 0.0
        now = time.time()
        pause = SAFETY if self.running or not self._link.is_held else REST
        if self._begin is not None:
            pause = min(pause, self._begin - now)
        if self._pass_wanted:
            pause = min(pause, self._next_pass - time.monotonic())
        for running in self.running.values():
            if running.wrapper.hung_up:
                pause = 0.02
            due = self._enforcer.pause(running, now)
            if due is not None:
                pause = min(pause, due)
        return max(0.01, pause)
