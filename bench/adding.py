"""Adding jobs: a whole batch in one transaction."""

from __future__ import annotations

import json
import sqlite3

import paraschut as psu
from bench.common import (
    BATCH,
    Row,
    compared,
    interleave,
    make_jobs,
    per_second,
    quotients,
    scratch,
    seconds,
    spread,
    times,
)


def stdlib(jobs: list[dict[str, object]], *, found: bool = True) -> float:
    """Add them as a plain program would: ``json.dumps`` and one ``executemany`` in one transaction.

    ``found`` says whether a job can be found again by its number and by its state, as what is to be looked at needs:
    a primary key and one index. Without, the table is only a heap of rows.
    """
    key = ", PRIMARY KEY (BatchID, JobIndex)" if found else ""
    with scratch() as folder:

        def add() -> None:
            db = sqlite3.connect(folder / "plain.db")
            db.execute(
                f"CREATE TABLE job (BatchID INTEGER, JobIndex INTEGER, state TEXT, priority, metadata TEXT{key})"
            )
            if found:
                db.execute("CREATE INDEX job_by_state ON job (BatchID, state, JobIndex)")
            db.executemany(
                "INSERT INTO job VALUES (?, ?, ?, ?, ?)",
                (
                    (one["BatchID"], one["JobIndex"], one["state"], one["priority"], json.dumps(one))
                    for one in jobs
                ),
            )
            db.commit()
            db.close()

        return len(jobs) / seconds(add)


def paraschut(jobs: list[dict[str, object]]) -> float:
    """Add them with ``add_batch_to_queue``, to an index that it makes."""
    with scratch():
        return len(jobs) / seconds(lambda: psu.add_batch_to_queue(BATCH, jobs))


def measure(*, quick: bool) -> list[Row]:
    count = 10_000 if quick else 100_000
    jobs = make_jobs(BATCH, count)
    paraschut(jobs[:10])
    rates = interleave(
        3 if quick else 7,
        {
            "ours": lambda: paraschut(jobs),
            "floor": lambda: stdlib(jobs),
            "heap": lambda: stdlib(jobs, found=False),
        },
    )
    heap = quotients(rates["ours"], rates["heap"])
    return [
        compared(
            f"add {count:,} jobs of 12 fields; the floor: stdlib sqlite3, one executemany, a primary key and an index",
            rates["ours"],
            rates["floor"],
            per_second,
            least=0.6,
            peers=f"stdlib without key and index {spread(rates['heap'], per_second)} ({spread(heap, times)})",
            recorded="stdlib 48,700/s; predecessor 8,700/s; HyperQueue 8,800/s (in memory)",
        )
    ]
