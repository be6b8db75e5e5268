"""What evidence means: pure functions from what was found to a verdict. No store, no executor, no clock.

An attempt is *queued*, *running*, *ended* well, or *missing* with a reason. Absence alone proves nothing before
it has lasted for a grace: file systems of clusters show new files late.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What became of an attempt."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    MISSING = "missing"


class Found(NamedTuple):
    """The evidence about one attempt.

    Attributes
    ----------
    started, ended : float | None
        When it did, as far as is known (UTC epoch seconds).
    code, signal : int | None
        How it ended.
    alive : bool | None
        Whether what runs it still does; None if nobody can know.
    absent_since : float | None
        When it was first seen to be gone without a word.
    cause : str | None
        Why its executor ended it: 'time limit', 'out of memory', 'cancelled'.
    final : bool
        Whether everybody who may know why it ended has been asked.
    """

    started: float | None = None
    ended: float | None = None
    code: int | None = None
    signal: int | None = None
    alive: bool | None = None
    absent_since: float | None = None
    cause: str | None = None
    final: bool = True


class Verdict(NamedTuple):
    """What the evidence means.

    Attributes
    ----------
    complete : bool
        Whether this end completes the job.
    reason : str | None
        Why the job is missing.
    absent_since : float | None
        To be remembered until the grace has passed.
    """

    kind: Kind
    complete: bool = False
    reason: str | None = None
    absent_since: float | None = None


def judge(state: str, found: Found, now: float, grace: float, *, complete_on_exit: bool) -> Verdict:
    """Return what became of the current attempt of a job.

    Parameters
    ----------
    state : str
        The job's state in the index.
    grace : float
        Seconds of absence after which a running attempt is missing.
    complete_on_exit : bool
        Whether exiting 0 completes the job.

    Examples
    --------
    >>> judge("run", Found(started=1, ended=2, code=3), 10, 5, complete_on_exit=True).reason
    'exit code 3'
    """
    if found.ended is not None and (found.final or now - found.ended >= grace):
        return _ended(state, found, complete_on_exit=complete_on_exit)
    present = Kind.QUEUED if found.started is None else Kind.RUNNING
    if found.alive is not False:
        return Verdict(present)
    since = now if found.absent_since is None else found.absent_since
    if now - since < grace:
        return Verdict(present, absent_since=since)
    silence = "never started" if found.started is None else "vanished"
    return Verdict(Kind.MISSING, reason=found.cause or silence, absent_since=since)


def _ended(state: str, found: Found, *, complete_on_exit: bool) -> Verdict:
    if state not in {"submit", "run", "spawn"}:
        return Verdict(Kind.ENDED)
    if found.cause is not None:
        return Verdict(Kind.MISSING, reason=found.cause)
    if found.signal is not None:
        return Verdict(Kind.MISSING, reason=f"signal {found.signal}{_SIGNALS.get(found.signal, '')}")
    if found.code is None:
        return Verdict(Kind.MISSING, reason="vanished")
    if found.code != 0:
        return Verdict(Kind.MISSING, reason=f"exit code {found.code}")
    if complete_on_exit:
        return Verdict(Kind.ENDED, complete=True)
    return Verdict(Kind.MISSING, reason="exited 0 without saying complete")


#: signal(7); numbers that are the same on all systems that this runs on.
_SIGNALS = {
    1: " (SIGHUP)",
    2: " (SIGINT)",
    3: " (SIGQUIT)",
    4: " (SIGILL)",
    6: " (SIGABRT)",
    8: " (SIGFPE)",
    9: " (SIGKILL)",
    11: " (SIGSEGV)",
    13: " (SIGPIPE)",
    14: " (SIGALRM)",
    15: " (SIGTERM)",
}
