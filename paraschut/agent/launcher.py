"""Forks the wrappers around local jobs; a program of its own, because forking a small process is cheap.

The agent starts it with one end of a socket pair as standard input, and asks for a wrapper by sending the
file that ends are appended to, together with the wrapper's own end of another socket pair. A wrapper waits there
for its job: it comes only after the agent has committed it to the index. If the agent dies before, the wrapper
says ``not_started`` and runs nothing.

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

HEADER = 8


def main() -> None:
    """Serve the agent until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Wrappers are not waited for: the agent learns of their end from their sockets.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    agent = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(agent, 65536, 1)
        if not message:
            return
        (descriptor,) = descriptors
        pid = os.fork()
        if pid == 0:
            agent.close()
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setsid()
                wrap(socket.socket(fileno=descriptor), json.loads(message))
                status = 0
            finally:
                os._exit(status)
        os.close(descriptor)
        agent.send(str(pid).encode())


def wrap(agent: socket.socket, about: dict[str, str]) -> None:
    """Wait for a job, run it, and write down how it ended."""
    spec = receive(agent)
    if spec is None:
        append(about["ends"], {"process": process(), "not_started": True})
        return
    if not spec:  # the agent leaves and needs no more wrappers
        return
    started = time.time()
    code, number, usage = run(agent, spec)
    with contextlib.suppress(OSError):
        append(
            about["ends"],
            {
                "process": process(),
                "key": spec["key"],
                "code": code,
                "signal": number,
                "started": started,
                "ended": time.time(),
                # ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2)).
                "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) if usage else None,
                "cpu": usage.ru_utime + usage.ru_stime if usage else None,
            },
        )
    if lock_is_free(spec["lock"]):
        start_agent(spec["agent"])


def process() -> str:
    """Return what names this wrapper for all time, as the agent wrote it into the index."""
    with contextlib.suppress(OSError), open("/proc/self/stat", "rb") as file:
        ticks = file.read().rpartition(b")")[2].split()[19].decode()
        return f"{os.getpid()}:{ticks}"
    return f"{os.getpid()}:0"


def receive(agent: socket.socket) -> dict[str, object] | None:
    """Return the job that the agent sent; None if the agent died first, {} if there is none to come."""
    data = b""
    size = None
    while size is None or len(data) < size:
        try:
            more = agent.recv(1 << 20)
        except OSError:
            return None
        if not more:
            return None
        data += more
        if size is None and len(data) >= HEADER:
            size = HEADER + int(data[:HEADER], 16)
    spec: dict[str, object] = json.loads(data[HEADER:]) if size > HEADER else {}
    return spec


def run(agent: socket.socket, spec: dict[str, object]) -> tuple[int | None, int | None, object]:
    """Run the job; return exit code, signal and what it used."""
    logs = [open_log(path) for path in spec["logs"]]  # type: ignore[attr-defined]
    try:
        os.chdir(spec["workdir"])  # type: ignore[arg-type]
        if spec["cpus"]:
            os.sched_setaffinity(0, spec["cpus"])  # type: ignore[arg-type]
        child = spawn(spec, logs)
    except OSError as error:
        # As a shell does it: 126 for what cannot be run, 127 for what is not there.
        os.write(logs[1], f"paraschut: the job could not be started: {error}\n".encode())
        return 127 if isinstance(error, FileNotFoundError) else 126, None, None
    watch(agent, child, spec)
    _, status, usage = os.wait4(child, 0)
    # As clusters do: what the job left behind in its own process group ends with it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    for descriptor, path in zip(logs, spec["logs"], strict=True):  # type: ignore[call-overload]
        if os.fstat(descriptor).st_size == 0:
            with contextlib.suppress(OSError):
                os.unlink(path)
    code = os.waitstatus_to_exitcode(status)
    return (code, None, usage) if code >= 0 else (None, -code, usage)


def open_log(path: str) -> int:
    """Open a log file, in a folder that is made if needed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def spawn(spec: dict[str, object], logs: list[int]) -> int:
    """Start the job in a session of its own."""
    command = spec["command"]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, logs[0], 1),
        (os.POSIX_SPAWN_DUP2, logs[1], 2),
    ]
    return os.posix_spawn(
        command[0],  # type: ignore[index]
        command,  # type: ignore[arg-type]
        spec["env"],  # type: ignore[arg-type]
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM),
    )


def watch(agent: socket.socket, child: int, spec: dict[str, object]) -> None:
    """Wait for the end of the job; if the agent dies meanwhile, start the next one."""
    if not hasattr(os, "pidfd_open"):  # not Linux: the end of the job is soon enough
        return
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(agent.fileno(), select.POLLHUP)
    while True:
        events = dict(poll.poll())
        if descriptor in events:
            break
        poll.unregister(agent.fileno())
        if lock_is_free(spec["lock"]):  # type: ignore[arg-type]
            start_agent(spec["agent"])  # type: ignore[arg-type]
    os.close(descriptor)


def append(path: str, line: dict[str, object]) -> None:
    """Append one line in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
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


def start_agent(command: list[str]) -> None:
    """Start the next agent; if another does so too, one of them finds the lock taken and leaves."""
    with contextlib.suppress(OSError):
        pid = os.posix_spawn(
            command[0],
            command,
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)],
            setsid=True,
        )
        os.waitpid(pid, 0)  # it detaches itself and returns


if __name__ == "__main__":
    main()
