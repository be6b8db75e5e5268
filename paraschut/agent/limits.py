"""What local jobs may use: who fits, and the process trees of those that run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
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
    if not held and asked:
        return 1 + fitting(
            asked[1:], asked[:1], capacity
        )  # what is alone may always run: limits may have shrunk
    for count, one in enumerate(asked):
        workers -= 1
        cpus -= one.get("cpus", 1)
        mem -= one.get("mem", 0)
        if workers < 0 or cpus < 0 or mem < 0:
            return count
    return len(asked)


def tree(cluster_id: str, root: int | None = None) -> list[Any]:
    """Return all processes of a job: below its wrapper, in its session, or marked by its environment."""
    import psutil

    found = {process.pid: process for process in psutil.process_iter() if _marked(process) == cluster_id}
    if root is not None:
        try:
            below = psutil.Process(root).children(recursive=True)
        except psutil.Error:
            below = []
        found.update({process.pid: process for process in below})
    found.pop(os.getpid(), None)
    return list(found.values())


def trees(roots: Mapping[str, int], strangers: set[Any]) -> dict[str, list[Any]]:
    """Return the processes of several jobs from one look at all processes.

    Parameters
    ----------
    roots : Mapping[str, int]
        The wrapper's pid of each job, by the job's id.
    strangers : set
        Processes that were looked at before and belong to no job; kept by the caller from one look to the next.
    """
    import psutil

    parents: dict[Any, int] = {}
    for process in psutil.process_iter():
        try:
            parents[process] = process.ppid()
        except psutil.Error:
            continue
    owner = {pid: cluster_id for cluster_id, pid in roots.items()}
    found: dict[str, list[Any]] = {cluster_id: [] for cluster_id in roots}
    left = dict(parents)
    grown = True
    while grown:  # a level of children at a time
        children = {process: owner[parent] for process, parent in left.items() if parent in owner}
        grown = bool(children)
        for process, cluster_id in children.items():
            owner[process.pid] = cluster_id
            found[cluster_id].append(process)
            del left[process]
    strangers.intersection_update(left)
    for process in left.keys() - strangers:
        cluster_id = _marked(process)
        if cluster_id in found:
            found[cluster_id].append(process)
        else:
            strangers.add(process)
    return found


def _marked(process: Any) -> str:
    """Return the id of the job whose environment a process has; it may have left the tree by a double fork."""
    import psutil

    try:
        if process.uids().real != os.getuid():
            return ""
        return str(process.environ().get("PARASCHUT_CLUSTERID", ""))
    except psutil.Error:
        return ""


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
