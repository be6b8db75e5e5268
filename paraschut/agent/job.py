"""One local job while it runs: its wrapper, and what the wrapper is told."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from paraschut.command import FUNCTION_PROGRAM, command_of, job_variables
from paraschut.paths import Paths
from paraschut.process import boot_id, start_ticks
from paraschut.store.runtime import Key


class Kind(NamedTuple):
    """For which function jobs a wrapper is: those of one interpreter, in one environment."""

    python: str
    digest: str
    environment: str

    @classmethod
    def of(cls, row: Mapping[str, Any], environment: Mapping[str, str], index: str) -> Self | None:
        """Return the kind of wrapper for a job that waits; None if any will do."""
        if row["warm"] is None:
            return None
        words = str(json.loads(row["metadata"])["script"])
        parts = shlex.split(words) if words.startswith("exec ") else []
        if parts[2:] != ["-P", FUNCTION_PROGRAM] or len(words) > _LONG:
            return None  # somebody has given it another script
        text = json.dumps({**environment, "PARASCHUT_INDEX": index})
        return cls(parts[1], row["environment"], text) if len(text) < _LONG else None

    def program(self, ends: str) -> dict[str, Any]:
        """Return what the launcher is told to become."""
        return {"program": [self.python, "-P", "-c", _ZYGOTE, ends], "env": json.loads(self.environment)}


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Found wherever the package lies; last, so that it hides nothing of the user's.
_ZYGOTE = f"import sys; sys.path.append({os.path.dirname(_PACKAGE)!r}); from paraschut.agent.zygote import main; main()"
#: Characters that fit into one message to the launcher.
_LONG = 40_000


class Wrapper:
    """The process around a job.

    Attributes
    ----------
    process : str
        Its name for all time: pid, start ticks and boot.
    handle : socket.socket | int | None
        What becomes readable when it ends; None where the system has nothing of that kind.
    """

    def __init__(self, process: str, handle: socket.socket | int | None, kind: Kind | None = None) -> None:
        self.process = process
        self.handle = handle
        self.kind = kind
        self.hung_up = False
        #: The keys of the environments that it was told already.
        self.knows: set[str] = set()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.process.partition(":")[0])

    def listen(self) -> None:
        """Read what made it readable: that its job ended, or its own end."""
        if not isinstance(self.handle, socket.socket):
            self.hung_up = True
            return
        try:
            self.hung_up = not self.handle.recv(64)
        except BlockingIOError:
            return
        except OSError:
            self.hung_up = True

    @property
    def left(self) -> bool:
        """Whether it may have gone: only then is it worth asking the system."""
        return self.hung_up or self.handle is None

    @classmethod
    def forked(cls, launcher: socket.socket, ends: str, kind: Kind | None = None) -> Self:
        """Ask the launcher for one."""
        mine, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(
                launcher,
                [json.dumps({"ends": ends, **(kind.program(ends) if kind else {})}).encode()],
                [theirs.fileno()],
            )
        answer = launcher.recv(64)
        if not answer:
            mine.close()
            raise ConnectionError("the launcher is gone")
        pid = int(answer)
        mine.setblocking(False)  # it never fills: a job at a time
        return cls(f"{pid}:{start_ticks(pid) or 0}:{boot_id()}", mine, kind)

    @classmethod
    def adopted(cls, process: str) -> Self:
        """Watch one that an earlier agent forked."""
        handle = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(int(process.partition(":")[0]))
        return cls(process, handle)

    def send(self, spec: Mapping[str, Any]) -> None:
        """Tell it its job: from now on the job runs, whatever becomes of us."""
        data = json.dumps(spec).encode()
        data = b"%08x" % len(data) + data
        assert isinstance(self.handle, socket.socket)
        with contextlib.suppress(OSError):  # if it was killed, its end is noticed like that of any other
            sent = self.handle.send(data)
            if sent < len(data):
                self.handle.settimeout(10)
                self.handle.sendall(data[sent:])
                self.handle.settimeout(0)

    def dismiss(self) -> None:
        """Let one go that has no job."""
        assert isinstance(self.handle, socket.socket)
        with contextlib.suppress(OSError):
            self.handle.sendall(b"%08x" % 0)
        self.close()

    def close(self) -> None:
        """Stop watching it."""
        if isinstance(self.handle, socket.socket):
            self.handle.close()
        elif self.handle is not None:
            os.close(self.handle)
        self.handle = None


class Running:
    """A job that runs on this machine."""

    def __init__(
        self, key: Key, cluster_id: str, asked: dict[str, Any], wrapper: Wrapper, started: float
    ) -> None:
        self.key = key
        self.cluster_id = cluster_id
        self.asked = asked
        self.wrapper = wrapper
        self.started = started
        #: Why it must end; goes into the index before it is ended.
        self.reason: str | None = None
        #: Whether somebody asked for its end.
        self.doomed = False
        self.killed_at: float | None = None
        #: Whether it was told that its time will be over.
        self.warned = False


def spec_of(
    row: Mapping[str, Any], running: Running, environment: Mapping[str, str], paths: Paths
) -> dict[str, Any]:
    """Return what a wrapper must know of a job."""
    fields = json.loads(row["metadata"])
    key = running.key
    workdir = fields.get("workdir") or row["workdir"] or paths.folder
    mine = job_variables(paths.index, *key, row["token"], row["task"], running.cluster_id, row["spawn_id"])
    warm = bool(row["warm"]) and not running.asked.get("mem")  # what a worker holds would be counted, too
    function = {
        "warm": warm,
        # What a worker takes by itself is only limited as its batch is.
        "series": warm and not running.asked.get("walltime"),
        "process": running.wrapper.process,
        "environment": row["environment"],
        "asked": row["asked"],
    }
    own = {**(fields.get("vars") or {}), **mine}
    if running.wrapper.kind is not None:
        told: dict[str, Any] = {"function": function, "env": {**environment, **own}}
    else:
        # Thousands of jobs have the same environment: it is told once.
        digest = row["environment"]
        news = {} if digest in running.wrapper.knows else {"environment": environment}
        running.wrapper.knows.add(digest)
        told = {"env": own, "upon": digest, **news}
    return {
        **told,
        "key": list(key),
        "token": row["token"],
        "command": command_of(str(fields["script"]), workdir),
        "workdir": workdir,
        "logs": [paths.log(*key, "stdout"), paths.log(*key, "stderr")],
    }
