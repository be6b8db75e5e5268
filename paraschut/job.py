"""The job dict: its fields, its check, its states, and how its values are kept. No I/O, no clock.

Metadata is strict JSON, so that any tool can read the index and looking at the queue never executes code.
Values that JSON would change (tuples, NumPy, dates, NaN …) are kept exactly beside it, pickled, field by field.
"""

from __future__ import annotations

import json
import math
import numbers
import operator
import os
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

from paraschut.errors import JobError
from paraschut.values import ATOMS, TEXT, identical, plain, shadow
from paraschut.values import encode as _encode

#: States that the package itself gives a meaning; any other word is the user's and never eligible.
STATES = ("init", "submit", "run", "spawn", "complete", "collected", "held")
#: Those that only submission and start give a job.
SUBMITTED = ("submit", "run", "spawn")
#: The fields of the template, which every job has.
REQUIRED = (
    "BatchID",
    "JobIndex",
    "priority",
    "name",
    "data_type",
    "data",
    "script",
    "queue",
    "resources",
    "state",
)
#: Known fields that a job may have.
OPTIONAL = ("vars", "workdir", "complete_on_exit", "options")
#: Kept in columns of their own, not in the metadata.
COLUMNS = ("BatchID", "JobIndex", "priority", "state")
#: Filled in from the attempts when a job is read, and never written back.
RUNTIME = ("ClusterID", "hostname", "subtime", "stdout", "stderr", "qstat")

_REQUIRED = frozenset(REQUIRED)
_NOT_METADATA = frozenset(COLUMNS + RUNTIME + ("progress", "progress_message", "failure", "attempt"))


class _Removed:
    """The mark of a field that was taken out of a job."""

    def __repr__(self) -> str:
        return "REMOVED"


REMOVED = _Removed()


