"""Makes passes again and again, for those who cannot leave that to the jobs."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paraschut.checks import is_number
from paraschut.config import load_config
from paraschut.errors import ExecutorError, JobError, ParaschutError
from paraschut.executors.base import JobExecutor
from paraschut.paths import Paths
from paraschut.store.store import Store
from paraschut.submitting import submit_jobs


def periodic_submitter(
    period: float = 10,
    n: float = math.inf,
    Executor: JobExecutor | str | None = None,
    MaxJobs: int | None = None,
    MinPrior: float = 0,
    Filter: str = "",
    Verbose: bool = True,
) -> int:
    """Call ``submit_jobs`` again and again, until Ctrl-C or SIGTERM.

    A pass that fails (a scheduler that is down, an index that is busy) is reported, and the next one comes in time.

    Parameters
    ----------
    period : float
        Minutes between the beginnings of two passes.
    n : float
        At most this many passes.
    Executor, MaxJobs, MinPrior, Filter, Verbose
        As for ``submit_jobs``.

    Returns
    -------
    int
        How many passes were made.

    Raises
    ------
    ExecutorError
        If another one runs for this index.

    Examples
    --------
    >>> periodic_submitter(period=5)  # doctest: +SKIP
    """
    for name, value in (("period", period), ("n", n)):
        if value != math.inf and (not is_number(value) or value < 0):
            raise JobError(f"{name} is {value!r}; it must be a number of 0 or more.")
    index = load_config().index
    Store.of(load_config(), create=True).rest()
    with _alone(str(index)), _stopped_by_signals() as stop:
        done = 0
        while done < n and not stop.is_set():
            began = time.monotonic()
            try:
                submit_jobs(Executor, MaxJobs=MaxJobs, MinPrior=MinPrior, Filter=Filter, Verbose=Verbose)
            except ParaschutError as error:
                sys.stderr.write(
                    f"{time.strftime('%H:%M:%S')} this pass failed, the next one comes: {error}\n"
                )
            done += 1
            if done < n:
                stop.wait(max(0.0, 60 * period - (time.monotonic() - began)))
        return done


@contextmanager
def _alone(index: str) -> Iterator[None]:
    path = Paths(index).submitter_lock()
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ExecutorError(
            f"Another periodic_submitter runs for {index}. One is enough; end it first ('fuser {path}' names it)."
        ) from None
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def heed(*_: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
