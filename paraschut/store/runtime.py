"""What jobs and the agent do with the index, on the standard library's driver.

Each function runs inside a transaction of its caller and takes the time as an argument. The statements come
from ``statements.sql``, which is generated from the tables. Part of the road of a job: imports little.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

from paraschut import checks
from paraschut import job as jobs
from paraschut.errors import JobError, NotFoundError, StaleJobError
from paraschut.paths import Paths
from paraschut.process import host_name
from paraschut.store import engine
from paraschut.store.trust import check_trusted

#: What events have for a batch that are about the whole index; and the kind of those that say what bounds a pass.
WHOLE_INDEX, PASS = 0, "pass"


def read_statements() -> dict[str, str]:
    """Return the generated statements by name."""
    path = os.path.join(os.path.dirname(__file__), "statements.sql")
    with open(path, encoding="utf-8") as file:
        blocks = file.read().split("-- ")[1:]
    return {name: sql.rstrip(";\n") for name, _, sql in (block.partition("\n") for block in blocks)}


def opened(index: str, limit: float, texts: Mapping[str, str]) -> sqlite3.Connection:
    """Open an index for its statements, to which one of an older version is brought first."""
    connection = engine.connect(index, limit)
    with engine.speaking(index):
        found, ours = (
            connection.execute(sql).fetchone() for sql in ("PRAGMA user_version", texts["version"])
        )
    # A newer one may have been made so while this process ran: it has all that these statements speak of.
    if found >= ours:
        return connection
    connection.close()
    from paraschut.store.index import Index

    with Index(index, lock_timeout=limit):
        return engine.connect(index, limit)


class Key(NamedTuple):
    """One attempt of one job."""

    batch_id: int
    job_index: int
    n: int


class Ended(NamedTuple):
    """How an attempt ended, as its wrapper saw it."""

    started: float | None
    ended: float
    code: int | None
    signal: int | None
    max_rss: int | None = None
    cpu: float | None = None


class Statements:
    """The statements on one connection: ``statements.run("heads")``."""

    def __init__(self, connection: sqlite3.Connection, texts: Mapping[str, str]) -> None:
        self.connection = connection
        self._texts = texts

    def run(self, name: str, /, **values: Any) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(self._texts[name], values)

    def rows(self, name: str, /, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts."""
        cursor = self.run(name, **values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, name: str, /, **values: Any) -> dict[str, Any] | None:
        """Return the first row of a query, or None."""
        found = self.rows(name, **values)
        return found[0] if found else None

    def changed(self, name: str, /, **values: Any) -> bool:
        """Execute a change; return whether it changed anything."""
        return self.run(name, **values).rowcount > 0


def job_row(db: Statements, batch_id: int, job_index: int) -> dict[str, Any]:
    """Return the row of a job.

    Raises
    ------
    NotFoundError
        If the index has no such job.
    """
    row = db.row("read_job", batch_id=batch_id, job_index=job_index)
    if row is None:
        raise NotFoundError(
            f"There is no job {batch_id}:{job_index} in the index. get_queue() shows what there is; a removed batch "
            f"is gone for good."
        )
    return row


def read_job(
    db: Statements,
    index: str,
    batch_id: int,
    job_index: int,
    trusted: tuple[str, ...],
    key: Key | None = None,
) -> jobs.Job:
    """Return a job with all its fields and what its attempts tell; for one of its copies, with its SpawnID."""
    row = job_row(db, batch_id, job_index)
    if row["state"] == "spawn" and key is not None:
        row.update(db.row("spawn_of_attempt", **key._asdict()) or {}, state="spawn")
    if row["extras"] is not None:
        check_trusted(index, trusted)
    attempts = db.rows("read_attempts", batch_id=batch_id, job_index=job_index) if row["attempt"] else []
    return assemble(row, attempts, index)


