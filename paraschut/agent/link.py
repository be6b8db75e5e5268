"""The agent's connection to its index: held while there is work, let go of when there is none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

from paraschut.store import engine
from paraschut.store.line import Line
from paraschut.store.runtime import Statements, opened, read_statements

_T = TypeVar("_T")


class Link:
    """Speaks to one index.

    Parameters
    ----------
    index : str
        Its path.
    timeout : float
        Seconds to wait for it.
    """

    def __init__(self, index: str, timeout: float) -> None:
        self._index = index
        self._timeout = timeout
        self._line = Line(index, timeout)
        self._texts = read_statements()
        self._connection: sqlite3.Connection | None = None

    @property
    def is_held(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @contextlib.contextmanager
    def writing(self) -> Iterator[Statements]:
        """Give the statements of one transaction that writes."""
        with self._line.writing(self._open()) as connection:
            yield Statements(connection, self._texts)

    def read(self, do: Callable[[Statements], _T]) -> _T:
        """Run queries."""
        with engine.speaking(self._index):
            connection = self._open()
            engine.be_patient(connection, self._timeout)
            return do(Statements(connection, self._texts))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = opened(self._index, self._timeout, self._texts)
        return self._connection

    def let_go(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
