"""Claims copies of a job for a submission: more of them, or those again that are lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from paraschut.errors import JobError
from paraschut.store import rows, runtime
from paraschut.store.claims import Claim, NewSubmission
from paraschut.store.copies import lost
from paraschut.store.runtime import Key, Statements
from paraschut.store.store import Store

#: A job whose copies these are may still get more of them.
_SPAWNS = ("submit", "run", "spawn")


class Copy(NamedTuple):
    """A copy that is to be submitted, and the number of its attempt."""

    spawn_id: int
    n: int


def add(
    store: Store, new: NewSubmission, key: Key, count: int, vet: Callable[[dict[str, Any]], dict[str, Any]]
) -> Claim:
    """Let a job that runs have more copies of itself, which are claimed for a submission.

    Raises
    ------
    StaleJobError
        If this attempt no longer counts.
    """
    with store.writing() as (_, db):
        row = runtime.check_current(db, key)
        if row["state"] not in _SPAWNS:
            raise JobError(
                f"Job {key.batch_id}:{key.job_index} is in state {row['state']!r}; only a job that runs can spawn. Nothing "
                f"was submitted."
            )
        runtime.mark_run(db, key, new.now)
        of_job = {"batch_id": key.batch_id, "job_index": key.job_index}
        if row["state"] != "spawn":
            db.run("forget_spawns", **of_job)
            _put(db, key, Copy(0, key.n))
            db.run("job_spawns", **of_job, reason=None)
        following = 1 + max(one["SpawnID"] for one in db.rows("spawns_of", **of_job))
        (highest,) = db.run("highest_attempt", **of_job).fetchone()
        copies = [Copy(following + place, highest + 1 + place) for place in range(count)]
        return _claim(store, db, new, row, copies, vet)


def again(
    store: Store,
    new: NewSubmission,
    batch_id: int,
    job_index: int,
    vet: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    retried: bool = False,
) -> Claim:
    """Claim those copies of a job that are lost, and only these; or only those that are tried again by themselves."""
    of_job = {"batch_id": batch_id, "job_index": job_index}
    with store.writing() as (_, db):
        row = runtime.job_row(db, batch_id, job_index)
        gone = lost(db, batch_id, job_index) if row["state"] == "spawn" else []
        if retried:
            gone = [one for one in gone if one["state"] == "init"]
        if not gone:
            return Claim([], [])
        (highest,) = db.run("highest_attempt", **of_job).fetchone()
        copies = [Copy(one["SpawnID"], highest + 1 + place) for place, one in enumerate(gone)]
        if retried:
            return _claim(store, db, new, row, copies, vet)
        db.run("job_spawns", **of_job, reason=None)
        told = json.dumps({"copies": [one.spawn_id for one in copies]})
        runtime.add_event(db, new.now, batch_id, job_index, "respawn", told)
        return _claim(store, db, new, row, copies, vet)


def _put(db: Statements, key: Key, copy: Copy) -> None:
    where = {"batch_id": key.batch_id, "job_index": key.job_index, "n": copy.n, "spawn_id": copy.spawn_id}
    db.run("put_spawn", **where)
    db.run("attempt_of_spawn", **where)


def _claim(
    store: Store,
    db: Statements,
    new: NewSubmission,
    row: Mapping[str, Any],
    copies: Sequence[Copy],
    vet: Callable[[dict[str, Any]], dict[str, Any]],
) -> Claim:
    found: list[Any] = []
    name = row["name"] or row["batch_name"]
    candidates = [
        (
            *(row["BatchID"], row["JobIndex"], copy.n - 1, row["metadata"], row["raised"], row["workdir"]),
            *(name, row["not_before"]),
        )
        for copy in copies
    ]
    refused: list[tuple[int, int, str]] = []
    rows.vetted(candidates, vet, len(candidates), found, refused)
    if refused:
        raise JobError(f"Job {row['BatchID']}:{row['JobIndex']} cannot be submitted again: {refused[0][2]}")
    claimed = store.write_claim(db, new, found).claimed
    by_number = {copy.n: copy for copy in copies}
    for one in claimed:
        _put(db, Key(one.batch_id, one.job_index, one.n), by_number[one.n])
    return Claim([one._replace(spawn_id=by_number[one.n].spawn_id) for one in claimed], [])
