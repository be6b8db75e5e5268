"""The process that makes the calls of one batch, one after the other: what a zygote forks for warm function jobs."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from paraschut.agent import launcher
from paraschut.agent.series import Claim, Series
from paraschut.agent.zygote import MANY_CALLS, SHORT, Modules, take_place
from paraschut.command import job_variables
from paraschut.errors import NotFoundError, ParaschutError, StaleJobError, StoreError
from paraschut.process import host_name
from paraschut.store import bell, calls
from paraschut.store.calls import Outcome, Payload
from paraschut.store.runtime import Ended, Key, Statements, check_current

if TYPE_CHECKING:
    from paraschut.desk import Desk

#: Seconds after which the results of short calls are written at the latest; a single one is written at once.
DELAY = 0.02
#: Calls that are taken at once at most.
MOST = 128
#: Bytes of a result that may wait for the next one.
SMALL = 4096


def work(channel: socket.socket, series: Series, modules: Modules) -> None:
    """Make calls until there are none to come."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    at_work = AtWork(channel, series, modules)
    while True:
        header, logs, _, _ = socket.recv_fds(channel, launcher.HEADER, 2)
        if not header:
            return
        spec = _read(channel, int(header, 16))
        if spec is None:
            return
        if at_work.modules.edited():
            _answer(channel, {"again": True})
            return
        take_place(spec, logs, at_work.environ)
        at_work.environ = spec["env"]
        for descriptor in logs:
            os.close(descriptor)
        answer = at_work.series(spec)
        # The zygote keeps empty logs for the next job, if nobody else has them open.
        os.dup2(null, 1)
        os.dup2(null, 2)
        bye = at_work.made >= MANY_CALLS
        _answer(channel, {**answer, "bye": bye})


def _read(channel: socket.socket, size: int) -> dict[str, Any] | None:
    data = b""
    while len(data) < size:
        more = channel.recv(size - len(data))
        if not more:
            return None
        data += more
    spec: dict[str, Any] = json.loads(data)
    return spec


def _answer(channel: socket.socket, what: dict[str, Any]) -> None:
    data = json.dumps(what).encode()
    with contextlib.suppress(OSError):
        channel.sendall(b"%08x" % len(data) + data)


class _Call(NamedTuple):
    """A call that has ended."""

    key: Key
    token: str
    outcome: Outcome
    ended: Ended


