"""Between the rows of the tables and what the store's verbs speak of."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, insert, literal_column, select
from sqlalchemy.dialects import sqlite

from paraschut import checks
from paraschut import job as jobs
from paraschut.bulk import Packer
from paraschut.errors import JobError
from paraschut.progress import MANY_TASKS, bar, shown
from paraschut.retry import begin_after
from paraschut.store.runtime import Statements
from paraschut.store.schema import ACTIVE, attempt, batch, job, submission, unfinished

#: SQLite's limit of parameters is 999 before 3.32.
CHUNK = 500

_dialect = sqlite.dialect(paramstyle="qmark")


def _insert(table: Any, *names: str) -> str:
    return str(insert(table).values({name: bindparam(name) for name in names}).compile(dialect=_dialect))


# The order of names is that of the table's columns, whatever is written here.
_INSERT_JOB = _insert(
    job, "BatchID", "JobIndex", "state", "priority", "complete_on_exit", "name", "metadata", "extras"
)
#: Values of a row, and rows of a statement: a little less than SQLite's limit of parameters.
_WIDTH, _ROWS = 8, 100
#: For neighbours at once: thousands of statements of a row each cost more than the rows.
_NEIGHBOURS = (
    job.c.BatchID == bindparam("batch_id"),
    job.c.JobIndex.between(bindparam("first"), bindparam("last")),
)
INSERT_ATTEMPTS = str(
    insert(attempt)
    .from_select(
        ["BatchID", "JobIndex", "n", "token", "task", "host", "asked", "submitted"],
        select(
            *(job.c.BatchID, job.c.JobIndex, bindparam("n"), bindparam("token")),
            *(job.c.JobIndex + bindparam("shift"), bindparam("host"), bindparam("asked"), bindparam("now")),
        ).where(*_NEIGHBOURS),
        include_defaults=False,
    )
    .compile(dialect=_dialect)
)
SET_SUBMIT = (
    "UPDATE job SET state='submit', attempt=?, ending=NULL, failure=NULL, absent_since=NULL, progress=NULL, "
    'progress_message=NULL, not_before=? WHERE "BatchID"=? AND "JobIndex" BETWEEN ? AND ?'
)
MOVE_ATTEMPT = 'UPDATE attempt SET token=?, task=? WHERE "BatchID"=? AND "JobIndex"=? AND n=?'
END_PROVED = (
    'UPDATE job SET ending=(SELECT max(n) FROM attempt WHERE attempt."BatchID"=job."BatchID" AND '
    'attempt."JobIndex"=job."JobIndex" AND ended IS NULL AND n<>job.ending) WHERE "BatchID"=? AND "JobIndex"=? AND '
    "ending=?"
)
SET_INIT = (
    "UPDATE job SET state='init' WHERE \"BatchID\"=? AND \"JobIndex\"=? AND attempt=? AND state='submit'"
)


#: Jobs of a run at most: between two statements somebody may see how far it is.
_RUN = 2000
#: A job that is set to one of these is not to run on. Other words only call it something, once it has started.
TAKEN_BACK = ("init", "held")


class Running(NamedTuple):
    """An attempt that an executor has, or may have."""

    batch_id: int
    job_index: int
    n: int
    executor: str
    token: str
    task: int
    cluster_id: str | None
    started: float | None


def packed(
    group: Sequence[Mapping[str, Any]], workdir: str, known: tuple[str | None, str | None] | None
) -> list[Any]:
    """Return the values of the rows of checked job dicts of one batch, for ``insert_jobs``.

    Parameters
    ----------
    workdir : str
        Where they are added.
    known : tuple | None
        Name and working directory of the batch, if it has jobs already.
    """
    first = jobs.joined_name(group[0]["name"]) if known is None else known[0]
    there = workdir if known is None and jobs.encodable(workdir) else known and known[1]
    elsewhere = {} if there == workdir else {"workdir": workdir}
    packer = Packer()
    values: list[Any] = []
    batch_id = checks.plain_number(group[0]["BatchID"])
    given = name = None
    for one in shown(group, "adding"):
        if one["name"] is not given:
            given = one["name"]
            name = jobs.joined_name(given)
        fields = jobs.own_fields(one)
        try:
            metadata, extras = packer.pack({**elsewhere, **fields} if elsewhere else fields)
        except JobError as error:
            raise JobError(f"{jobs.label(one)}: {error} Nothing was added.") from error
        values += (
            batch_id,
            checks.plain_number(one["JobIndex"]),
            jobs.writable(str(one["state"])),
            checks.plain_number(one["priority"]),
            int(bool(one.get("complete_on_exit"))),
            None if name == first else name,
            metadata,
            extras,
        )
    return values


def insert_jobs(connection: Connection, values: list[Any]) -> None:
    """Insert the rows whose values ``packed`` gave, many with each statement: each costs more than a row does."""
    raw: Any = connection.connection.driver_connection
    rest = len(values) % (_WIDTH * _ROWS)
    raw.executemany(
        _insert_jobs(_ROWS),
        (values[at : at + _WIDTH * _ROWS] for at in range(0, len(values) - rest, _WIDTH * _ROWS)),
    )
    if rest:
        raw.execute(_insert_jobs(rest // _WIDTH), values[-rest:])


def _insert_jobs(count: int) -> str:
    head, word, row = _INSERT_JOB.partition(" VALUES ")
    return head + word + ", ".join([row] * count)


def duplicate(connection: Connection, error: Exception, batch_id: int, values: list[Any]) -> int | None:
    """Return the JobIndex that is there twice, if that is what an error is about."""
    if not isinstance(error.__cause__ or error, sqlite3.IntegrityError):
        return None
    seen: set[int] = set()
    for index in values[1::_WIDTH]:
        if index in seen:
            return int(index)
        seen.add(index)
    known = set(connection.execute(select(job.c.JobIndex).where(job.c.BatchID == batch_id)).scalars())
    return min(known & seen, default=None)


class Candidate(NamedTuple):
    """A job that may be claimed."""

    BatchID: int
    JobIndex: int
    attempt: int
    metadata: str
    raised: str | None
    workdir: str | None
    name: str | None
    not_before: float = 0.0


def _highest_attempt() -> ColumnElement[int]:
    """Return the number of a job's last attempt, or of the last of its copies."""
    of_job = (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex)
    highest = select(func.max(attempt.c.n)).where(of_job).correlate(job).scalar_subquery()
    return func.max(job.c.attempt, func.coalesce(highest, literal_column("0"))).label("attempt")


