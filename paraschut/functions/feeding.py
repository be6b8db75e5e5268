"""The thread behind an executor: brings calls into the index, and results to their futures."""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

from paraschut import change
from paraschut.errors import JobError, ParaschutError
from paraschut.functions.awaiting import Ending, Watch
from paraschut.functions.making import Maker, unpicklable, unwritable
from paraschut.store import calls, pickles
from paraschut.store.bell import Bell
from paraschut.store.calls import Payload

#: Calls that are added to the index at once.
_MOST = 1000
#: Seconds after the last call for which the index is held open.
_LINGER = 1.0
#: Calls from which on results are looked for every so many seconds, so that many come at once.
_CROWD, _LEAST = 20, 0.005


class JobFuture(Future[Any]):
    """A future whose call may wait in the index."""

    def __init__(self, feed: Feed) -> None:
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


class Feed:
    """Brings calls into the index, and results to their futures: one thread, which starts with the first call."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        maker.store.rest()  # this may be for long, and the watch minds forks
        self._watch = Watch(maker.config, maker.batch_id, maker.executor, maker.store)
        #: Rung when the thread has something to do; there is one as long as it is at work.
        self._bell: Bell | None = None
        self._changed = threading.RLock()
        #: Held while calls are on their way into the index; taken before the other.
        self._moving = threading.RLock()
        self._thread: threading.Thread | None = None
        self._functions: dict[bytes, int] = {}
        self._new: deque[Payload] = deque()
        self._shared: list[Payload] = []
        self._futures: dict[int, JobFuture] = {}
        self._count = 0
        self._added = False
        self._closed = False
        self._last_event = 0.0
        _mind_exit()

    # -- from the threads of the user ---------------------------------------------------------------------------

    def function(self, fn: Callable[..., Any]) -> int:
        """Return the number under which a function is kept, as it is now."""
        data = pickled(fn, "The function")
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

    def add(self, future: JobFuture, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take a call; what cannot be pickled is the future's exception."""
        try:
            data = pickled((args, kwargs), "An argument")
        except JobError as error:
            future.set_exception(error)
            return
        with self._changed:
            self.refuse_if_closed()
            payload = self._payload(self._count, data)._replace(shared=number, warm=True)
            self._begin()
            future.index = self._count
            self._count += 1
            self._new.append(payload)
            self._futures[future.index] = future
            self._wake()

    def _begin(self) -> None:
        """Start the thread, if there is none."""
        if self._thread is None:
            bell = Bell(self.maker.paths.index, self.maker.batch_id)
            thread = threading.Thread(target=self._serve, args=(bell,), name="BatchExecutor", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are no more threads to be had; nothing was taken
                bell.close()
                raise
            self._bell, self._thread = bell, thread
            _serving.add(self)

    def _wake(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    def refuse_if_closed(self) -> None:
        """Raise if no more calls are taken."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def close(self) -> None:
        """Take no more calls."""
        with self._changed:
            self._closed = True
            self._wake()

    def join(self) -> None:
        """Wait until all calls have ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def take_back(self, future: JobFuture) -> bool:
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
            self._wake()
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
            self._wake()
        for future in futures:
            if Future.cancel(future):
                future.set_running_or_notify_cancel()

    def runs(self, future: JobFuture) -> bool:
        """Return whether a call runs now."""
        with self._moving, self._changed:
            waits = any(payload.number == future.index for payload in self._new)
            if waits or not self._added or future.index not in self._futures:
                return False
        standing, ending = self._watch.one(future.index)
        return ending is None and standing.state == "run"

    # -- the thread ---------------------------------------------------------------------------------------------

    def _serve(self, bell: Bell) -> None:
        try:
            while self._turn(bell):
                pass
        except BaseException as error:
            self.close()  # nobody would make what comes now
            self._fail(error)
            raise
        finally:
            self._watch.close()
            self.maker.close()
            with self._changed:
                bell.close()
                self._bell = None
            _serving.discard(self)

    def _turn(self, bell: Bell) -> bool:
        """Do all there is to do now, and wait for more; return False when there will be no more."""
        try:
            if self._bring():
                self._last_event = time.monotonic()
            for ending in self._watch.news() if self._added else ():
                self._last_event = time.monotonic()
                self._tell(ending)
            seconds = self._watch.rest(time.monotonic() - self._last_event) if self._futures else None
        except ParaschutError as error:
            self._fail(error)
            return True
        with self._changed:
            if self._new or (seconds is None and self._futures):
                return True
            waits, ends = bool(self._futures), self._closed
        if waits:
            if len(self._futures) > _CROWD:
                time.sleep(_LEAST)
            bell.listen(seconds)
        elif ends:
            self._tidy()
            return False
        elif not bell.listen(_LINGER):
            # A connection that is the last one to be closed makes SQLite tidy up, which takes time.
            self._watch.close()
            bell.listen(None)
        return True

    def _bring(self) -> bool:
        """Bring new calls into the index; return whether there were any."""
        with self._moving:
            with self._changed:
                new = [self._new.popleft() for _ in range(min(len(self._new), _MOST))]
                if not new:
                    return False
                shared, self._shared = self._shared, []
            try:
                with self._watch.lock:  # so that no fork takes the connection with it
                    self.maker.add("executor", [*shared, *new], new=not self._added)
            except ParaschutError:  # the calls fail, but those that come later need their functions
                self._shared[:0] = shared
                raise
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
        except BaseException as error:  # noqa: BLE001 - what the function raised, or what its result does here
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


def pickled(value: object, what: str) -> bytes:
    """Return the pickle of what is submitted; raise JobError where there is none."""
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:
        raise unpicklable(what, error) from error
    return data


_serving: set[Feed] = set()
#: Set when the interpreter is about to end: a thread that starts then would be stopped in the midst of its work.
_exiting = threading.Event()


@cache
def _mind_exit() -> None:
    """See to it that what was submitted is done before the interpreter ends, as the standard library does."""

    def finish() -> None:
        _exiting.set()
        for feed in list(_serving):
            feed.close()
            feed.join()

    atexit.register(finish)
    # A child has none of the threads, and perhaps their locks.
    os.register_at_fork(after_in_child=_serving.clear)
