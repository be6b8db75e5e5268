"""What jobs wrote: whole, in part, or as it comes. No log, however large, is ever held in memory."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from paraschut import checks
from paraschut import fold as folding
from paraschut import job as jobs
from paraschut.agent.series import writes_of
from paraschut.config import load_config
from paraschut.errors import JobError, NotFoundError, StoreError
from paraschut.look.lines import BLOCK, LONGEST, every_line, lines_in, start_of_tail, text_of
from paraschut.paths import Paths
from paraschut.store import views
from paraschut.store.store import Store

#: Seconds between two looks at a log that is followed, and at whether its job has ended.
_PAUSE, _LOOK = 0.2, 1.0


class Log(NamedTuple):
    """The log of one attempt; ``why`` says in a sentence why there is none, where there is none."""

    batch_id: int
    job_index: int
    n: int
    key: str
    path: str
    why: str = ""
    ended: bool = False
    #: Where it may be instead, as long as it has no name.
    places: tuple[str, ...] = ()


def print_log(
    BatchID: int | Sequence[int],
    JobIndex: int | Sequence[int],
    LogKey: str = "stdout",
    LogIndex: int | Sequence[int] = -1,
    Lines: int | Iterable[int] | None = None,
    RegEx: str | None = None,
    Follow: bool = False,
) -> None:
    """Print what a job wrote, also while it runs.

    A log may be of any size: lines of more than 64 KiB are cut, and bytes that are no text are shown as ``\N{REPLACEMENT CHARACTER}``.
    An attempt that wrote nothing has no file; a note on standard error then says where it would be, and how the
    attempt ended.

    Parameters
    ----------
    BatchID, JobIndex : int | Sequence[int]
        The job; or several, all combinations of them.
    LogKey : str
        ``'stdout'`` or ``'stderr'``.
    LogIndex : int | Sequence[int]
        The attempt: -1 is the last, 0 the first.
    Lines : int | Iterable[int] | None
        A number n: the last n lines; an iterable, such as ``range(10)``: the lines of these numbers, from 0; None:
        all.
    RegEx : str | None
        Only lines in which this regular expression is found.
    Follow : bool
        Go on as the jobs write, until they have ended or you press Ctrl-C.

    Raises
    ------
    NotFoundError
        If there is no such job, or it has no such attempt, or that has not started; saying where the log was expected.

    Examples
    --------
    >>> print_log(20260101000000, 3, "stderr", Lines=20)  # doctest: +SKIP
    """
    if LogKey not in {"stdout", "stderr"}:
        raise JobError(f"LogKey is {LogKey!r}; it must be 'stdout' or 'stderr'.")
    pattern = None if RegEx is None else pattern_of(RegEx)
    chosen = Lines if Lines is None or isinstance(Lines, int) else sorted(set(Lines))
    batches, indices, attempts = map(checks.numbers_of, (BatchID, JobIndex, LogIndex))
    config = load_config()
    with Store.of(config) as store:
        found = [
            find_log(store, batch_id, job_index, number, LogKey, may_wait=Follow)
            for batch_id in batches
            for job_index in indices
            for number in attempts
        ]
        for log in found:
            if len(found) > 1 and not Follow:
                print(f"--- {log.batch_id}:{log.job_index}, attempt {log.n}, {LogKey}")
            if not Follow:
                _print_one(log, chosen, pattern)
        if Follow:
            _follow(store, found, chosen if isinstance(chosen, int) else None, pattern)


def pattern_of(text: str) -> re.Pattern[str]:
    """Return a regular expression.

    Raises
    ------
    JobError
        If the text is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise JobError(f"RegEx {text!r} is not a regular expression: {error}.") from error


def _print_one(log: Log, chosen: int | list[int] | None, pattern: re.Pattern[str] | None) -> None:
    for place in log.places or (log.path,):
        with contextlib.suppress(FileNotFoundError):
            with open_log(place, (log.batch_id, log.job_index, log.n)) as file:
                if not os.fstat(file.fileno()).st_size:  # made for it, and nothing is in it yet
                    continue
                for line in lines_in(file, chosen, pattern):
                    print(line)
            return
    print(
        f"({jobs.label({'BatchID': log.batch_id, 'JobIndex': log.job_index})}: {log.why})",
        file=sys.stderr,
    )


# Which file


def find_log(
    store: Store, batch_id: int, job_index: int, number: int, key: str, *, may_wait: bool = False
) -> Log:
    """Return the log of an attempt.

    Raises
    ------
    NotFoundError
        If there is no such attempt; or if it has not started, unless one may wait for that.
    """
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
    log = _log_of(store.index, batch_id, job_index, attempt, key)
    if attempt["started"] is None and not may_wait and not os.path.exists(log.path):
        raise NotFoundError(
            f"{jobs.label(job)} has not started yet{_said(attempt)}. Its log will be {log.path}"
        )
    return log


