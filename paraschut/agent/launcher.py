"""Forks the wrappers around local jobs; a program of its own, because forking a small process is cheap.

The agent starts it with one end of a socket pair as standard input, and asks for a wrapper by sending the
file that ends are appended to, together with the wrapper's own end of another socket pair. A wrapper waits there
for its jobs, one after the other: each comes only after the agent has committed its start to the index. If the
agent dies before, the wrapper says ``not_started`` and runs nothing.

It knows nothing of the index, imports nothing of the package and has no thread, lock or connection, so that its
forks are safe.
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
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = 8
#: Milliseconds that a job may run before its logs get their names although they are empty.
NAMELESS = 100
#: Asking the system for it is dear.
PROCESSORS = os.cpu_count() or 1


def main() -> None:
    """Serve the agent until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Wrappers are not waited for: the agent learns of their end from their sockets.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    agent = socket.socket(fileno=0)
    lock, *command = sys.argv[1:]
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(agent, 65536, 1)
        except OSError:
            message = b""
        if not message:
            start_next(lock, command)
            return
        if not descriptors:  # the agent leaves, because there is nothing left to do
            return
        (descriptor,) = descriptors
        os.set_inheritable(descriptor, False)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                agent.close()
                os.open(os.devnull, os.O_RDWR)  # takes the number that was free, so that no log gets 0
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setsid()
                become(descriptor, json.loads(message))
                wrap(socket.socket(fileno=descriptor), json.loads(message))
                status = 0
            finally:
                os._exit(status)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # it was killed meanwhile, which is noticed above
            agent.send(str(pid).encode())


def become(descriptor: int, about: dict[str, Any]) -> None:
    """Become the program that runs jobs of a kind of its own, if it is said and can be run."""
    if "program" not in about:
        return
    # Whatever it leaves behind is found by this, as a job's processes are.
    environ = {**about["env"], "PARASCHUT_CLUSTERID": process()}
    nothing = os.dup(0)
    os.dup2(descriptor, 0)
    with contextlib.suppress(OSError):
        os.execve(about["program"][0], about["program"], environ)  # noqa: S606 - there is nothing for a shell to do
    os.dup2(nothing, 0)
    os.close(nothing)


def wrap(agent: socket.socket, about: dict[str, str]) -> None:
    """Run one job after the other, and write down how each ended."""
    me = process()
    folder = os.path.dirname(about["ends"])
    logs = [Log(os.path.join(folder, f"log.{me}.{number}")) for number in (1, 2)]
    environments: dict[str, dict[str, str]] = {}
    while True:
        spec = receive(agent)
        if not spec:
            for log in logs:
                log.remove()
            if spec is None:
                append(about["ends"], {"process": me, "not_started": True})
            return  # or the agent leaves and needs no more wrappers
        if "environment" in spec:
            environments[spec["upon"]] = spec["environment"]
        spec["env"] = {**environments[spec["upon"]], **spec["env"]}
        started = time.time()
        code, number, usage = run(agent, spec, logs)
        append_surely(
            spec["ends"],
            {
                "process": me,
                "key": spec["key"],
                "token": spec["token"],
                "code": code,
                "signal": number,
                "started": started,
                "ended": time.time(),
                # ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2)).
                "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) if usage else None,
                "cpu": usage.ru_utime + usage.ru_stime if usage else None,
            },
        )
        try:
            agent.send(b".")
        except OSError:
            if lock_is_free(spec["lock"]):
                start_agent(spec["agent"])
            return


def process() -> str:
    """Return what names this wrapper for all time, as the agent wrote it into the index."""
    with contextlib.suppress(OSError), open("/proc/self/stat", "rb") as file:
        ticks = file.read().rpartition(b")")[2].split()[19].decode()
        return f"{os.getpid()}:{ticks}"
    return f"{os.getpid()}:0"


def receive(agent: socket.socket) -> dict[str, Any] | None:
    """Return the job that the agent sent; None if the agent died first, {} if there is none to come."""
    data = b""
    size = None
    while size is None or len(data) < size:
        try:
            more = agent.recv(1 << 16)
        except OSError:
            return None
        if not more:
            return None
        data += more
        if size is None and len(data) >= HEADER:
            size = HEADER + int(data[:HEADER], 16)
    spec: dict[str, Any] = json.loads(data[HEADER:]) if size > HEADER else {}
    return spec


def run(agent: socket.socket, spec: dict[str, Any], logs: list[Log]) -> tuple[int | None, int | None, Any]:
    """Run the job; return exit code, signal and what it used."""
    for log, path in zip(logs, spec["logs"], strict=True):
        log.begin(path)
    code: int | None
    number: int | None
    processors: list[int] = []
    try:
        os.chdir(spec["workdir"])
        processors = take_processors(spec["cpus"], spec["processors"])
        child = spawn(spec, [log.descriptor for log in logs])
    except OSError as error:
        # As a shell does it: 126 for what cannot be run, 127 for what is not there.
        os.write(logs[1].descriptor, f"paraschut: the job could not be started: {error}\n".encode())
        code, number, usage = (127 if isinstance(error, FileNotFoundError) else 126), None, None
    else:
        watch(agent, child, spec, logs)
        _, status, usage = os.wait4(child, 0)
        # As clusters do: what the job left behind in its own process group ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        code, number = (code, None) if code >= 0 else (None, -code)
    for descriptor in processors:
        os.close(descriptor)
    for log in logs:
        try:
            log.end()
        except (
            OSError
        ):  # something else lies where it belongs, or the disk is full: the job's end counts all the same
            log.remove()
    return code, number, usage


