"""Brings an index of an older version of the format to the present one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from paraschut.errors import SchemaError, StoreError
from paraschut.store.line import Line
from paraschut.store.schema import RULES, SCHEMA_VERSION, metadata


def _new(*tables: str) -> tuple[str, ...]:
    """Return what makes tables that the version before did not have."""
    made = [metadata.tables[name] for name in tables]
    statements: list[ExecutableDDLElement] = []
    for table in made:
        statements += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=str))]
    return tuple(str(one.compile(dialect=sqlite.dialect())) for one in statements)


def _indexes(*names: str) -> tuple[str, ...]:
    """Return what makes indexes that are new, or changed, in tables that the version before had."""
    made = {str(index.name): index for table in metadata.tables.values() for index in table.indexes}
    return tuple(str(CreateIndex(made[name]).compile(dialect=sqlite.dialect())) for name in names)


#: What leads to a version from the one before. A column or table that is new in ``schema.py`` is also written here,
#: under the version that is not yet released: a test compares an index that was brought there with a fresh one.
STEPS: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE batch ADD COLUMN executor_defaults TEXT",
        "ALTER TABLE batch ADD COLUMN max_jobs INTEGER",
        "ALTER TABLE submission ADD COLUMN carries INTEGER",
        "ALTER TABLE submission ADD COLUMN closer TEXT",
        "ALTER TABLE submission ADD COLUMN retry TEXT",
        "ALTER TABLE job ADD COLUMN retried INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE job ADD COLUMN resumed INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE job ADD COLUMN raised TEXT",
        "ALTER TABLE job ADD COLUMN not_before REAL DEFAULT '0' NOT NULL",
        "ALTER TABLE job ADD COLUMN waits INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE attempt ADD COLUMN spawn_id INTEGER",
        "DROP INDEX job_unfinished",
        "DROP INDEX job_global",
        "DROP INDEX submission_open",
        "DROP INDEX attempt_running",
        *_indexes("job_unfinished", "job_global", "job_paused", "submission_open", "attempt_running"),
        *_new("dependency", "spawn", "snapshot", "payload", "result", "name"),
        *RULES,
    ),
}


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of an index."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def copy_path(index: str, version: int) -> str:
    """Return where an index of an older version is kept.

    Examples
    --------
    >>> copy_path("/data/index.db", 1)
    '/data/index.db.version1'
    """
    return f"{index}.version{version}"


def migrate(connection: sqlite3.Connection, line: Line) -> None:
    """Bring an index to the present version: all of it or, if anything fails, nothing.

    It is copied before; the copy stays beside it.

    Raises
    ------
    SchemaError
        If a newer paraschut wrote it.
    StoreError
        If it cannot be copied or written.
    """
    if version_of(connection) == SCHEMA_VERSION:
        return
    with line.writing(connection):
        found = version_of(connection)  # another process may have done it meanwhile
        if found == SCHEMA_VERSION:
            return
        if not 0 < found < SCHEMA_VERSION:
            raise SchemaError(
                f"The index {line.index} has version {found} of the format, this paraschut knows "
                f"{SCHEMA_VERSION}. Install the paraschut that wrote it: pip install --upgrade paraschut"
            )
        _copy(line.index, copy_path(line.index, found))
        for version in range(found + 1, SCHEMA_VERSION + 1):
            for step in STEPS[version]:
                connection.execute(step)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _copy(index: str, target: str) -> None:
    """Copy an index while nobody writes, with what its journal holds."""
    beside = f"{target}.{os.getpid()}"
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(index)) as source, closing(sqlite3.connect(beside)) as copy:
            source.backup(copy)
        os.rename(beside, target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            os.unlink(beside)
        raise StoreError(
            f"The index {index} is of an older version and must be copied to {target} before it is changed, which "
            f"failed ({error}). Nothing was changed. Make room there and try again."
        ) from error
