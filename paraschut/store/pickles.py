"""Pickles of functions, arguments and results: small ones in the index, large ones in files of their batch.

Loading a pickle runs what is in it, so nothing is loaded before ``store.trust`` has looked at the index, or at the
file and its folders. Part of the road of a function job: imports little.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from paraschut.store.trust import check_trusted

#: Bytes up to which a pickle is kept in the index: a rollback journal writes every page twice.
SMALL, SMALL_ROLLBACK = 100_000, 16_000
#: Seconds for which the folders above an index that was looked at are trusted: looking at all of them costs more
#: than loading a small pickle.
_TRUST = 0.2


_ATOMS = frozenset({int, float, bool, str, bytes, type(None)})
#: Items up to which a look at each of them pays.
_FEW = 100

#: When an index was last found to be trustworthy, and the rights on it and its folder then.
_looked: dict[tuple[str, tuple[str, ...]], tuple[float, Any]] = {}


def _check_index(index: str, trusted: tuple[str, ...]) -> None:
    rights = [
        (status.st_dev, status.st_ino, status.st_uid, status.st_mode)
        for status in map(os.stat, (index, os.path.dirname(index)))
    ]
    now = time.monotonic()
    before, rights_then = _looked.get((index, trusted), (now - _TRUST, None))
    if rights != rights_then or now - before >= _TRUST:
        check_trusted(index, trusted)
        _looked[index, trusted] = now, rights


def limit_of(connection: sqlite3.Connection) -> int:
    """Return the bytes up to which a pickle is kept in the index that is connected."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return SMALL if mode == "wal" else SMALL_ROLLBACK


class _Spool:
    """A file that is kept in memory until it is too large, and is then written beside its place."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.beside = f"{path}.{os.getpid()}.tmp"
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._file: Any = None

    def write(self, part: Any) -> int:
        size = memoryview(part).nbytes
        self._size += size
        if self._file is None and self._size > self._limit:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(self.beside, flags, 0o600), "wb", buffering=0)
            for early in self._parts:
                _write_all(self._file, early)
            self._parts.clear()
        if self._file is None:
            self._parts.append(part if type(part) is bytes else bytes(part))
        else:
            _write_all(self._file, part)
        return size

    def finish(self) -> bytes | None:
        """Return what was written; or None, if it is in the file, which has its name from now on."""
        if self._file is None:
            return b"".join(self._parts)
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self.beside, self.path)
        return None

    def abandon(self) -> None:
        """Remove what was written."""
        if self._file is not None:
            self._file.close()
            os.unlink(self.beside)


def _write_all(file: Any, part: Any) -> None:
    left = memoryview(part).cast("B")
    while left.nbytes:
        left = left[file.write(left) :]


def dump(value: object, path: str, limit: int) -> bytes | None:
    """Pickle a value; return the pickle, or None if it is too large for the index and is in the file at ``path``.

    Whatever cannot be pickled raises what ``cloudpickle`` raises.
    """
    if _is_of_atoms(value):
        return keep(pickle.dumps(value, protocol=5), path, limit)
    spool = _Spool(path, limit)
    try:
        _pickler()(spool, protocol=5).dump(value)
        return spool.finish()
    except BaseException:
        spool.abandon()
        raise


def keep(data: bytes, path: str, limit: int) -> bytes | None:
    """Return a pickle; or None if it is too large for the index and was written into the file at ``path``."""
    spool = _Spool(path, limit)
    try:
        spool.write(data)
        return spool.finish()
    except BaseException:
        spool.abandon()
        raise


def dump_plain(value: object, path: str, limit: int) -> bytes | None:
    """Pickle a value as ``dump`` does, without importing cloudpickle where nothing needs it."""
    spool = _Spool(path, limit)
    try:
        pickle.Pickler(spool, protocol=5).dump(value)
        return spool.finish()
    except Exception:  # noqa: BLE001 - whatever it was: the slower way may know more
        spool.abandon()
        return dump(value, path, limit)
    except BaseException:
        spool.abandon()
        raise


def _is_of_atoms(value: object, depth: int = 3) -> bool:
    """Return whether a small value is made of numbers and text only, so that nothing in it needs cloudpickle."""
    if type(value) in _ATOMS:
        return True
    if not depth:
        return False
    if isinstance(value, dict):
        whole = type(value) is dict and len(value) <= _FEW and all(type(key) is str for key in value)
        return whole and all(_is_of_atoms(item, depth - 1) for item in value.values())
    if isinstance(value, (tuple, list)):
        whole = type(value) in {tuple, list} and len(value) <= _FEW
        return whole and all(_is_of_atoms(item, depth - 1) for item in value)
    return False


def _pickler() -> Callable[..., Any]:
    import cloudpickle

    pickler: Callable[..., Any] = cloudpickle.Pickler
    return pickler


def load(data: bytes | None, path: str, index: str, trusted: tuple[str, ...]) -> Any:
    """Load a pickle from the index, or from its file.

    Raises
    ------
    TrustError
        If somebody else could have written it.
    """
    if data is not None:
        _check_index(index, trusted)
        return loads(data)
    # The file and its folder; then the folder of its batch, and that of the index.
    check_trusted(path, trusted)
    check_trusted(os.path.dirname(os.path.dirname(path)), trusted)
    with open(path, "rb") as file:
        return pickle.load(file)


def loads(data: bytes) -> Any:
    """Load a pickle that came out of one that was looked at by ``load``."""
    return pickle.loads(data)
