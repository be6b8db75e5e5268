"""Runs function jobs: a wrapper that forks them instead of starting an interpreter for each.

The launcher turns into this program (exec), in the environment and with the interpreter of the jobs. It is told its
jobs as any wrapper is, and writes down how each ended. A job by itself gets a fresh fork; the calls of one batch
share a **worker**, which keeps what it has imported until a module is edited, it has made many calls, or dies. This
process has one thread, no connection and no module of the user's, so its forks are safe.

A worker whose calls are short and silent takes the next ones of its batch by itself, in the transaction that writes
the results: as long as they are the very next jobs that wait on this machine, ask for the same, and nobody asked for
anything to end. What it is at stands in a file that both share (``agent.series``), so that this process can name the
job if the worker dies, and hand over what it leaves behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import sysconfig
import time
from typing import Any, NoReturn

from paraschut.agent import launcher
from paraschut.agent.launcher import NAMELESS, Log
from paraschut.agent.series import Claim, Left, Series, path_of

#: Calls after which a worker gives way to a new one.
MANY_CALLS = 1000
#: Milliseconds that a call may take before what waits behind it is handed over.
PATIENCE = 25
#: Seconds that a call may take whose worker takes the next one by itself.
SHORT = 0.05


def main() -> None:
    """Serve the agent until it is gone or has nothing left."""
    agent = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ends = sys.argv[1]
    me = launcher.process()
    folder = os.path.dirname(ends)
    modules = _preload()
    zygote = Zygote(
        agent,
        modules,
        [Log(os.path.join(folder, f"log.{me}.{number}")) for number in (1, 2)],
        Series(path_of(folder, me), make=True),
    )
    while True:
        spec = launcher.receive(agent)
        if not spec:
            zygote.end()
            if spec is None:
                launcher.append(ends, {"process": me, "not_started": True})
            return
        line = {"process": me, "started": time.time(), **zygote.run(spec), "ended": time.time()}
        launcher.append_surely(spec["ends"], line)
        try:
            agent.send(b".")
        except OSError:
            zygote.end()
            if launcher.lock_is_free(spec["lock"]):
                launcher.start_agent(spec["agent"])
            return


def _preload() -> Modules:
    """Import what all calls need, once; return what was imported."""
    import faulthandler
    import traceback  # noqa: F401

    import cloudpickle  # noqa: F401

    import paraschut.agent.worker  # noqa: F401
    from paraschut._run import versions

    # What a job imports of its user's is edited more often than once a second, which is all that a .pyc can tell.
    sys.dont_write_bytecode = True
    faulthandler.enable()
    versions()  # reads files, once
    modules = Modules()
    modules.note()
    return modules


class Modules:
    """The modules of the user's that were imported, and what their files were then."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        own = {os.path.realpath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        self._installed = (*(place + os.sep for place in own), package + os.sep)
        self._seen: set[str] = set()
        self._known: dict[str, tuple[int, int]] = {}
        self._count = 0

    def note(self) -> None:
        """Look at what was imported since the last time."""
        if len(sys.modules) == self._count:
            return
        self._count = len(sys.modules)
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path not in self._seen:
                self._seen.add(path)
                if not path.startswith(self._installed) and not os.path.realpath(path).startswith(
                    self._installed
                ):
                    self._known[path] = _stamp(path)

    def edited(self) -> bool:
        """Return whether one of them is no longer what it was."""
        return any(_stamp(path) != stamp for path, stamp in self._known.items())


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (1, 0)
    return (status.st_mtime_ns, status.st_size)


