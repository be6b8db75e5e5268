"""The tables of the index, their version, and the SQL text that jobs run without SQLAlchemy.

Times are UTC epoch seconds, sizes bytes, durations seconds. What each table is for is in ARCHITECTURE.md.
SQLite 3.26 and newer: see ``tests/unit/test_schema.py`` for what is therefore not used.
"""

from __future__ import annotations

from sqlalchemy import (
    BLOB,
    REAL,
    Column,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    and_,
    literal_column,
)
from sqlalchemy.types import UserDefinedType

#: Raised with a step in ``migrate.py``.
SCHEMA_VERSION = 2
#: Marks the file as ours (``PRAGMA application_id``): "PSU1" in ASCII.
APPLICATION_ID = 0x50535531

#: A job in one of these no longer holds back its batch.
FINISHED = ("complete", "collected")
#: A job in one of these has been handed to an executor.
ACTIVE = ("submit", "run", "spawn")
#: Jobs above this priority go before all jobs of all batches.
GLOBAL_PRIORITY = 100


class Number(UserDefinedType[float]):
    """A number that is kept as it is: an integer stays one, as it would not with NUMERIC affinity."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return a declared type that has no affinity."""
        return "BLOB"


metadata = MetaData()

batch = Table(
    "batch",
    metadata,
    Column("BatchID", Integer, primary_key=True),
    Column("name", Text),
    Column("data_type", Text),
    Column("created", REAL, nullable=False),
    # Those of its first submission: what goes on by itself goes on with them.
    Column("executor", Text),
    # What its executor was given, as JSON; NULL if it was a name: then it is as configured.
    Column("executor_defaults", Text),
    # The MaxJobs that the last whole pass over it was given; NULL: as configured.
    Column("max_jobs", Integer),
    Column("environment", Text),
    Column("workdir", Text),
)

job = Table(
    "job",
    metadata,
    Column("BatchID", Integer, ForeignKey("batch.BatchID"), nullable=False),
    Column("JobIndex", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Number, nullable=False),
    # The number of the current attempt; 0 before the first.
    Column("attempt", Integer, nullable=False, server_default="0"),
    # The attempt before a reset, until its end is proved: the job is not eligible as long as this is set.
    Column("ending", Integer),
    Column("complete_on_exit", Integer, nullable=False, server_default="0"),
    Column("revision", Integer, nullable=False, server_default="0"),
    # Joined by "/"; NULL where it is the name of the batch.
    Column("name", Text),
    Column("progress", REAL),
    Column("progress_message", Text),
    # Why the job is missing; NULL as long as it is not.
    Column("failure", Text),
    Column("absent_since", REAL),
    # How often it was tried again since somebody last set its state, where that counted, and where it did not.
    Column("retried", Integer, nullable=False, server_default="0"),
    Column("resumed", Integer, nullable=False, server_default="0"),
    # What it asks for by now, after that was not enough, in place of its resources, as JSON.
    Column("raised", Text),
    # Not submitted before this by itself: the pause before it is tried again. 0: at once.
    Column("not_before", REAL, nullable=False, server_default="0"),
    # Whether something that it is to come after (table dependency) is not done; kept by the triggers below.
    Column("waits", Integer, nullable=False, server_default="0"),
    # The large columns come last, so that reading the small ones needs no overflow pages.
    Column("metadata", Text, nullable=False),
    Column("extras", BLOB),
    PrimaryKeyConstraint("BatchID", "JobIndex"),
)


def unfinished(of: FromClause = job) -> ColumnElement[bool]:
    """Jobs that hold back what is below them; written as the partial indexes are, so that they are used."""
    return of.c.state.not_in([literal_column(f"'{state}'") for state in FINISHED])


def active(of: FromClause = job) -> ColumnElement[bool]:
    """Jobs that an executor has."""
    return of.c.state.in_([literal_column(f"'{state}'") for state in ACTIVE])


Index("job_by_state", job.c.BatchID, job.c.state, job.c.JobIndex)
Index(
    "job_unfinished",
    job.c.BatchID,
    job.c.priority,
    job.c.state,
    job.c.ending,
    job.c.waits,
    job.c.JobIndex,
    job.c.not_before,
    sqlite_where=unfinished(),
)
Index(
    "job_paused",
    job.c.not_before,
    sqlite_where=and_(job.c.state == literal_column("'init'"), job.c.not_before > literal_column("0")),
)
Index(
    "job_global",
    job.c.priority,
    job.c.waits,
    job.c.BatchID,
    sqlite_where=and_(unfinished(), job.c.priority > literal_column(str(GLOBAL_PRIORITY))),
)
Index("job_active", job.c.BatchID, job.c.JobIndex, job.c.failure, sqlite_where=active())

