"""Opening the index for SQLAlchemy: making it, its version, its journal, and transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Self, cast

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from paraschut.config import Config
from paraschut.errors import SchemaError, StoreError
from paraschut.paths import NO_LINKS, make_folder
from paraschut.store import engine, journal, runtime, schema
from paraschut.store.line import Line
from paraschut.store.migrate import migrate
from paraschut.store.runtime import Statements

_TEXTS = runtime.read_statements()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Unwrap the driver's errors from SQLAlchemy's."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise


@lru_cache(maxsize=8)
def _engine_of(index: str, limit: float) -> Engine:
    """Return an engine, which keeps no connection, but the statements that it has compiled: most of their cost."""
    return create_engine("sqlite://", creator=lambda: engine.connect(index, limit), poolclass=NullPool)


def _driver(connection: Connection) -> sqlite3.Connection:
    raw: Any = connection.connection.driver_connection
    return cast("sqlite3.Connection", raw)


class Index:
    """One index, to be opened, read and written.

    Parameters
    ----------
    index : str
        The path of its file.
    lock_timeout : float
        Seconds to wait while others write.
    trusted : tuple[str, ...]
        Users whose pickles may be loaded, besides this one.
    journal_mode : str
        ``auto``, ``wal`` or ``delete``.
    create : bool
        Whether to make it if there is none.

    Raises
    ------
    StoreError
        If there is no index and none may be made, or it cannot be used.
    """

    def __init__(
        self,
        index: str | os.PathLike[str],
        *,
        lock_timeout: float = 60.0,
        trusted: tuple[str, ...] = (),
        journal_mode: str = "auto",
        create: bool = False,
        other_hosts: bool = False,
    ) -> None:
        self.index = os.path.abspath(os.fspath(index))
        self.trusted = trusted
        self._limit = lock_timeout
        self._line = Line(self.index, lock_timeout)
        if create:
            self._create(journal.mode_for(os.path.dirname(self.index), journal_mode, other_hosts=other_hosts))
        if os.path.exists(self.index):
            journal.refuse_shared_log(self.index)
        self._engine = _engine_of(self.index, lock_timeout)
        self._keeps = True
        #: At most one connection, for the next transaction: to open one costs more than most transactions.
        self._idle: list[Connection] = []
        with self._connection() as connection:
            self._check_version(_driver(connection))
        self._keeps = False
        if journal_mode != "auto" or other_hosts:
            self.keep_journal(journal.mode_for(self.index, journal_mode, other_hosts=other_hosts))

    @classmethod
    def of(cls, config: Config, *, create: bool = False, other_hosts: bool = False) -> Self:
        """Open the index of a configuration; ``other_hosts``: one that is made now will be opened from others, too."""
        create_only = create and not os.path.exists(config.index)
        return cls(
            config.index,
            lock_timeout=config.lock_timeout,
            trusted=config.trusted_users,
            journal_mode=config.journal_mode,
            create=create,
            other_hosts=other_hosts and create_only,
        )

    def __enter__(self) -> Self:
        self._keeps = True
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection that was kept; without ``with``, each transaction has one of its own."""
        self._keeps = False
        self.rest()

    def rest(self) -> None:
        """Close the connection that is kept for the next transaction: whoever waits for long stands in nobody's way."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with engine.speaking(self.index):
            try:
                connection = self._idle.pop()
            except IndexError:  # the first, or another thread has it
                connection = self._engine.connect()
            good = False
            try:
                yield connection
                connection.rollback()  # to SQLAlchemy, all that was executed is one transaction
                good = True
            finally:
                if good and self._keeps and not self._idle:
                    self._idle.append(connection)
                else:
                    connection.close()

    def _create(self, mode: str) -> None:
        """Make the index beside, and give it its name when it is whole: nobody ever meets half of one."""
        if os.path.exists(self.index):
            if self._is_blank():
                self._fill(self.index, mode)
            return
        beside = f"{self.index}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            make_folder(os.path.dirname(self.index))
            self._fill(beside, mode)
            if not self._named(beside):
                self._fill(self.index, mode)
        except OSError as error:
            raise StoreError(
                f"The index {self.index} cannot be made: {error.strerror}. Set job_dir in the configuration to a "
                f"folder of yours that can be written."
            ) from error
        finally:
            with suppress(OSError):
                os.unlink(beside)

    def _named(self, beside: str) -> bool:
        """Give a file the index's name, unless another process was faster; False where there are no hard links."""
        try:
            os.link(beside, self.index)
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        return True

    def _fill(self, path: str, mode: str) -> None:
        """Make the tables in a file that has none."""
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with engine.speaking(self.index):
            connection = sqlite3.connect(path, timeout=self._limit, isolation_level=None)
            try:
                if connection.execute("PRAGMA journal_mode").fetchone() != (mode,):
                    journal.switch(connection, path, mode, self._limit)
            finally:
                connection.close()
        made = create_engine(
            "sqlite://", creator=lambda: engine.connect(path, self._limit), poolclass=NullPool
        )
        with made.connect() as connected:
            raw = _driver(connected)
            with Line(path, self._limit).writing(raw):
                if self._has_nothing(raw):
                    schema.metadata.create_all(connected, checkfirst=False)
                    for rule in schema.RULES:
                        raw.execute(rule)
                    raw.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
                    raw.execute(f"PRAGMA user_version={schema.SCHEMA_VERSION}")
        made.dispose()

    def _is_blank(self) -> bool:
        """Return whether the file has no tables yet: another process makes it just now, or died when it did."""
        with engine.speaking(self.index):
            connection = sqlite3.connect(self.index, timeout=self._limit, isolation_level=None)
            try:
                return self._has_nothing(connection)
            finally:
                connection.close()

    @staticmethod
    def _has_nothing(connection: sqlite3.Connection) -> bool:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))

    def _check_version(self, connection: sqlite3.Connection) -> None:
        if self._has_nothing(connection):
            raise StoreError(f"The index {self.index} is empty: no batch was added yet.")
        ours = connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        if not ours:
            raise SchemaError(
                f"{self.index} is a database, but not an index of paraschut. Set job_dir in the configuration to "
                f"another folder."
            )
        migrate(connection, self._line)

    def keep_journal(self, mode: str) -> None:
        """Bring the index into a journal mode, if it is in another."""
        self.rest()
        with engine.speaking(self.index):
            connection = engine.connect(self.index, self._limit)
            try:
                if connection.execute("PRAGMA journal_mode").fetchone() != (mode,):
                    journal.switch(connection, self.index, mode, self._limit)
            finally:
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run queries that all see the same moment."""
        with self._connection() as connection:
            raw = _driver(connection)
            raw.execute("BEGIN")
            try:
                with _plain_errors():
                    yield connection
            finally:
                engine.roll_back(raw)

    @staticmethod
    def statements(connection: Connection) -> Statements:
        """Return the generated statements, to be run on a connection."""
        return Statements(_driver(connection), _TEXTS)

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, Statements]]:
        """Run one write transaction."""
        with self._connection() as connection:
            raw = _driver(connection)
            with self._line.writing(raw), _plain_errors():
                yield connection, Statements(raw, _TEXTS)