class Zygote:
    """Forks jobs and workers, one at a time.

    Parameters
    ----------
    agent : socket.socket
        Whoever hands out the jobs.
    modules : Modules
        What was imported before there was any job.
    logs : list[Log]
        The two logs of the job that runs.
    series : Series
        What the worker is at.
    """

    def __init__(self, agent: socket.socket, modules: Modules, logs: list[Log], series: Series) -> None:
        self.agent = agent
        self.modules = modules
        self.logs = logs
        self.series = series
        self.worker: Worker | None = None

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run a job, or a series that begins with it; return what there is to tell of its end."""
        for log, path in zip(self.logs, spec["logs"], strict=True):
            log.begin(path)
        processors = launcher.take_processors(spec["cpus"], spec["processors"])
        spec["affinity"] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        told = {"key": spec["key"], "token": spec["token"]}
        self.series.begin(Claim(tuple(spec["key"]), spec["token"], -1, 0.0))
        try:
            if spec["function"]["warm"]:
                told |= self._in_worker(spec)
            else:
                told |= self._in_fork(spec)
        finally:
            for descriptor in processors:
                os.close(descriptor)
        for log in self.logs:
            try:
                log.end()
            except OSError:  # something else lies where it belongs, or the disk is full
                log.remove()
        return told

    def _in_fork(self, spec: dict[str, Any]) -> dict[str, Any]:
        child = os.fork()
        if child == 0:
            self.agent.close()
            if self.worker is not None:
                self.worker.channel.close()
            _be_a_job()
            take_place(spec, [log.descriptor for log in self.logs], {})
            from paraschut import _run

            sys.exit(_run.main())
        launcher.watch(self.agent, child, spec, self.logs)
        return _ended(child)

    def _in_worker(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self.worker is not None and self.worker.batch != spec["key"][0]:
            self.end_worker()
        while True:
            if self.worker is None:
                self.worker = Worker.forked(self.agent, self.modules, self.series, spec["key"][0])
            if self.worker.told(spec, self.logs):
                break
            self.end_worker()
        answer = self.worker.answer(self.agent, spec, self.logs)
        if answer == {"again": True}:  # a module was edited: a new worker imports it as it is now
            self.end_worker()
            return self._in_worker(spec)
        last = self.series.last()
        for log, path in zip(self.logs, _logs(spec, last), strict=True):
            log.path = path if not log.named else log.path
        if answer is None:
            pid = self.worker.pid
            self.worker.channel.close()
            self.worker = None
            answer = _ended(pid)
            tell(spec, self.series.take(all_of_it=True))
        else:
            tell(spec, self.series.take())
            if answer.pop("bye"):
                self.end_worker()
        return {"key": list(last.key), "token": last.token, **answer}

    def end_worker(self) -> None:
        """Let the worker go."""
        if self.worker is not None:
            self.worker.channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.worker.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.worker.pid, 0)
            self.worker = None

    def end(self) -> None:
        """Leave nothing behind."""
        self.end_worker()
        with contextlib.suppress(OSError):
            os.unlink(self.series.path)
        for log in self.logs:
            log.remove()


def _ended(child: int) -> dict[str, Any]:
    """Wait for a child that ends, and return how it did."""
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "cpu": usage.ru_utime + usage.ru_stime,
    }


class Worker:
    """The process that makes the calls of one batch, seen from the zygote.

    Attributes
    ----------
    channel : socket.socket
        It is told its jobs there, and answers.
    """

    def __init__(self, pid: int, batch: int, channel: socket.socket, series: Series) -> None:
        self.pid = pid
        self.batch = batch
        self.channel = channel
        self.series = series

    @classmethod
    def forked(cls, agent: socket.socket, modules: Modules, series: Series, batch: int) -> Worker:
        """Fork one."""
        mine, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            agent.close()
            mine.close()
            _be_a_job()
            from paraschut.agent.worker import work

            work(theirs, series, modules)
            sys.exit()
        theirs.close()
        return cls(pid, batch, mine, series)

    def told(self, spec: dict[str, Any], logs: list[Log]) -> bool:
        """Tell it a job; return False if it is gone."""
        data = json.dumps(spec).encode()
        try:
            socket.send_fds(self.channel, [b"%08x" % len(data)], [log.descriptor for log in logs])
            self.channel.sendall(data)
        except OSError:
            return False
        return True

    def answer(self, agent: socket.socket, spec: dict[str, Any], logs: list[Log]) -> dict[str, Any] | None:
        """Wait for the end of what it was told; None if it died.

        Meanwhile what waits behind a call that takes longer is handed over, its logs get their names, and if the agent
        dies, the next one is started.
        """
        died = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(agent, select.POLLHUP)
        if died >= 0:
            poll.register(died, select.POLLIN)
        patience: int | None = PATIENCE
        try:
            while True:
                events = dict(poll.poll(patience))
                if self.channel.fileno() in events:
                    return launcher.receive(self.channel)
                if died in events:
                    return None
                if events:
                    poll.unregister(agent)
                    if launcher.lock_is_free(spec["lock"]):
                        launcher.start_agent(spec["agent"])
                else:
                    if tell(spec, self.series.take(longer=PATIENCE / 1000)):
                        with contextlib.suppress(OSError):
                            agent.send(b".")
                    if self.series.name(NAMELESS / 1000, lambda claim: _name(logs, _logs(spec, claim))):
                        patience = None
        finally:
            if died >= 0:
                os.close(died)


def _logs(spec: dict[str, Any], claim: Claim) -> list[str]:
    """Return the logs of a call."""
    folder = os.path.dirname(spec["logs"][0])
    _, job_index, n = claim.key
    return [os.path.join(folder, f"{job_index}.{n}.{suffix}") for suffix in ("out", "err")]


def _name(logs: list[Log], paths: list[str]) -> None:
    for log, path in zip(logs, paths, strict=True):
        log.path = path
        with contextlib.suppress(OSError):
            log.name()


def tell(spec: dict[str, Any], left: Left) -> bool:
    """Write down what a worker leaves to others; return whether there was anything."""
    if left.done or left.not_begun:
        me = launcher.process()
        launcher.append_surely(spec["ends"], {"process": me, "done": left.done, "not_begun": left.not_begun})
    return bool(left.done or left.not_begun)


def _be_a_job() -> None:
    """Become what a job is when it starts: in a session of its own, with signals as usual."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def take_place(spec: dict[str, Any], logs: list[int], environ: dict[str, str]) -> None:
    """Take the logs, the processors, the environment and the folder of a job; ``environ`` is what is set already."""
    for number, descriptor in enumerate(logs, 1):
        os.dup2(descriptor, number)
    if spec["affinity"] and sorted(os.sched_getaffinity(0)) != spec["affinity"]:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, spec["affinity"])
    if environ != spec["env"]:
        for name in os.environ.keys() - spec["env"].keys():
            del os.environ[name]
        os.environ.update(
            {name: value for name, value in spec["env"].items() if os.environ.get(name) != value}
        )
        time.tzset()
    try:
        os.chdir(spec["workdir"])
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    # As a shell does it: 126 for what cannot be run, 127 for what is not there.
    sys.stderr.write(f"paraschut: the job could not be started: {error}\n")
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