dependency = Table(
    "dependency",
    metadata,
    Column("BatchID", Integer, nullable=False),
    Column("JobIndex", Integer, nullable=False),
    # What must be complete or collected before: a job, or with -1 in place of its index all jobs of a batch.
    Column("needs_batch", Integer, nullable=False),
    Column("needs_job", Integer, nullable=False),
    PrimaryKeyConstraint("BatchID", "JobIndex", "needs_batch", "needs_job"),
)
Index("dependency_by_need", dependency.c.needs_batch, dependency.c.needs_job)

#: What the tables do by themselves: which needs are not met, and ``job.waits``, which says whether a job has any. One
#: look at the needs of others is all that a job costs that nobody waits for.
RULES = (
    # What was removed before it was done is never met.
    """CREATE VIEW unmet AS SELECT "BatchID", "JobIndex", needs_batch, needs_job FROM dependency WHERE CASE
    WHEN needs_job >= 0 THEN NOT EXISTS (SELECT 1 FROM job AS needed WHERE needed."BatchID" = dependency.needs_batch
        AND needed."JobIndex" = dependency.needs_job AND needed.state IN ('complete', 'collected'))
    ELSE EXISTS (SELECT 1 FROM job AS needed WHERE needed."BatchID" = dependency.needs_batch
            AND needed.state NOT IN ('complete', 'collected'))
        OR NOT EXISTS (SELECT 1 FROM job AS needed WHERE needed."BatchID" = dependency.needs_batch) END""",
    """CREATE TRIGGER job_frees AFTER UPDATE OF state ON job
    WHEN (old.state IN ('complete', 'collected')) <> (new.state IN ('complete', 'collected'))
        AND EXISTS (SELECT 1 FROM dependency WHERE needs_batch = new."BatchID" AND needs_job = new."JobIndex")
    BEGIN UPDATE job SET waits = EXISTS (
            SELECT 1 FROM unmet WHERE unmet."BatchID" = job."BatchID" AND unmet."JobIndex" = job."JobIndex")
        WHERE rowid IN (SELECT waiting.rowid FROM dependency JOIN job AS waiting
            ON waiting."BatchID" = dependency."BatchID" AND waiting."JobIndex" = dependency."JobIndex"
            WHERE needs_batch = new."BatchID" AND needs_job = new."JobIndex"); END""",
    # A whole batch counts only when its last job is done, or the first no longer is.
    """CREATE TRIGGER batch_frees AFTER UPDATE OF state ON job
    WHEN (old.state IN ('complete', 'collected')) <> (new.state IN ('complete', 'collected'))
        AND EXISTS (SELECT 1 FROM dependency WHERE needs_batch = new."BatchID" AND needs_job = -1)
        AND NOT EXISTS (SELECT 1 FROM job AS other WHERE other."BatchID" = new."BatchID"
            AND other."JobIndex" <> new."JobIndex" AND other.state NOT IN ('complete', 'collected'))
    BEGIN UPDATE job SET waits = EXISTS (
            SELECT 1 FROM unmet WHERE unmet."BatchID" = job."BatchID" AND unmet."JobIndex" = job."JobIndex")
        WHERE rowid IN (SELECT waiting.rowid FROM dependency JOIN job AS waiting
            ON waiting."BatchID" = dependency."BatchID" AND waiting."JobIndex" = dependency."JobIndex"
            WHERE needs_batch = new."BatchID" AND needs_job = -1); END""",
)

environment = Table(
    "environment",
    metadata,
    # The variables that submitters hand to their jobs: thousands of submissions share a few of these.
    Column("digest", Text, primary_key=True),
    Column("variables", Text, nullable=False),
)

