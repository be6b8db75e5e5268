"""The handle of one function that runs as a job: where it stands, what came of it, its end."""

from __future__ import annotations

import signal
import time
from typing import Any

from paraschut import change
from paraschut.config import Config
from paraschut.errors import (
    ExecutorError,
    NotFoundError,
)
from paraschut.executors.base import JobExecutor
from paraschut.functions.awaiting import Ending, Watch
from paraschut.look.texts import clean
from paraschut.process import host_name
from paraschut.store.calls import Standing


class FunctionJob:
    """The handle of a function that runs as a job; made by ``persist`` and ``readmgr``.

    Attributes
    ----------
    name : str
        As it was given to ``persist``.
    batch_id, job_index : int
        The job in the index, for ``get_job_info``, ``get_queue`` and ``print_log``.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        batch_id: int,
        job_index: int = 0,
        executor: JobExecutor | None = None,
    ) -> None:
        self.name = name
        self.batch_id = batch_id
        self.job_index = job_index
        self._config = config
        self._watch = Watch(config, batch_id, executor)

    @property
    def _label(self) -> str:
        return f"{self.name!r} (job {self.batch_id}:{self.job_index})"

    def __repr__(self) -> str:
        try:
            status = self.status()
        except NotFoundError:
            status = "removed"
        return f"<function job {self.name!r}: {status}>"

    def _look(self) -> tuple[Standing, Ending | None]:
        try:
            return self._watch.one(self.job_index)
        finally:
            self._watch.close()

    def status(self) -> str:
        """Return ``'empty'`` (not handed over yet), ``'queued'``, ``'running'``, ``'done'`` or ``'failed'``."""
        return status_of(*self._look())

    def isready(self) -> bool:
        """Return whether it has ended, well or not."""
        return self._look()[1] is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, ``timeout`` seconds at most; return whether it has."""
        return self._until(timeout) is not None

    def _until(self, timeout: float | None) -> Ending | None:
        return self._watch.until(lambda: self._watch.one(self.job_index)[1], timeout)

    def fetch(self, timeout: float | None = None) -> Any:
        """Wait for the result, and return it; as often as one likes.

        Parameters
        ----------
        timeout : float | None
            Seconds to wait at most; None: until it has ended.

        Raises
        ------
        TimeoutError
            If it has not ended by then; it goes on.
        Exception
            What the function raised, with the job's own traceback as its cause.
        JobFailed
            If that cannot be made again here, or the job ended in another way: ``reason`` says how.
        """
        ending = self._until(timeout)
        if ending is None:
            raise TimeoutError(f"{self._label} has not ended within {timeout} s; it goes on.")
        return self._watch.value(ending, self._label)

    def jobinfo(self) -> str:
        """Return in words where the job stands: since when, on which host, why it failed."""
        standing, ending = self._look()
        job = self._watch.read(
            lambda db: db.rows("read_attempts", batch_id=self.batch_id, job_index=self.job_index)
        )
        self._watch.close()
        told = [f"{self._label} is {status_of(standing, ending)}"]
        if ending is not None and not ending.good:
            told.append(clean(self._watch.failure(ending, "").reason))
        if standing.state == "init" and ending is None:
            told.append("submit_jobs() or fetch() hands it over")
        for one in job[-1:]:
            told.append(f"attempt {one['n']} on {one['host'] or 'no host yet'}")
            told.extend(
                f"{what} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(one[what]))}"
                for what in ("submitted", "started", "ended")
                if one[what] is not None
            )
        return "; ".join(told)

    def getstdout(self) -> str:
        """Return what it wrote to its standard output, also while it runs."""
        return self._log("stdout")

    def getstderr(self) -> str:
        """Return what it wrote to its standard error, also while it runs; a traceback is at the end."""
        return self._log("stderr")

    def _log(self, key: str) -> str:
        self._look()  # says so if it was removed
        try:
            return self._watch.log(self.job_index, key)
        finally:
            self._watch.close()

    def cancel(self, force: bool = False) -> bool:
        """Ask the job to end; return whether there was anything to end.

        Parameters
        ----------
        force : bool
            Kill it at once, where it runs on this machine; else it has a few seconds to heed SIGTERM.
        """
        if self._look()[1] is not None:
            return False
        done = change.delete(self._config, {self.batch_id: [self.job_index]})
        if force:
            kill_here(self._watch, self.job_index)
        return done > 0

    def cleanup(self) -> None:
        """Delete all of it: the job, its result, its output, its name.

        Raises
        ------
        ExecutorError
            If it runs; ``cancel()`` ends it. Nothing is deleted then.
        """
        standing, ending = self._look()
        if ending is None and standing.state in {"submit", "run", "spawn"}:
            raise ExecutorError(
                f"{self._label} is {status_of(standing, ending)}, so nothing was deleted. cancel() it, or wait() for it."
            )
        change.remove(self._config, [self.batch_id])


def status_of(standing: Standing, ending: Ending | None) -> str:
    """Return the word for where a function job stands.

    Examples
    --------
    >>> status_of(Standing(0, "submit", None, 1), None)
    'queued'
    """
    if ending is not None:
        return "done" if ending.good else "failed"
    return {"init": "empty", "submit": "queued"}.get(standing.state, "running")


def kill_here(watch: Watch, job_index: int) -> None:
    """Kill the processes of a job that was cancelled, if they are on this machine."""
    from paraschut.agent import limits

    rows = watch.read(lambda db: db.rows("read_attempts", batch_id=watch.batch_id, job_index=job_index))
    watch.close()
    for row in rows[-1:]:
        if row["process"] and row["ended"] is None and row["host"] == host_name():
            root = int(row["process"].partition(":")[0])
            limits.send(limits.tree(f"{row['token']}.{row['task']}", root), signal.SIGKILL)
