"""Many jobs one after the other: what they share with those before them is looked at once.

Of a hundred thousand jobs made from one template, most values are the very same objects. The functions of ``checks``
say what is right; here is only what spares calling them.
"""

from __future__ import annotations

import gc
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from paraschut import checks
from paraschut import job as jobs
from paraschut.values import ATOMS, TEXT, encode, plain

_CHECKED = ("BatchID", "priority", "name", "script", "resources", "state")
_checked_first = operator.itemgetter(*_CHECKED, *set(jobs.REQUIRED).difference(_CHECKED))
#: Dicts that give what they hold, whoever asks.
_DICTS = (dict, jobs.Job)
#: So many kinds of jobs are remembered at most.
_MOST = 1000
_QUICK = ATOMS | {float}


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: where thousands of dicts are made that all live on, that is a fifth of the work."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Checker:
    """Checks jobs: those that share all values that ``checks.check`` looks at, once."""

    def __init__(self) -> None:
        self._good: dict[tuple[int, ...], Any] = {}

    def seen(self, job: Mapping[str, Any]) -> bool:
        """Return whether a job with the very same values was checked before; if not, check this one."""
        values: tuple[Any, ...] = ()
        if type(job) in _DICTS:
            try:
                first = _checked_first(job)[: len(_CHECKED)]
                values = (*first, job.get("vars"), job.get("workdir"), job.get("retries"), job.get("after"))
            except KeyError:
                values = ()
        alike = tuple(map(id, values))
        if alike in self._good:
            checks.check_index(job, "JobIndex")
            return True
        checks.check(job)
        if values:
            if len(self._good) >= _MOST:
                self._good.clear()
            self._good[alike] = values  # kept, so that no other object gets the number of one of them
        return False


class Packer:
    """Packs jobs: a value that is that of the job before has the same text."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._heads: Sequence[str] = ()
        self._values: Sequence[Any] = ()
        self._texts: Sequence[str] = ()

    def pack(self, fields: Mapping[str, Any]) -> tuple[str, bytes | None]:
        """Return what ``job.pack`` returns."""
        names = list(fields)
        if names != self._names:
            if not TEXT.issuperset(map(type, names)):
                return jobs.pack(fields)
            self._names = names
            self._heads = [encode(name) + ":" for name in names]
            self._values, self._texts = [None] * len(names), [head + "null" for head in self._heads]
        values = list(fields.values())
        try:
            texts = [
                text if value is before else head + _text_of(value)
                for value, before, text, head in zip(values, self._values, self._texts, self._heads)  # noqa: B905 - a fifth slower
            ]
        except (ValueError, RecursionError):
            return jobs.pack(fields)
        self._values, self._texts = values, texts
        text = "{" + ",".join(texts) + "}"
        return (text, None) if text.isascii() or jobs.encodable(text) else jobs.pack(fields)


def _text_of(value: object) -> str:
    if type(value) is str:
        return json.encoder.encode_basestring(value)
    # JSON itself refuses the floats that it cannot hold.
    if type(value) not in _QUICK and not plain(value):
        raise ValueError("JSON would change this value.")
    return encode(value)
