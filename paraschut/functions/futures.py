"""The face of the standard library: an executor whose calls are jobs of this package."""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future
from functools import cache
from itertools import chain, islice
from typing import Any, TypeVar

from paraschut import change
from paraschut.config import load_config
from paraschut.errors import JobError, ParaschutError
from paraschut.executors.base import JobExecutor
from paraschut.functions.awaiting import Ending, Watch
from paraschut.functions.mapping import deadline_of, workers_of
from paraschut.functions.persisting import Maker, unpicklable, unwritable
from paraschut.store import calls, pickles
from paraschut.store.calls import Payload

_T = TypeVar("_T")
#: Calls that are added to the index at once.
_MOST = 1000
#: Seconds after the last call for which the index is held open.
_LINGER = 1.0
#: Calls from which on results are looked for every so many seconds, so that many come at once.
_CROWD, _LEAST = 20, 0.005


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
        self._feed = _Feed(Maker(load_config(), name, Executor, resources))
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
        future = _JobFuture(self._feed)
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

        Raises
        ------
        TimeoutError
            From the iterator, if a result is not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        self._check()
        self._feed.refuse_if_closed()
        left = deadline_of(timeout)
        number = self._feed.function(fn if chunksize == 1 else _Several(fn))
        futures: deque[_JobFuture] = deque()
        items = zip(*iterables, strict=False)
        for given in items if chunksize == 1 else _chunks(items, chunksize):
            futures.append(_JobFuture(self._feed))
            self._feed.add(futures[-1], number, given, {})
        results = _results(futures, left)
        return results if chunksize == 1 else chain.from_iterable(results)

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


def _results(futures: deque[_JobFuture], left: Callable[[], float | None]) -> Iterator[Any]:
    try:
        while futures:
            yield futures.popleft().result(left())
    finally:
        for future in futures:
            future.cancel()


class _JobFuture(Future[Any]):
    """A future whose call may wait in the index."""

    def __init__(self, feed: _Feed) -> None:
        super().__init__()
        self._feed = feed
        #: The JobIndex of its call, once there is one.
        self.index = -1

    def cancel(self) -> bool:
        """Cancel the call if it has not started; return whether it is cancelled."""
        if not self.done() and self._feed.take_back(self):
            super().cancel()
            self.set_running_or_notify_cancel()
        return self.cancelled()

    def running(self) -> bool:
        """Return whether the call runs now."""
        return not self.done() and self._feed.runs(self)


