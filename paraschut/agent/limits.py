"""What local jobs may use: who fits, and the process trees of those that run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Capacity(NamedTuple):
    """What the jobs of one machine share.

    Attributes
    ----------
    workers : int
        Jobs at once.
    cpus : int
        Processors.
    mem : int
        Bytes.
    """

    workers: int
    cpus: int
    mem: int


def capacity_of(max_workers: int = 0, cpus: int = 0, mem: int = 0) -> Capacity:
    """Return a capacity from the configuration, where 0 is all that this machine has."""
    count = cpus or os.cpu_count() or 1
    return Capacity(
        max_workers or count, count, mem or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )


def fitting(asked: Sequence[dict[str, Any]], running: Iterable[dict[str, Any]], capacity: Capacity) -> int:
    """Return how many of the first waiting jobs may start now.

    Strictly in order: a job that needs more than is free waits, and those behind it wait with it, so that it is
    never overtaken for ever.

    Examples
    --------
    >>> fitting([{"cpus": 1}, {"cpus": 2}], [{"cpus": 1}], Capacity(8, 3, 1 << 30))
    1
    """
    held = list(running)
    workers = capacity.workers - len(held)
    cpus = capacity.cpus - sum(one.get("cpus", 1) for one in held)
    mem = capacity.mem - sum(one.get("mem", 0) for one in held)
    for count, one in enumerate(asked):
        workers -= 1
        cpus -= one.get("cpus", 1)
        mem -= one.get("mem", 0)
        if workers < 0 or cpus < 0 or mem < 0:
            return count
    return len(asked)


def pinned(count: int, taken: Iterable[int], capacity: Capacity) -> list[int]:
    """Return the processors that a job is kept on; none where they cannot be told apart or are oversubscribed."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    all_of_them = sorted(os.sched_getaffinity(0))
    if capacity.cpus > len(all_of_them):
        return []
    busy = set(taken)
    free = [cpu for cpu in all_of_them if cpu not in busy]
    return free[:count] if len(free) >= count else []


def tree(cluster_id: str, root: int | None = None) -> list[Any]:
    """Return all processes of a job: below its wrapper, in its session, or marked by its environment."""
    import psutil

    found: dict[int, Any] = {}
    marker = {"PARASCHUT_CLUSTERID": cluster_id}
    uid = os.getuid()
    for process in psutil.process_iter():
        try:
            if process.uids().real == uid and marker.items() <= process.environ().items():
                found[process.pid] = process
        except psutil.Error:
            continue
    if root is not None:
        try:
            below = psutil.Process(root).children(recursive=True)
        except psutil.Error:
            below = []
        found.update({process.pid: process for process in below})
    found.pop(os.getpid(), None)
    return list(found.values())


def memory_of(processes: Iterable[Any], limit: int) -> int:
    """Return the bytes that a process tree holds.

    The resident sizes count memory that processes share several times; only where their sum is above the limit is
    the dearer proportional size asked for.
    """
    import psutil

    resident = 0
    for process in processes:
        try:
            resident += process.memory_info().rss
        except psutil.Error:
            continue
    if resident <= limit or not hasattr(psutil, "LINUX") or not psutil.LINUX:
        return resident
    proportional = 0
    for process in processes:
        try:
            proportional += process.memory_full_info().pss
        except psutil.Error:
            continue
    return proportional


def send(processes: Iterable[Any], number: int) -> None:
    """Send a signal to processes; those that have ended are no error."""
    import psutil

    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
