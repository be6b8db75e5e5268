"""The face of the standard library: an executor whose calls are jobs of this package."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future
from itertools import islice
from typing import Any, TypeVar

from paraschut.config import load_config
from paraschut.errors import ParaschutError
from paraschut.executors.base import JobExecutor
from paraschut.functions.awaiting import deadline_of
from paraschut.functions.feeding import Feed, JobFuture
from paraschut.functions.making import Maker
from paraschut.functions.mapping import workers_of

_T = TypeVar("_T")


class BatchExecutor(StandardExecutor):
    """A ``concurrent.futures.Executor`` whose calls are jobs of one batch, on this machine or on a cluster.

    It goes wherever an executor is taken: SciPy's ``workers=executor.map``, asyncio's ``run_in_executor``, ... Calls
    share warm workers, and are jobs in the index: they survive this session. Functions and arguments of any kind
    are pickled when they are submitted.

    Parameters
    ----------
    Executor : JobExecutor | str | None
        Who runs them; None: as configured.
    name : str | None
        Keeps the calls and their results under this name; None: they are removed when the executor is shut down and
        all of them have ended.
    resources : Mapping | None
        What each call needs, such as ``{"mem": "4gb"}``.

    Raises
    ------
    NameTakenError
        If another function job has that name.

    Notes
    -----
    ``cancel`` of a future also takes back a job that is queued; ``running`` asks the index. A call that takes its
    worker with it (``os.abort``, out of memory) fails alone, with JobFailed; the executor goes on.

    Examples
    --------
    >>> with BatchExecutor() as executor:
    ...     list(executor.map(abs, [-1, 2]))
    [1, 2]
    """

    def __init__(
        self,
        Executor: JobExecutor | str | None = None,
        name: str | None = None,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        self._feed = Feed(Maker(load_config(), name, Executor, resources))
        self._process = os.getpid()
        # Collected without shutdown: what was submitted is still done.
        self._last = weakref.finalize(self, self._feed.close)
        self._last.atexit = False

    @property
    def _max_workers(self) -> int:
        # Libraries look for this name, which executors of the standard library have.
        return workers_of(self._feed.maker.config, self._feed.maker.executor)

    def __repr__(self) -> str:
        return f"<BatchExecutor of batch {self._feed.maker.batch_id}>"

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Call a function as a job.

        Returns
        -------
        Future
            Of the standard library.

        Raises
        ------
        RuntimeError
            After ``shutdown``.
        """
        self._check()
        self._feed.refuse_if_closed()
        future = JobFuture(self._feed)
        try:
            number = self._feed.function(fn)
        except ParaschutError as error:  # as the standard library does: the future has it
            future.set_exception(error)
            return future
        self._feed.add(future, number, args, kwargs)
        return future

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("A BatchExecutor cannot be used by a process that was forked. Make one there.")

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[_T]:
        """Call a function for every item; give the results in the order of the items.

        Parameters
        ----------
        fn : Callable
            What is called, with one item of each iterable.
        iterables : Iterable
            The items.
        timeout : float | None
            Seconds from now on for each result to be there; None: as long as it takes.
        chunksize : int
            Calls that make up one job.
        buffersize : int | None
            Jobs that are submitted before their results are asked for, so that the items may be many, or without end;
            None: all of them are, at once.

        Raises
        ------
        TimeoutError
            From the iterator, if a result is not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._check()
        self._feed.refuse_if_closed()
        left = deadline_of(timeout)
        number = self._feed.function(fn if chunksize == 1 else _Several(fn))
        items: Iterator[Any] = zip(*iterables, strict=False)
        submitted = self._submitted(number, items if chunksize == 1 else _chunks(items, chunksize))
        results = _results(deque(islice(submitted, buffersize)), submitted, left)
        return results if chunksize == 1 else _flat(results)

    def _submitted(self, number: int, calls: Iterator[tuple[Any, ...]]) -> Iterator[JobFuture]:
        """Submit calls of a function one by one, as their futures are asked for."""
        for given in calls:
            future = JobFuture(self._feed)
            self._feed.add(future, number, given, {})
            yield future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; those that were submitted are done.

        Parameters
        ----------
        wait : bool
            Whether to return only when all of them have ended.
        cancel_futures : bool
            Whether to cancel those that have not started.
        """
        self._feed.close()
        if cancel_futures:
            self._feed.cancel_all()
        if wait:
            self._feed.join()


class _Several:
    """Calls a function for each of some items."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *items: tuple[Any, ...]) -> list[Any]:
        return [self.function(*item) for item in items]


def _chunks(items: Iterator[_T], size: int) -> Iterator[tuple[_T, ...]]:
    while chunk := tuple(islice(items, size)):
        yield chunk


def _flat(chunks: Iterator[list[_T]]) -> Iterator[_T]:
    """Give the results of chunks one by one, and keep none that was given."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _results(
    futures: deque[JobFuture], more: Iterator[JobFuture], left: Callable[[], float | None]
) -> Iterator[Any]:
    """Give the results of futures, and submit one more for each; cancel those whose results nobody will see."""

    def first() -> Any:  # a function, so that nothing here holds what was given
        value = futures[0].result(left())
        futures.popleft()
        futures.extend(islice(more, 1))
        return value

    try:
        while futures:
            yield first()
    finally:
        for future in futures:
            future.cancel()
