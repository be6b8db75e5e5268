"""Why a job is not running: a pure function over plain data. No store, no executor, no clock."""

from __future__ import annotations

import time
from typing import NamedTuple


class Other(NamedTuple):
    """A job, or with ``job_index`` None a batch, that another one waits for."""

    batch_id: int
    job_index: int | None
    #: None: it is not in the index.
    state: str | None
    failure: str | None = None
    #: How many jobs of it are not done, where it stands for several.
    left: int = 1


class Attempt(NamedTuple):
    """The last attempt of a job."""

    n: int
    executor: str
    host: str | None
    started: float | None
    ended: float | None
    cancelled: bool
    reason: str | None


class Facts(NamedTuple):
    """What is known of a job.

    Attributes
    ----------
    above : Other | None
        The first job of its batch that has a higher priority and is not done, and how many there are.
    needs : tuple[Other, ...]
        What it is to come after that is not done.
    first : Other | None
        A job above 100 that goes before all lower ones.
    refused : str | None
        Why its executor would not take it.
    active, limit : int
        How many jobs are queued or running, and how many may be.
    ahead : int
        How many jobs wait before it for the same machine.
    scheduler : str | None
        What the scheduler says of it.
    left_by : str | None
        What the last pass was given that leaves it out, such as ``MinPrior=2``.
    left_at : float
        When that pass was made, in epoch seconds.
    """

    batch_id: int
    job_index: int
    state: str
    failure: str | None = None
    ending: bool = False
    not_before: float = 0.0
    above: Other | None = None
    needs: tuple[Other, ...] = ()
    first: Other | None = None
    refused: str | None = None
    active: int = 0
    limit: int = 1000
    last: Attempt | None = None
    goes_on: bool = True
    ahead: int = 0
    scheduler: str | None = None
    left_by: str | None = None
    left_at: float = 0.0


def reasons(facts: Facts, now: float) -> list[str]:
    """Return all that holds a job back, a sentence each; the first is what must go first.

    Examples
    --------
    >>> reasons(Facts(1, 0, "init", above=Other(1, 7, "run", "exit code 3")), 0.0)
    ['Job 1:7 of a higher priority is missing (exit code 3).']
    """
    if facts.state in {"complete", "collected"}:
        return [f"It is {facts.state}."]
    if facts.failure is not None and facts.state != "init":
        return [
            f"It is missing: {facts.failure}. Nothing sends it again by itself; set it back to 'init' when the cause is mended."
        ]
    if facts.state in {"run", "spawn"}:
        where = f" on {facts.last.host}" if facts.last is not None and facts.last.host else ""
        return [f"It runs{where}."]
    if facts.state == "submit":
        return _queued(facts, now)
    if facts.state != "init":
        return [f"It is in state {facts.state!r}, which is not submitted. Set it to 'init' if it should run."]
    return _held_back(facts, now)


def _queued(facts: Facts, now: float) -> list[str]:
    executor = facts.last.executor if facts.last is not None else "its executor"
    found = [f"It was submitted to {executor}, and waits there to start."]
    if facts.not_before > now:
        found.append(
            f"It ended badly and is tried again after a pause: it waits until {_clock(facts.not_before)} "
            f"({facts.not_before - now:.0f} s from now)."
        )
    if facts.scheduler:
        found.append(f"The scheduler says: {facts.scheduler}.")
    if facts.ahead:
        found.append(f"{_jobs(facts.ahead)} were submitted to this machine before it and wait, too.")
    elif executor == "local":
        found.append("It is the next to start, when the processors and memory that it asks for are free.")
    if executor == "file":
        found.append("It starts when somebody runs the script that it was written to.")
    return found


def _held_back(facts: Facts, now: float) -> list[str]:
    found = []
    if facts.ending:
        found.append("Its former attempt was cancelled, and has not been seen to end yet.")
    found.extend(f"It comes after {_named(need)}." for need in facts.needs)
    if facts.above is not None:
        more = facts.above.left - 1
        found.append(
            f"{_begun(_named(facts.above, 'of a higher priority '))}."
            if not more
            else f"{_jobs(facts.above.left)} of a higher priority in its batch are not complete; the first is "
            f"{_named(facts.above)}."
        )
    if facts.first is not None:
        found.append(
            f"{_begun(_named(facts.first, 'of a priority above 100 '))}, and goes before all others."
        )
    if facts.not_before > now:
        found.append(
            f"It ended badly and is tried again in {facts.not_before - now:.0f} s"
            + (f" (it was: {facts.last.reason})." if facts.last is not None and facts.last.reason else ".")
        )
    if facts.refused is not None:
        found.append(f"Its executor does not take it: {facts.refused}")
    if facts.active >= facts.limit:
        found.append(
            f"{_jobs(facts.active)} are queued or running, which is the limit (MaxJobs {facts.limit})."
        )
    last = facts.last
    if (
        last is not None
        and last.started is None
        and last.ended is not None
        and not last.cancelled
        and last.reason
    ):
        found.append(f"When it was submitted last, it was given back: {last.reason}")
    found.extend(_left_out(facts))
    if not found:
        found.append(
            "Nothing holds it back: the next pass takes it, unless the Filter or the MinPrior of that pass leaves it out."
        )
    if not facts.goes_on:
        found.append(
            "No pass over its whole batch was made yet, so nothing submits it by itself: submit_jobs() does."
        )
    return found


def _left_out(facts: Facts) -> list[str]:
    if facts.left_by is None:
        return []
    since = _clock(facts.left_at)
    return [f"The last submit_jobs was given {facts.left_by}, which leaves it out (since {since})."]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _jobs(count: int) -> str:
    return f"{count:,} job{'s' * (count != 1)}"


def _named(other: Other, kind: str = "") -> str:
    name = f"batch {other.batch_id}" if other.job_index is None else f"job {other.batch_id}:{other.job_index}"
    if other.state is None:
        return (
            f"{name} {kind}was removed before it was complete"
            if kind
            else f"{name}, which is no longer in the index"
        )
    if other.job_index is None:
        return f"{name}, of which {_jobs(other.left)} {'is' if other.left == 1 else 'are'} not complete"
    how = f"is missing ({other.failure})" if other.failure else f"is in {other.state!r}"
    return f"{name} {kind}{how}" if kind else f"{name}, which {how}"
