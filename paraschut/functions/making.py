"""Makes the jobs of functions: what they call, their rows, their name, their first submission."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from paraschut import change
from paraschut._run import module_hash, versions
from paraschut.command import FUNCTION_PROGRAM
from paraschut.config import Config
from paraschut.dispatch import add_and_submit
from paraschut.errors import (
    JobError,
    NameTakenError,
    StoreError,
    SubmitError,
)
from paraschut.executors.base import JobExecutor
from paraschut.executors.choice import executor_of
from paraschut.paths import Paths
from paraschut.prepare import new_batch_id
from paraschut.resources import needs_of
from paraschut.store import calls, journal, pickles
from paraschut.store.calls import Payload
from paraschut.store.runtime import Statements
from paraschut.store.store import Store


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
        self._script = f"exec {shlex.join([sys.executable, '-P', FUNCTION_PROGRAM])}"
        elsewhere = self.executor.other_hosts
        self.store = Store.of(config, create=True, other_hosts=elsewhere)
        if elsewhere:
            self.store.keep_journal(journal.mode_for(self.store.index, config.journal_mode, other_hosts=True))
        self.store.__enter__()
        try:
            if batch_id is None:
                self._refuse_taken()
                batch_id = new_batch_id(self.store)
            self.limit = pickles.SMALL_ROLLBACK if self.executor.other_hosts else self._limit()
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

    def _limit(self) -> int:
        with self.store.reading() as connection:
            return pickles.limit_of(self.store.statements(connection).connection)

    def close(self) -> None:
        """Let go of the index."""
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


def named(config: Config, name: str) -> dict[str, Any] | None:
    """Return the row of a name; None if there is none."""
    if not os.path.exists(config.index):
        return None
    with Store.of(config) as store:
        return _row_of(store, name)


def _row_of(store: Store, name: str) -> dict[str, Any] | None:
    with store.reading() as connection:
        return store.statements(connection).row("name", name=name)
