"""Gathers what is known of a job that does not run, and says why."""

from __future__ import annotations

import contextlib
import time

from paraschut import checks, queues
from paraschut import fold as folding
from paraschut.config import Config, load_config
from paraschut.errors import ExecutorError, JobError, StoreError
from paraschut.executors.choice import executor_of
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Kind
from paraschut.store import holds
from paraschut.store.runtime import job_row
from paraschut.store.store import Store
from paraschut.why import reasons


class Explanation(list[str]):
    """What holds a job back, a sentence each; shown as lines."""

    def __repr__(self) -> str:
        return "\n".join(self)

    __str__ = __repr__


def explain(BatchID: int, JobIndex: int) -> Explanation:
    """Say why a job is not running: the rule, the job or the scheduler's word that holds it back.

    Parameters
    ----------
    BatchID, JobIndex : int
        The job.

    Returns
    -------
    Explanation
        A list of sentences, shown as lines: all that holds it back.

    Raises
    ------
    NotFoundError
        If there is no such job.

    Examples
    --------
    >>> explain(20260101000000, 7)  # doctest: +SKIP
    Job 20260101000000:3 of a higher priority is missing (out of memory).
    """
    batch_id, job_index = checks.number_of(BatchID), checks.number_of(JobIndex)
    config = load_config()
    with Store.of(config) as store:
        # An index that cannot be written is explained as it is.
        with contextlib.suppress(StoreError):
            folding.fold(store, config, thorough=True)
        with store.reading() as connection:
            db = store.statements(connection)
            row = job_row(db, batch_id, job_index)
            facts, given = holds.facts_of(connection, row, config.max_jobs)
            if facts.state == "init":
                left_by, left_at = holds.left_by(connection, db, row)
                facts = facts._replace(left_by=left_by, left_at=left_at)
        last = facts.last
        if facts.state == "init":
            facts = facts._replace(refused=_refused(config, given))
        elif facts.state == "submit" and last is not None:
            facts = facts._replace(scheduler=_said(store, config, last.executor, given))
    return Explanation(reasons(facts, time.time()))


def _refused(config: Config, given: holds.Given) -> str | None:
    try:
        executor = executor_of(given.executor or config.executor_name, config, given.defaults)
        executor.asked(given.fields)
    except (JobError, ExecutorError) as error:
        return str(error)
    return None if executor.isconnected() else f"this machine cannot submit to {executor.name}."


def _said(store: Store, config: Config, name: str, given: holds.Given) -> str | None:
    """Return the scheduler's own words on a job that waits there."""
    try:
        executor = executor_of(name, config)
        if not isinstance(executor, ClusterJobExecutor) or given.cluster_id is None:
            return None
        queue = queues.shared_queue(store, config, executor)
    except ExecutorError as error:
        return str(error)
    tasks = {} if queue is None else queue.tasks(executor.job_of(given.cluster_id))
    row = tasks.get(given.task if "#" in given.cluster_id else -1)
    if row is None:
        return None
    reason = row.reason
    if not reason and row.kind == Kind.WAITS:
        with contextlib.suppress(ExecutorError):
            reason = executor.why_pending(given.cluster_id)
    return " ".join(filter(None, [row.word, f"({reason})" if reason else ""]))