def _log_of(index: str, batch_id: int, job_index: int, attempt: Mapping[str, Any], key: str) -> Log:
    places = Paths(index).log_places(batch_id, job_index, attempt, key)
    path = places[0]
    if attempt["ended"] is None:
        why = f"nothing is in {path} yet"
    else:
        why = f"it ended{_said(attempt)} and left nothing in {path}"
    return Log(batch_id, job_index, attempt["n"], key, path, why, attempt["ended"] is not None, tuple(places))


def open_log(place: str, key: tuple[int, int, int]) -> BinaryIO:
    """Open a file in which the log of an attempt may be.

    Raises
    ------
    FileNotFoundError
        If it is not there, or is the log of another attempt by now.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open(place, "rb"))
        if os.path.basename(place).startswith("log.") and not writes_of(place, key):
            raise FileNotFoundError(place)
        opened.pop_all()
        return file


def _said(attempt: Mapping[str, Any]) -> str:
    """Return what is known of an attempt, from whoever ran it."""
    parts = [str(attempt["reason"] or "")]
    if not parts[0]:
        parts = [
            f"{word} {attempt[key]}"
            for key, word in (("code", "exit code"), ("signal", "signal"))
            if attempt[key]
        ]
    if attempt["ended"] is None and attempt["qstat"]:
        parts.append(f"{attempt['executor']} says {attempt['qstat']}")
    told = ", ".join(filter(None, parts))
    return f" ({told})" if told else ""


# Many logs


def grep(
    store: Store, wanted: Mapping[int, Sequence[int]], key: str, pattern: re.Pattern[str]
) -> Iterator[tuple[Log, int, str]]:
    """Yield the lines of the last attempts of many jobs in which a pattern is found, with their numbers from 1."""
    for batch_id, indices in wanted.items():
        with store.reading() as connection:
            attempts = views.attempts_of_batch(connection, batch_id)
        for job_index in indices:
            if not attempts.get(job_index):
                continue
            log = _log_of(store.index, batch_id, job_index, attempts[job_index][-1], key)
            try:
                with open(log.path, "rb") as file:
                    for number, line in enumerate(every_line(file), 1):
                        if pattern.search(line):
                            yield log, number, line
            except FileNotFoundError:
                continue


# As it comes


def follow(
    logs: Sequence[Log],
    lines: int | None,
    ended: Callable[[], Collection[Log]],
    pause: Callable[[], None],
) -> Iterator[tuple[Log, str]]:
    """Yield what is in logs, and what comes, until all of them have ended.

    Parameters
    ----------
    lines : int, optional
        Begin with the last so many lines of each.
    ended : callable
        Returns those to which nothing will be added.
    pause : callable
        Waits a little.
    """
    places: dict[Log, int] = {}
    rests = dict.fromkeys(logs, b"")
    left = list(logs)
    while left:
        # Asked before reading: what is written before the end is read after it.
        over = ended()
        news = False
        for log in left:
            for line in _news(log, lines, places, rests):
                news = True
                yield log, line
            if log in over and rests[log]:
                yield log, text_of(rests.pop(log))
        left = [log for log in left if log not in over]
        if left and not news:
            pause()


def _news(log: Log, lines: int | None, places: dict[Log, int], rests: dict[Log, bytes]) -> Iterator[str]:
    try:
        file = open(log.path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        if log not in places:
            places[log] = 0 if lines is None else start_of_tail(file, lines)[0]
        file.seek(places[log])
        while block := file.read(BLOCK):
            *whole, rest = (rests[log] + block).split(b"\n")
            # A line that never ends is shown in pieces.
            if len(rest) > LONGEST:
                whole.append(rest)
                rest = b""
            rests[log] = rest
            places[log] = file.tell()
            for line in whole:
                yield text_of(line[:LONGEST], max(len(line) - LONGEST, 0))


def _follow(store: Store, found: list[Log], lines: int | None, pattern: re.Pattern[str] | None) -> None:
    before = None
    looked = 0.0
    over: set[Log] = {log for log in found if log.ended}

    def ended() -> Collection[Log]:
        nonlocal looked
        if len(over) < len(found) and time.monotonic() - looked > _LOOK:
            over.update(_ended(store, [log for log in found if log not in over]))
            store.rest()
            looked = time.monotonic()
        return over

    try:
        for log, line in follow(found, lines, ended, lambda: time.sleep(_PAUSE)):
            if pattern is None or pattern.search(line):
                if len(found) > 1 and log != before:
                    print(f"--- {log.batch_id}:{log.job_index}, attempt {log.n}, {log.key}")
                print(line, flush=True)
                before = log
    except KeyboardInterrupt:
        # Whoever follows stops when they have seen enough.
        return


def _ended(store: Store, logs: Iterable[Log]) -> Iterator[Log]:
    # An index that cannot be written is read as it is.
    with contextlib.suppress(StoreError):
        folding.fold(store, load_config(), thorough=True)
    with store.reading() as connection:
        for log in logs:
            attempts = views.attempts_of(connection, log.batch_id, log.job_index)
            mine = [one for one in attempts if one["n"] == log.n]
            if not mine or mine[0]["ended"] is not None:
                yield log
