"""Values as they are compared and shown: what is exactly the same, and what a plain likeness is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

#: What JSON gives back as it is, without a look at the value.
ATOMS = frozenset({str, int, bool, type(None)})
TEXT = frozenset({str})
_PLAIN = ATOMS | {float}
_LONG_SHADOW = 100


def plain(value: object) -> bool:
    """Return whether JSON gives this value back exactly as it is, types included.

    Examples
    --------
    >>> plain({"a": [1, 2.5]}), plain((1, 2)), plain(float("nan"))
    (True, False, False)
    """
    kind = type(value)
    if kind in _PLAIN:
        return kind is not float or math.isfinite(value)  # type: ignore[arg-type]
    # Most lists and dicts hold atoms only, and those are seen without a call for each.
    if kind is list:
        return ATOMS.issuperset(map(type, value)) or all(map(plain, value))  # type: ignore[call-overload]
    if kind is dict:
        items = value.values()  # type: ignore[attr-defined]
        return TEXT.issuperset(map(type, value)) and (  # type: ignore[call-overload]
            ATOMS.issuperset(map(type, items)) or all(map(plain, items))
        )
    return False


def _encoder() -> Callable[[Any], str]:
    def refuse(value: object) -> None:
        raise TypeError(f"JSON has nothing for a value of type {type(value).__name__}.")

    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the accelerator
        return json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
    # What JSONEncoder.encode makes anew for each value, made once.
    parts = make(None, refuse, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(parts(value, 0))


#: Returns the JSON text of a plain value; raises ValueError for a number that JSON does not have.
encode = _encoder()


def shadow(value: object) -> Any:
    """Return the plain likeness of a value that JSON would change, for Filter and the dashboard; or None.

    Examples
    --------
    >>> shadow({"shape": (3, 4), 7: {2, 1}})
    {'shape': [3, 4], '7': [1, 2]}
    """
    kind = type(value)
    if kind in _PLAIN:
        return value if plain(value) else None
    if isinstance(value, dict):
        return {key if type(key) is str else str(key): shadow(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [shadow(item) for item in value] if len(value) <= _LONG_SHADOW or kind is list else None
    if isinstance(value, (set, frozenset)):
        return sorted((shadow(item) for item in value), key=repr) if len(value) <= _LONG_SHADOW else None
    return _shadow_of_other(value, kind)


def _shadow_of_other(value: Any, kind: type) -> Any:
    if isinstance(value, str):
        return str.__str__(value)  # not str(value): a word of an enumeration is not its name
    for base in (bool, int, float):
        if isinstance(value, base):
            return shadow(base(value))
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if hasattr(value, "tolist") and getattr(value, "size", _LONG_SHADOW + 1) <= _LONG_SHADOW:
        item = value.tolist()
        return shadow(item) if type(item) is not kind else None
    return None


def identical(one: Any, other: Any) -> bool:
    """Return whether two values are the same, types included; False where that cannot be told.

    Pickles of equal values may differ, those of sets from one process to the next.

    Examples
    --------
    >>> identical({"a", "b"}, {"b", "a"}), identical((1,), (1.0,))
    (True, False)
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            identical(key, same) and identical(one[key], other[same])
            for key, same in zip(one, other, strict=True)
        )
    if isinstance(one, (set, frozenset)):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    if hasattr(one, "dtype") and hasattr(one, "tobytes"):
        return bool(
            one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        )
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - a user's own __eq__ may raise anything; then they are not known to be the same
        return False
