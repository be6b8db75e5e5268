"""Runs function jobs: a wrapper that forks them instead of starting an interpreter for each.

The launcher turns into this program (exec), in the environment and with the interpreter of the jobs. It is told its
jobs as any wrapper is, and writes down how each ended. A job by itself gets a fresh fork; the calls of one batch
share a **worker**, which keeps what it has imported until a module is edited, it has made many calls, or dies. This
process has one thread, no connection and no module of the user's, so its forks are safe.

A worker whose call was short and silent takes the next one of its batch by itself, in the transaction that writes
the result: as long as it is the very next job that waits on this machine, asks for the same, and nobody asked for
anything to end. What it is at stands in a piece of memory that both share, so that this process can name the job
if the worker dies.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from paraschut.agent.launcher import HEADER, NAMELESS, Log

#: Calls after which a worker gives way to a new one.
MANY_CALLS = 1000
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
    zygote = Zygote(agent, modules, [Log(os.path.join(folder, f"log.{me}.{number}")) for number in (1, 2)])
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
    """

    def __init__(self, agent: socket.socket, modules: Modules, logs: list[Log]) -> None:
        self.agent = agent
        self.modules = modules
        self.logs = logs
        self.worker: Worker | None = None

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run a job, or a series that begins with it; return what there is to tell of its end."""
        for log, path in zip(self.logs, spec["logs"], strict=True):
            log.begin(path)
        processors = launcher.take_processors(spec["cpus"], spec["processors"])
        spec["affinity"] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        told = {"key": spec["key"], "token": spec["token"]}
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
                self.worker = Worker.forked(self.agent, self.modules, spec["key"][0])
            if self.worker.told(spec, self.logs):
                break
            self.end_worker()
        answer = self.worker.answer(self.agent, spec, self.logs)
        if answer == {"again": True}:  # a module was edited: a new worker imports it as it is now
            self.end_worker()
            return self._in_worker(spec)
        current = self.worker.current.read()
        for log, path in zip(self.logs, current["logs"], strict=True):
            log.path = path if not log.named else log.path
        told = {"key": current["key"], "token": current["token"], "before": current.get("before")}
        if answer is None:
            pid = self.worker.pid
            self.worker.channel.close()
            self.worker = None
            return told | _ended(pid)
        if answer.pop("bye"):
            self.end_worker()
        return told | answer

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


class Current:
    """What a worker is at, in memory that it shares with the zygote: two flags, and which job it is.

    The flags say that the worker is between two calls, and that the zygote gave the logs their names. Each looks at
    them and changes its own only while it holds a lock on them, so that no log gets the name of another job.
    """

    _MOVES, _NAMED, _TEXT = 0, 1, 2

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("paraschut")
        else:
            import tempfile

            self.descriptor = os.dup(tempfile.TemporaryFile().fileno())  # noqa: SIM115

    def read(self) -> dict[str, Any]:
        """Return what was written last."""
        size = int(os.pread(self.descriptor, HEADER, self._TEXT), 16)
        found: dict[str, Any] = json.loads(os.pread(self.descriptor, size, self._TEXT + HEADER))
        return found

    def write(self, what: dict[str, Any]) -> None:
        """Write down what the worker is at."""
        data = json.dumps(what).encode()
        os.pwrite(self.descriptor, b"%08x" % len(data) + data, self._TEXT)

    def begin(self, what: dict[str, Any]) -> None:
        """Write down what the worker will be at first."""
        os.pwrite(self.descriptor, b"--", 0)
        self.write(what)

    def _flags(self) -> bytes:
        return os.pread(self.descriptor, self._TEXT, 0)

    def moves(self) -> bool:
        """Say that the worker is between two calls; return whether it may take another, its logs having no name."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            if self._flags()[self._NAMED :] == b"n":
                return False
            os.pwrite(self.descriptor, b"m", self._MOVES)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
        return True

    def moved(self) -> None:
        """Say that the worker is at what was written last."""
        os.pwrite(self.descriptor, b"-", self._MOVES)

    def name(self, logs: list[Log]) -> bool:
        """Name the logs of a call that has taken a while; return whether that was done."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            if self._flags()[: self._NAMED] == b"m":
                return False
            current = self.read()
            if time.monotonic() - current["at"] < NAMELESS / 1000:
                return False
            for log, path in zip(logs, current["logs"], strict=True):
                log.path = path
                with contextlib.suppress(OSError):
                    log.name()
            os.pwrite(self.descriptor, b"n", self._NAMED)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
        return True


class Worker:
    """The process that makes the calls of one batch, seen from the zygote.

    Attributes
    ----------
    channel : socket.socket
        It is told its jobs there, and answers.
    """

    def __init__(self, pid: int, batch: int, channel: socket.socket, current: Current) -> None:
        self.pid = pid
        self.batch = batch
        self.channel = channel
        self.current = current

    @classmethod
    def forked(cls, agent: socket.socket, modules: Modules, batch: int) -> Worker:
        """Fork one."""
        mine, theirs = socket.socketpair()
        current = Current()
        pid = os.fork()
        if pid == 0:
            agent.close()
            mine.close()
            _be_a_job()
            from paraschut.agent.worker import work

            work(theirs, current, modules)
            sys.exit()
        theirs.close()
        return cls(pid, batch, mine, current)

    def told(self, spec: dict[str, Any], logs: list[Log]) -> bool:
        """Tell it a job; return False if it is gone."""
        self.current.begin(at(spec["key"], spec["token"], spec["logs"]))
        data = json.dumps(spec).encode()
        try:
            socket.send_fds(self.channel, [b"%08x" % len(data)], [log.descriptor for log in logs])
            self.channel.sendall(data)
        except OSError:
            return False
        return True

    def answer(self, agent: socket.socket, spec: dict[str, Any], logs: list[Log]) -> dict[str, Any] | None:
        """Wait for the end of what it was told; None if it died.

        Meanwhile logs of calls that take longer get their names, and if the agent dies, the next one is started.
        """
        died = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(agent, select.POLLHUP)
        if died >= 0:
            poll.register(died, select.POLLIN)
        patience: int | None = NAMELESS
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
                elif self.current.name(logs):
                    patience = None
        finally:
            if died >= 0:
                os.close(died)


def at(key: list[int], token: str, logs: list[str], before: list[int] | None = None) -> dict[str, Any]:
    """Return what a worker is at, as it stands in the shared memory."""
    return {
        "key": key,
        "token": token,
        "logs": logs,
        "before": before,
        "at": time.monotonic(),
    }


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
