"""The job dict: its fields, its states, and how its values are kept. No I/O, no clock.

Metadata is strict JSON, so that any tool can read the index and looking at the queue never executes code.
Values that JSON would change (tuples, NumPy, dates, NaN …) are kept exactly beside it, pickled, field by field.
"""

from __future__ import annotations

import json
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
OPTIONAL = ("vars", "workdir", "complete_on_exit", "options", "retries", "after")
#: Kept in columns of their own, not in the metadata.
COLUMNS = ("BatchID", "JobIndex", "priority", "state")
#: Filled in from the attempts when a job is read, and never written back.
RUNTIME = ("ClusterID", "hostname", "subtime", "stdout", "stderr", "qstat", "SpawnID")

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
        from paraschut.look.texts import clean

        word = self.get("failure") or self.get("state")
        words = (joined_name(self.get("name")), str(word), f"{len(self)} fields")
        return clean(f"<Job {self.get('BatchID')}:{self.get('JobIndex')} {', '.join(filter(None, words))}>")

    def _repr_html_(self) -> str:
        from paraschut.look.render_html import job_html

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
    return text, _dumped(odd) if odd else None


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


def _dumped(odd: dict[str, bytes]) -> bytes:
    import pickle

    return pickle.dumps(odd, protocol=5)


def _unpickled(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


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
        for field, data in _unpickled(extras).items():
            fields[field] = _unpickled(data)
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
        kept.update(_unpickled(extras))
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
    return not plain(value) and (identical(_unpickled(kept), value) or _pickled(field, value) == kept)


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
    odd: dict[str, bytes] = _unpickled(extras) if extras is not None else {}
    for field, value in changed.items():
        odd.pop(field, None)
        fields.pop(field, None)
        if value is REMOVED:
            continue
        packed, more = pack({field: value})
        fields.update(json.loads(packed))
        if more is not None:
            odd.update(_unpickled(more))
    return pack(fields)[0], _dumped(odd) if odd else None
