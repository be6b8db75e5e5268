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
from typing import Any

from paraschut.agent import launcher
from paraschut.agent.zygote import MANY_CALLS, SHORT, Current, Modules, at, take_place
from paraschut.command import job_variables
from paraschut.errors import NotFoundError, ParaschutError, StaleJobError, StoreError
from paraschut.process import host_name
from paraschut.store import calls
from paraschut.store.calls import Outcome, Payload
from paraschut.store.runtime import Ended, Key, Statements, check_current


def work(channel: socket.socket, current: Current, modules: Modules) -> None:
    """Make calls until there are none to come."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    at_work = AtWork(channel, current, modules)
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
        at_work.rest()


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


class AtWork:
    """What a worker keeps from one call to the next."""

    def __init__(self, channel: socket.socket, current: Current, modules: Modules) -> None:
        self.channel = channel
        self.current = current
        self.modules = modules
        self.environ: dict[str, str] = {}
        self.made = 0
        self._functions: dict[int, tuple[str, Any]] = {}
        self._shared: dict[int, Payload] = {}
        self._mine: dict[str, str] = {}

    def series(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Make a call, and those that follow it; return how the last one ended."""
        from paraschut import _run
        from paraschut.runtime import _desk

        desk = _desk()
        key = Key(*spec["key"])
        self._mine = {}
        self._shared = {}
        payloads: list[Payload] | None = None
        while True:
            self.made += 1
            started, used = time.time(), resource.getrusage(resource.RUSAGE_SELF)
            try:
                if payloads is None:
                    payloads = desk.read(lambda db, key=key: _begin(db, key))  # type: ignore[misc]
                outcome = _run.call(desk, key, payloads, self._functions, self.modules.note)
                ended = _used(started, used, 0 if outcome.kind == "value" else 1)
                following = None
                if self._may_go_on(spec, ended):
                    try:
                        following = desk.write(
                            lambda db, key=key, outcome=outcome, ended=ended: self._step(  # type: ignore[misc]
                                db, spec, key, outcome, ended
                            ),
                            key,
                        )
                    except NotFoundError:
                        raise
                    except StoreError:
                        _run.finish(desk, key, outcome)
                else:
                    _run.finish(desk, key, outcome)
            except (StaleJobError, NotFoundError, ParaschutError) as error:
                sys.stderr.write(f"paraschut: {error}\n")
                sys.stderr.flush()
                return _answer_of(_used(started, used, 3))
            self.modules.note()
            if following is None:
                return _answer_of(ended)
            key, token, task, payloads = following
            self._become(spec, desk.index, key, token, task)

    def rest(self) -> None:
        """Let go of the index until there is something to do."""
        from paraschut.runtime import _desk

        _desk().close()

    def _may_go_on(self, spec: dict[str, Any], ended: Ended) -> bool:
        """Return whether this worker may take a next call by itself."""
        if (
            not spec["function"]["series"]
            or self.made >= MANY_CALLS
            or ended.ended - (ended.started or 0) > SHORT
            or os.fstat(1).st_size
            or os.fstat(2).st_size
            or select.select([self.channel], [], [], 0)[0]  # the zygote is gone
            or self.modules.edited()
        ):
            return False
        return self.current.moves()

    def _step(
        self, db: Statements, spec: dict[str, Any], key: Key, outcome: Outcome, ended: Ended
    ) -> tuple[Key, str, int, list[Payload]] | None:
        """Write down what came of a call and that it ended, and take the next if it is one of ours."""
        if not calls.finish_and_end(db, key, outcome, ended):
            # Whoever asked for an end may be about to see to it: that must not hit the next one.
            calls.finish(db, key, outcome, ended.ended)
            return None
        row = db.row("waiting", host=host_name(), most=1)
        about = spec["function"]
        if row is None or (row["BatchID"], row["environment"], row["asked"], row["warm"]) != (
            key.batch_id,
            about["environment"],
            about["asked"],
            1,
        ):
            return None
        found = Key(row["BatchID"], row["JobIndex"], row["n"])
        if not db.changed("attempt_starts", **found._asdict(), now=ended.ended, process=about["process"]):
            return None
        db.run("job_runs", **found._asdict())
        payloads = calls.read_payloads(db, found.batch_id, found.job_index, self._shared)
        self._shared = {payload.number: payload for payload in payloads if payload.number < 0}
        # Before this is committed: if we die now, the zygote must find whichever of the two we were at.
        self.current.write(at(list(found), row["token"], self._logs(spec, found), list(key)))
        return found, row["token"], row["task"], payloads

    @staticmethod
    def _logs(spec: dict[str, Any], key: Key) -> list[str]:
        folder = os.path.dirname(spec["logs"][0])
        return [os.path.join(folder, f"{key.job_index}.{key.n}.{suffix}") for suffix in ("out", "err")]

    def _become(self, spec: dict[str, Any], index: str, key: Key, token: str, task: int) -> None:
        """Be another job from now on."""
        mine = job_variables(index, *key, token, task, f"{token}.{task}")
        os.environ.update(mine.items() - self._mine.items())
        self._mine = mine
        self.environ = {}
        os.chdir(spec["workdir"])
        self.current.moved()


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
