"""A function called for many items, as one batch of jobs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from paraschut import change
from paraschut.config import Config, load_config
from paraschut.dispatch import submit_batch
from paraschut.errors import ExecutorError, JobError, JobFailed, NameTakenError, NotFoundError
from paraschut.executors.base import JobExecutor
from paraschut.functions.awaiting import Ending, Watch
from paraschut.functions.calling import Chunk, Layout, PartlyFailedError, Reduce, layout_of, load_answer
from paraschut.functions.likeness import likeness
from paraschut.functions.persisting import Maker, kill_here, named, unpicklable
from paraschut.progress import bar
from paraschut.store import calls
from paraschut.store.calls import SHARED, Answer, Outcome, Payload
from paraschut.store.store import JobIndexTakenError, Store

#: Seconds of work that "auto" packs into one job: on this machine, and on a cluster.
AUTO_LOCAL, AUTO_CLUSTER = 0.2, 60.0
#: Seconds that "auto" waits at most for the calls by which it measures.
AUTO_WAIT = 2.0
#: Jobs for each worker that "auto" leaves at least, so that all of them end at about the same time.
AUTO_SHARE = 4

#: Seconds between two looks for results at least, so that many come at once.
_LEAST = 0.01

_RAISE: Any = object()


def persist_map(
    fn: Callable[..., Any],
    *iterables: Any,
    name: str,
    chunk: int | str = 1,
    reduce: Callable[[list[Any]], Any] | None = None,
    Executor: JobExecutor | str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> FunctionMap:
    """Call a function for every item in the background, as a batch of jobs that survives this session.

    Called again with its old name, the same function and the same items, it goes on where it was interrupted:
    what is done stays, what failed or was cancelled is called again.

    Parameters
    ----------
    fn : Callable
        What is called, as by ``map``: with one item of each iterable.
    iterables : Iterable
        The items; the shortest decides how many calls there are.
    name : str
        Names the batch, so that ``readmgr(name)`` finds it.
    chunk : int | str
        Calls that make up one job; ``"auto"``: a few calls are measured first, for two seconds at most, so that
        each job takes a while.
    reduce : Callable | None
        Called with the list of all results when all are there, as a job of its own; ``fetch()`` gives what it returns.
    Executor : JobExecutor | str | None
        Who runs them; None: as configured.
    resources : Mapping | None
        What each job needs, such as ``{"mem": "4gb"}``.

    Returns
    -------
    FunctionMap
        The handle: ``results, as_completed, fetch, failures, progress, status, wait, cancel, cleanup``.

    Raises
    ------
    NameTakenError
        If something else has that name, or the function or the items are not those of that name.
    JobError
        If there is nothing to call, or something cannot be pickled.
    SubmitError
        If the executor refused it; nothing is left of it then.

    Examples
    --------
    >>> squares = persist_map(lambda x: x * x, range(4), name="squares")
    >>> squares.results(timeout=60)
    [0, 1, 4, 9]
    >>> squares.cleanup()
    """
    items = _items(fn, iterables, chunk, reduce, name)
    config = load_config()
    try:
        hashes = likeness([fn, reduce], items)
    except Exception as error:
        raise unpicklable("The function or an item", error) from error
    row = named(config, name)
    about = {
        **Layout(len(items), 0, 0 if chunk == "auto" else int(chunk))._asdict(),
        "hashes": hashes,
        "reduce": reduce is not None,
        "chunked": chunk != 1,
    }
    if row is not None:
        about = _same(name, row, about)
    with Maker(config, name, Executor, resources, row["BatchID"] if row else None) as maker:
        if row is None and chunk == "auto":
            about["pilots"] = min(len(items), workers_of(config, maker.executor))
        work = _Work(maker, fn, reduce, items, about)
        if row is None:
            work.add()
        # A batch that is there goes on where it was, unless somebody says otherwise.
        given = maker.executor if row is None or Executor is not None else None
        handle = FunctionMap(config, name, maker.batch_id, about, given)
        if row is not None:
            handle.again()
        if not about["chunk"]:
            work.add_rest(_measured(handle, maker.executor, config))
            handle.layout = layout_of(work.about)
    return handle


def _items(
    fn: Any, iterables: tuple[Any, ...], chunk: int | str, reduce: Any, name: str
) -> list[tuple[Any, ...]]:
    if not callable(fn) or (reduce is not None and not callable(reduce)):
        raise JobError(f"persist_map needs functions, and got {reduce if callable(fn) else fn!r}.")
    if chunk != "auto" and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise JobError(f"chunk is {chunk!r}; it must be a number of calls of 1 or more, or 'auto'.")
    if not iterables:
        raise JobError("persist_map needs at least one iterable of items.")
    items = list(zip(*iterables, strict=False))
    if not items:
        raise JobError(f"The map {name!r} has no items, so there is nothing to call.")
    return items


def _same(name: str, row: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a map of that name; raise unless it is the same."""
    there: dict[str, Any] = json.loads(row["about"] or "{}")
    other = [what for what, said in about["hashes"].items() if there.get("hashes", {}).get(what) != said]
    if row["kind"] != "map" or other:
        raise NameTakenError(
            f"There is {'a map' if row['kind'] == 'map' else 'a function job'} named {name!r} already"
            f"{', of other ' + ' and '.join(other) if row['kind'] == 'map' else ''}. readmgr({name!r}) is its handle; its "
            f"cleanup() frees the name."
        )
    return there


