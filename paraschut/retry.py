"""Whether a job that ended badly is tried again, and with what: pure functions over plain data. No I/O, no clock.

The cause decides what changes: a job that ran out of memory asks for more memory and for nothing else, one that ran
into its time limit for more time. What is no fault of the job, a node that failed or a scheduler that took the
node for others, changes nothing and does not count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

OUT_OF_MEMORY, TIME_LIMIT = "out of memory", "time limit"
#: What the reasons begin with that are no fault of the job.
BLAMELESS = ("node failure", "preempted")
#: It asked for another start itself, after it had saved where it was.
REQUEUED = "requeued"
#: Somebody wanted it so.
CANCELLED = "cancelled"
#: Seconds that no pause exceeds.
LONGEST_PAUSE = 3600.0
#: Seconds to a multiple of which the time is rounded up that a scheduler is told.
_STEPS = (1, 2, 5, 10, 30, 60)

#: Keys of ``resources`` that bound memory and time, of all schedulers.
MEMORY_KEYS = (
    *("mem", "pmem", "vmem", "pvmem", "h_vmem", "s_vmem", "h_rss", "s_rss", "mem_free", "virtual_free"),
    *("mem-per-cpu", "mem_per_cpu", "mem-per-gpu", "mem_per_gpu"),
)
TIME_KEYS = ("walltime", "cput", "pcput", "h_rt", "s_rt", "h_cpu", "s_cpu", "time")

_CLOCK = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})")
_UNIT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(\s*[A-Za-z]{0,3})")


class Policy(NamedTuple):
    """How jobs are tried again, as it was configured where they were submitted.

    Attributes
    ----------
    retries : int
        How often, for jobs that do not say so themselves.
    mem_factor, walltime_factor : float
        What more is asked for after the one or the other was not enough.
    mem_limit : int
        Bytes that are never exceeded by that; 0: none.
    walltime_limit : float
        Seconds that are never exceeded by that; 0: none.
    pause : float
        Seconds before the first new try; twice as many before the next one, and so on.
    """

    retries: int = 0
    mem_factor: float = 2.0
    mem_limit: int = 0
    walltime_factor: float = 2.0
    walltime_limit: float = 0.0
    pause: float = 0.0


class Again(NamedTuple):
    """That a job is tried again.

    Attributes
    ----------
    counts : bool
        Whether it is one of those that the job has.
    raised : dict[str, Any]
        What it asks for from now on, in place of what it did.
    pause : float
        Seconds before that.
    """

    counts: bool
    raised: dict[str, Any]
    pause: float = 0.0


def next_try(
    reason: str, asked: Mapping[str, Any], allowed: int, done: int, policy: Policy, *, spared: int = 0
) -> Again | None:
    """Return how a job that ended badly is tried again; None if it is not.

    Parameters
    ----------
    reason : str
        Why it is missing.
    asked : Mapping[str, Any]
        What the attempt that ended had asked for.
    allowed : int
        How often the job is tried again.
    done : int
        How often it was already, where that counted.
    spared : int
        How often it was where that did not count.

    Examples
    --------
    >>> next_try("out of memory", {"mem": 1 << 30, "walltime": 60.0}, 3, 1, Policy(pause=10))
    Again(counts=True, raised={'mem': 2147483648}, pause=20.0)
    >>> next_try("exit code 1", {"mem": 1 << 30}, 3, 3, Policy()) is None
    True
    """
    if reason == REQUEUED:
        return Again(counts=False, raised={})
    if allowed <= 0 or reason == CANCELLED:
        return None
    pause = min(policy.pause * 2.0 ** min(done + spared, 60), LONGEST_PAUSE)
    if reason.startswith(BLAMELESS):
        return Again(counts=False, raised={}, pause=pause)
    if done >= allowed:
        return None
    if reason == OUT_OF_MEMORY:
        raised = _raised(asked, MEMORY_KEYS, "mem", policy.mem_factor, policy.mem_limit)
    elif reason == TIME_LIMIT:
        raised = _raised(asked, TIME_KEYS, "walltime", policy.walltime_factor, policy.walltime_limit)
    else:
        raised = {}
    return Again(counts=True, raised=raised, pause=pause)


def _raised(
    asked: Mapping[str, Any], keys: tuple[str, ...], main: str, factor: float, limit: float
) -> dict[str, Any]:
    """Return some keys with more than was asked for: all by what the main one may grow, where it was given."""
    raised: dict[str, Any] = {}
    before = asked.get(main)
    if before:
        more = max(before, min(before * factor, limit or math.inf))
        if more <= before:
            return {}
        factor = more / before
        raised[main] = math.ceil(more) if isinstance(before, int) else more
    for key in keys:
        if key != main and key in asked and (value := scaled(asked[key], factor)) is not None:
            raised[key] = value
    return raised


def scaled(value: Any, factor: float) -> Any:
    """Return a size or a time times a factor, in the unit that it is written in; None if it is neither.

    Examples
    --------
    >>> scaled("3gb", 2), scaled("04:59:00", 1.5), scaled(100, 1.5), scaled("1.5G", 2), scaled("infinity", 2)
    ('6gb', '7:28:30', 150, '3G', None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return math.ceil(value * factor)
    if not isinstance(value, str):
        return None
    if match := _CLOCK.fullmatch(value.strip()):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        whole = math.ceil((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * factor)
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    if match := _UNIT.fullmatch(value.strip()):
        return f"{math.ceil(float(match[1]) * factor)}{match[2]}"
    return None


def begin_after(not_before: float, now: float) -> float | None:
    """Return the time that a scheduler is told for a job that has a pause; None if that is over.

    It is never before the end of the pause, and later by a fifth of what is left at most, so that jobs that ended
    at about the same time are mostly handed over together.

    Examples
    --------
    >>> begin_after(1000.2, 995.0), begin_after(1003.0, 940.0), begin_after(3001.0, 1000.0), begin_after(9.0, 10.0)
    (1001.0, 1010.0, 3060.0, None)
    """
    if not_before <= now:
        return None
    step = max((one for one in _STEPS if one * 5 <= not_before - now), default=1)
    return float(math.ceil(not_before / step) * step)


def kept_policy(policy: Policy) -> str:
    """Return a policy as a submission keeps it."""
    return json.dumps(policy._asdict())


def policy_of(kept: str | None) -> Policy:
    """Return the policy that a submission keeps; one of an older version keeps none."""
    return Policy() if kept is None else Policy(**json.loads(kept))
