"""Values that users put into jobs, and whether two of them are the same to the last type."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import math
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class Point(NamedTuple):
    x: object
    y: object


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


class Phase(enum.Enum):
    TRAIN = "train"
    TEST = "test"


def alike(one, other):
    """Return whether two values are equal and of the same types, all the way down; NaN is like NaN."""
    if type(one) is not type(other):
        return False
    for kind, same in _SAME:
        if isinstance(one, kind):
            return same(one, other)
    return bool(one == other)


def _same_array(one, other):
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return all(map(alike, one.ravel(), other.ravel()))
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fcmM")


def _same_dict(one, other):
    return len(one) == len(other) and all(
        alike(key, key2) and alike(one[key], other[key2]) for key, key2 in zip(one, other, strict=True)
    )


def _same_set(one, other):
    return one == other and sorted(map(_typed, one)) == sorted(map(_typed, other))


def _typed(value):
    return f"{type(value).__name__}{value!r}"


def _same_float(one, other):
    return (math.isnan(one) and math.isnan(other)) or (
        one == other and math.copysign(1, one) == math.copysign(1, other)
    )


_SAME = (
    (np.ndarray, _same_array),
    (dict, _same_dict),
    ((list, tuple), lambda one, other: len(one) == len(other) and all(map(alike, one, other))),
    ((set, frozenset), _same_set),
    (np.generic, lambda one, other: one.dtype == other.dtype and one.tobytes() == other.tobytes()),
    (float, _same_float),
    (
        dt.datetime,
        lambda one, other: one == other and one.tzinfo == other.tzinfo and one.fold == other.fold,
    ),
)


integers = st.one_of(st.integers(), st.sampled_from([2**63, -(2**63) - 1, 10**400, -(10**400)]))
floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.one_of(
    st.text(max_size=8),
    # Lone surrogates are what Python makes of file names that are not UTF-8.
    st.text(st.characters(categories=["Cs", "Lu", "Cc"], max_codepoint=0xDBFF), max_size=4),
    st.sampled_from(["", "\ud800", "caf\udce9.txt", "\0", 'it\'s "so"', "\n", "\u2028", "null", "NaN", "1"]),
)
paths = st.sampled_from([Path("data/x.csv"), PurePosixPath("/a b/';"), Path("."), Path("caf\udce9")])
moments = st.one_of(
    st.datetimes(timezones=st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=2))])),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
_scalar_types = [
    *(np.int8, np.int64, np.uint64, np.float16, np.float32, np.float64, np.complex64, np.bool_),
]
numpy_scalars = st.one_of(
    st.builds(lambda kind, value: kind(value), st.sampled_from(_scalar_types), st.integers(0, 100)),
    st.sampled_from(
        [
            *(np.float64("nan"), np.float32("inf"), np.float64(-0.0), np.str_("text"), np.bytes_(b"bytes")),
            *(np.datetime64("2026-01-01T00:00:00"), np.datetime64("NaT"), np.timedelta64(3, "h")),
            *(np.datetime64(1, "ns"), np.longdouble(1) / 3),
        ]
    ),
)
_dtypes = ["i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "U3", "S3", "M8[ns]", "m8[s]", ">f8"]
arrays = st.one_of(
    st.builds(
        lambda shape, dtype: np.arange(math.prod(shape)).reshape(shape).astype(dtype),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from(
            ["i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "U3", "S3", "M8[ns]", "m8[s]", ">f8"]
        ),
    ),
    st.sampled_from(
        [
            *(np.array([np.nan, np.inf, -0.0]), np.array([None, "a", 1], dtype=object)),
            *(np.arange(1000), np.arange(12).reshape(3, 4)[::2, ::-1], np.asfortranarray(np.ones((2, 3)))),
            np.array([(1, "a")], dtype=[("n", "i4"), ("s", "U2")]),
        ]
    ),
)
others = st.one_of(
    st.binary(max_size=4),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.builds(range, st.integers(-5, 5), st.integers(-5, 1000), st.integers(1, 3)),
    st.sampled_from([*Colour, *Phase, Point(1, "y"), slice(1, 2), int, len, Ellipsis, NotImplemented]),
    st.builds(collections.OrderedDict, st.lists(st.tuples(texts, integers), max_size=3)),
    st.builds(collections.Counter, st.text(max_size=5)),
    st.builds(collections.deque, st.lists(integers, max_size=3)),
    st.builds(decimal.Decimal, st.integers()),
    st.builds(fractions.Fraction, st.integers(), st.integers(1, 9)),
)
hashable = st.one_of(st.none(), st.booleans(), integers, texts, paths, st.dates(), st.tuples(texts, integers))
leaves = st.one_of(
    st.none(), st.booleans(), integers, floats, texts, paths, moments, numpy_scalars, arrays, others,
    st.sets(hashable, max_size=4), st.frozensets(hashable, max_size=4),
)  # fmt: skip
#: Anything that a user may put into a field.
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
    ),
    max_leaves=6,
)
#: What JSON gives back as it is.
plain_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=10,
)