def workers_of(config: Config, executor: JobExecutor) -> int:
    """Return how many jobs of an executor run at once on a machine like this."""
    return int(getattr(executor, "max_workers", 0) or config.max_workers or os.cpu_count() or 1)


def _measured(handle: FunctionMap, executor: JobExecutor, config: Config) -> int:
    """Return how many calls "auto" packs into one job, from how long the first ones took."""
    handle.wait_for_pilots(AUTO_WAIT)
    local = executor.index_is_queue
    return chunk_of(
        handle.seconds(),
        handle.layout.total - handle.layout.pilots,
        AUTO_LOCAL if local else AUTO_CLUSTER,
        workers_of(config, executor) * AUTO_SHARE if local else config.max_jobs,
    )


def chunk_of(seconds: Sequence[float], calls_left: int, target: float, jobs: int) -> int:
    """Return how many calls make up a job that takes a while, and leaves others enough to do.

    Parameters
    ----------
    seconds : Sequence[float]
        How long calls took; none, if none has ended yet: then they take long, or nobody knows.
    target : float
        Seconds that a job should take.
    jobs : int
        How many jobs there should be at least; at most, if nothing is known.

    Examples
    --------
    >>> chunk_of([0.01, 0.03], 1000, 0.2, 8), chunk_of([1e-5], 1000, 0.2, 8), chunk_of([], 5000, 60, 1000)
    (10, 125, 5)
    """
    share = max(1, -(-calls_left // jobs))
    if not seconds:
        return share if jobs > calls_left or target >= AUTO_CLUSTER else 1
    mean = max(sum(seconds) / len(seconds), 1e-9)
    return max(1, min(share, int(target / mean)))


class _Work:
    """What a map is made of, on its way into the index."""

    def __init__(
        self,
        maker: Maker,
        fn: Callable[..., Any],
        reduce: Callable[[list[Any]], Any] | None,
        items: list[tuple[Any, ...]],
        about: dict[str, Any],
    ) -> None:
        self.maker = maker
        self.fn = fn
        self.reduce = reduce
        self.items = items
        self.about = about

    def add(self) -> None:
        """Add the function and the calls, or the first ones, if it is not known yet how to pack the others."""
        function = Chunk(self.fn) if self.about["chunked"] else self.fn
        told = self.maker.about(self.fn, submit=self.reduce is not None)
        shared = self.maker.payload(SHARED, function, "The function", about=told)
        layout = layout_of(self.about)
        reduction = self._reduction()  # now, because what cannot be pickled should be said now
        made = [shared, *self._payloads(range(layout.jobs)), *(reduction if layout.chunk else [])]
        self.maker.add("map", made, self.about, last=layout.total)

    def add_rest(self, chunk: int) -> None:
        """Add the other calls, so many to a job."""
        self.about = {**self.about, "chunk": chunk}
        layout = layout_of(self.about)
        made = [*self._payloads(range(layout.pilots, layout.jobs)), *self._reduction()]
        try:
            if made:
                self.maker.add("map", made, self.about, last=layout.total, new=False)
            else:
                self.about = {**self.about, "pilots": layout.total}
        except JobIndexTakenError:  # another session has gone on with it at this very moment
            row = named(self.maker.config, str(self.maker.name))
            assert row is not None
            self.about = json.loads(row["about"])

    def _payloads(self, numbers: range) -> list[Payload]:
        layout = layout_of(self.about)
        made = []
        for number in numbers:
            mine = [self.items[item] for item in layout.items_of(number)]
            call: tuple[Any, dict[str, Any]] = ((mine,), {}) if self.about["chunked"] else (mine[0], {})
            made.append(self.maker.payload(number, call, f"Item {number}", shared=SHARED, warm=True))
        return made

    def _reduction(self) -> list[Payload]:
        if self.reduce is None:
            return []
        call: tuple[Any, ...] = (Reduce(self.reduce, self.about["chunked"]), (self.maker.name,), {})
        number = self.about["total"]  # above those of all jobs, however the calls are packed
        return [self.maker.payload(number, call, "The reduction", about=self.maker.about(self.reduce))]


class Progress(NamedTuple):
    """How far a map is: numbers of calls; those of a job that makes several are counted when it ends."""

    total: int
    done: int
    failed: int
    running: int


class MappedCall:
    """One call of a map that has ended.

    Attributes
    ----------
    index : int
        Which of the items it was for.
    """

    def __init__(self, index: int, value: Callable[[], Any]) -> None:
        self.index = index
        self._value = value

    def result(self) -> Any:
        """Return what the function returned; raise what it raised, or JobFailed."""
        return self._value()

    def exception(self) -> Exception | None:
        """Return what ``result`` raises, or None."""
        try:
            self._value()
        except Exception as error:  # noqa: BLE001 - whatever the function raised
            return error
        return None


class FunctionMap:
    """The handle of a function that is called for many items; made by ``persist_map`` and ``readmgr``.

    Attributes
    ----------
    name : str
        As it was given to ``persist_map``.
    batch_id : int
        The batch in the index, for ``get_queue`` and ``print_log``.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        batch_id: int,
        about: Mapping[str, Any],
        executor: JobExecutor | None = None,
    ) -> None:
        self.name = name
        self.batch_id = batch_id
        self.layout = layout_of(dict(about))
        self._reduces: bool = about["reduce"]
        self._chunked: bool = about["chunked"]
        self._config = config
        self._watch = Watch(config, batch_id, executor)
        #: How the jobs ended that were seen to; without the results, which may be large.
        self._seen: dict[int, Ending] = {}

    def __len__(self) -> int:
        return self.layout.total

    def __repr__(self) -> str:
        try:
            told = self.progress()
        except LookupError:
            return f"<function map {self.name!r}: removed>"
        return f"<function map {self.name!r}: {told.done} of {told.total} done, {told.failed} failed>"

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self, *, thorough: bool = False) -> dict[int, Ending]:
        """Take in what ended, and return what is new."""
        found = {}
        for ending in self._watch.news(thorough=thorough):
            found[ending.job_index] = ending
            self._seen[ending.job_index] = _light(ending)
        return found

    def _fresh(self) -> None:
        """Take in everything anew: jobs may have been reset."""
        self._watch.begin()
        self._seen.clear()
        self._look(thorough=True)

    def _call_jobs(self) -> list[int]:
        return list(range(self.layout.jobs))

    def _label(self, item: int) -> str:
        return f"Call {item} of {self.name!r} (job {self.batch_id}:{self.layout.job_of(item)})"

    def progress(self) -> Progress:
        """Return how many calls there are, are done, have failed, are running."""
        try:
            self._fresh()
            standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        finally:
            self._watch.close()
        if not standing:
            raise _removed(self.name)
        done = failed = 0
        for job, ending in self._seen.items():
            if job < self.layout.jobs:
                bad = self._bad(ending)
                failed += bad
                done += len(self.layout.items_of(job)) - bad
        running = sum(
            len(self.layout.items_of(one.job_index))
            for one in standing
            if one.state == "run" and one.job_index < self.layout.jobs and one.job_index not in self._seen
        )
        return Progress(self.layout.total, done, failed, running)

    def _bad(self, ending: Ending) -> int:
        if ending.good:
            return 0
        count = len(self.layout.items_of(ending.job_index))
        outcomes = self._outcomes(ending) if self._chunked else None
        return count if outcomes is None else sum(one.kind != "value" for one in outcomes)

    def status(self) -> str:
        """Return ``'empty'``, ``'queued'``, ``'running'``, ``'done'`` (all well) or ``'failed'`` (all that could run has ended)."""
        try:
            self._fresh()
            standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        finally:
            self._watch.close()
        if not standing:
            raise _removed(self.name)
        failed = any(not ending.good for ending in self._seen.values())
        if self._all_ended():
            return "failed" if failed else "done"
        states = {one.state for one in standing if one.job_index not in self._seen}
        if self._seen or "run" in states:
            return "running"
        return "queued" if "submit" in states else "empty"

    def _all_ended(self) -> bool:
        """Return whether nothing more can end: also the reduction, which waits for all and for ever if one failed."""
        if any(job not in self._seen for job in self._call_jobs()) or not self.layout.chunk:
            return False
        failed = any(not self._seen[job].good for job in self._call_jobs())
        return failed or not self._reduces or self.layout.total in self._seen

    def isready(self) -> bool:
        """Return whether all has ended, well or not."""
        try:
            self._fresh()
            return self._all_ended()
        finally:
            self._watch.close()

    def wait(self, timeout: float | None = None, progress: bool | None = None) -> bool:
        """Wait until all has ended, ``timeout`` seconds at most; return whether it has.

        Parameters
        ----------
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.
        """
        left = deadline_of(timeout)
        for _ in self._endings(left, progress):
            pass
        self._fresh()
        return self._watch.until(lambda: self._all_ended_now() or None, left()) is not None

    def _all_ended_now(self) -> bool:
        self._look()
        return self._all_ended()

    def wait_for_pilots(self, timeout: float) -> None:
        """Wait for the jobs by which "auto" measures."""

        def ended() -> bool | None:
            self._look()
            return all(job in self._seen for job in range(self.layout.pilots)) or None

        self._watch.until(ended, timeout)

    def seconds(self) -> list[float]:
        """Return how long the jobs took that ended with an answer."""
        return [one.answer.outcome.seconds for one in self._seen.values() if one.answer is not None]

    # -- results ------------------------------------------------------------------------------------------------

    def _endings(
        self, left: Callable[[], float | None], progress: bool | None
    ) -> Iterator[tuple[int, Ending]]:
        """Give each job of calls as it ends, with its result if that just came; stop when the time is over."""
        if not self.layout.chunk:
            raise JobFailed(
                f"{self.name!r} was interrupted before all its calls were added. Call persist_map again with the same "
                f"name, function and items.",
                "interrupted",
            )
        self._watch.begin()
        self._seen.clear()
        waiting = set(self._call_jobs())
        with bar(self.layout.total, self.name, "call", wanted=progress, stays=True) as show:
            while waiting:
                found = self._watch.until(lambda: self._look() or None, left(), _LEAST)
                if found is None:
                    return
                for job in sorted(found.keys() & waiting):
                    waiting.discard(job)
                    show(len(self.layout.items_of(job)))
                    yield job, found[job]

    def as_completed(
        self, timeout: float | None = None, progress: bool | None = None
    ) -> Iterator[MappedCall]:
        """Give each call when it has ended, in the order in which they end.

        Parameters
        ----------
        timeout : float | None
            Seconds for all of them; None: as long as it takes.
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.

        Raises
        ------
        TimeoutError
            If some have not ended by then; they go on.
        """
        count = 0
        for job, ending in self._endings(deadline_of(timeout), progress):
            count += 1
            for item, value in self._values(job, ending):
                yield MappedCall(item, value)
        if count < self.layout.jobs:
            raise self._too_late(timeout)

    def _too_late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"The map {self.name!r} has not ended within {timeout} s; it goes on.")

    def results(
        self, timeout: float | None = None, default: Any = _RAISE, progress: bool | None = None
    ) -> list[Any]:
        """Wait for all calls, and return their results in the order of the items.

        Parameters
        ----------
        timeout : float | None
            Seconds to wait at most; None: until all have ended.
        default : Any
            What stands for the result of a call that failed; if it is not given, the first failure is raised.
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.

        Raises
        ------
        TimeoutError
            If some have not ended by then; they go on.
        Exception
            What the first call that failed raised, or JobFailed; ``failures()`` gives all.
        """
        found: dict[int, Any] = {}
        failed: dict[int, Exception] = {}
        for call in self.as_completed(timeout, progress):
            try:
                found[call.index] = call.result()
            except Exception as error:  # noqa: BLE001 - whatever the function raised
                failed[call.index] = error
                found[call.index] = default
        if failed and default is _RAISE:
            raise failed[min(failed)]
        return [found[item] for item in range(self.layout.total)]

    def failures(self) -> dict[int, Exception]:
        """Return what the calls raised that have failed so far, by the index of their item."""
        try:
            self._fresh()
            found: dict[int, Exception] = {}
            for job, ending in sorted(self._seen.items()):
                if ending.good or job >= self.layout.jobs:
                    continue
                for item, value in self._values(job, ending):
                    error = MappedCall(item, value).exception()
                    if error is not None:
                        found[item] = error
            return found
        finally:
            self._watch.close()

    def fetch(self, timeout: float | None = None) -> Any:
        """Wait for the result of the reduction, or for all results if there is none.

        Parameters
        ----------
        timeout : float | None
            Seconds to wait at most; None: until it is there.

        Raises
        ------
        TimeoutError
            If it is not there by then; the map goes on.
        Exception
            What the first call that failed raised, or the reduction; or JobFailed.
        """
        if not self._reduces:
            return self.results(timeout)
        if not self.wait(timeout):
            raise self._too_late(timeout)
        for job in self._call_jobs():
            for _, value in [] if self._seen[job].good else self._values(job, self._seen[job]):
                value()
        return self._watch.value(self._full(self._seen[self.layout.total]), f"The reduction of {self.name!r}")

    def _full(self, ending: Ending) -> Ending:
        """Return an ending with its result, read again."""
        if ending.answer is None:
            return ending
        answer = self._watch.read(lambda db: calls.read_result(db, self.batch_id, ending.job_index))
        self._watch.close()
        return ending if answer is None else Ending(ending.job_index, answer)

    def _outcomes(self, ending: Ending) -> list[Outcome] | None:
        """Return what came of each call of a job that makes several; None if the job failed as a whole."""
        ending = self._full(ending) if _is_light(ending) else ending
        if ending.answer is None or (
            ending.answer.outcome.data is None and not ending.answer.outcome.in_file
        ):
            return None
        loaded = load_answer(self._watch.desk, self.batch_id, ending.answer)
        if isinstance(loaded, PartlyFailedError):
            return loaded.outcomes
        return loaded if ending.good else None

    def _values(self, job: int, ending: Ending) -> list[tuple[int, Callable[[], Any]]]:
        """Return for each call of a job what gives its value, or raises."""
        items = self.layout.items_of(job)
        ending = self._full(ending) if _is_light(ending) else ending
        outcomes = self._outcomes(ending) if self._chunked else None
        if outcomes is None:
            return [(item, lambda item=item: self._watch.value(ending, self._label(item))) for item in items]  # type: ignore[misc]
        return [
            (item, lambda item=item, one=one: self._watch.value(_alone(job, ending, one), self._label(item)))  # type: ignore[misc]
            for item, one in zip(items, outcomes, strict=True)
        ]

    # -- changing -----------------------------------------------------------------------------------------------

    def again(self) -> None:
        """Call again what failed or was cancelled, and go on with what was not called yet."""
        self._fresh()
        bad = [job for job, ending in self._seen.items() if not ending.good]
        if bad:
            change.reset(self._config, {self.batch_id: bad})
        with Store.of(self._config) as store:
            submit_batch(store, self._config, self.batch_id, self._watch.executor)
        self._watch.close()

    def cancel(self, force: bool = False) -> bool:
        """Ask all to end that has not; return whether there was anything to end.

        Parameters
        ----------
        force : bool
            Kill at once what runs on this machine; else it has a few seconds to heed SIGTERM.
        """
        self._fresh()
        standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        left = [one.job_index for one in standing if one.job_index not in self._seen]
        self._watch.close()
        done = change.delete(self._config, {self.batch_id: left}) if left else 0
        if force:
            for job in left:
                kill_here(self._watch, job)
        return done > 0

    def cleanup(self) -> None:
        """Delete all of it: the jobs, their results, their output, the name.

        Raises
        ------
        ExecutorError
            If some of it is queued or runs; ``cancel()`` ends it. Nothing is deleted then.
        """
        self._fresh()
        standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        self._watch.close()
        busy = [
            one.job_index
            for one in standing
            if one.state in {"submit", "run", "spawn"} and one.job_index not in self._seen
        ]
        if busy:
            raise ExecutorError(
                f"{len(busy)} jobs of {self.name!r} are queued or running, so nothing was deleted. cancel() it, or wait() "
                f"for it."
            )
        change.remove(self._config, [self.batch_id])

    def getstdout(self, index: int) -> str:
        """Return what a call wrote to its standard output; those that are one job share it."""
        return self._watch.log(self.layout.job_of(index), "stdout")

    def getstderr(self, index: int) -> str:
        """Return what a call wrote to its standard error; those that are one job share it."""
        return self._watch.log(self.layout.job_of(index), "stderr")


def _light(ending: Ending) -> Ending:
    """Return an ending without its result."""
    if ending.answer is None or ending.answer.outcome.data is None:
        return ending
    outcome = ending.answer.outcome._replace(data=None, traceback=None)
    return Ending(ending.job_index, Answer(ending.job_index, ending.answer.n, outcome))


def _is_light(ending: Ending) -> bool:
    return ending.answer is not None and ending.answer.outcome.data is None


def _alone(job: int, ending: Ending, outcome: Outcome) -> Ending:
    """Return how one call of a job ended that makes several."""
    assert ending.answer is not None
    return Ending(job, Answer(job, ending.answer.n, outcome))


def _removed(name: str) -> Exception:
    return NotFoundError(f"The map {name!r} is no longer in the index: it was removed, with its results.")


def deadline_of(timeout: float | None) -> Callable[[], float | None]:
    """Return a function that gives the seconds that are left."""
    end = None if timeout is None else time.monotonic() + timeout
    return lambda: None if end is None else max(0.0, end - time.monotonic())