def assemble(
    row: Mapping[str, Any], attempts: list[dict[str, Any]], index: str, *, partial: bool = False
) -> jobs.Job:
    """Return the dict of a job from its row and those of its attempts."""
    extras = None if partial else row["extras"]
    fields: dict[str, Any] = {
        "BatchID": row["BatchID"],
        "JobIndex": row["JobIndex"],
        "priority": row["priority"],
        **jobs.unpack(row["metadata"], extras),
        "state": row["state"],
    }
    if attempts:
        paths = Paths(index)
        where = (row["BatchID"], row["JobIndex"])
        fields["ClusterID"] = [cluster_id(one["token"], one["cluster_id"], one["task"]) for one in attempts]
        fields["hostname"] = [one["host"] for one in attempts]
        fields["subtime"] = [one["submitted"] for one in attempts]
        fields["stdout"] = [paths.log(*where, one["n"], "stdout") for one in attempts]
        fields["stderr"] = [paths.log(*where, one["n"], "stderr") for one in attempts]
        summaries = [one["qstat"] for one in attempts if one["qstat"]]
        if summaries:
            import json

            fields["qstat"] = json.loads(summaries[-1])
    if row["state"] == "spawn" and row.get("SpawnID") is not None:
        fields["SpawnID"] = row["SpawnID"]
    for field in ("progress", "progress_message", "failure"):
        if row[field] is not None:
            fields[field] = row[field]
    return jobs.Job(fields, origin=origin_of(row), partial=partial)


def origin_of(row: Mapping[str, Any]) -> jobs.Origin:
    """Return what a job's dict remembers of its row."""
    columns = ("BatchID", "JobIndex", "state", "priority", "metadata", "extras")
    return jobs.Origin(*(row[column] for column in columns))


def cluster_id(token: str, submission: str | None, task: int) -> str | None:
    """Return the id of one task, as the executor knows it; None before it was recorded.

    Parameters
    ----------
    submission : str | None
        That of its submission: with ``#`` for the number of the task, or the token where there is no other.

    Examples
    --------
    >>> cluster_id("f00", "21_#", 3), cluster_id("f00", "21", 0), cluster_id("f00", "f00", 3)
    ('21_3', '21', 'f00.3')
    """
    if submission is None:
        return None
    return f"{token}.{task}" if submission == token else submission.replace("#", str(task))


def mark_run(db: Statements, key: Key, now: float) -> None:
    """Set a job to ``run``: called by its attempt as often as it likes."""
    check_current(db, key)
    # Not after its end was folded: then it was found missing, and only that it is complete can mend that.
    if db.changed("attempt_runs", **key._asdict(), now=now, host=host_name()):
        db.run("job_runs", **key._asdict())


def check_current(db: Statements, key: Key) -> dict[str, Any]:
    """Return the row of a job; raise unless ``key`` is its current attempt and was not reset."""
    row = job_row(db, key.batch_id, key.job_index)
    attempt = db.row("read_attempt", **key._asdict())
    current = row["attempt"] == key.n
    if row["state"] == "spawn":
        current = db.row("spawn_of_attempt", **key._asdict()) is not None
    if attempt is None or not current or attempt["cancelled"] is not None:
        who = db.row("last_edit", batch_id=key.batch_id, job_index=key.job_index)
        by = f" by process {who['pid']} on {who['host']} ({who['kind']})" if who else ""
        raise StaleJobError(
            f"Attempt {key.n} of job {key.batch_id}:{key.job_index} no longer counts: the job was reset, deleted or "
            f"submitted again meanwhile{by}. This process should end."
        )
    return row


def mark_complete(
    db: Statements, key: Key | None, job: jobs.Job | None, where: tuple[int, int], now: float
) -> None:
    """Set a job to ``complete``, with the fields that were changed in its dict; the later one wins."""
    if key is not None and (key.batch_id, key.job_index) == where:
        if check_current(db, key)["state"] == "spawn":
            raise JobError(
                f"Job {where[0]}:{where[1]} is in 'spawn': it is not complete before all of its copies are. Call "
                f"spawn_complete(), and set_complete() only where that returned 'complete'. Nothing was written."
            )
        db.run("attempt_runs", **key._asdict(), now=now, host=host_name())
    row = job_row(db, *where)
    if job is not None:
        write_fields(db, row, {k: v for k, v in jobs.changes(job).items() if k != "state"})
    db.run("job_state", batch_id=where[0], job_index=where[1], state="complete")