def candidates(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Return the query for jobs that may be claimed."""
    return (
        select(
            *(job.c.BatchID, job.c.JobIndex, _highest_attempt(), job.c.metadata, job.c.raised),
            *(batch.c.workdir, batch.c.name, job.c.not_before),
        )
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(job.c.state == literal_column("'init'"), job.c.ending.is_(None), unfinished(), *conditions)
        .order_by(job.c.JobIndex)
    )


def vetted(
    candidates: Iterable[tuple[Any, ...]],
    vet: Callable[[dict[str, Any]], dict[str, Any]],
    room: int,
    found: list[Any],
    refused: list[tuple[int, int, str]],
) -> None:
    """Append to ``found`` the rows whose jobs can be submitted, until there is no room."""
    decode = json.JSONDecoder().raw_decode
    for raw in candidates:
        if len(found) >= room:
            return
        row = Candidate(*raw)
        fields, _ = decode(row.metadata)
        if row.raised is not None:
            fields["resources"] = {**(fields["resources"] or {}), **json.loads(row.raised)}
        fields["BatchID"], fields["JobIndex"] = row.BatchID, row.JobIndex
        try:
            asked = vet(fields)
        except JobError as error:
            refused.append((row.BatchID, row.JobIndex, str(error)))
        else:
            found.append((row, fields, asked))


class Run(NamedTuple):
    """Neighbours of a batch that are claimed alike: the task of each is its index and the shift."""

    batch_id: int
    first: int
    last: int
    n: int
    token: str
    shift: int
    begin: float | None
    asked: str


def runs_of(claimed: Sequence[Any], asked: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Return the jobs of a claim as runs of neighbours; ``asked`` says what each of them asks for."""
    found: list[Run] = []
    # Executors give the same dict to all jobs that ask for the same.
    texts: dict[int, str] = {}
    alike: tuple[Any, ...] = ()
    last = -1
    for one, for_this in zip(claimed, asked, strict=True):
        key = (one.batch_id, one.n, one.token, one.task - one.job_index, one.begin, id(for_this))
        if key != alike or one.job_index != last + 1 or last - found[-1].first >= _RUN:
            if found:
                found[-1] = found[-1]._replace(last=last)
            if key[-1] not in texts:
                texts[key[-1]] = json.dumps(for_this)
            found.append(Run(one.batch_id, one.job_index, one.job_index, *key[1:5], texts[key[-1]]))
            alike = key
        last = one.job_index
    if found:
        found[-1] = found[-1]._replace(last=last)
    return found


def shown_runs(runs: Sequence[Run], what: str) -> Iterator[Run]:
    """Return runs to go through, with a bar of their jobs if they are many."""
    total = sum(one.last - one.first + 1 for one in runs)
    with bar(total, what, wanted=None if total >= MANY_TASKS else False) as more:
        for one in runs:
            yield one
            more(one.last - one.first + 1)


def in_pieces(new: Any, found: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return the jobs of a claim as they are handed over: those of one shape, and not too many, at once."""
    shapes: dict[Hashable, list[Any]] = {}
    for one in found:
        row, fields, asked = one
        shape = (new.shape and new.shape(row.BatchID, fields, asked), begin_of(new, row))
        shapes.setdefault(shape, []).append(one)
    pieces = [
        group[start : start + (new.most or len(group))]
        for group in shapes.values()
        for start in range(0, len(group), new.most or len(group))
    ]
    return [(os.urandom(8).hex() if place else new.token, piece) for place, piece in enumerate(pieces)]


def begin_of(new: Any, row: Candidate) -> float | None:
    """Return when a job that is claimed may start at the earliest; None if its pause is over, or is not kept."""
    return begin_after(row.not_before, new.now) if new.begins else None


def keep_environment(db: Statements, variables: Mapping[str, str]) -> str:
    """Keep the variables of a submitter, once for all submissions that have the same; return their key."""
    text = json.dumps(dict(sorted(variables.items())))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    db.run("keep_environment", digest=digest, variables=text)
    return digest


def rows_of(connection: Connection, batch_id: int, indices: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    """Return the rows of jobs of a batch: all, or those of some indices."""
    query = (
        select(job, batch.c.name.label("batch_name"))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(job.c.BatchID == batch_id)
    )
    if indices is None:
        yield from map(dict, connection.execute(query.order_by(job.c.JobIndex)).mappings())
        return
    for start in range(0, len(indices), CHUNK):
        chunk = query.where(job.c.JobIndex.in_(indices[start : start + CHUNK])).order_by(job.c.JobIndex)
        yield from map(dict, connection.execute(chunk).mappings())


def excepted(row: Mapping[str, Any], unless: Mapping[str, Iterable[Any]]) -> bool:
    """Return whether a job has one of the values that ``Unless`` names."""
    if not unless:
        return False
    fields = {**json.loads(row["metadata"]), "state": row["state"], "priority": row["priority"]}
    return any(field in fields and fields[field] in values for field, values in unless.items())


def take_from_executor(db: Statements, row: Mapping[str, Any], state: str, now: float) -> list[Running]:
    """Mark the current attempt of a job that is set to a state, if it has not ended, as one that must end.

    So are all copies that it has made of itself. The job stays in the way of its next attempt until that end is proved (column ``ending``). An attempt that
    waits in the index itself ends here and now: the agent starts only what is not cancelled.
    """
    if not row["attempt"]:
        return []
    of_job = {"batch_id": row["BatchID"], "job_index": row["JobIndex"]}
    numbers = {row["attempt"]} | {n for (n,) in db.run("open_attempts", **of_job)}
    return [one for n in sorted(numbers) for one in _take(db, row, n, state, now)]


def _take(db: Statements, row: Mapping[str, Any], n: int, state: str, now: float) -> list[Running]:
    where = (row["BatchID"], row["JobIndex"], n)
    connection = db.connection
    cursor = connection.execute(_ATTEMPT_TO_DELETE, where)
    found = cursor.fetchone()
    if found is None or (found[-1] is not None and row["state"] not in ACTIVE):
        return []
    executor, token, task, cluster_id, started, host, ended = found
    if started is not None and state not in TAKEN_BACK:
        return []
    waits_here = host is not None and started is None
    connection.execute(_CANCEL, (now, now if waits_here else None, *where))
    if ended is not None or waits_here:
        return []
    connection.execute(_SET_ENDING, where[2:] + where[:2])
    return [Running(*where, executor, token, task, cluster_id, started)]


_ATTEMPT_TO_DELETE = str(
    select(
        submission.c.executor,
        attempt.c.token,
        attempt.c.task,
        submission.c.cluster_id,
        attempt.c.started,
        attempt.c.host,
        attempt.c.ended,
    )
    .join(submission, submission.c.token == attempt.c.token)
    .where(
        attempt.c.BatchID == bindparam("batch_id"),
        attempt.c.JobIndex == bindparam("job_index"),
        attempt.c.n == bindparam("n"),
    )
    .compile(dialect=_dialect)
)
_CANCEL = (
    "UPDATE attempt SET cancelled=?, reason=coalesce(reason, 'cancelled'), ended=coalesce(ended, ?) "
    'WHERE "BatchID"=? AND "JobIndex"=? AND n=?'
)
_SET_ENDING = 'UPDATE job SET ending=? WHERE "BatchID"=? AND "JobIndex"=?'
