"""Sees to it that jobs keep to what they asked for, and that what is ended is gone with all its processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection
from typing import Any

from paraschut.agent import limits
from paraschut.agent.job import Running
from paraschut.resources import warned_after
from paraschut.store.runtime import Key

#: Seconds between two looks at the memory of jobs that have a limit.
MEMORY_PERIOD = 0.5
#: Seconds between the request to end and the end by force.
KILL_GRACE = 3.0


class Enforcer:
    """Warns and ends the jobs of one agent.

    Parameters
    ----------
    write_down : Callable[[Key, str], None]
        Keeps why a job is ended, before it is.
    warning : float
        Seconds before the end of its time at which a job is told.
    """

    def __init__(self, write_down: Callable[[Key, str], None], warning: float) -> None:
        self._write_down = write_down
        self._warning = warning
        self._next_memory = 0.0
        #: The ids of jobs whose wrapper is gone, while what they had started may be there.
        self.orphans: list[str] = []
        self._strangers: set[Any] = set()

    def enforce(self, jobs: Collection[Running]) -> None:
        """Warn whose time is nearly over, and end who went too far, who is cancelled, and what others left behind."""
        now = time.time()
        for running in jobs:
            walltime = running.asked.get("walltime")
            if running.reason is None and walltime and now > running.started + walltime:
                running.reason = "time limit"
            warned_at = self._warned_at(running)
            if warned_at is not None and now > warned_at and running.reason is None:
                running.warned = True
                limits.send(_tree(running), signal.SIGURG)
        if time.monotonic() >= self._next_memory:
            self._next_memory = time.monotonic() + MEMORY_PERIOD
            self._enforce_memory(jobs)
        for cluster_id in self.orphans:
            limits.send(limits.tree(cluster_id), signal.SIGKILL)
        self.orphans.clear()
        for running in jobs:
            if running.reason is not None or running.doomed:
                self._end(running, now)

    def pause(self, running: Running, now: float) -> float | None:
        """Return the seconds until something is due for a job; None if nothing is known to be."""
        due: list[float] = []
        if running.killed_at is not None:
            due.append(running.killed_at + KILL_GRACE - now)
        elif running.asked.get("walltime"):
            ends = running.started + running.asked["walltime"]
            due.append((self._warned_at(running) or ends) - now)
        if running.asked.get("mem"):
            due.append(MEMORY_PERIOD)
        return min(due, default=None)

    def _warned_at(self, running: Running) -> float | None:
        """Return when a job is to be told that its time will be over; None if it never is, or was already."""
        after = warned_after(running.asked.get("walltime"), self._warning)
        return None if after is None or running.warned else running.started + after

    def _enforce_memory(self, jobs: Collection[Running]) -> None:
        limited = {one.cluster_id: one for one in jobs if one.asked.get("mem") and not one.reason}
        if not limited:
            return
        roots = {cluster_id: one.wrapper.pid for cluster_id, one in limited.items()}
        for cluster_id, processes in limits.trees(roots, self._strangers).items():
            most = limited[cluster_id].asked["mem"]
            if limits.memory_of(processes, most) > most:
                limited[cluster_id].reason = "out of memory"

    def _end(self, running: Running, now: float) -> None:
        if running.killed_at is None:
            if running.reason is not None:
                self._write_down(running.key, running.reason)
            running.killed_at = now
            limits.send(_tree(running), signal.SIGTERM)
        elif now > running.killed_at + KILL_GRACE:
            running.killed_at = now
            limits.send(_tree(running), signal.SIGKILL)


def _tree(running: Running) -> list[Any]:
    return limits.tree(running.cluster_id, running.wrapper.pid)
