"""The statements that jobs and the agent run without SQLAlchemy, written with it.

``python -m paraschut.store.statements`` writes them to ``statements.sql``, which ``runtime.py`` reads;
a test compares the two. So the tables stay the one place where a column is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    ColumnElement,
    Select,
    bindparam,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import sqlite

from paraschut.store.schema import (
    ACTIVE,
    FINISHED,
    GLOBAL_PRIORITY,
    SCHEMA_VERSION,
    active,
    agent,
    attempt,
    batch,
    dependency,
    environment,
    event,
    job,
    name,
    payload,
    result,
    spawn,
    submission,
    unfinished,
)

FILE = Path(__file__).with_name("statements.sql")

P = bindparam
_ONE: ColumnElement[int] = literal_column("1")
_ZERO: ColumnElement[int] = literal_column("0")
_THIS_JOB = (job.c.BatchID == P("batch_id")) & (job.c.JobIndex == P("job_index"))
_THIS_ATTEMPT = (
    (attempt.c.BatchID == P("batch_id")) & (attempt.c.JobIndex == P("job_index")) & (attempt.c.n == P("n"))
)
_RESULT = [
    result.c[column]
    for column in ("JobIndex", "n", "kind", "summary", "traceback", "seconds", "data", "in_file")
]
_OF_JOB = (spawn.c.BatchID == P("batch_id")) & (spawn.c.JobIndex == P("job_index"))
_open = attempt.alias("open")
_HERE = attempt.c.host == P("host")
_waiting = job.alias("waiting")
_above = job.alias("above")
_NEED = ("BatchID", "JobIndex", "needs_batch", "needs_job")
_unmet = table("unmet", *map(column, _NEED))
_WAITS = exists(
    select(_ONE)
    .select_from(_unmet)
    .where(_unmet.c.BatchID == job.c.BatchID, _unmet.c.JobIndex == job.c.JobIndex)
    .correlate(job)
)
#: Written as the partial index is.
_PAUSED = (job.c.state == literal_column("'init'")) & (job.c.not_before > literal_column("0"))


def _word(state: str) -> ColumnElement[Any]:
    return literal_column(f"'{state}'")


def heads() -> Select[Any]:
    """Return the query for the groups that are next in their batch and have jobs to submit.

    It scans the batches and looks twice into a partial index for each, so finished batches cost nothing and
    ten thousand blocked ones a few milliseconds. The LIMIT keeps SQLite from evaluating ``top`` twice.
    """
    top = (
        select(func.max(job.c.priority))
        .where(job.c.BatchID == batch.c.BatchID, unfinished())
        .correlate(batch)
        .scalar_subquery()
        .label("top")
    )
    kept = (batch.c.executor, batch.c.executor_defaults, batch.c.environment, batch.c.max_jobs)
    groups = select(batch.c.BatchID, *kept, top).limit(literal_column("-1")).offset(_ZERO).subquery("head")
    ready = exists(
        select(_ONE)
        .select_from(job)
        .where(
            job.c.BatchID == groups.c.BatchID,
            job.c.priority == groups.c.top,
            job.c.state == _word("init"),
            job.c.ending.is_(None),
            job.c.waits == _ZERO,
            job.c.not_before <= P("now"),
            unfinished(),
        )
    )
    return select(groups).where(groups.c.top.is_not(None), ready)


def paused_heads() -> Select[Any]:
    """Return the query for the groups that are next in their batch and have jobs whose pause is not over."""
    kept = (batch.c.executor, batch.c.executor_defaults, batch.c.environment, batch.c.max_jobs)
    higher = exists(
        select(_ONE)
        .select_from(_above)
        .where(_above.c.BatchID == job.c.BatchID, unfinished(_above), _above.c.priority > job.c.priority)
        .correlate(job)
    )
    return (
        select(batch.c.BatchID, *kept, job.c.priority.label("top"))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(
            _PAUSED,
            job.c.not_before > P("now"),
            job.c.ending.is_(None),
            job.c.waits == _ZERO,
            unfinished(),
            ~higher,
        )
        .distinct()
    )


def standing() -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    """Return state, current attempt and ``complete_on_exit`` as they hold for an attempt that is joined with its copy.

    While a job is in ``spawn``, each of its copies stands for itself.
    """
    copies = (job.c.state == _word("spawn")) & spawn.c.attempt.is_not(None)
    return (
        case((copies & (spawn.c.state == _word("complete")), _word("complete")), else_=job.c.state).label(
            "state"
        ),
        case((copies, spawn.c.attempt), else_=job.c.attempt).label("attempt"),
        case((copies, _ZERO), else_=job.c.complete_on_exit).label("complete_on_exit"),
    )


#: Joins an attempt with the copy that it is of, if the job has several.
OF_COPY = (
    (spawn.c.BatchID == attempt.c.BatchID)
    & (spawn.c.JobIndex == attempt.c.JobIndex)
    & (spawn.c.SpawnID == attempt.c.spawn_id)
)


def statements() -> dict[str, ClauseElement]:
    """Return all statements by name."""
    now: BindParameter[float] = P("now")
    return {
        # For those who do not import the tables.
        "version": select(literal_column(str(SCHEMA_VERSION)).label("version")),
        "heads": heads(),
        "paused_heads": paused_heads(),
        # One that itself has to wait for others holds nobody back.
        "global_top": select(func.max(job.c.priority)).where(
            unfinished(), job.c.priority > literal_column(str(GLOBAL_PRIORITY)), job.c.waits == _ZERO
        ),
        # (The sign keeps SQLite from walking through all jobs in the order of batches.)
        "holders": select(literal_column('+job."BatchID"').label("BatchID"), job.c.priority)
        .where(
            unfinished(),
            job.c.priority > literal_column(str(GLOBAL_PRIORITY)),
            job.c.priority > P("priority"),
            job.c.waits == _ZERO,
        )
        .distinct(),
        "waiting_above": select(job.c.JobIndex).where(
            job.c.BatchID == P("batch_id"), unfinished(), job.c.priority > P("priority"), job.c.waits == _ONE
        ),
        "lowest_above": select(func.min(job.c.priority)).where(
            job.c.BatchID == P("batch_id"), unfinished(), job.c.priority > P("priority")
        ),
        "unfinished_priority": select(job.c.priority).where(_THIS_JOB, unfinished()),
        "any_job_of": select(_ONE)
        .select_from(job)
        .where(job.c.BatchID == P("batch_id"))
        .limit(_ONE)
        .offset(_ZERO),
        "any_need": select(_ONE).select_from(dependency).limit(_ONE).offset(_ZERO),
        "needs_of": select(dependency.c.needs_batch, dependency.c.needs_job).where(
            dependency.c.BatchID == P("batch_id"), dependency.c.JobIndex == P("job_index")
        ),
        "add_need": insert(dependency)
        .prefix_with("OR IGNORE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            needs_batch=P("needs_batch"),
            needs_job=P("needs_job"),
        ),
        "forget_needs": delete(dependency).where(
            dependency.c.BatchID == P("batch_id"), dependency.c.JobIndex == P("job_index")
        ),
        # Before its batch is removed: what has been met stays so.
        "forget_met": delete(dependency).where(
            dependency.c.needs_batch == P("needs_batch"),
            ~exists(
                select(_ONE)
                .select_from(_unmet)
                .where(*(_unmet.c[name] == dependency.c[name] for name in _NEED))
            ),
        ),
        "job_waits": update(job).where(_THIS_JOB).values(waits=_WAITS),
        "dependents_wait": update(job)
        .where(
            literal_column("job.rowid").in_(
                select(literal_column("waiting.rowid"))
                .select_from(
                    dependency.join(
                        _waiting,
                        (_waiting.c.BatchID == dependency.c.BatchID)
                        & (_waiting.c.JobIndex == dependency.c.JobIndex),
                    )
                )
                .where(
                    dependency.c.needs_batch == P("needs_batch"),
                    dependency.c.needs_job == literal_column("-1"),
                )
            )
        )
        .values(waits=_WAITS),
        "active_count": select(func.count()).select_from(job).where(active(), job.c.failure.is_(None)),
        "ready_count": select(func.count()).select_from(
            select(_ONE)
            .select_from(job)
            .where(
                job.c.BatchID == P("batch_id"),
                job.c.priority == P("priority"),
                job.c.state == _word("init"),
                job.c.ending.is_(None),
                job.c.waits == _ZERO,
                job.c.not_before <= now,
                unfinished(),
            )
            .limit(P("most"))
            .offset(_ZERO)
            .subquery()
        ),
        "read_job": select(job, batch.c.workdir, batch.c.name.label("batch_name"))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(_THIS_JOB),
        "read_attempts": select(attempt, submission.c.cluster_id)
        .join(submission, submission.c.token == attempt.c.token)
        .where(attempt.c.BatchID == P("batch_id"), attempt.c.JobIndex == P("job_index"))
        .order_by(attempt.c.n),
        "read_attempt": select(
            attempt.c.token, attempt.c.started, attempt.c.cancelled, attempt.c.ended, attempt.c.folded
        ).where(_THIS_ATTEMPT),
        "job_runs": update(job)
        .where(_THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([_word("submit"), _word("run")]))
        .values(state=_word("run"), failure=null(), absent_since=null()),
        "attempt_runs": update(attempt)
        .where(_THIS_ATTEMPT, attempt.c.ended.is_(None))
        .values(started=func.coalesce(attempt.c.started, now), host=P("host")),
        "job_state": update(job)
        .where(_THIS_JOB)
        .values(
            state=P("state"),
            failure=null(),
            absent_since=null(),
            retried=_ZERO,
            resumed=_ZERO,
            not_before=_ZERO,
            revision=job.c.revision + _ONE,
        ),
        "job_to_retry": select(
            job.c.metadata, job.c.retried, job.c.resumed, job.c.raised, attempt.c.asked, submission.c.retry
        )
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .join(submission, submission.c.token == attempt.c.token)
        .where(
            _THIS_ATTEMPT,
            or_(
                (job.c.attempt == attempt.c.n) & job.c.state.in_([_word("submit"), _word("run")]),
                (job.c.state == _word("spawn"))
                & exists(select(_ONE).select_from(spawn).where(OF_COPY, spawn.c.attempt == attempt.c.n)),
            ),
        ),
        "job_retries": update(job)
        .where(_THIS_JOB)
        .values(
            state=_word("init"),
            failure=null(),
            absent_since=null(),
            retried=P("retried"),
            resumed=P("resumed"),
            raised=P("raised"),
            not_before=P("not_before"),
        ),
        "copy_retries": update(job)
        .where(_THIS_JOB)
        .values(retried=P("retried"), resumed=P("resumed"), raised=P("raised"), not_before=P("not_before")),
        # When the agent of a machine, or the closer of a batch, has to look again.
        "next_begin": select(func.min(job.c.not_before))
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(_PAUSED, job.c.not_before > now, batch.c.executor == P("executor")),
        "next_begin_of": select(func.min(job.c.not_before)).where(
            _PAUSED, job.c.not_before > now, job.c.BatchID == P("batch_id")
        ),
        "job_not_raised": update(job).where(_THIS_JOB).values(raised=null()),
        "job_priority": update(job)
        .where(_THIS_JOB)
        .values(priority=P("priority"), revision=job.c.revision + _ONE),
        "job_fields": update(job)
        .where(_THIS_JOB)
        .values(
            metadata=P("metadata"),
            extras=P("extras"),
            name=P("name"),
            complete_on_exit=P("complete_on_exit"),
            revision=job.c.revision + _ONE,
        ),
        "job_progress": update(job)
        .where(_THIS_JOB)
        .values(progress=P("progress"), progress_message=P("progress_message")),
        "attempt_qstat": update(attempt).where(_THIS_ATTEMPT).values(qstat=P("qstat")),
        "attempt_folded": update(attempt).where(_THIS_ATTEMPT).values(folded=P("folded")),
        "job_missing": update(job)
        .where(_THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([_word("submit"), _word("run")]))
        .values(failure=P("reason")),
        "job_ended": update(job)
        .where(_THIS_JOB, job.c.attempt == P("n"), job.c.state.in_([_word("submit"), _word("run")]))
        .values(state=_word("complete"), failure=null(), absent_since=null()),
        # Of copies, the next one that has not ended is waited for.
        "job_end_proved": update(job)
        .where(_THIS_JOB, job.c.ending == P("n"))
        .values(
            ending=select(func.max(_open.c.n))
            .where(
                _open.c.BatchID == P("batch_id"), _open.c.JobIndex == P("job_index"), _open.c.ended.is_(None)
            )
            .scalar_subquery()
        ),
        "attempt_ends": update(attempt)
        .where(_THIS_ATTEMPT, attempt.c.ended.is_(None))
        .values(
            started=func.coalesce(attempt.c.started, P("started")),
            # Shells write whole seconds, and machines have clocks of their own.
            ended=func.max(P("ended"), func.coalesce(attempt.c.started, P("started"), P("ended"))),
            code=P("code"),
            signal=P("signal"),
            reason=func.coalesce(attempt.c.reason, P("reason")),
            max_rss=P("max_rss"),
            cpu=P("cpu"),
        ),
        "attempt_reason": update(attempt)
        .where(_THIS_ATTEMPT, attempt.c.ended.is_(None), attempt.c.reason.is_(None))
        .values(reason=P("reason")),
        "submission_of": select(submission.c.executor, submission.c.token).where(
            submission.c.cluster_id == P("cluster_id")
        ),
        "submission_left": select(_ONE)
        .select_from(attempt)
        .where(attempt.c.token == P("token"), attempt.c.ended.is_(None))
        .limit(_ONE)
        .offset(_ZERO),
        "submission_settled": update(submission).where(submission.c.token == P("token")).values(settled=now),
        "add_event": insert(event).values(
            at=now,
            host=P("host"),
            pid=P("pid"),
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            kind=P("kind"),
            detail=P("detail"),
        ),
        "last_edit": select(event.c.at, event.c.host, event.c.pid, event.c.kind)
        .where(
            event.c.BatchID == P("batch_id"),
            (event.c.JobIndex == P("job_index")) | event.c.JobIndex.is_(None),
        )
        .order_by(event.c.serial.desc())
        .limit(_ONE)
        .offset(_ZERO),
        "last_pass": select(event.c.at, event.c.detail)
        .where(event.c.BatchID == P("batch_id"), event.c.kind == P("kind"))
        .order_by(event.c.serial.desc())
        .limit(_ONE)
        .offset(_ZERO),
        "waiting": select(
            attempt.c.BatchID,
            attempt.c.JobIndex,
            attempt.c.n,
            attempt.c.token,
            attempt.c.task,
            attempt.c.asked,
            attempt.c.spawn_id,
            job.c.metadata,
            job.c.complete_on_exit,
            batch.c.workdir,
            submission.c.environment,
            submission.c.cluster_id,
            payload.c.warm,
        )
        .join(job, (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex))
        .join(batch, batch.c.BatchID == attempt.c.BatchID)
        .join(submission, submission.c.token == attempt.c.token)
        .outerjoin(
            payload, (payload.c.BatchID == attempt.c.BatchID) & (payload.c.number == attempt.c.JobIndex)
        )
        .where(_HERE, attempt.c.started.is_(None), attempt.c.ended.is_(None), attempt.c.cancelled.is_(None))
        .order_by(literal_column("attempt.rowid"))
        .limit(P("most"))
        .offset(_ZERO),
        "any_waiting": select(_ONE)
        .select_from(attempt)
        .where(_HERE, attempt.c.started.is_(None), attempt.c.ended.is_(None))
        .limit(_ONE)
        .offset(_ZERO),
        "any_running": select(_ONE)
        .select_from(attempt)
        .where(
            _HERE, attempt.c.started.is_not(None), attempt.c.ended.is_(None), attempt.c.process.is_not(None)
        )
        .limit(_ONE)
        .offset(_ZERO),
        "running": select(
            attempt.c.BatchID,
            attempt.c.JobIndex,
            attempt.c.n,
            attempt.c.token,
            attempt.c.task,
            attempt.c.asked,
            attempt.c.process,
            attempt.c.started,
            attempt.c.cancelled,
            attempt.c.reason,
            job.c.absent_since,
        )
        .join(job, (job.c.BatchID == attempt.c.BatchID) & (job.c.JobIndex == attempt.c.JobIndex))
        .where(
            _HERE, attempt.c.started.is_not(None), attempt.c.ended.is_(None), attempt.c.process.is_not(None)
        ),
        "started_in": select(attempt.c.BatchID, attempt.c.JobIndex, attempt.c.n, attempt.c.cancelled).where(
            _HERE,
            attempt.c.process == P("process"),
            attempt.c.started.is_not(None),
            attempt.c.ended.is_(None),
        ),
        "job_and_reason": select(*standing(), attempt.c.reason, attempt.c.token, attempt.c.process)
        .select_from(job)
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .outerjoin(spawn, OF_COPY)
        .where(_THIS_ATTEMPT),
        "any_spawn": select(_ONE).select_from(spawn).limit(_ONE).offset(_ZERO),
        "spawn_of_attempt": select(spawn.c.SpawnID, spawn.c.state).where(
            spawn.c.BatchID == P("batch_id"), spawn.c.JobIndex == P("job_index"), spawn.c.attempt == P("n")
        ),
        "spawns_of": select(
            spawn.c.SpawnID,
            spawn.c.state,
            attempt.c.n,
            attempt.c.token,
            attempt.c.task,
            attempt.c.host,
            attempt.c.started,
            attempt.c.ended,
            attempt.c.reason,
            attempt.c.asked,
            submission.c.cluster_id,
            submission.c.executor,
        )
        .join(
            attempt,
            (attempt.c.BatchID == spawn.c.BatchID)
            & (attempt.c.JobIndex == spawn.c.JobIndex)
            & (attempt.c.n == spawn.c.attempt),
        )
        .join(submission, submission.c.token == attempt.c.token)
        .where(_OF_JOB)
        .order_by(spawn.c.SpawnID),
        "submitted_as": select(
            submission.c.executor,
            submission.c.environment,
            batch.c.executor.label("usual"),
            batch.c.executor_defaults,
        )
        .select_from(attempt)
        .join(submission, submission.c.token == attempt.c.token)
        .join(batch, batch.c.BatchID == attempt.c.BatchID)
        .where(
            attempt.c.BatchID == P("batch_id"),
            attempt.c.JobIndex == P("job_index"),
            attempt.c.n == func.coalesce(P("n"), attempt.c.n),
        )
        .order_by(attempt.c.n.desc())
        .limit(_ONE)
        .offset(_ZERO),
        "put_spawn": insert(spawn)
        .prefix_with("OR REPLACE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            SpawnID=P("spawn_id"),
            attempt=P("n"),
            state=_word("spawn"),
        ),
        "attempt_of_spawn": update(attempt).where(_THIS_ATTEMPT).values(spawn_id=P("spawn_id")),
        "spawn_done": update(spawn)
        .where(_OF_JOB, spawn.c.attempt == P("n"), spawn.c.state != _word("complete"))
        .values(state=_word("complete")),
        "spawn_left": select(func.count())
        .select_from(spawn)
        .where(_OF_JOB, spawn.c.state != _word("complete")),
        "spawn_waits": update(spawn).where(_OF_JOB, spawn.c.attempt == P("n")).values(state=_word("init")),
        "copies_due": select(job.c.BatchID, job.c.JobIndex, job.c.not_before, batch.c.executor)
        .join(batch, batch.c.BatchID == job.c.BatchID)
        .where(
            active(),
            job.c.state == _word("spawn"),
            exists(
                select(_ONE)
                .select_from(spawn)
                .where(
                    spawn.c.BatchID == job.c.BatchID,
                    spawn.c.JobIndex == job.c.JobIndex,
                    spawn.c.state == _word("init"),
                )
            ),
        ),
        "forget_spawns": delete(spawn).where(_OF_JOB),
        "job_spawns": update(job).where(_THIS_JOB).values(state=_word("spawn"), failure=P("reason")),
        "job_rejoins": update(job)
        .where(_THIS_JOB, job.c.state == _word("spawn"))
        .values(state=_word("run"), attempt=P("n"), failure=null(), absent_since=null()),
        "highest_attempt": select(func.max(attempt.c.n)).where(
            attempt.c.BatchID == P("batch_id"), attempt.c.JobIndex == P("job_index")
        ),
        "open_attempts": select(attempt.c.n).where(
            attempt.c.BatchID == P("batch_id"),
            attempt.c.JobIndex == P("job_index"),
            attempt.c.ended.is_(None),
        ),
        "call_state": select(
            job.c.state, job.c.attempt, job.c.ending, attempt.c.cancelled, attempt.c.ended, attempt.c.reason
        )
        .join(attempt, (attempt.c.BatchID == job.c.BatchID) & (attempt.c.JobIndex == job.c.JobIndex))
        .where(_THIS_ATTEMPT),
        "attempt_marked": update(attempt)
        .where(_THIS_ATTEMPT, attempt.c.ended.is_(None), attempt.c.started.is_(None))
        .values(started=P("started"), host=P("host")),
        "job_awaits_end": update(job).where(_THIS_JOB).values(ending=P("n")),
        "attempt_cancelled": update(attempt)
        .where(_THIS_ATTEMPT)
        .values(cancelled=now, reason=func.coalesce(attempt.c.reason, P("reason"))),
        "job_absent": update(job).where(_THIS_JOB).values(absent_since=P("since")),
        "cancelled": select(attempt.c.BatchID, attempt.c.JobIndex, attempt.c.n, attempt.c.process).where(
            _HERE, attempt.c.cancelled.is_not(None), attempt.c.ended.is_(None)
        ),
        "attempt_starts": update(attempt)
        .where(
            _THIS_ATTEMPT,
            attempt.c.started.is_(None),
            attempt.c.ended.is_(None),
            attempt.c.cancelled.is_(None),
        )
        .values(started=now, process=P("process")),
        "attempt_not_started": update(attempt)
        .where(_THIS_ATTEMPT, attempt.c.process == P("process"), attempt.c.ended.is_(None))
        .values(started=null(), process=null()),
        "call_taken": select(attempt.c.cancelled).where(
            _THIS_ATTEMPT,
            attempt.c.process == P("process"),
            attempt.c.started == P("now"),
            attempt.c.ended.is_(None),
        ),
        "job_not_started": update(job)
        .where(_THIS_JOB, job.c.attempt == P("n"), job.c.state == _word("run"))
        .values(state=_word("submit")),
        "add_payload": insert(payload).values(
            BatchID=P("batch_id"),
            number=P("number"),
            shared=P("shared"),
            warm=P("warm"),
            about=P("about"),
            data=P("data"),
        ),
        "payload": select(payload.c.shared, payload.c.about, payload.c.data).where(
            payload.c.BatchID == P("batch_id"), payload.c.number == P("number")
        ),
        "add_result": insert(result)
        .prefix_with("OR REPLACE")
        .values(
            BatchID=P("batch_id"),
            JobIndex=P("job_index"),
            n=P("n"),
            kind=P("kind"),
            summary=P("summary"),
            traceback=P("traceback"),
            seconds=P("seconds"),
            data=P("data"),
            in_file=P("in_file"),
        ),
        "result": select(*_RESULT).where(
            result.c.BatchID == P("batch_id"), result.c.JobIndex == P("job_index")
        ),
        # By serial, not by batch: what is new is at the end.
        "results_since": select(result.c.serial, *_RESULT)
        .join(job, (job.c.BatchID == result.c.BatchID) & (job.c.JobIndex == result.c.JobIndex))
        .where(
            result.c.serial > P("since"),
            literal_column('+result."BatchID"') == P("batch_id"),
            job.c.attempt == result.c.n,
            job.c.state.not_in([_word("init"), _word("submit")]),
        )
        .order_by(result.c.serial),
        "stopped": select(job.c.JobIndex, job.c.state, job.c.failure, job.c.attempt).where(
            job.c.BatchID == P("batch_id"),
            (job.c.failure.is_not(None) & active())
            | job.c.state.not_in([_word(one) for one in ("init", *ACTIVE, *FINISHED)])
            | (
                job.c.state.in_([_word(one) for one in FINISHED])
                & ~exists(
                    select(_ONE)
                    .select_from(result)
                    .where(
                        result.c.BatchID == job.c.BatchID,
                        result.c.JobIndex == job.c.JobIndex,
                        result.c.n == job.c.attempt,
                    )
                )
            ),
        ),
        "standing": select(job.c.JobIndex, job.c.state, job.c.failure, job.c.attempt)
        .where(job.c.BatchID == P("batch_id"))
        .order_by(job.c.JobIndex),
        "add_name": insert(name)
        .prefix_with("OR IGNORE")
        .values(name=P("name"), BatchID=P("batch_id"), kind=P("kind"), created=now, about=P("about")),
        "tell_name": update(name).where(name.c.name == P("name")).values(about=P("about")),
        "name": select(name.c.BatchID, name.c.kind, name.c.about).where(name.c.name == P("name")),
        "environment": select(environment.c.variables).where(environment.c.digest == P("digest")),
        "agent": select(agent.c.pid, agent.c.boot_id, agent.c.start_ticks, agent.c.state).where(
            agent.c.host == P("host")
        ),
        "agent_state": insert(agent)
        .prefix_with("OR REPLACE")
        .values(
            host=P("host"),
            pid=P("pid"),
            boot_id=P("boot_id"),
            start_ticks=P("start_ticks"),
            state=P("state"),
            since=now,
        ),
    }


def rendered() -> str:
    """Return the text of ``statements.sql``."""
    dialect = sqlite.dialect(paramstyle="named")
    blocks = []
    for title, statement in statements().items():
        sql = " ".join(str(statement.compile(dialect=dialect)).split())
        blocks.append(f"-- {title}\n{sql};\n")
    return "".join(blocks)


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
