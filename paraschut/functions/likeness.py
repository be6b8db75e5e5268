"""Whether a function and its items are those of an earlier session: a hash that does not depend on the session."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

#: Their text says all of them.
_ATOMS = frozenset({int, float, bool, str, type(None)})


class _Sink:
    """A file that is only hashed."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, part: Any) -> int:
        view = memoryview(part).cast("B")
        self.hash.update(view)
        return view.nbytes

    def pickle(self, value: object) -> None:
        """Add a value, as it is pickled without regard to which parts of it are one object."""
        import cloudpickle

        try:
            pickler = cloudpickle.Pickler(self, protocol=5)
            pickler.fast = True
            pickler.dump(_ordered(value))
        except (RecursionError, ValueError):  # it contains itself
            cloudpickle.Pickler(self, protocol=5).dump(value)

    def function(self, fn: Any) -> None:
        """Add what a function does: its code and what it was made with, not where it lies."""
        if fn is None:
            self.write(b"none")
        elif isinstance(fn, functools.partial):
            self.function(fn.func)
            self.pickle((fn.args, fn.keywords))
        elif hasattr(fn, "__func__"):
            self.function(fn.__func__)
            self.pickle(fn.__self__)
        elif isinstance(code := getattr(fn, "__code__", None), CodeType):
            self.write(f"{fn.__module__}.{fn.__qualname__}".encode())
            self.code(code)
            self.pickle(fn.__defaults__)
            self.pickle(fn.__kwdefaults__)
            for cell in fn.__closure__ or ():
                # A function that calls itself is in its own cell.
                if callable(cell.cell_contents):
                    self.write(str(getattr(cell.cell_contents, "__qualname__", "")).encode())
                else:
                    self.pickle(cell.cell_contents)
        else:
            self.pickle(fn)

    def code(self, code: CodeType) -> None:
        """Add compiled code, without lines and file names."""
        self.write(code.co_code)
        self.write(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
        for const in code.co_consts:
            if isinstance(const, CodeType):
                self.code(const)
            elif isinstance(const, frozenset):
                self.write(repr(sorted(map(repr, const))).encode())
            else:
                self.write(repr(const).encode())


def _ordered(value: Any) -> Any:
    """Return a value with its sets in an order that does not depend on the session."""
    if type(value) in {list, tuple}:
        return [type(value).__name__, *map(_ordered, value)]
    if type(value) is dict:
        return {key: _ordered(one) for key, one in value.items()}
    if type(value) in {set, frozenset}:
        digests = []
        for one in value:
            sink = _Sink()
            sink.pickle(one)
            digests.append(sink.hash.hexdigest())
        return [type(value).__name__, *sorted(digests)]
    return value


def likeness(functions: Iterable[Callable[..., Any] | None], items: Iterable[Any]) -> dict[str, str]:
    """Return hashes of functions and of items, which are the same in another session.

    Examples
    --------
    >>> likeness([len], [1]) == likeness([len], [1]), likeness([len], [1]) == likeness([len], [2])
    (True, False)
    """
    sinks = {"functions": _Sink(), "items": _Sink()}
    for function in functions:
        sinks["functions"].function(function)
    for item in items:
        if type(item) is tuple and _ATOMS.issuperset(map(type, item)):
            sinks["items"].write(repr(item).encode("utf-8", "surrogatepass"))
        else:
            sinks["items"].pickle(item)
    return {what: sink.hash.hexdigest() for what, sink in sinks.items()}