submission = Table(
    "submission",
    metadata,
    Column("token", Text, primary_key=True),
    Column("executor", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("start_ticks", Integer, nullable=False),
    Column("claimed", REAL, nullable=False),
    Column("recorded", REAL),
    Column("cluster_id", Text),
    # When the last of its attempts was folded; its folder is removed then.
    Column("settled", REAL),
    # The folder's mtime (ns) when it was last looked through: unchanged means nothing new in it.
    Column("seen", Integer),
    Column("environment", Text, ForeignKey("environment.digest")),
    # The batch that somebody else must go on with, because its jobs do not call back; and who does.
    Column("carries", Integer),
    Column("closer", Text),
    # How its jobs are tried again when they end badly, as JSON.
    Column("retry", Text),
)
Index(
    "submission_unrecorded",
    submission.c.token,
    sqlite_where=and_(submission.c.recorded.is_(None), submission.c.settled.is_(None)),
)
# It has all that a pass asks of thousands of them.
Index(
    "submission_open",
    submission.c.executor,
    submission.c.token,
    submission.c.recorded,
    submission.c.seen,
    sqlite_where=submission.c.settled.is_(None),
)

snapshot = Table(
    "snapshot",
    metadata,
    # The last answer of a scheduler's queue, shared by all processes of a user.
    Column("executor", Text, nullable=False),
    Column("uid", Integer, nullable=False),
    # When somebody began to ask, and when the answer is from.
    Column("asking", REAL, nullable=False),
    Column("at", REAL),
    Column("answer", Text),
    PrimaryKeyConstraint("executor", "uid"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("BatchID", Integer, nullable=False),
    Column("JobIndex", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("token", Text, ForeignKey("submission.token"), nullable=False),
    Column("task", Integer, nullable=False),
    # Where it runs; set at the claim for local jobs, whose agent looks for it.
    Column("host", Text),
    # "pid:start ticks:boot id" of the wrapper that a local attempt runs in.
    Column("process", Text),
    Column("asked", Text),
    Column("submitted", REAL, nullable=False),
    Column("started", REAL),
    # When somebody asked for its end; why is in reason.
    Column("cancelled", REAL),
    Column("ended", REAL),
    Column("code", Integer),
    Column("signal", Integer),
    Column("reason", Text),
    Column("max_rss", Integer),
    Column("cpu", REAL),
    # The number of the last event file of this attempt that was folded.
    Column("folded", Integer, nullable=False, server_default="0"),
    Column("qstat", Text),
    # Which of several copies of the job it is (table spawn); NULL for the only one.
    Column("spawn_id", Integer),
    PrimaryKeyConstraint("BatchID", "JobIndex", "n"),
    ForeignKeyConstraint(["BatchID", "JobIndex"], ["job.BatchID", "job.JobIndex"]),
)
Index("attempt_of_token", attempt.c.token, attempt.c.task)
Index(
    "attempt_waiting",
    attempt.c.host,
    sqlite_where=and_(attempt.c.started.is_(None), attempt.c.ended.is_(None)),
)
Index(
    "attempt_running",
    attempt.c.host,
    attempt.c.process,
    sqlite_where=and_(attempt.c.started.is_not(None), attempt.c.ended.is_(None)),
)
Index(
    "attempt_cancelled",
    attempt.c.host,
    sqlite_where=and_(attempt.c.cancelled.is_not(None), attempt.c.ended.is_(None)),
)

spawn = Table(
    "spawn",
    metadata,
    # The copies that a job has made of itself; 0 is the one that began.
    Column("BatchID", Integer, nullable=False),
    Column("JobIndex", Integer, nullable=False),
    Column("SpawnID", Integer, nullable=False),
    # Its current attempt.
    Column("attempt", Integer, nullable=False),
    # "spawn" until it has said that it is "complete".
    Column("state", Text, nullable=False),
    PrimaryKeyConstraint("BatchID", "JobIndex", "SpawnID"),
    ForeignKeyConstraint(["BatchID", "JobIndex"], ["job.BatchID", "job.JobIndex"]),
)

payload = Table(
    "payload",
    metadata,
    Column("BatchID", Integer, ForeignKey("batch.BatchID"), nullable=False),
    # The JobIndex of the function job that it is for; those that several jobs share are -1, -2, ...
    Column("number", Integer, nullable=False),
    # The number of the payload that has the function; NULL: this one has it.
    Column("shared", Integer),
    # Whether a worker that ran other calls of the batch may run this one.
    Column("warm", Integer),
    # Versions, the module's hash and the import path, as JSON.
    Column("about", Text),
    # A pickle; NULL: it is in a file of the batch.
    Column("data", BLOB),
    PrimaryKeyConstraint("BatchID", "number"),
)

result = Table(
    "result",
    metadata,
    # Grows with each result, so that who waits reads only what is new.
    Column("serial", Integer, primary_key=True),
    Column("BatchID", Integer, ForeignKey("batch.BatchID"), nullable=False),
    Column("JobIndex", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    # "value" or "error".
    Column("kind", Text, nullable=False),
    # Of an error: what it says, and the traceback of the job.
    Column("summary", Text),
    Column("traceback", Text),
    # Seconds that the call took.
    Column("seconds", REAL),
    # A pickle; NULL: it is in a file of the batch, or an error that cannot be pickled.
    Column("data", BLOB),
    Column("in_file", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
Index("result_of_job", result.c.BatchID, result.c.JobIndex, unique=True)

name = Table(
    "name",
    metadata,
    Column("name", Text, primary_key=True),
    Column("BatchID", Integer, ForeignKey("batch.BatchID"), nullable=False),
    # "call", "map" or "executor".
    Column("kind", Text, nullable=False),
    Column("created", REAL, nullable=False),
    # What a map needs to be resumed, as JSON.
    Column("about", Text),
)
Index("name_of_batch", name.c.BatchID)

agent = Table(
    "agent",
    metadata,
    Column("host", Text, primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("start_ticks", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", REAL, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("serial", Integer, primary_key=True),
    Column("at", REAL, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("BatchID", Integer, nullable=False),
    # NULL: all jobs of the batch, or those that detail lists.
    Column("JobIndex", Integer),
    Column("kind", Text, nullable=False),
    Column("detail", Text),
)
Index("event_of_job", event.c.BatchID, event.c.JobIndex)