class AtWork:
    """What a worker keeps from one call to the next."""

    def __init__(self, channel: socket.socket, series: Series, modules: Modules) -> None:
        self.channel = channel
        self.claims = series
        self.modules = modules
        self.environ: dict[str, str] = {}
        self.made = 0
        self._functions: dict[int, tuple[str, Any]] = {}
        self._shared: dict[int, Payload] = {}
        self._mine: dict[str, str] = {}

    def series(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Make a call, and those that follow it; return how the last one ended."""
        from paraschut.desk import my_desk

        self._mine = {}
        self._shared = {}
        self.claims.follow()
        return _Series(self, spec, my_desk()).run()

    def call(self, desk: Desk, key: Key, payloads: list[Payload], small: int) -> Outcome:
        """Make a call."""
        from paraschut import _run

        outcome = _run.call(desk, key, payloads, self._functions, self.modules.note, small)
        self.modules.note()
        return outcome

    def payloads(self, db: Statements, key: Key) -> list[Payload]:
        """Read what a job is to call."""
        payloads = calls.read_payloads(db, key.batch_id, key.job_index, self._shared)
        self._shared = {payload.number: payload for payload in payloads if payload.number < 0}
        return payloads

    def may_go_on(self, spec: dict[str, Any], ended: Ended) -> bool:
        """Return whether this worker may make a next call by itself."""
        return not (
            not spec["function"]["series"]
            or self.made >= MANY_CALLS
            or ended.ended - (ended.started or 0) > SHORT
            or os.fstat(1).st_size
            or os.fstat(2).st_size
            or select.select([self.channel], [], [], 0)[0]  # the zygote is gone
            or self.modules.edited()
        )

    def become(self, spec: dict[str, Any], index: str, claim: Claim) -> None:
        """Be another job from now on."""
        mine = job_variables(index, *claim.key, claim.token, claim.task, f"{claim.token}.{claim.task}")
        os.environ.update(mine.items() - self._mine.items())
        self._mine = mine
        self.environ = {}
        os.chdir(spec["workdir"])


class _Series:
    """The calls that a worker makes before it answers: one that it was told, and those that it takes by itself."""

    def __init__(self, worker: AtWork, spec: dict[str, Any], desk: Desk) -> None:
        self.worker = worker
        self.file = worker.claims
        self.spec = spec
        self.desk = desk
        first = Claim(tuple(spec["key"]), spec["token"], -1, 0.0)
        self.left: deque[tuple[Claim, list[Payload] | None]] = deque([(first, None)])
        #: Calls that have ended, and are not in the index yet; how many since calls were taken are in the file.
        self.done: list[_Call] = []
        self.recorded = 0
        #: Calls that were taken at once, the last time, and since when nothing was written.
        self.taken = 1
        self.since = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Make calls as long as there are some; return how the last one ended."""
        now = time.time()
        ended = Ended(now, now, 3, None)
        try:
            small = self.desk.small()
            going = True
            while going and self.left and self.file.starts():
                ended = self._make(*self.left.popleft(), small)
                if not self.worker.may_go_on(self.spec, ended):
                    break
                if self._may_wait():
                    self._record()
                    self.file.ended()
                else:
                    self.file.ended()
                    going = self._write(self._step)
            else:
                self._write(lambda db: self._finish(db, self.done))
                return _answer_of(ended)
            self.file.ended()
            self._write(self._leave)
        except (NotFoundError, ParaschutError) as error:
            _say(error)
            return _answer_of(ended._replace(code=3))
        return _answer_of(ended)

    def _make(self, claim: Claim, payloads: list[Payload] | None, small: int) -> Ended:
        worker = self.worker
        key = Key(*claim.key)
        if claim.task >= 0:
            worker.become(self.spec, self.desk.index, claim)
        worker.made += 1
        started, used = time.time(), resource.getrusage(resource.RUSAGE_SELF)
        if payloads is None:
            # The agent has written down that it runs.
            payloads = self.desk.read(lambda db: _begin(db, key))
        outcome = worker.call(self.desk, key, payloads, small)
        ended = _used(started, used, 0 if outcome.kind == "value" else 1)
        self.done.append(_Call(key, claim.token, outcome, ended))
        return ended

    def _may_wait(self) -> bool:
        """Return whether what came of a call may go into the index with that of the next one."""
        is_small = len(self.done[-1].outcome.data or b"") <= SMALL
        return bool(self.left) and is_small and time.monotonic() - self.since < DELAY

    def _record(self) -> None:
        """Write what came of calls into the file; however long the disk is full, nobody would know else."""
        waiting = self.done[self.recorded :]
        while waiting:
            try:
                self.file.record(_told(waiting[0]))
            except OSError:
                time.sleep(0.5)
            else:
                waiting.pop(0)
                self.recorded += 1

    # -- in one transaction ----------------------------------------------------------------------------------------

    def _write(self, step: Callable[[Statements], tuple[bool, list[Any], int]]) -> bool:
        """Write down what came of calls, and take the next ones if there are none; return whether to go on."""
        if not self.done and not self.left:
            return False
        try:
            good, claims, proposed = self.desk.write(step, self.done[-1].key if self.done else None)
        except NotFoundError:
            raise
        except StoreError:  # what cannot be written now is told by the zygote
            self._record()
            return False
        if self.done:
            bell.ring(self.desk.index, self.done[-1].key.batch_id)
        if claims:
            self.file.adopt(proposed, len(claims))
            self.left.extend(claims)
            self.taken = len(claims)
        else:
            self.file.settled()
        self.done.clear()
        self.recorded = 0
        self.since = time.monotonic()
        return good

    def _step(self, db: Statements) -> tuple[bool, list[Any], int]:
        """Write down what came of calls, and take the next ones."""
        good, _, _ = self._finish(db, self.done, leave=False)
        # Whoever asked for an end may be about to see to it: that must not hit the next one.
        claims = self._take(db) if good and not self.left else []
        # Before this is committed: if we die now, the zygote must find these and those before.
        return good, claims, self.file.propose([claim for claim, _ in claims]) if claims else 0

    def _leave(self, db: Statements) -> tuple[bool, list[Any], int]:
        """Write down what came of calls; that the last one ended is told by the zygote."""
        last = self.done[-1]
        told = self._finish(db, self.done[:-1])
        try:
            calls.finish(db, last.key, last.outcome, last.ended.ended)
        except StaleJobError as error:
            _say(error)
        return told

    def _finish(
        self, db: Statements, done: list[_Call], *, leave: bool = True
    ) -> tuple[bool, list[Any], int]:
        """Write down what came of calls; on leaving, give back those that have not begun."""
        good = True
        for one in done:
            good &= calls.settle(db, one.key, one.outcome, one.ended)
        if leave:
            self.file.stop()
            for claim, _ in self.left:
                calls.give_back(db, Key(*claim.key), self.spec["function"]["process"], claim.started)
        return good, [], 0

    def _take(self, db: Statements) -> list[tuple[Claim, list[Payload]]]:
        """Take the calls that wait next, as many as are made within a moment, if they are like those before."""
        each = (time.monotonic() - self.since) / len(self.done)
        most = min(MOST, 2 * self.taken, int(DELAY / each), MANY_CALLS - self.worker.made)
        now = time.time()
        about = self.spec["function"]
        alike = (self.spec["key"][0], about["environment"], about["asked"], 1)
        found = []
        for row in db.rows("waiting", host=host_name(), most=max(most, 1)):
            key = Key(row["BatchID"], row["JobIndex"], row["n"])
            if (row["BatchID"], row["environment"], row["asked"], row["warm"]) != alike:
                break
            if not db.changed("attempt_starts", **key._asdict(), now=now, process=about["process"]):
                break
            db.run("job_runs", **key._asdict())
            found.append((Claim((*key,), row["token"], row["task"], now), self.worker.payloads(db, key)))
        return found


def _say(error: Exception) -> None:
    sys.stderr.write(f"paraschut: {error}\n")
    sys.stderr.flush()


def _told(call: _Call) -> dict[str, Any]:
    """Return what is told of a call that has ended, should it be told by somebody else."""
    return {
        "key": list(call.key),
        "token": call.token,
        "outcome": calls.as_json(call.outcome),
        "ended": list(call.ended),
    }


def _begin(db: Statements, key: Key) -> list[Payload]:
    # The agent, or whoever took this job, has written down that it runs.
    check_current(db, key)
    return calls.read_payloads(db, key.batch_id, key.job_index)


def _used(started: float, before: resource.struct_rusage, code: int) -> Ended:
    now = resource.getrusage(resource.RUSAGE_SELF)
    rss = now.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    return Ended(started, time.time(), code, None, rss, cpu)


def _answer_of(ended: Ended) -> dict[str, Any]:
    return {"code": ended.code, "signal": None, "max_rss": ended.max_rss, "cpu": ended.cpu}
