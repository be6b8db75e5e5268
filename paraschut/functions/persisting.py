r"""Functions as jobs: started in the background by name, and fetched whenever, wherever the index is seen.

>>> import math, time
>>> def hello():
...     time.sleep(1)  # a long task
...     print("Hello, World!")
...     return [42]
>>> job = persist(hello, "hello", "local")
>>> job.status() in {"queued", "running"}  # meanwhile, do something else
True
>>> job.fetch()
[42]
>>> job.getstdout(), job.getstderr()
('Hello, World!\n', '')
>>> job.wait(), job.isready(), job.status()
(True, True, 'done')
>>> job.cleanup()

On a cluster it is the same, and so it is in another session.

>>> job = persist(lambda: 4 * math.atan(1), "calcpi")  # or with "slurm"
>>> job = readmgr("calcpi")
>>> job.jobinfo().startswith("'calcpi' (job ")
True
>>> print("pi =", job.fetch())
pi = 3.141592653589793
>>> job.cleanup()
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from paraschut import change
from paraschut._run import module_hash, versions
from paraschut.config import Config, load_config
from paraschut.dispatch import add_and_submit
from paraschut.errors import (
    ExecutorError,
    JobError,
    NameTakenError,
    NotFoundError,
    StoreError,
    SubmitError,
)
from paraschut.executors.base import JobExecutor, executor_of
from paraschut.functions.awaiting import Ending, Watch
from paraschut.paths import Paths
from paraschut.prepare import new_batch_id
from paraschut.process import host_name
from paraschut.resources import needs_of
from paraschut.store import calls, engine, journal, pickles
from paraschut.store.calls import Payload, Standing
from paraschut.store.runtime import Statements
from paraschut.store.store import Store

#: What a function job runs, by its path, so that it is found wherever the package lies.
_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_run.py")


def persist(
    fn: Callable[..., Any],
    name: str,
    Executor: JobExecutor | str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    resources: Mapping[str, Any] | None = None,
) -> FunctionJob:
    """Call a function in the background, as a job that survives this session.

    Parameters
    ----------
    fn : Callable
        What is called: any function, also a lambda, a closure, one of a notebook, or a method of an object.
    name : str
        Names the job, so that ``readmgr(name)`` finds it, from any session.
    Executor : JobExecutor | str | None
        Who runs it; None: as configured.
    args, kwargs : Sequence, Mapping | None
        What it is called with. Large arrays are welcome.
    resources : Mapping | None
        What it needs, such as ``{"mem": "4gb", "walltime": "2h"}``.

    Returns
    -------
    FunctionJob
        The handle, at once: ``status, jobinfo, cancel, isready, wait, fetch, getstdout, getstderr, cleanup``.

    Raises
    ------
    NameTakenError
        If another job has that name.
    JobError
        If the function or an argument cannot be pickled, or a resource makes no sense.
    SubmitError
        If the executor refused it; nothing is left of it then.

    Examples
    --------
    >>> job = persist(sum, "six", args=([1, 2, 3],))
    >>> job.fetch(timeout=60)
    6
    >>> job.cleanup()
    """
    if not callable(fn):
        raise JobError(f"persist needs a function, and got {fn!r}. Nothing was started.")
    call = (fn, tuple(args), dict(kwargs or {}))
    with Maker(load_config(), name, Executor, resources) as maker:
        payload = maker.payload(0, call, f"The function {_called(fn)} or an argument", about=maker.about(fn))
        maker.add("call", [payload])
        return FunctionJob(maker.config, name, maker.batch_id, executor=maker.executor)


def readmgr(name: str) -> Any:
    """Return the handle of a function job by its name, from any session on any host that sees the index.

    Parameters
    ----------
    name : str
        As it was given to ``persist``, ``persist_map`` or ``BatchExecutor``.

    Returns
    -------
    FunctionJob | FunctionMap
        The handle that ``persist`` or ``persist_map`` returned.

    Raises
    ------
    NotFoundError
        If there is no job of that name.

    Examples
    --------
    >>> readmgr("calcpi").fetch()  # doctest: +SKIP
    3.14159
    """
    config = load_config()
    row = named(config, name)
    if row is None:
        raise NotFoundError(
            f"There is no function job named {name!r} in {config.index}. persist(fn, {name!r}) starts one; cleanup() "
            f"has removed one that was there."
        )
    if row["kind"] == "call":
        return FunctionJob(config, name, row["BatchID"])
    from paraschut.functions.mapping import FunctionMap

    about = json.loads(row["about"]) if row["about"] else _calls_of(config, row["BatchID"])
    return FunctionMap(config, name, row["BatchID"], about)


def _calls_of(config: Config, batch_id: int) -> dict[str, Any]:
    """Return what is known of the calls of an executor: one to a job."""
    with Store.of(config) as store, store.reading() as connection:
        count = len(calls.standings(store.statements(connection), batch_id))
    return {"total": count, "pilots": 0, "chunk": 1, "reduce": False, "chunked": False}


def named(config: Config, name: str) -> dict[str, Any] | None:
    """Return the row of a name; None if there is none."""
    if not os.path.exists(config.index):
        return None
    with Store.of(config) as store:
        return _row_of(store, name)


def _row_of(store: Store, name: str) -> dict[str, Any] | None:
    with store.reading() as connection:
        return store.statements(connection).row("name", name=name)


def _called(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


class Maker:
    """Makes a batch of function jobs: its payloads, its rows, its first submission.

    Parameters
    ----------
    name : str | None
        The name of the batch; None: it has none of its own.
    batch_id : int | None
        A batch that is there, to be added to; None: a new one.

    Raises
    ------
    NameTakenError, JobError, ExecutorError
        If the name, a resource or the executor is wrong.
    """

    def __init__(
        self,
        config: Config,
        name: str | None,
        executor: JobExecutor | str | type[JobExecutor] | None,
        resources: Mapping[str, Any] | None,
        batch_id: int | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise JobError(f"The name of a function job is {name!r}; it must be some text.")
        if resources is not None and not isinstance(resources, Mapping):
            raise JobError(f"resources are {resources!r}; they must be a dict such as {{'mem': '1gb'}}.")
        if isinstance(executor, type) and issubclass(executor, JobExecutor):
            executor = executor.configured(config)
        self.config = config
        self.name = name
        self.paths = Paths(config.index)
        self.executor = executor_of(executor or config.executor_name, config)
        self.resources = {**self.executor.resources, **(resources or {})}
        needs_of(self.resources)
        try:
            self.executor.asked({"resources": self.resources})
        except JobError as error:
            raise JobError(f"{name!r} cannot be started: {error}") from error
        self._script = f"exec {shlex.join([sys.executable, '-P', _PROGRAM])}"
        elsewhere = self.executor.other_hosts
        self.store = Store.of(config, create=True, other_hosts=elsewhere)
        if elsewhere:
            self.store.keep_journal(journal.mode_for(self.store.index, config.journal_mode, other_hosts=True))
        # The last connection that is closed makes SQLite tidy up, which takes time: once is enough.
        self._connection = engine.connect(self.paths.index, config.lock_timeout)
        try:
            if batch_id is None:
                self._refuse_taken()
                batch_id = new_batch_id(self.store)
            self.limit = (
                pickles.SMALL_ROLLBACK if self.executor.other_hosts else pickles.limit_of(self._connection)
            )
        except BaseException:
            self.close()
            raise
        self.batch_id = batch_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_taken(self) -> None:
        if self.name is not None and _row_of(self.store, self.name) is not None:
            raise _taken(self.name)

    def let_go(self) -> None:
        """Hold the index open no longer."""
        self._connection.close()

    def close(self) -> None:
        """Let go of the index for good."""
        self.let_go()
        self.store.__exit__()

    def about(self, fn: Callable[..., Any], **more: Any) -> str:
        """Return what whoever runs a function should know of this session."""
        module = getattr(fn, "__module__", None)
        path = [os.path.abspath(place) if place else os.getcwd() for place in sys.path]
        known = {
            # Tells the function from one of a batch that was removed and had the same number.
            "id": os.urandom(8).hex(),
            "versions": versions(),
            "module": module,
            "hash": module_hash(module),
            "path": path,
        }
        return json.dumps({**known, **more})

    def payload(
        self,
        number: int,
        value: Any,
        what: str,
        *,
        shared: int | None = None,
        warm: bool = False,
        about: str | None = None,
    ) -> Payload:
        """Pickle what a job, or several, are to call.

        Raises
        ------
        JobError
            If it cannot be pickled.
        """
        try:
            data = pickles.dump(value, self.paths.payload(self.batch_id, number), self.limit)
        except StoreError:
            raise
        except OSError as error:
            raise unwritable(what, self.paths.data(self.batch_id), error) from error
        except Exception as error:
            raise unpicklable(what, error) from error
        return Payload(self.batch_id, number, data, shared, warm, about)

    def job(self, job_index: int, priority: float = 1) -> dict[str, Any]:
        """Return the dict of a function job."""
        return {
            "BatchID": self.batch_id,
            "JobIndex": job_index,
            "priority": priority,
            "name": self.name or "BatchExecutor",
            "data_type": "function",
            "data": None,
            "script": self._script,
            "queue": self.executor.queue,
            "resources": self.resources,
            "state": "init",
        }

    def add(
        self,
        kind: str,
        payloads: Sequence[Payload],
        about: Mapping[str, Any] | None = None,
        *,
        last: int | None = None,
        new: bool = True,
    ) -> None:
        """Add jobs in one transaction, with the name of their batch and what they call, and submit what is next.

        ``last`` is the number of the job that waits for all others. A new batch that is refused is removed.
        """
        numbers = [payload.number for payload in payloads if payload.number >= 0]
        added = [self.job(number, 0 if number == last else 1) for number in numbers]

        def also(db: Statements) -> None:
            if self.name is not None:
                told = None if about is None else json.dumps(about)
                if new and not calls.add_name(db, self.name, self.batch_id, kind, time.time(), told):
                    raise _taken(self.name)
                if not new and about is not None:
                    calls.tell_name(db, self.name, told)
            for payload in payloads:
                calls.add_payload(db, payload)

        try:
            add_and_submit(self.store, self.config, self.executor, self.batch_id, added, also, new=new)
        except SubmitError:
            if new:
                change.remove(self.config, [self.batch_id])
            raise
        except BaseException:
            if new:
                shutil.rmtree(self.paths.batch(self.batch_id), ignore_errors=True)
            raise


def unpicklable(what: str, error: Exception) -> JobError:
    """Return the sentence for something that cannot be pickled."""
    return JobError(
        f"{what} cannot be pickled: {type(error).__name__}: {error}. Give it what is needed to make the value again (a "
        f"path, the arguments) instead of the value. Nothing was started."
    )


def unwritable(what: str, folder: str, error: OSError) -> StoreError:
    """Return the sentence for something too large for the index that cannot be written beside it."""
    return StoreError(f"{what} cannot be written into {folder}: {error.strerror}. Is the disk full?")


def _taken(name: str) -> NameTakenError:
    return NameTakenError(
        f"There is a function job named {name!r} already. readmgr({name!r}) is its handle; its cleanup() frees the name."
    )


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
            told.append(self._watch.failure(ending, "").reason)
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
