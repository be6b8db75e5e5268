"""Taking jobs for a submission, and what becomes of that: recorded, split, or given back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, insert, select, update

from paraschut.errors import JobError
from paraschut.process import Identity
from paraschut.progress import shown
from paraschut.store import rows, runtime
from paraschut.store.index import Index
from paraschut.store.runtime import Statements
from paraschut.store.schema import (
    attempt,
    job,
    submission,
)


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """Who claims jobs, for which executor."""

    token: str
    executor: str
    owner: Identity
    #: The submitter's variables; or the digest of those that an earlier submission kept.
    environment: Mapping[str, str] | str
    now: float
    #: Set for an executor whose queue is the index itself: the claim is then the whole submission.
    host: str | None = None
    #: What jobs must have in common to be handed over at once, and how many may be; None: all.
    shape: Callable[[int, dict[str, Any], dict[str, Any]], Hashable] | None = None
    most: int | None = None
    #: Whether somebody else must go on with a job's batch; those of one shape agree.
    carries: Callable[[dict[str, Any]], bool] | None = None
    first_task: int = 0
    #: Whether the batches go on by themselves from here: a whole pass says so, a part of one does not.
    whole: bool = True
    #: What the executor was given, as JSON; None if it was named.
    defaults: str | None = None
    #: The MaxJobs of this pass; None if it is as configured.
    max_jobs: int | None = None
    #: How jobs are tried again when they end badly, as JSON; None: as by default.
    retry: str | None = None
    #: Whether jobs that are to have a pause first are taken, too: the executor starts them when that is over.
    begins: bool = False


class Claimed(NamedTuple):
    """One job of a claim, with its fields as JSON has them."""

    batch_id: int
    job_index: int
    n: int
    task: int
    fields: dict[str, Any]
    workdir: str | None
    #: The submission that it is of: a claim may be handed over in several.
    token: str
    #: The batch's name.
    label: str | None
    #: Which of several copies of the job it is.
    spawn_id: int | None = None
    #: When it may start at the earliest, in epoch seconds; None: at once.
    begin: float | None = None


class Written(NamedTuple):
    """What was written of a claim: its jobs, as runs of neighbours too, and the key of their environment."""

    claimed: list[Claimed]
    runs: list[rows.Run]
    digest: str


class Claim(NamedTuple):
    """What a claim got: jobs that are now in ``submit``, and why others were left."""

    jobs: list[Claimed]
    refused: list[tuple[int, int, str]]


class Ready(NamedTuple):
    """What a decision needs to know of the index: groups that are next, limits."""

    heads: list[tuple[int, str | None, float]]
    #: The environment that each of these batches was first submitted with.
    environments: dict[int, str | None]
    #: What the executor of that submission was given, as JSON.
    defaults: dict[int, str | None]
    #: The MaxJobs that the last whole pass over it was given.
    limits: dict[int, int | None]
    global_top: float | None
    active: int
    #: Groups that are next and have jobs to submit only to who lets them wait until their pause is over.
    paused: list[tuple[int, str | None, float]]


#: Gives the groups to submit, in order, and how many jobs at most.
Decide = Callable[[Ready], tuple[list[tuple[int, float]], int]]
#: Gives what a job asks for; raises JobError to leave it.
Vet = Callable[[dict[str, Any]], dict[str, Any]]


class Claims(Index):
    """One index, with the verbs of those who submit."""

    def ready(self, connection: Connection | None = None, now: float | None = None) -> Ready:
        """Return which groups are next, now or at another time."""
        if connection is None:
            with self.reading() as connected:
                return self.ready(connected, now)
        db = self.statements(connection)
        at = time.time() if now is None else now
        rows_ready = db.rows("heads", now=at)
        rows_paused = db.rows("paused_heads", now=at)
        heads, paused = (
            [(row["BatchID"], row["executor"], row["top"]) for row in found]
            for found in (rows_ready, rows_paused)
        )
        (top,) = db.run("global_top").fetchone()
        (active,) = db.run("active_count").fetchone()
        environments, defaults, limits = (
            {row["BatchID"]: row[column] for row in (*rows_ready, *rows_paused)}
            for column in ("environment", "executor_defaults", "max_jobs")
        )
        known = set(heads)
        paused = [head for head in paused if head not in known]
        return Ready(heads, environments, defaults, limits, top, active, paused)

    def claim(
        self, new: NewSubmission, decide: Decide, vet: Vet, condition: ColumnElement[bool] | None = None
    ) -> Claim:
        """Take jobs for a submission: one transaction, so the loser of a race gets fewer, and no group opens early."""
        with self.writing() as (connection, db):
            groups, room = decide(self.ready(connection, new.now))
            return self.claim_within(connection, db, new, groups, room, vet, condition)

    def claim_within(
        self,
        connection: Connection,
        db: Statements,
        new: NewSubmission,
        groups: Iterable[tuple[int, float]],
        room: int,
        vet: Vet,
        condition: ColumnElement[bool] | None = None,
    ) -> Claim:
        """Take jobs of priority groups for a submission, inside a transaction."""
        found: list[Any] = []
        refused: list[tuple[int, int, str]] = []

        def waiting() -> Iterator[tuple[Any, ...]]:
            # Who lets them wait until their pause is over takes them whenever it is.
            before = math.inf if new.begins else new.now
            for batch_id, priority in groups:
                if len(found) >= room:
                    return
                if condition is None:
                    yield from db.run("claimable", batch_id=batch_id, priority=priority, now=before)
                    continue
                query = rows.candidates(
                    job.c.BatchID == batch_id,
                    job.c.priority == priority,
                    job.c.waits == 0,
                    job.c.not_before <= before,
                    condition,
                )
                yield from _plain_rows(connection, query)

        rows.vetted(shown(waiting(), "choosing"), vet, room, found, refused)
        return Claim(self._take(db, new, found), refused)

    def claim_jobs(self, new: NewSubmission, wanted: Sequence[tuple[int, int]], vet: Vet) -> Claim:
        """Take these very jobs, whatever their priority.

        Raises
        ------
        JobError
            If one of them is not in ``init``; nothing is claimed then.
        """
        with self.writing() as (_, db):
            found: list[Any] = []
            refused: list[tuple[int, int, str]] = []
            for batch_id, job_index in dict.fromkeys(wanted):
                row = runtime.job_row(db, batch_id, job_index)
                if row["state"] != "init" or row["ending"] is not None:
                    still = " and its former attempt has not ended yet" if row["ending"] is not None else ""
                    raise JobError(
                        f"Job {batch_id}:{job_index} is in state {row['state']!r}{still}; only jobs in 'init' are "
                        f"submitted. set_job_field({batch_id}, {job_index}) sets it back. Nothing was submitted."
                    )
                waiting = db.run("claimable_job", batch_id=batch_id, job_index=job_index)
                rows.vetted(waiting, vet, len(wanted), found, refused)
            return Claim(self._take(db, new, found), refused)

    @staticmethod
    def write_claim(db: Statements, new: NewSubmission, found: list[Any]) -> Written:
        """Write the submissions and attempts of a claim, and nothing about jobs."""
        local = new.host is not None
        digest = (
            new.environment
            if isinstance(new.environment, str)
            else rows.keep_environment(db, new.environment)
        )
        pieces = rows.in_pieces(new, found)
        made = {
            "executor": new.executor,
            **new.owner._asdict(),
            "claimed": new.now,
            "environment": digest,
            "retry": new.retry,
            # A claim for the queue in the index is a submission at once, and has no folder to look into.
            "recorded": new.now if local else None,
            "settled": new.now if local else None,
        }
        for token, piece in pieces:
            carries = piece[0][0].BatchID if new.carries and new.carries(piece[0][1]) else None
            db.run(
                "add_submission", **made, token=token, cluster_id=token if local else None, carries=carries
            )
        claimed = [
            Claimed(
                *(row.BatchID, row.JobIndex, row.attempt + 1, task, fields, row.workdir, token, row.name),
                begin=rows.begin_of(new, row),
            )
            for token, piece in pieces
            for task, (row, fields, _) in enumerate(piece, new.first_task)
        ]
        runs = rows.runs_of(claimed, [asked for _, piece in pieces for _, _, asked in piece])
        db.connection.executemany(
            rows.INSERT_ATTEMPTS,
            (
                (one.n, one.token, one.shift, new.host, one.asked, new.now, one.batch_id, one.first, one.last)
                for one in rows.shown_runs(runs, "claiming")
            ),
        )
        return Written(claimed, runs, digest)

    def _take(self, db: Statements, new: NewSubmission, found: list[Any]) -> list[Claimed]:
        if not found:
            return []
        claimed, runs, digest = self.write_claim(db, new, found)
        db.connection.executemany(
            rows.SET_SUBMIT,
            (
                (one.n, one.begin or 0.0, one.batch_id, one.first, one.last)
                for one in rows.shown_runs(runs, "taking")
            ),
        )
        if db.row("any_spawn") is not None:
            for one in claimed:
                db.run("forget_spawns", batch_id=one.batch_id, job_index=one.job_index)
        if not new.whole:
            return claimed
        for batch_id in {one.batch_id for one in claimed}:
            db.run("batch_limit", batch_id=batch_id, limit=new.max_jobs)
            db.run(
                "batch_taken_on",
                batch_id=batch_id,
                executor=new.executor,
                defaults=new.defaults,
                environment=digest,
            )
        return claimed

    def split(self, claimed: Sequence[Claimed], token: str, first_task: int) -> list[Claimed]:
        """Give some jobs of a claim that was not handed over yet a submission of their own.

        Returns them as they are now; none if the claim was settled by somebody else meanwhile.
        """
        with self.writing() as (connection, db):
            mine = select(submission).where(*_not_handed_over(claimed[0].token))
            row = connection.execute(mine).mappings().first()
            if row is None:
                return []
            connection.execute(insert(submission).values({**row, "token": token}))
            moved = [one._replace(token=token, task=task) for task, one in enumerate(claimed, first_task)]
            db.connection.executemany(
                rows.MOVE_ATTEMPT, [(token, one.task, one.batch_id, one.job_index, one.n) for one in moved]
            )
            return moved

    def renew(self, token: str, now: float) -> bool:
        """Say that a claim is still wanted; False if it was settled by somebody else."""
        with self.writing() as (connection, _):
            mine = update(submission).where(*_not_handed_over(token))
            return connection.execute(mine.values(claimed=now)).rowcount > 0

    def record(self, ids: Mapping[str, str | None], now: float) -> set[str]:
        """Note the scheduler's ids of submissions, by token; return those whose claim was not released meanwhile."""
        recorded = set()
        with self.writing() as (connection, _):
            for token, cluster_id in ids.items():
                mine = update(submission).where(*_not_handed_over(token))
                if connection.execute(mine.values(recorded=now, cluster_id=cluster_id)).rowcount > 0:
                    recorded.add(token)
        return recorded

    def set_closer(self, tokens: Sequence[str], closer: str) -> None:
        """Note the scheduler's id of the closer that goes on when submissions have ended."""
        with self.writing() as (connection, _):
            connection.execute(update(submission).where(submission.c.token.in_(tokens)).values(closer=closer))

    def forget_closers(self, batch_id: int) -> None:
        """Forget the closers of a batch, so that the next pass sends another that waits for what has not ended."""
        mine = (submission.c.carries == batch_id) & submission.c.settled.is_(None)
        with self.writing() as (connection, _):
            connection.execute(update(submission).where(mine).values(closer=None))

    def release(self, token: str, words: str, now: float) -> int:
        """Give the jobs of a submission that never happened back to ``init``; return how many."""
        with self.writing() as (connection, db):
            mine = select(attempt.c.BatchID, attempt.c.JobIndex, attempt.c.n).where(attempt.c.token == token)
            held = connection.execute(mine).all()
            db.connection.executemany(rows.END_PROVED, [(row.BatchID, row.JobIndex, row.n) for row in held])
            cursor = db.connection.executemany(
                rows.SET_INIT, [(row.BatchID, row.JobIndex, row.n) for row in held]
            )
            connection.execute(
                update(attempt)
                .where(attempt.c.token == token, attempt.c.ended.is_(None))
                .values(ended=now, reason=words)
            )
            connection.execute(update(submission).where(submission.c.token == token).values(settled=now))
            return int(cursor.rowcount)


def _not_handed_over(token: str) -> tuple[ColumnElement[bool], ...]:
    """Return what is true of a submission whose claim still stands."""
    return (submission.c.token == token, submission.c.recorded.is_(None), submission.c.settled.is_(None))


def _plain_rows(connection: Connection, query: Select[Any]) -> Iterable[tuple[Any, ...]]:
    """Return the rows as the driver has them: of thousands, SQLAlchemy's own cost as much as the query."""
    rows_of: Any = connection.execute(query).cursor
    found: Iterable[tuple[Any, ...]] = rows_of
    return found
