"""Looks: gathers what the index and the executors say, and shows it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, overload

from paraschut import fold as folding
from paraschut import queues
from paraschut.config import Config, load_config
from paraschut.errors import StoreError
from paraschut.executors.base import JobExecutor
from paraschut.executors.choice import executor_of
from paraschut.look.lines import lines_of
from paraschut.look.render import render_queue
from paraschut.look.render_html import queue_html
from paraschut.look.screen import coloured, show, width
from paraschut.look.snapshot import Queue
from paraschut.look.summary import BatchRow, MissingRow, Span, StateRow, Totals, estimate_left, spans_of
from paraschut.look.texts import clean
from paraschut.paths import Paths
from paraschut.process import identity
from paraschut.store import views
from paraschut.store.store import Store

#: Lines of the error log that a report on a missing job shows.
_REPORT_LINES = 10
#: The states of jobs that are still to start.
_WAITING = ("init", "submit")


@overload
def get_queue(
    Verbose: Literal[True] = True,
    ResetMissing: bool = ...,
    ReportMissing: bool = ...,
    Display: Collection[str] | None = ...,
    Filter: str = ...,
    Executor: JobExecutor | str | None = ...,
) -> None: ...
@overload
def get_queue(
    Verbose: Literal[False],
    ResetMissing: bool = ...,
    ReportMissing: bool = ...,
    Display: Collection[str] | None = ...,
    Filter: str = ...,
    Executor: JobExecutor | str | None = ...,
) -> Queue: ...
@overload
def get_queue(
    Verbose: bool,
    ResetMissing: bool = ...,
    ReportMissing: bool = ...,
    Display: Collection[str] | None = ...,
    Filter: str = ...,
    Executor: JobExecutor | str | None = ...,
) -> Queue | None: ...
def get_queue(
    Verbose: bool = True,
    ResetMissing: bool = False,
    ReportMissing: bool = False,
    Display: Collection[str] | None = None,
    Filter: str = "",
    Executor: JobExecutor | str | None = None,
) -> Queue | None:
    """Show where every batch stands: as text in a terminal, as HTML in a notebook.

    A missing job is one that was submitted or ran, and is gone without having completed; its reason is shown.

    Parameters
    ----------
    Verbose : bool
        Whether to print; False returns the jobs instead.
    ResetMissing : bool
        Set missing jobs back to ``init``.
    ReportMissing : bool
        Print the end of the error log of each missing job, and what its scheduler said.
    Display : Collection[str] | None
        Only these states (and ``'missing'``); None: all.
    Filter : str
        Only jobs that meet a condition, such as ``'name LIKE "%yeast%" AND BatchID > 20260101000000'``. A field of
        your own may stand alone, as in ``'checked AND NOT flags.outlier'``.
    Executor : JobExecutor | str | None
        Only judge jobs of this executor; None: of all.

    Returns
    -------
    Queue | None
        With ``Verbose=False``: a dict of BatchID to a list of job dicts, without the values that would have to be
        unpickled. A notebook shows it as the dashboard; its ``to_pandas()`` is a table.

    Raises
    ------
    FilterError
        If the Filter is not a condition.

    Examples
    --------
    >>> get_queue(Display={"run", "missing"})  # doctest: +SKIP
    """
    config = load_config()
    condition = condition_of(Filter)
    states = [Display] if isinstance(Display, str) else Display
    if not os.path.exists(config.index):
        if Verbose:
            show_queue([], Totals(0, 0, 0, 0, 0, ()), None, Filter)
            return None
        return Queue()
    with Store.of(config) as store:
        notes = bring_up_to_date(store, config, Executor)
        if ResetMissing:
            _reset_missing(store, condition)
        if not Verbose:
            return _queue(store, condition, None if states is None else list(states))
        rows, totals = summarise(store, condition, notes, Filter)
        show_queue(rows, totals, states, Filter)
        if ReportMissing:
            for row in rows:
                for one in row.missing:
                    _report(store, row.batch_id, one)
    return None


def show_queue(
    rows: Sequence[BatchRow], totals: Totals, states: Collection[str] | None, condition: str
) -> None:
    """Show a queue, as HTML in a notebook."""
    filtered = bool(condition.strip())
    show(
        render_queue(rows, totals, display=states, width=width(), filtered=filtered, colour=coloured()),
        lambda: queue_html(rows, totals, display=states, filtered=filtered, now=time.time()),
    )


def bring_up_to_date(store: Store, config: Config, which: JobExecutor | str | None) -> list[str]:
    """Fold the evidence; return what could not be asked or written, in sentences."""
    only = None if which is None else executor_of(which, config).name
    try:
        return folding.fold(store, config, thorough=True, only=only)
    except StoreError as error:
        return [f"shown as the index has it, which could not be brought up to date: {error}"]


def condition_of(text: str) -> Any:
    """Return a Filter as a condition; None where it is empty."""
    if not isinstance(text, str) or text.strip():
        from paraschut.store.filters import compile_filter

        return compile_filter(text)
    return None


def _queue(store: Store, condition: Any, states: Sequence[str] | None) -> Queue:
    now = time.time()
    with store.reading() as connection:
        found = views.job_dicts(store, connection, condition, states)
        online = views.online(connection)
        copies = views.copies(connection)
        spans = views.times(connection)
    for batch_id, group in found.items():
        for job in group:
            # Where one copy is missing, others may run.
            if job.get("failure") and (batch_id, job["JobIndex"]) not in copies:
                online.pop((batch_id, job["JobIndex"]), None)
    waiting = {batch_id: sum(job["state"] in _WAITING for job in group) for batch_id, group in found.items()}
    progress = {
        (batch_id, job["JobIndex"]): job["progress"]
        for batch_id, group in found.items()
        for job in group
        if job.get("progress") is not None
    }
    return Queue(
        found, online=online, copies=copies, times=_times(waiting, online, progress, spans, now), at=now
    )


def summarise(
    store: Store, condition: Any, notes: Sequence[str], text: str = ""
) -> tuple[list[BatchRow], Totals]:
    """Return what the dashboard shows: a row for each batch, and the totals.

    ``text`` is the Filter that the condition is of: where it finds nothing, a note may say why.
    """
    now = time.time()
    with store.reading() as connection:
        islands = views.islands(connection, condition)
        known = views.batches(connection)
        online = views.online(connection)
        spans = views.times(connection)
        missing = views.missing(connection, condition)
        progress = views.progress(connection, condition)
        active = views.active_jobs(connection)
        copies = views.copies(connection)
    # Where one copy is missing, others may run.
    still = sum((batch_id, job_index) in copies for batch_id, job_index, _, _ in missing)
    for batch_id, job_index, _, _ in missing:
        if (batch_id, job_index) not in copies:
            online.pop((batch_id, job_index), None)
    by_batch: dict[int, list[int]] = {}
    for batch_id, job_index in sorted(online):
        by_batch.setdefault(batch_id, []).append(job_index)
    gone: dict[int, list[MissingRow]] = {}
    for batch_id, job_index, reason, n in missing:
        gone.setdefault(batch_id, []).append(MissingRow(job_index, reason, n))
    told: dict[int, list[tuple[int, float, str]]] = {}
    for batch_id, job_index, fraction, message in progress:
        told.setdefault(batch_id, []).append((job_index, fraction, message))
    waiting: dict[int, int] = {}
    for batch_id, state, first, last in islands:
        if state in _WAITING:
            waiting[batch_id] = waiting.get(batch_id, 0) + last - first + 1
    times = _times(waiting, online, {row[:2]: row[2] for row in progress}, spans, now)
    rows = []
    for batch_id, group in groupby(islands, key=itemgetter(0)):
        info = known[batch_id]
        lit = by_batch.get(batch_id, [])
        states = tuple(
            _state_row(state, of_state, lit, copies) for state, of_state in groupby(group, key=itemgetter(1))
        )
        rows.append(
            BatchRow(
                batch_id,
                info.name or "",
                info.data_type or "",
                states,
                tuple(gone.get(batch_id, ())),
                tuple(told.get(batch_id, ())),
                *times.get(batch_id, (None, None)),
            )
        )
    if not rows and text.strip():
        from paraschut.store.filters import unknown_fields

        with store.reading() as connection:
            notes = (*notes, *unknown_fields(connection, text))
    every = [row for batch in rows for row in batch.states]
    finished = sum(row.count for row in every if row.state in {"complete", "collected"})
    lit_count = sum(last - first + 1 for row in every for first, last in row.online)
    lost = sum(len(batch.missing) for batch in rows)
    schedulers = tuple(queues.counts(store))
    # Of jobs of a scheduler that does not answer, nobody knows whether they are still there.
    queued = None if any(count is None for _, count in schedulers) else active + still
    every_job = sum(row.count for row in every)
    return rows, Totals(queued, lit_count, lost, finished, every_job, tuple(notes), schedulers)


def _times(
    waiting: Mapping[int, int],
    online: Mapping[tuple[int, int], views.Alive],
    progress: Mapping[tuple[int, int], float],
    spans: Mapping[int, views.Times],
    now: float,
) -> dict[int, tuple[float, float | None]]:
    """Return how long each batch has taken, and will take."""
    running: dict[int, list[tuple[float, float | None]]] = {}
    for (batch_id, job_index), alive in online.items():
        mine = running.setdefault(batch_id, [])
        # What is complete, and about to end, takes no more time.
        if alive.open:
            mine.append((now - alive.started, progress.get((batch_id, job_index))))
    found: dict[int, tuple[float, float | None]] = {}
    for batch_id, span in spans.items():
        end = now if batch_id in running or span.last is None else span.last
        left = estimate_left(running.get(batch_id, []), waiting.get(batch_id, 0), span.mean)
        found[batch_id] = (max(end - span.first, 0.0), left)
    return found


def _state_row(
    state: str,
    islands: Iterable[tuple[int, str, int, int]],
    online: list[int],
    copies: Mapping[tuple[int, int], int],
) -> StateRow:
    mine_of = list(islands)
    spans = tuple([Span(first, last) for _, _, first, last in mine_of])
    count = sum([last - first for first, last in spans]) + len(spans)
    if not online or state not in {"submit", "run", "spawn"}:
        return StateRow(state, count, spans, ())
    mine = {index for first, last in spans for index in range(first, last + 1)}
    several = tuple(
        (index, copies[mine_of[0][0], index])
        for index in online
        if state == "spawn" and index in mine and (mine_of[0][0], index) in copies
    )
    return StateRow(state, count, spans, spans_of(index for index in online if index in mine), several)


def _reset_missing(store: Store, condition: Any) -> None:
    with store.reading() as connection:
        missing = views.missing(connection, condition)
    wanted: dict[int, list[int]] = {}
    for batch_id, job_index, _, _ in missing:
        wanted.setdefault(batch_id, []).append(job_index)
    store.change(
        wanted, {"state": "init"}, {}, who=identity(), now=time.time(), why="reset missing", missing=True
    )


def _report(store: Store, batch_id: int, one: MissingRow) -> None:
    path = Paths(store.index).log(batch_id, one.job_index, one.attempt, "stderr")
    print(f"\n{batch_id}:{one.job_index} is missing: {clean(one.reason)}")
    try:
        for line in lines_of(path, _REPORT_LINES):
            print(f"    {line}")
    except FileNotFoundError:
        print(f"    its error log is empty ({path})")
    with store.reading() as connection:
        summary = store.statements(connection).rows(
            "read_attempts", batch_id=batch_id, job_index=one.job_index
        )
    words = json.loads(summary[-1]["qstat"] or "{}").get("scheduler") if summary else None
    if words:
        print(f"    the scheduler said: {clean(str(words))}")
