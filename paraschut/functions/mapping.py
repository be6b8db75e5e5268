"""A function called for many items, as one batch of jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paraschut.config import Config, load_config
from paraschut.errors import JobError, NameTakenError
from paraschut.executors.base import JobExecutor
from paraschut.functions.calling import Chunk, Layout, Reduce, layout_of
from paraschut.functions.likeness import likeness
from paraschut.functions.making import Maker, named, unpicklable
from paraschut.functions.map_handle import FunctionMap
from paraschut.store.calls import SHARED, Payload
from paraschut.store.store import JobIndexTakenError

#: Seconds of work that "auto" packs into one job: on this machine, and on a cluster.
AUTO_LOCAL, AUTO_CLUSTER = 0.2, 60.0
#: Seconds that "auto" waits at most for the calls by which it measures.
AUTO_WAIT = 2.0
#: Jobs for each worker that "auto" leaves at least, so that all of them end at about the same time.
AUTO_SHARE = 4


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
