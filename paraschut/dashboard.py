"""Looks: gathers what the index and the executors say, and shows it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, overload

from paraschut import fold as folding
from paraschut import job as jobs
from paraschut.config import Config, load_config
from paraschut.errors import JobError, NotFoundError, StoreError
from paraschut.executors.base import JobExecutor, executor_of
from paraschut.paths import Paths
from paraschut.process import identity
from paraschut.render import render_queue
from paraschut.store import views
from paraschut.store.store import Store
from paraschut.summary import BatchRow, MissingRow, Span, StateRow, Totals, spans_of

#: Lines of the error log that a report on a missing job shows.
_REPORT_LINES = 10


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
) -> dict[int, list[jobs.Job]]: ...
@overload
def get_queue(
    Verbose: bool,
    ResetMissing: bool = ...,
    ReportMissing: bool = ...,
    Display: Collection[str] | None = ...,
    Filter: str = ...,
    Executor: JobExecutor | str | None = ...,
) -> dict[int, list[jobs.Job]] | None: ...
def get_queue(
    Verbose: bool = True,
    ResetMissing: bool = False,
    ReportMissing: bool = False,
    Display: Collection[str] | None = None,
    Filter: str = "",
    Executor: JobExecutor | str | None = None,
) -> dict[int, list[jobs.Job]] | None:
    """Show where every batch stands.

    A missing job is one that was submitted or ran, and is gone without having completed; its reason is shown.

    Parameters
    ----------
    Verbose : bool
        Whether to print; False returns the jobs instead.
    ResetMissing : bool
        Set missing jobs back to ``init``.
    ReportMissing : bool
        Print the end of the error log of each missing job.
    Display : Collection[str] | None
        Only these states (and ``'missing'``); None: all.
    Filter : str
        Only jobs that meet a condition, such as ``'name LIKE "%yeast%" AND BatchID > 20260101000000'``. A field of
        your own may stand alone, as in ``'checked AND NOT flags.outlier'``.
    Executor : JobExecutor | str | None
        Only judge jobs of this executor; None: of all.

    Returns
    -------
    dict[int, list[Job]] | None
        With ``Verbose=False``: the jobs by BatchID, without the values that would have to be unpickled.

    Raises
    ------
    FilterError
        If the Filter is not a condition.

    Examples
    --------
    >>> get_queue(Display={"run", "missing"})  # doctest: +SKIP
    """
    config = load_config()
    condition = _condition(Filter)
    states = [Display] if isinstance(Display, str) else Display
    if not os.path.exists(config.index):
        if Verbose:
            _show(render_queue([], Totals(0, 0, 0, 0, 0, ()), filtered=bool(Filter)))
            return None
        return {}
    with Store.of(config) as store:
        notes = _fold(store, config, Executor)
        if ResetMissing:
            _reset_missing(store, condition)
        if not Verbose:
            with store.reading() as connection:
                return views.job_dicts(store, connection, condition, None if states is None else list(states))
        rows, totals = summarise(store, condition, notes)
        _show(render_queue(rows, totals, display=states, width=_width(), filtered=bool(Filter.strip())))
        if ReportMissing:
            for row in rows:
                for one in row.missing:
                    _report(store, row.batch_id, one)
    return None


def _fold(store: Store, config: Config, which: JobExecutor | str | None) -> list[str]:
    only = None if which is None else executor_of(which, config).name
    try:
        return folding.fold(store, config, thorough=True, only=only)
    except StoreError as error:
        return [f"shown as the index has it, which could not be brought up to date: {error}"]


def _condition(text: str) -> Any:
    if not isinstance(text, str) or text.strip():
        from paraschut.store.filters import compile_filter

        return compile_filter(text)
    return None


def _show(text: str) -> None:
    print(text)  # noqa: T201 - the dashboard


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 160))


def summarise(store: Store, condition: Any, notes: Sequence[str]) -> tuple[list[BatchRow], Totals]:
    """Return what the dashboard shows: a row for each batch, and the totals."""
    with store.reading() as connection:
        islands = views.islands(connection, condition)
        known = views.batches(connection)
        online = views.online(connection)
        missing = views.missing(connection, condition)
        progress = views.progress(connection, condition)
        active = views.active_jobs(connection)
    online -= {(batch_id, job_index) for batch_id, job_index, _, _ in missing}
    by_batch: dict[int, list[int]] = {}
    for batch_id, job_index in sorted(online):
        by_batch.setdefault(batch_id, []).append(job_index)
    gone: dict[int, list[MissingRow]] = {}
    for batch_id, job_index, reason, n in missing:
        gone.setdefault(batch_id, []).append(MissingRow(job_index, reason, n))
    told: dict[int, list[tuple[int, float, str]]] = {}
    for batch_id, job_index, fraction, message in progress:
        told.setdefault(batch_id, []).append((job_index, fraction, message))
    rows = []
    for batch_id, group in groupby(islands, key=itemgetter(0)):
        info = known[batch_id]
        lit = by_batch.get(batch_id, [])
        states = tuple(
            _state_row(state, of_state, lit) for state, of_state in groupby(group, key=itemgetter(1))
        )
        name, kind = info.name or "", info.data_type or ""
        rows.append(
            BatchRow(
                batch_id, name, kind, states, tuple(gone.get(batch_id, ())), tuple(told.get(batch_id, ()))
            )
        )
    every = [row for batch in rows for row in batch.states]
    finished = sum(row.count for row in every if row.state in {"complete", "collected"})
    lit_count = sum(last - first + 1 for row in every for first, last in row.online)
    lost = sum(len(batch.missing) for batch in rows)
    return rows, Totals(active, lit_count, lost, finished, sum(row.count for row in every), tuple(notes))


def _state_row(state: str, islands: Iterable[tuple[int, str, int, int]], online: list[int]) -> StateRow:
    spans = tuple([Span(first, last) for _, _, first, last in islands])
    count = sum([last - first for first, last in spans]) + len(spans)
    if not online or state not in {"submit", "run", "spawn"}:
        return StateRow(state, count, spans, ())
    mine = {index for first, last in spans for index in range(first, last + 1)}
    return StateRow(state, count, spans, spans_of(index for index in online if index in mine))


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
    _show(f"\n{batch_id}:{one.job_index} is missing: {one.reason}")
    try:
        for line in _tail(path, _REPORT_LINES):
            _show(f"    {line}")
    except FileNotFoundError:
        _show(f"    its error log is empty ({path})")


def print_log(
    BatchID: int | Sequence[int],
    JobIndex: int | Sequence[int],
    LogKey: str = "stdout",
    LogIndex: int | Sequence[int] = -1,
    Lines: int | Iterable[int] | None = None,
    RegEx: str | None = None,
) -> None:
    """Print what a job wrote, also while it runs.

    Parameters
    ----------
    BatchID, JobIndex : int | Sequence[int]
        The job; or several, all combinations of them.
    LogKey : str
        ``'stdout'`` or ``'stderr'``.
    LogIndex : int | Sequence[int]
        The attempt: -1 is the last, 0 the first.
    Lines : int | Iterable[int] | None
        A number n: the last n lines; an iterable: the lines of these numbers, from 0; None: all.
    RegEx : str | None
        Only lines in which this regular expression is found.

    Raises
    ------
    NotFoundError
        If there is no such job, or it has no such attempt; saying where the log was expected.

    Examples
    --------
    >>> print_log(20260101000000, 3, "stderr", Lines=20)  # doctest: +SKIP
    """
    if LogKey not in {"stdout", "stderr"}:
        raise JobError(f"LogKey is {LogKey!r}; it must be 'stdout' or 'stderr'.")
    try:
        pattern = None if RegEx is None else re.compile(RegEx)
    except re.error as error:
        raise JobError(f"RegEx {RegEx!r} is not a regular expression: {error}.") from error
    chosen = Lines if Lines is None or isinstance(Lines, int) else sorted(set(Lines))
    batches, indices, attempts = map(jobs.numbers_of, (BatchID, JobIndex, LogIndex))
    several = len(batches) * len(indices) * len(attempts) > 1
    with Store.of(load_config()) as store:
        for batch_id in batches:
            for job_index in indices:
                for number in attempts:
                    path, n = _log_path(store, batch_id, job_index, number, LogKey)
                    if several:
                        _show(f"--- {batch_id}:{job_index}, attempt {n}, {LogKey}")
                    for line in _log_lines(path, chosen, pattern):
                        _show(line)


def _log_path(store: Store, batch_id: int, job_index: int, number: int, key: str) -> tuple[str, int]:
    with store.reading() as connection:
        job = views.get_job(store, connection, batch_id, job_index)
        attempts = views.attempts_of(connection, batch_id, job_index)
    if not attempts:
        raise NotFoundError(
            f"{jobs.label(job)} was not submitted yet, so it has no log. submit_jobs() submits it."
        )
    try:
        attempt = attempts[number]
    except IndexError:
        raise NotFoundError(
            f"{jobs.label(job)} has {len(attempts)} attempts, so LogIndex must be between {-len(attempts)} and "
            f"{len(attempts) - 1}; it is {number}."
        ) from None
    path = Paths(store.index).log(batch_id, job_index, attempt["n"], key)
    if not os.path.exists(path):
        if attempt["started"] is None:
            raise NotFoundError(f"{jobs.label(job)} has not started yet. Its log will be {path}")
        if attempt["ended"] is None:
            return os.devnull, attempt["n"]
        # Empty logs are removed at the end.
        return os.devnull, attempt["n"]
    return path, attempt["n"]


def _log_lines(path: str, chosen: int | list[int] | None, pattern: re.Pattern[str] | None) -> Iterator[str]:
    if isinstance(chosen, int):
        lines: Iterable[str] = _tail(path, chosen)
    elif chosen is None:
        lines = _lines(path)
    else:
        wanted = set(chosen)
        lines = (line for number, line in enumerate(_lines(path)) if number in wanted)
    return (line for line in lines if pattern is None or pattern.search(line))


def _lines(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def _tail(path: str, count: int) -> list[str]:
    """Return the last lines of a file, reading no more than they need."""
    if count <= 0:
        return []
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(position, 1 << 16)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    return data.decode("utf-8", errors="replace").rstrip("\n").split("\n")[-count:] if data else []
