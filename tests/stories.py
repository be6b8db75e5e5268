"""What stories of all kinds share: names, jobs, and a look at an index from outside."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import paraschut

#: Where the package that is tested lies, for processes that we start.
ROOT = Path(paraschut.__file__).parents[1]
#: The batch of jobs for which nobody asks for another.
BATCH = 20260101000000


def jobs_of(batch, number=1, start=0, **fields):
    """Return what ``make_jobs`` does, outside of a test."""
    plain = {
        "priority": 1,
        "name": "story",
        "data_type": "none",
        "data": None,
        "script": "true",
        "queue": "",
        "resources": {},
        "state": "init",
        **fields,
    }
    return [
        {
            "BatchID": batch,
            "JobIndex": index,
            **{key: value(index) if callable(value) else value for key, value in plain.items()},
        }
        for index in range(start, start + number)
    ]


def dump(index):
    """Return all that an index holds, to see that nothing changed."""
    with closing(sqlite3.connect(str(index))) as connection:
        return list(connection.iterdump())


@contextmanager
def held(index, how="IMMEDIATE"):
    """Somebody else writes, and does not end."""
    with closing(sqlite3.connect(index, isolation_level=None)) as holder:
        holder.execute(f"BEGIN {how}")
        yield
        holder.execute("ROLLBACK")
