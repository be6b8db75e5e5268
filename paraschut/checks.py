"""What a job's fields, and the numbers of batches and jobs, may be. No I/O, no clock.

Part of the road of a job: imports little.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Mapping
from typing import Any

from paraschut.after import Need
from paraschut.errors import JobError
from paraschut.job import REMOVED, REQUIRED, SUBMITTED, encodable, label

_REQUIRED = frozenset(REQUIRED)


def check(job: Mapping[str, Any]) -> None:
    """Raise unless a job dict is one that can be added.

    Raises
    ------
    JobError
        Naming the job, the field and what is valid.
    """
    if not job.keys() >= _REQUIRED:
        missing = [field for field in REQUIRED if field not in job]
        raise JobError(
            f"{label(job)} lacks the field {missing[0]!r}. Start from get_job_template(), which has all of: "
            f"{', '.join(REQUIRED)}."
        )
    for field in ("BatchID", "JobIndex"):
        check_index(job, field)
    priority = job["priority"]
    if not is_number(priority):
        raise JobError(
            f"{label(job)} has priority {priority!r}; it must be a finite number such as 1 or 0.5."
        )
    state = job["state"]
    if not is_state(state) or state in SUBMITTED:
        raise JobError(
            f"{label(job)} has state {state!r}; a job is added in 'init' (or 'held', or a word of your own); "
            f"'submit', 'run' and 'spawn' are set by submission."
        )
    name = job["name"]
    if not isinstance(name, str) and not (
        isinstance(name, (list, tuple)) and all(isinstance(part, str) for part in name)
    ):
        raise JobError(f"{label(job)} has name {name!r}; it must be a string or a list of strings.")
    if not _is_text(job["script"]):
        raise JobError(
            f"{label(job)} has script {job['script']!r}; it must be a command line or a file's path, without NUL."
        )
    resources = job["resources"]
    if resources is not None and not isinstance(resources, Mapping):
        raise JobError(
            f"{label(job)} has resources {resources!r}; they must be a dict such as {{'mem': '1gb'}}."
        )
    if "vars" in job:
        _check_vars(job)
    _check_optional(job)


def _check_optional(job: Mapping[str, Any]) -> None:
    if job.get("workdir") is not None and not _is_text(job["workdir"]):
        raise JobError(f"{label(job)} has workdir {job['workdir']!r}; it must be a path.")
    if not _is_retries(job.get("retries")):
        raise JobError(
            f"{label(job)} has retries {job['retries']!r}; it must be a whole number of 0 or more."
        )
    if "after" in job:
        after_of(job["after"], label(job))


def check_change(fields: Mapping[str, Any]) -> None:
    """Raise unless new values of a job's fields are ones that it could have been added with.

    Which state may follow which is another question.
    """
    if not is_state(fields.get("state", "init")):
        raise JobError(f"A job cannot have state {fields['state']!r}; it is a word. Nothing was changed.")
    if not is_number(fields.get("priority", 0)):
        raise JobError(
            f"A job cannot have priority {fields['priority']!r}; it is a number such as 1 or 0.5. Nothing was changed."
        )
    resources = fields.get("resources")
    if resources is not None and not isinstance(resources, Mapping):
        raise JobError(
            f"resources cannot be {resources!r}; they are a dict such as {{'mem': '1gb'}}. Nothing was changed."
        )
    if "vars" in fields and fields["vars"] is not REMOVED:
        _check_vars(fields)
    if "script" in fields and not _is_text(fields["script"]):
        raise JobError(
            f"A script cannot be {fields['script']!r}; it is a command line or a path. Nothing was changed."
        )
    workdir = fields.get("workdir")
    if workdir is not None and workdir is not REMOVED and not _is_text(workdir):
        raise JobError(f"A workdir cannot be {workdir!r}; it is a path. Nothing was changed.")
    if not _is_retries(fields.get("retries")):
        raise JobError(
            f"retries cannot be {fields['retries']!r}; they are a whole number of 0 or more. Nothing was changed."
        )
    if "after" in fields and fields["after"] is not REMOVED:
        after_of(fields["after"], "A job that")


def _is_retries(value: object) -> bool:
    return value is None or value is REMOVED or is_index(value)


def after_of(given: Any, who: str) -> list[Need]:
    """Return what a field ``after`` names: a batch, a job as a pair, or a list of these.

    Raises
    ------
    JobError
        If it names anything else.

    Examples
    --------
    >>> after_of([(7, 0), 8, (7, 0)], "job 9:0"), after_of((7, 1), "job 9:0"), after_of(None, "job 9:0")
    ([Need(batch_id=7, job_index=0), Need(batch_id=8, job_index=-1)], [Need(batch_id=7, job_index=1)], [])
    """
    if given is None:
        return []
    # Of a list, two numbers are two batches; of a tuple, a job.
    single = None if isinstance(given, (list, set, frozenset)) else _need(given)
    if single is not None:
        return [single]
    found = [_need(one) for one in given] if isinstance(given, (list, tuple, set, frozenset)) else [None]
    needs = [one for one in found if one is not None]
    if len(needs) < len(found):
        raise JobError(
            f"{who} has after = {given!r}; it must be a BatchID, a job as (BatchID, JobIndex), or a list of these. "
            f"Nothing was done."
        )
    return list(dict.fromkeys(needs))


def _need(given: Any) -> Need | None:
    if is_index(given):
        return Need(int(given))
    if isinstance(given, (list, tuple)) and len(given) == 2 and all(map(is_index, given)):  # noqa: PLR2004
        return Need(int(given[0]), int(given[1]))
    return None


def check_index(job: Mapping[str, Any], field: str) -> None:
    """Raise unless a field of a job is a whole number of 0 or more."""
    value: Any = job.get(field)
    if not is_index(value):
        hint = (
            "get_job_template(SetID=True) makes one"
            if field == "BatchID"
            else "set_index=True numbers the jobs"
        )
        raise JobError(
            f"{label(job)} has {field} {value!r}; it must be a whole number of 0 or more ({hint})."
        )


def _check_vars(job: Mapping[str, Any]) -> None:
    variables = job["vars"]
    if variables is None:
        return
    if not isinstance(variables, Mapping):
        raise JobError(f"{label(job)} has vars {variables!r}; they must be a dict of names and strings.")
    for name, value in variables.items():
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise JobError(
                f"{label(job)} has a variable named {name!r}; names are letters, digits and '_', not digits first."
            )
        if not isinstance(value, str) or "\0" in value:
            raise JobError(
                f"{label(job)} has the variable {name} = {value!r}; values are strings without NUL: write "
                f"str(value), and keep other types in a field of their own."
            )


def is_index(value: Any) -> bool:
    """Return whether a value is a BatchID or a JobIndex: a whole number of 0 or more, in 64 bits."""
    if type(value) is int:
        return 0 <= value < 1 << 63
    try:
        return 0 <= _whole(value) < 1 << 63
    except TypeError:
        return False


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def is_state(value: object) -> bool:
    """Return whether a value is a word that a state can be."""
    if type(value) is str and value == "init":
        return True
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value and encodable(value)


def _is_text(value: object) -> bool:
    """Return whether a value is a path or a command line: more than blanks, without NUL."""
    if not isinstance(value, (str, os.PathLike)):
        return False
    text = os.fspath(value)
    return isinstance(text, str) and bool(text.strip()) and "\0" not in text


def number_of(given: Any) -> int:
    """Return one whole number as Python's own.

    Raises
    ------
    JobError
        If it is none, or too large for any BatchID or JobIndex.

    Examples
    --------
    >>> number_of(3)
    3
    """
    found = numbers_of(given)
    if len(found) != 1:
        raise JobError(f"{given!r} is not one whole number. Nothing was done.")
    return found[0]


def numbers_of(given: Any) -> list[int]:
    """Return one whole number, or several, as a list of Python's own.

    Examples
    --------
    >>> numbers_of(3), numbers_of(range(2))
    ([3], [0, 1])
    """
    try:
        found = [_whole(given)]
    except TypeError:
        try:
            found = [_whole(one) for one in given]
        except TypeError:
            raise JobError(
                f"{given!r} is neither a whole number nor a list of them. Nothing was done."
            ) from None
    for one in found:
        if not -(1 << 63) <= one < 1 << 63:
            raise JobError(f"{one} is too large for a number of a batch or a job. Nothing was done.")
    return found


def is_number(value: object) -> bool:
    """Return whether a value is a finite number that the index can hold: whole ones have 64 bits."""
    if isinstance(value, (int, numbers.Integral)):
        return not isinstance(value, bool) and -(1 << 63) <= int(value) < 1 << 63
    try:
        return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)
    except (TypeError, OverflowError):  # NumPy calls a span of time a real number
        return False


def plain_number(value: Any) -> float:
    """Return a number as SQLite can keep it: NumPy's become Python's."""
    if type(value) is int or type(value) is float:
        return value
    try:
        return operator.index(value)
    except TypeError:
        return float(value)
