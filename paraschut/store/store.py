"""The verbs of the index, for all but jobs and the agent: add, claim and record (``claims.py``), change, remove."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from paraschut import checks
from paraschut import job as jobs
from paraschut.errors import BatchExistsError, JobError
from paraschut.process import Identity
from paraschut.progress import shown
from paraschut.store import needs, rows, runtime
from paraschut.store.claims import Claims
from paraschut.store.rows import Running
from paraschut.store.runtime import Statements
from paraschut.store.schema import (
    attempt,
    batch,
    dependency,
    event,
    job,
    name,
    payload,
    result,
    spawn,
)
from paraschut.values import shadow


class JobIndexTakenError(JobError):
    """A job with this JobIndex is in the batch already; a caller who numbers jobs itself tries the next."""


class Store(Claims):
    """One index, with the verbs that change it; its parameters are those of ``Index``."""

    # -- adding -----------------------------------------------------------------------------------------------------

    def reserve(self, wanted: int, following: Callable[[int], int], now: float) -> int:
        """Take a BatchID that nobody has, from ``wanted`` on; the row without jobs is not yet a batch."""
        taken = 'SELECT 1 FROM batch WHERE "BatchID"=?'
        with self.writing() as (connection, db):
            while db.connection.execute(taken, (wanted,)).fetchone():
                wanted = following(wanted)
            connection.execute(insert(batch).values(BatchID=wanted, created=now))
        return wanted

    def add(
        self,
        batches: Mapping[int, Sequence[Mapping[str, Any]]],
        now: float,
        workdir: str,
        *,
        new: bool,
        also: Callable[[Connection, Statements], None] | None = None,
    ) -> None:
        """Add jobs in one transaction.

        Parameters
        ----------
        batches : Mapping[int, Sequence[Mapping[str, Any]]]
            Checked job dicts by BatchID.
        new : bool
            Whether a batch that has jobs already is an error.
        also : Callable | None
            What is written with them, in the same transaction.
        """
        given = {int(batch_id): list(group) for batch_id, group in batches.items()}

        def pack() -> dict[int, list[Any]]:
            return {number: rows.packed(group, workdir, known.get(number)) for number, group in given.items()}

        with self.reading() as connection:
            known = _known(self.statements(connection), given)
        packed = pack()
        with self.writing() as (connection, db):
            now_known = _known(db, given)
            if now_known != known:  # another process made one of the batches meanwhile
                known = now_known
                packed = pack()
            for batch_id, records in packed.items():
                if batch_id in known and new:
                    raise BatchExistsError(
                        f"Batch {batch_id} is in the index already. Nothing was added. get_job_template(SetID=True) "
                        f"makes a new BatchID; add_job_to_queue adds to an existing batch."
                    )
                if batch_id not in known:
                    _make_batch(connection, batch_id, given[batch_id][0], now, workdir)
                _insert(connection, batch_id, records)
            _put_needs(db, given, known)
            if also is not None:
                also(connection, db)

    # -- what goes on by itself -------------------------------------------------------------------------------------

    def not_taken_on(self) -> list[int]:
        """Return the batches with jobs that come after others of which no whole pass was made that took any."""
        with self.reading() as connection:
            query = (
                select(dependency.c.BatchID)
                .join(batch, batch.c.BatchID == dependency.c.BatchID)
                .where(batch.c.executor.is_(None))
                .distinct()
            )
            return list(connection.execute(query).scalars())

    def take_on(
        self,
        batch_ids: Iterable[int],
        executor: str,
        defaults: str | None,
        environment: Mapping[str, str],
        max_jobs: int | None,
    ) -> None:
        """Note what batches go on with by themselves, as a whole pass that takes jobs of them does."""
        with self.writing() as (_, db):
            digest = rows.keep_environment(db, environment)
            for batch_id in batch_ids:
                took = {"executor": executor, "defaults": defaults, "environment": digest}
                if db.changed("batch_taken_on", batch_id=batch_id, **took):
                    db.run("batch_limit", batch_id=batch_id, limit=max_jobs)

    def note_pass(self, bounds: Mapping[str, Any], now: float) -> None:
        """Remember which jobs the last pass that a person made did not look at: for whoever asks why they wait."""
        told = json.dumps(dict(bounds))
        with self.reading() as connection:
            last = runtime.last_pass(self.statements(connection))
        if told != ("{}" if last is None else last["detail"]):
            with self.writing() as (_, db):
                runtime.add_event(db, now, runtime.WHOLE_INDEX, None, runtime.PASS, told)

    def environment(self, digest: str) -> dict[str, str]:
        """Return the variables that were kept under a digest."""
        with self.reading() as connection:
            (text,) = self.statements(connection).run("environment", digest=digest).fetchone()
        variables: dict[str, str] = json.loads(text)
        return variables

    # -- changing ---------------------------------------------------------------------------------------------------

    def change(
        self,
        wanted: Mapping[int, Sequence[int] | None],
        fields: Mapping[str, Any],
        unless: Mapping[str, Iterable[Any]],
        *,
        who: Identity,
        now: float,
        why: str,
        only: Sequence[str] | None = None,
        missing: bool = False,
    ) -> tuple[int, list[Running]]:
        """Set fields of jobs; where that takes a job from its executor, return its attempt to be deleted.

        Parameters
        ----------
        wanted : Mapping[int, Sequence[int] | None]
            The jobs by batch; None is all of it.
        unless : Mapping[str, Iterable[Any]]
            Jobs that have one of these values are left alone.
        only : Sequence[str] | None
            Only jobs in these states.
        missing : bool
            Only jobs that are missing now: another process may have submitted them again already.
        """
        taken: list[Running] = []
        count = 0
        with self.writing() as (connection, db):
            for batch_id, indices in wanted.items():
                chosen = [
                    row
                    for row in rows.rows_of(connection, batch_id, indices)
                    if (only is None or row["state"] in only)
                    and (not missing or row["failure"] is not None)
                    and not rows.excepted(row, unless)
                ]
                for row in shown(chosen, "setting"):
                    if "state" in fields:
                        taken.extend(rows.take_from_executor(db, row, str(fields["state"]), now))
                    runtime.write_fields(db, row, fields)
                count += len(chosen)
                if chosen:
                    detail = json.dumps({field: shadow(value) for field, value in fields.items()})
                    told = {
                        "at": now,
                        "host": who.host,
                        "pid": who.pid,
                        "BatchID": batch_id,
                        "kind": why,
                        "detail": detail,
                    }
                    everything = indices is None and not unless and only is None and not missing
                    of = [None] if everything else [row["JobIndex"] for row in chosen]
                    connection.execute(insert(event), [{**told, "JobIndex": index} for index in of])
        return count, taken

    def take_back(self, batch_ids: Sequence[int], now: float) -> list[Running]:
        """Mark all attempts of batches that have not ended, also of jobs that said complete, as ones that must."""
        with self.writing() as (connection, db):
            return [
                running
                for batch_id in batch_ids
                for row in shown(list(rows.rows_of(connection, batch_id, None)), "taking back")
                for running in rows.take_from_executor(db, row, "held", now)
            ]

    def boost(self, batch_ids: Sequence[int], by: float, *, who: Identity, now: float) -> int:
        """Add to the priority of all jobs of batches; return how many."""
        count = 0
        with self.writing() as (connection, _):
            for batch_id in batch_ids:
                done = connection.execute(
                    update(job)
                    .where(job.c.BatchID == batch_id)
                    .values(priority=job.c.priority + by, revision=job.c.revision + 1)
                )
                count += done.rowcount
                connection.execute(
                    insert(event).values(
                        at=now, host=who.host, pid=who.pid, BatchID=batch_id, kind="boost", detail=str(by)
                    )
                )
        return count

    def remove(self, batch_id: int, *, who: Identity, now: float) -> None:
        """Take a batch out of the index; its attempts must have ended."""
        with self.writing() as (connection, db):
            db.run("forget_met", needs_batch=batch_id)
            for table in (payload, result, name, dependency, spawn, attempt, job, batch):
                connection.execute(delete(table).where(table.c.BatchID == batch_id))
            connection.execute(delete(event).where(event.c.BatchID == batch_id))
            connection.execute(
                insert(event).values(at=now, host=who.host, pid=who.pid, BatchID=batch_id, kind="remove")
            )


def _insert(connection: Connection, batch_id: int, records: list[Any]) -> None:
    try:
        rows.insert_jobs(connection, records)
    except Exception as error:
        duplicate = rows.duplicate(connection, error, batch_id, records)
        if duplicate is None:
            raise
        raise JobIndexTakenError(
            f"Job {batch_id}:{duplicate} is in the index already. Nothing was added. Choose another JobIndex, or let "
            f"set_index=True number the jobs."
        ) from error


def _put_needs(
    db: Statements, given: Mapping[int, Sequence[Mapping[str, Any]]], known: Iterable[int]
) -> None:
    """Write what new jobs are to come after; look again at those that come after batches that have grown."""
    those = {
        (batch_id, int(one["JobIndex"])): checks.after_of(one["after"], jobs.label(one))
        for batch_id, group in given.items()
        for one in group
        if one.get("after") is not None
    }
    grown = [batch_id for batch_id in given if batch_id in known]
    if those or (grown and db.row("any_need") is not None):
        needs.put(db, those, grown)


def _known(db: Statements, wanted: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """Return name and working directory of those batches that have jobs."""
    found = {batch_id: db.row("known_batch", batch_id=batch_id) for batch_id in wanted}
    return {batch_id: (row["name"], row["workdir"]) for batch_id, row in found.items() if row is not None}


def _make_batch(
    connection: Connection, batch_id: int, first: Mapping[str, Any], now: float, workdir: str
) -> None:
    kind = first["data_type"]
    connection.execute(delete(batch).where(batch.c.BatchID == batch_id))
    connection.execute(
        insert(batch).values(
            BatchID=batch_id,
            name=jobs.joined_name(first["name"]),
            data_type=jobs.writable(kind) if isinstance(kind, str) else json.dumps(shadow(kind)),
            created=now,
            # A folder whose name is not UTF-8 is kept with each job, in JSON.
            workdir=workdir if jobs.encodable(workdir) else None,
        )
    )