class Job(dict[str, Any]):
    """A job's fields, as an ordinary dict that also remembers what it was read as.

    ``update_job`` needs that memory to write only what was changed, and to notice when another process
    changed the same field meanwhile. It stays in ``copy()`` and in ``copy.deepcopy``.

    Attributes
    ----------
    origin : Origin | None
        What the index held when this dict was read; None for a dict that was made by hand.
    partial : bool
        Whether the values that need unpickling were left out (``get_queue(Verbose=False)``).
    """

    __slots__ = ("origin", "partial")

    def __init__(
        self, *args: Any, origin: Origin | None = None, partial: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.origin = origin
        self.partial = partial

    def copy(self) -> Job:
        """Return a shallow copy that remembers the same."""
        return Job(self, origin=self.origin, partial=self.partial)

    def __repr__(self) -> str:
        word = self.get("failure") or self.get("state")
        words = (joined_name(self.get("name")), str(word), f"{len(self)} fields")
        return f"<Job {self.get('BatchID')}:{self.get('JobIndex')} {', '.join(filter(None, words))}>"

    def _repr_html_(self) -> str:
        from paraschut.render_html import job_html

        return job_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (dict(self), self.origin, self.partial)


class Origin(NamedTuple):
    """What the index held when a job was read."""

    batch_id: int
    job_index: int
    state: str
    priority: float
    metadata: str
    extras: bytes | None


def _rebuild(fields: dict[str, Any], origin: Origin | None, partial: bool) -> Job:
    return Job(fields, origin=origin, partial=partial)


def label(job: Mapping[str, Any]) -> str:
    """Return how a job is called in messages.

    Examples
    --------
    >>> label({"BatchID": 20260101000000, "JobIndex": 7})
    'job 20260101000000:7'
    """
    return f"job {job.get('BatchID')}:{job.get('JobIndex')}"


def joined_name(name: object) -> str:
    """Return a job's name as it is shown and filtered.

    Examples
    --------
    >>> joined_name(["human", "genome_map"])
    'human/genome_map'
    """
    joined = (
        name if isinstance(name, str) else "/".join(map(str, name)) if isinstance(name, (list, tuple)) else ""
    )
    return writable(joined)


def writable(text: str) -> str:
    """Return a text that a column can hold: half characters, as of file names that are not UTF-8, are spelt out."""
    return text if text.isascii() or encodable(text) else text.encode("utf-8", "backslashreplace").decode()


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
    if job.get("workdir") is not None and not _is_text(job["workdir"]):
        raise JobError(f"{label(job)} has workdir {job['workdir']!r}; it must be a path.")


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


def pack(fields: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Return a job's own fields as they are kept: JSON text, and what JSON cannot hold.

    Raises
    ------
    JobError
        If a value cannot be pickled; naming the field.
    """
    shadows: dict[str, Any] | None = None
    odd: dict[str, bytes] = {}
    try:
        if not TEXT.issuperset(map(type, fields)):
            named = next(field for field in fields if type(field) is not str)
            raise JobError(f"{label(fields)} has a field named {named!r}; names of fields are strings.")
        for field in [
            name for name, value in fields.items() if type(value) not in ATOMS and not plain(value)
        ]:
            if shadows is None:
                shadows = dict(fields)
            odd[field] = _pickled(field, fields[field])
            shadows[field] = shadow(fields[field])
        kept = fields if shadows is None else shadows
        text = _encode(kept)
    except RecursionError:
        raise JobError("A field of the job contains itself, or is nested too deeply to be kept.") from None
    except ValueError as error:  # an integer of thousands of digits
        raise JobError(f"The field {_culprit(fields)!r} cannot be kept: {error}.") from error
    if not text.isascii() and not encodable(text):
        text = json.dumps(kept, allow_nan=False)
        for field, value in json.loads(text).items():
            if value != kept[field]:  # two halves of a character that JSON would join
                odd[field] = _pickled(field, fields[field])
    return text, pickle.dumps(odd, protocol=5) if odd else None


def _culprit(fields: Mapping[str, Any]) -> str:
    for field, value in fields.items():
        try:
            _encode(shadow(value))
        except ValueError:
            return field
    return ""


def encodable(text: str) -> bool:
    """Return whether a text has no half characters, as file names have that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not UTF-8
        return False
    return True


def _pickled(field: str, value: object) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:
        raise JobError(
            f"The field {field!r} cannot be kept: {type(error).__name__}: {error}. Keep what is needed to make "
            f"the value again (a path, the arguments) instead of the value."
        ) from error
    return data


def unpack(text: str, extras: bytes | None) -> dict[str, Any]:
    """Return a job's own fields from how they are kept.

    ``extras`` must come from an index that was looked at by ``store.trust``: it is unpickled.
    """
    fields: dict[str, Any] = json.loads(text)
    if extras is not None:
        for field, data in pickle.loads(extras).items():
            fields[field] = pickle.loads(data)
    return fields


def own_fields(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are kept as metadata: all but the columns and what is filled in when reading."""
    fields = dict(job)
    for key in _NOT_METADATA:
        fields.pop(key, None)
    return fields


def split(text: str, extras: bytes | None) -> dict[str, str | bytes]:
    """Return each field as it is kept (JSON text or a pickle), to compare fields without loading them."""
    kept: dict[str, str | bytes] = {field: _encode(value) for field, value in json.loads(text).items()}
    if extras is not None:
        kept.update(pickle.loads(extras))
    return kept


def changes(job: Job) -> dict[str, Any]:
    """Return the fields of a job that differ from what it was read as; a removed field maps to ``REMOVED``.

    Examples
    --------
    >>> job = Job({"BatchID": 1, "JobIndex": 0, "a": 1, "b": 2}, origin=Origin(1, 0, "init", 1, '{"a":1,"b":1}', None))
    >>> changes(job)
    {'b': 2}
    """
    origin = job.origin
    if origin is None or (job.get("BatchID"), job.get("JobIndex")) != (origin.batch_id, origin.job_index):
        return dict(job)
    before = split(origin.metadata, None if job.partial else origin.extras)
    fields = own_fields(job)
    changed: dict[str, Any] = {
        field: value for field, value in fields.items() if not same(before.get(field), field, value)
    }
    if not job.partial:
        changed.update({field: REMOVED for field in before if field not in fields})
    for column, was in (("state", origin.state), ("priority", origin.priority)):
        if column in job and job[column] != was:
            changed[column] = job[column]
    return changed


def same(kept: str | bytes | None, field: str, value: object) -> bool:
    """Return whether a value is what is kept under a field."""
    if kept is None:
        return False
    if isinstance(kept, str):
        return plain(value) and _encode(value) == kept
    # Most values can be compared without the library that pickles them, which a job would have to import.
    return not plain(value) and (identical(pickle.loads(kept), value) or _pickled(field, value) == kept)


def remembered(origin: Origin, changed: Mapping[str, Any]) -> Origin:
    """Return what a dict remembers after some of its fields were written: of the others, what it was read as."""
    metadata, extras = merge(origin.metadata, origin.extras, own_fields(changed))
    return origin._replace(
        metadata=metadata,
        extras=extras,
        state=changed.get("state", origin.state),
        priority=changed.get("priority", origin.priority),
    )


def merge(text: str, extras: bytes | None, changed: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Return a job's kept fields with some of them changed; the others stay as they are, byte by byte."""
    fields: dict[str, Any] = json.loads(text)
    odd: dict[str, bytes] = pickle.loads(extras) if extras is not None else {}
    for field, value in changed.items():
        odd.pop(field, None)
        fields.pop(field, None)
        if value is REMOVED:
            continue
        packed, more = pack({field: value})
        fields.update(json.loads(packed))
        if more is not None:
            odd.update(pickle.loads(more))
    return pack(fields)[0], pickle.dumps(odd, protocol=5) if odd else None


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
