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
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import deque
from typing import Any

from paraschut.agent import ends, limits
from paraschut.agent.job import Running, Wrapper, spec_of
from paraschut.agent.limits import Capacity
from paraschut.errors import ParaschutError
from paraschut.paths import Paths
from paraschut.process import boot_id, host_name, identity
from paraschut.store import engine
from paraschut.store.runtime import Key, Statements, read_statements

#: Seconds without work after which the agent leaves.
LINGER = 20.0
#: Seconds between two looks when nobody wakes it: only a safety net.
SAFETY = 2.0
#: Seconds between two looks at the memory of jobs that have a limit.
MEMORY_PERIOD = 0.5
#: Seconds between the request to end and the end by force.
KILL_GRACE = 3.0
#: Seconds that a new agent waits for the one before it to let go of the lock.
TAKE_OVER = 10.0
#: Bytes after which a new file of ends is begun.
ENDS_SIZE = 1 << 20


class Agent:
    """The agent of one index on this machine.

    Parameters
    ----------
    index : str
        The path of the index.
    capacity : Capacity
        What its jobs may use.
    limits_given : list[int]
        The same as it was given, for the agent after this one.
    """

    def __init__(self, index: str, capacity: Capacity, limits_given: list[int]) -> None:
        self.paths = Paths(index)
        self.index = self.paths.index
        self.host = host_name()
        self.boot = boot_id()
        self.folder = self.paths.agent(self.host)
        self.capacity = capacity
        self.limits_given = limits_given
        self.lock_timeout = float(os.environ.get("PARASCHUT_LOCK_TIMEOUT", "60"))
        self.running: dict[str, Running] = {}
        self.ready: deque[Wrapper] = deque()
        self.ends: dict[str, int] = {}
        self.selector = selectors.DefaultSelector()
        self._connection: sqlite3.Connection | None = None
        self._line = engine.Line(self.index, self.lock_timeout)
        self._texts = read_statements()
        self._environments: dict[str, dict[str, str]] = {}
        self._next_memory = 0.0
        self._next_pass = 0.0
        self._idle_since = time.monotonic()
        self._look = True
        self._pass_wanted = True
        self._ends: str | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Work until there is nothing left to do."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        lock = self._take_lock()
        if lock is None:
            return
        self._be_nobodys_child()
        try:
            self._open_ears()
            with self._writing() as db:
                me = identity()
                db.run("agent_state", **me._asdict(), state="running", now=time.time())
                self._adopt(db)
            self._start_launcher()
            while self._turn():
                self._sleep()
        except Exception:
            self._complain()
            raise
        finally:
            self._close_ears()

    def _take_lock(self) -> int | None:
        lock = os.open(self.paths.agent_lock(self.host), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + TAKE_OVER
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Either another agent lives, and then it is enough to have woken it, or one is just leaving.
                if time.monotonic() > deadline or self._another_lives():
                    os.close(lock)
                    return None
                time.sleep(0.02)
            else:
                return lock

    def _another_lives(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
            wake.setblocking(False)
            folder = engine.local_folder(self.index)
            try:
                wake.sendto(json.dumps(self.limits_given).encode(), f"{folder}/wake")
            except BlockingIOError:
                return True
            except OSError:
                return False
            return True

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

    def _open_ears(self) -> None:
        self.wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wake.setblocking(False)
        folder = engine.local_folder(self.index)
        if folder is not None:
            path = folder + "/wake"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.wake.bind(path)
            os.chmod(path, 0o600)
            self._ear: str | None = path
        else:
            self._ear = None
        self.selector.register(self.wake, selectors.EVENT_READ, None)

    def _close_ears(self) -> None:
        if getattr(self, "_ear", None):
            with contextlib.suppress(OSError):
                os.unlink(str(self._ear))
        for wrapper in self.ready:
            wrapper.dismiss()
        if self._connection is not None:
            self._connection.close()

    def _start_launcher(self) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
        self._launcher_process = subprocess.Popen(
            [sys.executable, "-I", "-S", program],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        theirs.close()
        self.launcher = mine

    # -- the index ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Any:
        if self._connection is None:
            self._connection = engine.connect(self.index, self.lock_timeout)
        with self._line.writing(self._connection):
            yield Statements(self._connection, self._texts)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _adopt(self, db: Statements) -> None:
        """Take over what the last agent left: fold what it had not, and wait for what still runs."""
        for path in ends.files(self.folder):
            self.ends[path] = 0
        gone = ends.dead(db, self.host)
        self._fold_lines(db)
        self._judge_dead(db, gone)
        for row in db.rows("running", host=self.host):
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            wrapper = Wrapper.adopted(row["process"])
            running = Running(
                key, f"{row['token']}.{row['task']}", json.loads(row["asked"]), wrapper, row["started"]
            )
            self.running[wrapper.process] = running
            self._watch(wrapper)

    def _watch(self, wrapper: Wrapper) -> None:
        if wrapper.handle is not None:
            self.selector.register(wrapper.handle, selectors.EVENT_READ, wrapper)

    def _fold_lines(self, db: Statements) -> bool:
        some = False
        for path in list(self.ends):
            lines, self.ends[path] = ends.read(path, self.ends[path])
            for folded in ends.fold(db, self.host, lines):
                some = True
                self._forget(f"{folded.process}:{self.boot}")
        return some

    def _judge_dead(self, db: Statements, gone: set[str]) -> None:
        """Give up the wrappers that were killed; whatever they left behind must not go on unseen."""
        for cluster_id in ends.fold_dead(db, self.host, gone, time.time(), 0):
            limits.send(limits.tree(cluster_id), signal.SIGKILL)
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
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                os.rename(os.path.join(self.folder, f"log.{name}.{number}"), path)

    def _forget(self, process: str) -> None:
        """Let go of a job that has ended; its wrapper takes the next one, if it is ours."""
        running = self.running.pop(process, None)
        if running is None:
            return
        wrapper = running.wrapper
        if wrapper.left or not isinstance(wrapper.handle, socket.socket):
            self._dismiss(wrapper)
        else:
            self.ready.append(wrapper)

    def _dismiss(self, wrapper: Wrapper) -> None:
        if wrapper.handle is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(wrapper.handle)
        wrapper.close()

    # -- a turn -------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Do all there is to do now; return False when the agent may leave."""
        if not os.path.exists(self.index):
            return False
        self._drain()
        gone = {
            process
            for process, one in self.running.items()
            if one.wrapper.left and not ends.is_alive(process)
        }
        starts: list[tuple[Running, dict[str, Any]]] = []
        with self._writing() as db:
            ended = self._fold_lines(db)
            if gone:
                self._judge_dead(db, gone & self.running.keys())
            self._heed_cancelled(db)
            waiting = self._take_waiting(db, starts)
        self._open_gates(starts)
        self._enforce()
        # While enough waits here, a pass could only make the line longer.
        self._pass_wanted |= self._look or (ended and waiting < self.capacity.workers)
        self._look = False
        self._go_on(waiting)
        if self.running or waiting:
            self._idle_since = time.monotonic()
            return True
        self._clear_ends()
        self._let_go()
        return time.monotonic() - self._idle_since < LINGER or not self._may_leave()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self.wake.recv(4096)
                self._look = True
                with contextlib.suppress(ValueError, TypeError):
                    self.limits_given = json.loads(message)
                    self.capacity = limits.capacity_of(*self.limits_given)

    def _heed_cancelled(self, db: Statements) -> None:
        asked = {
            Key(row["BatchID"], row["JobIndex"], row["n"]) for row in db.rows("cancelled", host=self.host)
        }
        for running in self.running.values():
            if running.key in asked and running.killed_at is None:
                running.doomed = True

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
            wrapper = self._wrapper()
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            if not db.changed("attempt_starts", **key._asdict(), now=now, process=wrapper.process):
                self.ready.appendleft(wrapper)
                continue
            db.run("job_runs", **key._asdict())
            running = Running(key, f"{row['cluster_id']}.{row['task']}", needs, wrapper, now)
            taken = [cpu for one in self.running.values() for cpu in one.pinned]
            running.pinned = limits.pinned(needs.get("cpus", 1), taken, self.capacity)
            starts.append((running, self._spec(db, row, running)))
            self.running[wrapper.process] = running
        return len(rows) - count

    def _spec(self, db: Statements, row: dict[str, Any], running: Running) -> dict[str, Any]:
        digest = row["environment"]
        if digest not in self._environments:
            (text,) = db.run("environment", digest=digest).fetchone()
            self._environments[digest] = json.loads(text)
        return {
            **spec_of(row, running, self._environments[digest], self.paths),
            "ends": self._ends_file(),
            "lock": self.paths.agent_lock(self.host),
            "agent": [sys.executable, "-m", "paraschut.agent", self.index, json.dumps(self.limits_given)],
        }

    @staticmethod
    def _open_gates(starts: list[tuple[Running, dict[str, Any]]]) -> None:
        for running, spec in starts:
            running.wrapper.send(spec)

    def _wrapper(self) -> Wrapper:
        while self.ready:
            wrapper = self.ready.popleft()
            if not wrapper.left:
                return wrapper
        try:
            wrapper = Wrapper.forked(self.launcher, self._ends_file())
        except OSError:
            self._start_launcher()
            wrapper = Wrapper.forked(self.launcher, self._ends_file())
        self._watch(wrapper)
        return wrapper

    def _ends_file(self) -> str:
        """Return the file for the ends of the jobs that start now."""
        if self._ends is None or self.ends[self._ends] > ENDS_SIZE:
            self._ends = os.path.join(self.folder, f"ends.{time.time_ns()}.{os.getpid()}")
            self.ends[self._ends] = 0
        return self._ends

    # -- limits -------------------------------------------------------------------------------------------------

    def _enforce(self) -> None:
        now = time.time()
        for running in self.running.values():
            walltime = running.asked.get("walltime")
            if running.reason is None and walltime and now > running.started + walltime:
                running.reason = "time limit"
        if time.monotonic() >= self._next_memory:
            self._next_memory = time.monotonic() + MEMORY_PERIOD
            for running in self.running.values():
                limit = running.asked.get("mem")
                if running.reason is None and limit and self._memory(running) > limit:
                    running.reason = "out of memory"
        for running in list(self.running.values()):
            if running.reason is not None or running.doomed:
                self._end(running, now)

    @staticmethod
    def _memory(running: Running) -> int:
        return limits.memory_of(limits.tree(running.cluster_id, running.wrapper.pid), running.asked["mem"])

    def _end(self, running: Running, now: float) -> None:
        if running.killed_at is None:
            if running.reason is not None:
                with self._writing() as db:
                    db.run("attempt_reason", **running.key._asdict(), reason=running.reason)
            running.killed_at = now
            limits.send(self._tree(running), signal.SIGTERM)
        elif now > running.killed_at + KILL_GRACE:
            running.killed_at = now
            limits.send(self._tree(running), signal.SIGKILL)

    @staticmethod
    def _tree(running: Running) -> list[Any]:
        return limits.tree(running.cluster_id, running.wrapper.pid)

    # -- what comes next ----------------------------------------------------------------------------------------

    def _go_on(self, waiting: int) -> None:
        """Make a pass if one is worth it, as a closer does."""
        before = time.monotonic()
        if not self._pass_wanted or before < self._next_pass:
            return
        self._pass_wanted = False
        from paraschut.agent.passes import pass_is_due

        with self._writing() as db:
            due = pass_is_due(db, int(os.environ.get("PARASCHUT_MAX_JOBS", "1000")), idle=not waiting)
        if due:
            from paraschut.dispatch import go_on

            try:
                go_on(self.index)
            except ParaschutError:
                self._complain()
            self._look = True
        # On an index with thousands of open batches a look costs milliseconds: not after every job.
        self._next_pass = time.monotonic() + (0 if due else 10 * (time.monotonic() - before))

    def _clear_ends(self) -> None:
        """Remove the files of ends: nothing runs, and all that they say is in the index."""
        for path in self.ends:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.ends.clear()
        self._ends = None

    def _may_leave(self) -> bool:
        with self._writing() as db:
            if db.row("any_waiting", host=self.host) is not None:
                return False
            db.run("agent_state", **identity()._asdict(), state="leaving", now=time.time())
        return True

    def _sleep(self) -> None:
        for chosen, _ in self.selector.select(self._pause()):
            wrapper = chosen.data
            if wrapper is None:
                continue
            wrapper.listen()
            if wrapper.hung_up:
                self.selector.unregister(chosen.fileobj)

    def _pause(self) -> float:
        if self._look:
            return 0.0
        now = time.time()
        pause = SAFETY
        if self._pass_wanted:
            pause = min(pause, self._next_pass - time.monotonic())
        for running in self.running.values():
            if running.wrapper.hung_up:
                pause = 0.02
            if running.killed_at is not None:
                pause = min(pause, running.killed_at + KILL_GRACE - now)
            elif running.asked.get("walltime"):
                pause = min(pause, running.started + running.asked["walltime"] - now)
            if running.asked.get("mem"):
                pause = min(pause, MEMORY_PERIOD)
        return max(0.01, pause)
