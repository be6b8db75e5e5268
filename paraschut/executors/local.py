"""The local machine as a cluster: the index is the queue, and an agent runs what waits in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from paraschut.command import without_job
from paraschut.config import Config, load_config
from paraschut.errors import ExecutorError, JobError
from paraschut.executors.base import Evidence, JobExecutor, Submission
from paraschut.resources import format_size

if TYPE_CHECKING:
    from paraschut.agent.limits import Capacity

#: Seconds that the start of an agent may take.
_START = 60


class LocalJobExecutor(JobExecutor):
    """Runs jobs on this machine, within the processors and the memory that they ask for.

    Jobs survive the session that submitted them: they are run by an agent, a process of its own that starts when
    it is needed and leaves when there is nothing to do.

    Parameters
    ----------
    max_workers : int
        At most this many jobs at once; 0: as many as processors.
    cpus : int
        Processors that jobs may share; 0: all.
    mem : int
        Bytes of memory that jobs may share; 0: all.
    queue, options
        For schedulers; ignored here.
    resources : Mapping | None
        What a job asks for where it does not say so itself, such as ``{"mem": "1gb"}``.

    Notes
    -----
    Of a job's resources, ``cpus``, ``mem`` and ``walltime`` gate its start and are enforced on its whole process
    tree; the keys of schedulers are ignored. Jobs start in the order in which they were submitted.

    Examples
    --------
    >>> LocalJobExecutor(max_workers=4)
    LocalJobExecutor(max_workers=4)
    """

    name: ClassVar[str] = "local"
    index_is_queue: ClassVar[bool] = True

    def __init__(
        self,
        max_workers: int = 0,
        cpus: int = 0,
        mem: int = 0,
        queue: str | None = None,
        resources: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(queue, resources, options)
        for key, value in (("max_workers", max_workers), ("cpus", cpus), ("mem", mem)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ExecutorError(
                    f"{key} is {value!r}; it must be a whole number, and 0 means all there is."
                )
        self.max_workers, self.cpus, self.mem = max_workers, cpus, mem
        #: Whether a person said so, or the configuration: the first is not undone by the second.
        self._asked_for = True
        self._starting: subprocess.Popen[bytes] | None = None

    @classmethod
    def configured(cls, config: Config) -> Self:
        """Return one with the limits of the configuration."""
        made = cls(config.max_workers, config.cpus, config.mem)
        made._asked_for = False
        return made

    @classmethod
    def from_defaults(cls, defaults: Mapping[str, Any]) -> Self:
        """Return one with the limits of another; what a person said to the agent since then stays."""
        made = cls(**defaults)
        made._asked_for = False
        return made

    def defaults(self) -> dict[str, Any]:
        """Return what this one was given."""
        return {**super().defaults(), **self._given()}

    def _given(self) -> dict[str, int]:
        given = {"max_workers": self.max_workers, "cpus": self.cpus, "mem": self.mem}
        return {key: value for key, value in given.items() if value}

    def __repr__(self) -> str:
        return f"LocalJobExecutor({', '.join(f'{key}={value}' for key, value in self._given().items())})"

    def asked(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a job asks for; raise JobError if this machine can never give it."""
        asked = super().asked(job)
        has = self._has
        if asked.get("cpus", 1) > has.cpus:
            raise JobError(
                f"it asks for {asked['cpus']} cpus, and local jobs may use {has.cpus} on this machine."
            )
        if asked.get("mem", 0) > has.mem:
            raise JobError(
                f"it asks for {format_size(asked['mem'])}, and local jobs may use {format_size(has.mem)} on this machine."
            )
        if asked.get("gpus"):
            raise JobError(
                "it asks for gpus, which local jobs cannot reserve; use CUDA_VISIBLE_DEVICES in its vars."
            )
        return asked

    def most_mem(self) -> int:
        """Return the memory that local jobs may use."""
        return self._has.mem

    @cached_property
    def _has(self) -> Capacity:
        from paraschut.agent.limits import capacity_of

        return capacity_of(self.max_workers, self.cpus, self.mem)

    @contextmanager
    def preparing(self, index: str) -> Iterator[None]:
        """Start the agent if there is none: it gets ready while jobs are chosen for it."""
        if not self._call(index, socket.socket.connect):
            self._starting = self._launched(index)
        try:
            yield
        finally:
            process, self._starting = self._starting, None
            if process is not None:  # nothing was submitted
                _end_of(process)

    def submit(self, submission: Submission) -> str:
        """Wake the agent, or start one: the jobs wait in the index already."""
        self.wake(submission.index)
        return submission.token

    def delete(self, submission: Submission, tasks: Sequence[int]) -> Collection[int]:
        """Wake the agent, which ends the jobs that the index says are cancelled."""
        del tasks
        self.wake(submission.index)
        return ()

    def evidence(self, folder: str) -> Evidence:
        """Return nothing: the agent folds what it sees itself."""
        del folder
        return Evidence()

    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return the state, processes, memory and processor time of a job that runs on this machine."""
        import psutil

        from paraschut.agent.limits import tree

        processes = tree(cluster_id)
        if not processes:
            return {}
        now = time.time()
        used = {"job_state": "R", "pids": [process.pid for process in processes], "mem": 0, "cput": 0.0}
        started = now
        for process in processes:
            try:
                with process.oneshot():
                    used["mem"] += process.memory_info().rss
                    used["cput"] += sum(process.cpu_times()[:2])
                    started = min(started, process.create_time())
            except psutil.Error:
                continue
        return {**used, "walltime": now - started}

    def wake(self, index: str) -> None:
        """Tell the agent of an index that there is something to do; start one if there is none."""
        told = self._call(index, lambda wake, path: wake.sendto(self._limits().encode(), path))
        if not told or self._starting is not None:
            self.start_agent(index)

    def _limits(self) -> str:
        return json.dumps([self.max_workers, self.cpus, self.mem, self._asked_for])

    @staticmethod
    def _call(index: str, how: Callable[[socket.socket, str], object]) -> bool:
        """Speak to the agent of an index; return whether there is one."""
        from paraschut.store.engine import local_folder

        folder = local_folder(index)
        if folder is None:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
            wake.setblocking(False)
            try:
                how(wake, folder + "/wake")
            except BlockingIOError:
                return True  # so many others have woken it that it cannot miss it
            except OSError:
                return False
        return True

    def start_agent(self, index: str) -> None:
        """Start an agent; if there is one already, the new one leaves at once."""
        process, self._starting = self._starting or self._launched(index), None
        words = _end_of(process)
        if process.returncode:
            raise ExecutorError(
                f"The agent of this machine could not be started: {words}. The jobs wait in the index."
            )

    def _launched(self, index: str) -> subprocess.Popen[bytes]:
        """Return the process that becomes the agent's parent: it ends when that is on its own."""
        environ = without_job(os.environ)
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environ.get("PYTHONPATH", "")]))
        config = load_config()
        if config.source is not None:
            environ["PARASCHUT_CONFIG"] = str(config.source)
        environ["PARASCHUT_MAX_JOBS"] = str(config.max_jobs)
        environ["PARASCHUT_WARNING"] = str(config.warning)
        environ["PARASCHUT_LOCK_TIMEOUT"] = str(config.lock_timeout)
        environ["PARASCHUT_TRUSTED"] = ":".join(config.trusted_users)
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "paraschut.agent", index, self._limits()],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ExecutorError(
                f"The agent of this machine could not be started: {error}. The jobs wait."
            ) from error


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Wait until an agent is on its own; return the last words of one that could not be started."""
    try:
        _, said = process.communicate(timeout=_START)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it took longer than {_START} s"
    return " ".join(said.decode(errors="replace").strip().splitlines()[-1:])
