"""What a job asks for: sizes, times, and the keys that every executor understands. No I/O, no clock."""

from __future__ import annotations

import math
import numbers
import operator
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from paraschut.errors import JobError

#: The keys of ``resources`` that mean the same on every executor.
GENERIC = ("cpus", "mem", "walltime", "gpus", "nodes")

# PBS, SGE and Slurm all count in steps of 1024, whichever way the unit is spelled.
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_LARGEST = 2**63 - 1  # what an integer of SQLite holds

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([smhd]?)", re.IGNORECASE)
_DAYS = re.compile(r"([0-9]{1,9})(?:-|d\s+)([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})", re.IGNORECASE)
_CLOCK = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})")

_SIZE_FORMS = "write it like 4gb, 512M or 1.5GiB, or as a whole number of bytes"
_TIME_FORMS = (
    "write it like 02:30:00, 1-12:00:00, 15:00 (minutes and seconds), 90m, 2h, 1d or 45s, or in seconds"
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job needs, in the units of this package.

    Attributes
    ----------
    cpus : int
        Processors; on several nodes, on each of them.
    mem : int | None
        Bytes of memory; None where the job did not say.
    walltime : float | None
        Seconds that it may run; None where the job did not say.
    gpus, nodes : int
        Graphics cards and machines.
    """

    cpus: int = 1
    mem: int | None = None
    walltime: float | None = None
    gpus: int = 0
    nodes: int = 1


def parse_size(value: object) -> int:
    """Return a size in bytes; units are steps of 1024, however they are spelled.

    Raises
    ------
    JobError
        If it is not a size.

    Examples
    --------
    >>> parse_size("4gb"), parse_size("1.5GiB"), parse_size("100"), parse_size(100)
    (4294967296, 1610612736, 100, 100)
    """
    size = _size_of_text(value) if isinstance(value, str) else _index(value)
    if size is None or not 0 <= size <= _LARGEST:
        raise JobError(f"{_shown(value)} is not a size: {_SIZE_FORMS}.")
    return size


@lru_cache(1000)  # of thousands of jobs, most ask for the same
def _size_of_text(text: str) -> int | None:
    match = _SIZE.fullmatch(text.strip())
    if match is None or ((match[3] or "").lower() == "ib" and not match[2]):
        return None
    # Rounded up, so that a job never gets less than it asked for.
    return math.ceil(Fraction(match[1]) * (1 << 10 * _UNITS[match[2].lower()]))


def parse_time(value: object) -> float:
    """Return a duration in seconds.

    Raises
    ------
    JobError
        If it is not a duration.

    Examples
    --------
    >>> parse_time("02:30:00"), parse_time("1-00:00:00"), parse_time("15:00"), parse_time("90m"), parse_time(5)
    (9000.0, 86400.0, 900.0, 5400.0, 5.0)
    """
    seconds = _time_of_text(value.strip()) if isinstance(value, str) else _real(value)
    if seconds is None or not 0 <= seconds < math.inf:
        raise JobError(f"{_shown(value)} is not a time: {_TIME_FORMS}.")
    return seconds


@lru_cache(1000)
def _time_of_text(text: str) -> float | None:
    # Parts above 59 are fine, as they are for the schedulers: 00:90:00 is an hour and a half.
    if match := _DAYS.fullmatch(text) or _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = ("0", *match.groups(default="0"))[-4:]
        return float(((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds))
    if match := _DURATION.fullmatch(text):
        return float(Fraction(match[1]) * _SECONDS[match[2].lower()])
    return None


def format_size(n: int) -> str:
    """Return a size as people read it; ``parse_size`` reads it too.

    Examples
    --------
    >>> format_size(100), format_size(1536), format_size(4 * 1024**3)
    ('100 B', '1.5 KiB', '4 GiB')
    """
    if n < 0:
        return f"-{format_size(-n)}"
    value, unit = float(n), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        # Looked at after rounding, so that 1023.99 KiB is 1 MiB and not 1024 KiB.
        if round(value, 1) < 1024:  # noqa: PLR2004
            break
        value, unit = value / 1024, larger
    return f"{_short(value)} {unit}"


def format_time(seconds: float) -> str:
    """Return a duration as people read it; ``parse_time`` reads it too.

    Raises
    ------
    JobError
        If it is not a finite number.

    Examples
    --------
    >>> format_time(4.2), format_time(11045), format_time(183845)
    ('4.2 s', '03:04:05', '2d 03:04:05')
    """
    if not math.isfinite(seconds):
        raise JobError(f"{seconds} is not a time that can be shown: give a finite number of seconds.")
    if seconds < 0:
        return f"-{format_time(-seconds)}"
    if round(seconds, 1) < 60:  # noqa: PLR2004
        return f"{_short(seconds)} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02}:{minute:02}:{second:02}"
    return f"{days}d {clock}" if days else clock


def needs_of(resources: Mapping[str, object] | None) -> Needs:
    """Return what the generic keys of ``resources`` ask for; a key that is None counts as absent.

    The dict is left as it is, and keys that are not generic are for the executor to judge.

    Raises
    ------
    JobError
        Naming the key and what is valid.

    Examples
    --------
    >>> needs_of({"cpus": 4, "mem": "2gb", "pmem": "1gb"})
    Needs(cpus=4, mem=2147483648, walltime=None, gpus=0, nodes=1)
    """
    given = {key: value for key, value in _checked(resources).items() if value is not None}
    return Needs(
        cpus=_count(given, "cpus", default=1, least=1),
        mem=_mem(given),
        walltime=_walltime(given),
        gpus=_count(given, "gpus", default=0, least=0),
        nodes=_count(given, "nodes", default=1, least=1),
    )


def warned_after(walltime: float | None, lead: float) -> float | None:
    """Return the seconds after which a job is told that its time will be over; None if it is not.

    Parameters
    ----------
    lead : float
        Seconds before its time limit; a job is never told before half of its time is over.

    Examples
    --------
    >>> warned_after(3600.0, 60.0), warned_after(30.0, 60.0), warned_after(None, 60.0), warned_after(3600.0, 0.0)
    (3540.0, 15.0, None, None)
    """
    return max(walltime - lead, walltime / 2) if walltime and lead else None


def other_keys(resources: Mapping[str, object] | None) -> tuple[str, ...]:
    """Return the keys that are not generic, in their order.

    Examples
    --------
    >>> other_keys({"mem": "1gb", "pmem": "1gb", "cput": "04:59:00"})
    ('pmem', 'cput')
    """
    return tuple(key for key in _checked(resources) if key not in GENERIC)


def _checked(resources: object) -> Mapping[str, object]:
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise JobError(
            f"resources is {_shown(resources)}; it must be a dict such as {{'cpus': 2, 'mem': '4gb'}}."
        )
    for key in resources:
        if not isinstance(key, str):
            raise JobError(
                f"resources has the key {_shown(key)}; its keys are strings such as 'cpus' or 'mem'."
            )
    return resources


def _count(given: Mapping[str, object], key: str, *, default: int, least: int) -> int:
    if key not in given:
        return default
    count = _index(given[key])
    if count is None or not least <= count <= _LARGEST:
        raise JobError(
            f"resources has {key} = {_shown(given[key])}; it must be a whole number of {least} or more, such as 2."
        )
    return count


def _mem(given: Mapping[str, object]) -> int | None:
    if "mem" not in given:
        return None
    try:
        size = parse_size(given["mem"])
    except JobError:
        size = 0
    if size == 0:
        raise JobError(
            f"resources has mem = {_shown(given['mem'])}; it must be a size above 0: {_SIZE_FORMS}."
        )
    return size


def _walltime(given: Mapping[str, object]) -> float | None:
    if "walltime" not in given:
        return None
    try:
        seconds = parse_time(given["walltime"])
    except JobError:
        seconds = 0
    if seconds == 0:
        raise JobError(
            f"resources has walltime = {_shown(given['walltime'])}; it must be a time above 0: {_TIME_FORMS}."
        )
    return seconds


def _index(value: object) -> int | None:
    # NumPy's integers are not ints, but say that they can serve as one; a bool could too, and is a mistake here.
    if isinstance(value, bool):
        return None
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        return None


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _shown(value: object) -> str:
    return reprlib.repr(value)