def update_job(db: Statements, job: jobs.Job, now: float, *, own: bool) -> jobs.Origin:
    """Write the fields that were changed in a job's dict, unless another process changed the same ones.

    ``own`` says whether it is the job itself that does so. Returns what the dict is to remember.

    Raises
    ------
    StaleJobError
        Naming the field and who changed it.
    """
    batch_id, job_index = checks.number_of(job["BatchID"]), checks.number_of(job["JobIndex"])
    row = job_row(db, batch_id, job_index)
    changed = jobs.changes(job)
    state = changed.get("state", row["state"])
    if state != row["state"] and state in jobs.SUBMITTED and not (own and state == "run"):
        raise JobError(
            f"{jobs.label(job)} cannot be set to state {state!r}: submit_jobs submits it, and it says itself that it "
            f"runs. Nothing was written."
        )
    if job.origin is not None:
        _refuse_stale(db, job, changed, row)
    if changed:
        if state != row["state"]:
            _take_back(db, row, str(state), now, own=own)
        write_fields(db, row, changed)
        add_event(db, now, batch_id, job_index, "edit", ", ".join(sorted(changed)))
    return origin_of(row) if job.origin is None else jobs.remembered(job.origin, changed)


def _take_back(db: Statements, row: Mapping[str, Any], state: str, now: float, *, own: bool) -> None:
    """See to it that a job that is set to another state does not run twice at once.

    By itself, a job may call its state what it likes; it only waits for its end before it is submitted again. By
    others, its attempt is to end, as when it is reset.
    """
    if state not in {"init", "held"}:
        return
    where = {"batch_id": row["BatchID"], "job_index": row["JobIndex"]}
    for (n,) in db.run("open_attempts", **where).fetchall():
        db.run("job_awaits_end", **where, n=n)
        # Copies of a job that is set back by one of them end with it.
        if not own or n != row["attempt"]:
            db.run("attempt_cancelled", **where, n=n, now=now, reason="cancelled")


def _refuse_stale(db: Statements, job: jobs.Job, changed: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    origin = job.origin
    assert origin is not None
    read, now = jobs.split(origin.metadata, origin.extras), jobs.split(row["metadata"], row["extras"])
    for field, value in changed.items():
        if field == "state":
            # Submission and start are the normal path of the very job that this dict was prepared for.
            moved = row["state"] not in {origin.state, value, "submit", "run"}
        elif field == "priority":
            moved = row["priority"] not in {origin.priority, value}
        else:
            moved = now.get(field) != read.get(field) and not jobs.same(now.get(field), field, value)
        if moved:
            who = db.row("last_edit", batch_id=job["BatchID"], job_index=job["JobIndex"])
            by = f"process {who['pid']} on {who['host']} ({who['kind']})" if who else "another process"
            raise StaleJobError(
                f"The field {field!r} of {jobs.label(job)} was changed by {by} since this dict was read. Nothing was "
                f"written. Read the job again with get_job_info and repeat the change."
            )


def write_fields(db: Statements, row: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Write some fields of a job; a value of ``REMOVED`` takes the field out."""
    where = {"batch_id": row["BatchID"], "job_index": row["JobIndex"]}
    own = jobs.own_fields(changed)
    if own:
        metadata, extras = jobs.merge(row["metadata"], row["extras"], own)
        name = jobs.joined_name(own["name"]) if "name" in own else row["name"]
        flag = own.get("complete_on_exit", row["complete_on_exit"])
        db.run(
            "job_fields",
            **where,
            metadata=metadata,
            extras=extras,
            name=None if name == row["batch_name"] else name,
            complete_on_exit=int(flag is not jobs.REMOVED and bool(flag)),
        )
        if "resources" in own:
            # Whoever says what it asks for is not overruled by what was once too little.
            db.run("job_not_raised", **where)
        if "after" in own:
            from paraschut.store import needs

            given = None if own["after"] is jobs.REMOVED else own["after"]
            who = (row["BatchID"], row["JobIndex"])
            needs.put(db, {who: checks.after_of(given, f"job {who[0]}:{who[1]}")})
    if "state" in changed:
        db.run("job_state", **where, state=str(changed["state"]))
    if "priority" in changed:
        db.run("job_priority", **where, priority=checks.plain_number(changed["priority"]))


def add_event(
    db: Statements, now: float, batch_id: int, job_index: int | None, kind: str, detail: str | None
) -> None:
    """Write down what a person or a rule did."""
    db.run(
        "add_event",
        now=now,
        host=host_name(),
        pid=os.getpid(),
        batch_id=batch_id,
        job_index=job_index,
        kind=kind,
        detail=detail,
    )


def last_pass(db: Statements) -> dict[str, Any] | None:
    """Return when the last pass was made that was given other bounds than the one before it, and which, as JSON."""
    return db.row("last_pass", batch_id=WHOLE_INDEX, kind=PASS)
