"""Who a process is: host, boot, pid and start ticks, so that a reused pid is never mistaken for it.

Wall-clock start times move when the clock is set; the ticks since boot in ``/proc/PID/stat`` do not (proc(5)).
Part of the road of a job: imports nothing beyond the standard library where ``/proc`` exists.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any, NamedTuple


class Identity(NamedTuple):
    """One process for all time."""

    host: str
    pid: int
    boot_id: str
    start_ticks: int


def host_name() -> str:
    """Return the name by which this machine is known in the index."""
    return os.uname().nodename


def notebook() -> Any | None:
    """Return the shell of the notebook that we are in; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell if shell is not None and hasattr(shell, "kernel") else None


@cache
def boot_id() -> str:
    """Return what tells one boot of this machine from the next; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where there is none (or only a zombie).

    Examples
    --------
    >>> import os
    >>> start_ticks(os.getpid()) > 0
    True
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold anything, also ")" and spaces.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None if os.path.isdir("/proc/self") else _start_ticks_without_proc(pid)
    if fields[0] in {b"Z", b"X"}:
        return None
    return int(fields[19])


def _start_ticks_without_proc(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time() * 100)
    except psutil.Error:
        return None


def identity(pid: int | None = None) -> Identity:
    """Return the identity of a process of this machine, by default of this one."""
    pid = os.getpid() if pid is None else pid
    return Identity(host_name(), pid, boot_id(), start_ticks(pid) or 0)


def is_alive(who: Identity) -> bool | None:
    """Return whether that very process still runs; None where this machine cannot know."""
    if who.host != host_name():
        return None
    if who.boot_id != boot_id():
        return False
    return start_ticks(who.pid) == who.start_ticks