def take_processors(count: int, folder: str | None) -> list[int]:
    """Keep what is started from now on on processors of its own; return the descriptors that hold them.

    A processor is held by a lock on a file of that name, so that the jobs of other indexes know of it, too. If
    fewer are free than the job asks for, it is kept on none: the machine is shared with others then.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    everywhere = set(range(PROCESSORS))
    held: dict[int, int] = {}
    if count and folder:
        # Those of the job before come first: to stay costs nothing.
        now = os.sched_getaffinity(0)
        for cpu in sorted(everywhere, key=lambda cpu: (len(now) > count or cpu not in now, cpu)):
            with contextlib.suppress(OSError):
                descriptor = os.open(f"{folder}/cpu.{cpu}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                else:
                    held[cpu] = descriptor
            if len(held) == count:
                break
    wanted = set(held) if held and len(held) == count else everywhere
    with contextlib.suppress(OSError):  # some are not ours to use; the job runs all the same
        if os.sched_getaffinity(0) != wanted:
            os.sched_setaffinity(0, wanted)
    return list(held.values())


class Log:
    """A log file, which only gets its name when there is something in it or the job takes longer.

    Making and removing files is what costs a file system most, and most short jobs write nothing: their empty file
    serves the next job, as long as nobody else holds it open.

    Parameters
    ----------
    spare : str
        Its name until then.
    """

    def __init__(self, spare: str) -> None:
        self.spare = spare
        self.descriptor = -1
        self.path = ""
        self.named = False

    def begin(self, path: str) -> None:
        """Serve a job whose log is to be at ``path``."""
        self.path, self.named = path, False
        if self.descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            try:
                self.descriptor = os.open(self.spare, flags, 0o600)
            except OSError:  # a full disk is no reason not to run
                self.descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                self.named = True

    def name(self) -> None:
        """Give it its name."""
        if self.named:
            return
        try:
            os.rename(self.spare, self.path)
        except FileNotFoundError:
            folder = os.path.dirname(self.path)
            for made in (os.path.dirname(folder), folder):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(made, 0o700)
            os.rename(self.spare, self.path)
        self.named = True

    def end(self) -> None:
        """Keep what was written; an empty file is removed, or kept for the next job."""
        empty = os.fstat(self.descriptor).st_size == 0
        if not empty:
            self.name()
        elif not self.named and self.alone():
            return
        elif empty:
            with contextlib.suppress(OSError):
                os.unlink(self.path if self.named else self.spare)
        self.close()

    def alone(self) -> bool:
        """Return whether no process that the job left behind can still write into it (fcntl(2), leases)."""
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except (OSError, AttributeError):
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
        self.descriptor = -1

    def remove(self) -> None:
        """Remove one that waits for a next job."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.spare)
            self.close()


def spawn(spec: dict[str, Any], logs: list[int]) -> int:
    """Start the job in a session of its own."""
    command = spec["command"]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, logs[0], 1),
        (os.POSIX_SPAWN_DUP2, logs[1], 2),
    ]
    return os.posix_spawn(
        command[0],
        command,
        spec["env"],
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(
            signal.SIGINT,
            signal.SIGPIPE,
            signal.SIGCHLD,
            signal.SIGHUP,
            signal.SIGTERM,
            signal.SIGXFSZ,
        ),
    )


def watch(agent: socket.socket, child: int, spec: dict[str, Any], logs: list[Log]) -> None:
    """Wait for the end of the job; name its logs soon, and if the agent dies meanwhile, start the next one."""
    if not hasattr(os, "pidfd_open"):  # not Linux: the end of the job is soon enough
        for log in logs:
            with contextlib.suppress(OSError):
                log.name()
        return
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(agent.fileno(), select.POLLHUP)
    patience: int | None = NAMELESS
    while True:
        events = dict(poll.poll(patience))
        if descriptor in events:
            break
        if not events:
            patience = None
            for log in logs:
                with contextlib.suppress(OSError):
                    log.name()
            continue
        poll.unregister(agent.fileno())
        if lock_is_free(spec["lock"]):
            start_agent(spec["agent"])
    os.close(descriptor)


def append_surely(path: str, line: dict[str, Any]) -> None:
    """Append one line, however long the disk is full: without it, nobody would know that the job has ended."""
    while True:
        try:
            append(path, line)
        except FileNotFoundError:  # the whole folder was removed
            return
        except OSError:
            time.sleep(0.5)
        else:
            return


def append(path: str, line: dict[str, Any]) -> None:
    """Append one line in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # It begins anew, so that a line that a full disk cut off cannot spoil it.
        text = b"\n" + json.dumps(line).encode() + b"\n"
        if os.write(descriptor, text) < len(text):
            raise OSError("the disk is full")
    finally:
        os.close(descriptor)


def lock_is_free(path: str) -> bool:
    """Return whether no agent lives."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # the whole folder was removed
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def start_next(lock: str, command: list[str]) -> None:
    """Start the agent after one that was killed."""
    # What it had open is closed one by one: its socket may be gone some time before its lock is free.
    for _ in range(200):
        if lock_is_free(lock):
            start_agent(command)
            return
        time.sleep(0.01)


def start_agent(command: list[str]) -> None:
    """Start the next agent; if another does so too, one of them finds the lock taken and leaves."""
    with contextlib.suppress(OSError):
        pid = os.posix_spawn(
            command[0],
            command,
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)],
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGCHLD),
        )
        os.waitpid(pid, 0)  # it detaches itself and returns


if __name__ == "__main__":
    main()