class _Feed:
    """Brings calls into the index, and results to their futures: one thread, which starts with the first call."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        maker.let_go()  # this may be for long, and the watch minds forks
        self._watch = Watch(maker.config, maker.batch_id, maker.executor)
        self._changed = threading.Condition()
        #: Held while calls are on their way into the index; taken before the other.
        self._moving = threading.RLock()
        self._thread: threading.Thread | None = None
        self._functions: dict[bytes, int] = {}
        self._new: deque[Payload] = deque()
        self._shared: list[Payload] = []
        self._futures: dict[int, _JobFuture] = {}
        self._count = 0
        self._added = False
        self._closed = False
        self._last_event = 0.0

    # -- from the threads of the user ---------------------------------------------------------------------------

    def function(self, fn: Callable[..., Any]) -> int:
        """Return the number under which a function is kept, as it is now."""
        data = _pickled(fn, "The function")
        digest = hashlib.blake2b(data, digest_size=16).digest()
        with self._changed:
            number = self._functions.get(digest)
            if number is None:
                number = calls.SHARED - len(self._functions)
                self._shared.append(self._payload(number, data)._replace(about=self.maker.about(fn)))
                self._functions[digest] = number
        return number

    def _payload(self, number: int, data: bytes) -> Payload:
        maker = self.maker
        try:
            kept = pickles.keep(data, maker.paths.payload(maker.batch_id, number), maker.limit)
        except OSError as error:
            raise unwritable("A call", maker.paths.data(maker.batch_id), error) from error
        return Payload(maker.batch_id, number, kept)

    def add(self, future: _JobFuture, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take a call; what cannot be pickled is the future's exception."""
        try:
            data = _pickled((args, kwargs), "An argument")
        except JobError as error:
            future.set_exception(error)
            return
        with self._changed:
            self.refuse_if_closed()
            payload = self._payload(self._count, data)._replace(shared=number, warm=True)
            future.index = self._count
            self._count += 1
            self._new.append(payload)
            self._futures[future.index] = future
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="BatchExecutor", daemon=True)
                _mind_exit()
                _serving.add(self)
                self._thread.start()
            self._changed.notify()

    def refuse_if_closed(self) -> None:
        """Raise if no more calls are taken."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def close(self) -> None:
        """Take no more calls."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until all calls have ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def take_back(self, future: _JobFuture) -> bool:
        """Take a call back that has not started; return whether it never will."""
        with self._moving, self._changed:
            if future.index not in self._futures:
                return False
            waiting = [payload for payload in self._new if payload.number == future.index]
            for payload in waiting:
                self._new.remove(payload)
            if not waiting and not change.hold_back(self.maker.config, {self.maker.batch_id: [future.index]}):
                return False
            del self._futures[future.index]
            self._changed.notify()
            return True

    def cancel_all(self) -> None:
        """Cancel all calls that have not started."""
        with self._moving, self._changed:
            gone = [payload.number for payload in self._new]
            self._new.clear()
            left = self._futures.keys() - set(gone)
            if left and self._added:
                change.hold_back(self.maker.config, {self.maker.batch_id: sorted(left)})
                held = self._watch.read(lambda db: calls.stopped(db, self.maker.batch_id))
                gone += [one.job_index for one in held if one.state == "held" and one.job_index in left]
            futures = [self._futures.pop(index) for index in gone]
            self._changed.notify()
        for future in futures:
            if Future.cancel(future):
                future.set_running_or_notify_cancel()

    def runs(self, future: _JobFuture) -> bool:
        """Return whether a call runs now."""
        with self._moving, self._changed:
            waits = any(payload.number == future.index for payload in self._new)
            if waits or not self._added or future.index not in self._futures:
                return False
        standing, ending = self._watch.one(future.index)
        return ending is None and standing.state == "run"

    # -- the thread ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._watch.close()
            self.maker.close()
            _serving.discard(self)

    def _turn(self) -> bool:
        """Do all there is to do now, and wait for more; return False when there will be no more."""
        try:
            if self._bring():
                self._last_event = time.monotonic()
            for ending in self._watch.news() if self._added else ():
                self._last_event = time.monotonic()
                self._tell(ending)
            seconds = self._watch.rest(time.monotonic() - self._last_event) if self._futures else None
            if seconds is not None and len(self._futures) > _CROWD:
                seconds = max(seconds, _LEAST)
        except ParaschutError as error:
            self._fail(error)
            return True
        with self._changed:
            if self._new or (seconds is None and self._futures):
                return True
            if self._futures:
                self._changed.wait(seconds)
                return True
            if not self._closed:
                # A connection that is the last one to be closed makes SQLite tidy up, which takes time.
                if not self._changed.wait(_LINGER):
                    self._watch.close()
                    self._changed.wait()
                return True
        self._tidy()
        return False

    def _bring(self) -> bool:
        """Bring new calls into the index; return whether there were any."""
        with self._moving:
            with self._changed:
                new = [self._new.popleft() for _ in range(min(len(self._new), _MOST))]
                if not new:
                    return False
                shared, self._shared = self._shared, []
            self.maker.add("executor", [*shared, *new], new=not self._added)
            self._added = True
        return True

    def _tell(self, ending: Ending) -> None:
        with self._changed:
            future = self._futures.pop(ending.job_index, None)
        if future is None or future.cancelled():
            return
        try:
            value = self._watch.value(
                ending, f"Call {ending.job_index} (job {self.maker.batch_id}:{ending.job_index})"
            )
        except Exception as error:  # noqa: BLE001 - what the function raised
            future.set_exception(error)
        else:
            future.set_result(value)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            failed = list(self._futures.values())
            self._futures.clear()
            self._new.clear()
        for future in failed:
            if not future.done():
                future.set_exception(error)

    def _tidy(self) -> None:
        """Remove what nobody can ask for any more."""
        if self.maker.name is None and self._added:
            change.remove(self.maker.config, [self.maker.batch_id])


def _pickled(value: object, what: str) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:
        raise unpicklable(what, error) from error
    return data


_serving: set[_Feed] = set()


@cache
def _mind_exit() -> None:
    """See to it that what was submitted is done before the interpreter ends, as the standard library does."""

    def finish() -> None:
        for feed in list(_serving):
            feed.close()
            feed.join()

    atexit.register(finish)
