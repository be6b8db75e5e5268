"""Jobs that multiply while they run: copies of one job beside it, of which exactly one learns that all are done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from paraschut import checks
from paraschut import job as jobs
from paraschut.desk import job_meant, my_desk, own_key
from paraschut.errors import JobError, NotInJobError
from paraschut.process import host_name
from paraschut.store import runtime
from paraschut.store.runtime import Key, Statements

if TYPE_CHECKING:
    from paraschut.executors.base import JobExecutor
    from paraschut.store.claims import Claim, NewSubmission


def _own(JobInfo: dict[str, Any] | None, call: str) -> Key:
    key = own_key()
    if key is None:
        raise NotInJobError(
            f"{call}() works inside a job, and this process is none (PARASCHUT_BATCHID is not set)."
        )
    if JobInfo is not None and (JobInfo.get("BatchID"), JobInfo.get("JobIndex")) != key[:2]:
        raise JobError(
            f"{call}() is for the job that calls it, {key.batch_id}:{key.job_index}, and was given {jobs.label(JobInfo)}."
        )
    return key


def spawn_submit(JobInfo: dict[str, Any] | None = None, N: int = 1) -> jobs.Job:
    """Submit more copies of the job that calls this, beside itself.

    The job is in state ``spawn`` from then on. Each copy runs the job's script from its beginning, with logs of its
    own, and finds its number as ``SpawnID`` in ``get_job_info()``, and in the variable PARASCHUT_SPAWNID: 1, 2, …;
    the one that calls this is 0. Each, also this one, ends with ``spawn_complete()``.

    Parameters
    ----------
    JobInfo : dict | None
        The job's dict; it is not changed.
    N : int
        How many more copies.

    Returns
    -------
    Job
        The job's dict as it is now.

    Raises
    ------
    NotInJobError
        If this is no job.
    StaleJobError
        If this attempt no longer counts, because the job was reset or submitted again.
    SubmitError
        If the executor refused some; ``spawn_resubmit`` tries these again.

    Examples
    --------
    >>> job = get_job_info(SetID=True)  # doctest: +SKIP
    >>> if job["state"] != "spawn":  # doctest: +SKIP
    ...     job = spawn_submit(job, 7)
    """
    key = _own(JobInfo, "spawn_submit")
    if not checks.is_index(N):
        raise JobError(f"N is {N!r}; it must be a number of copies of 0 or more.")
    from paraschut.store import spawns

    if N:
        _hand_over(
            key.batch_id,
            key.job_index,
            key.n,
            lambda store, new, executor: spawns.add(store, new, key, int(N), executor.asked),
        )
    desk = my_desk()
    return desk.read(lambda db: runtime.read_job(db, desk.index, *key[:2], desk.trusted, key))


def spawn_complete(JobInfo: dict[str, Any] | None = None) -> jobs.Job:
    """Say that this copy of the job is complete.

    Parameters
    ----------
    JobInfo : dict | None
        The job's dict; nothing of it is written.

    Returns
    -------
    Job
        The job's dict. Its ``state`` is ``complete`` for exactly one caller, the last; that one does what remains
        to be done, and calls ``set_complete``. For all others it is ``spawn``.

    Raises
    ------
    NotInJobError
        If this is no job.
    StaleJobError
        If this attempt no longer counts: the job was reset, or this copy was given up and submitted again.
    StoreBusyError
        If the index could not be written within its time limit; call it again.

    Examples
    --------
    >>> job = spawn_complete()  # doctest: +SKIP
    >>> if job["state"] == "complete":  # doctest: +SKIP
    ...     set_complete(Submit=True)
    """
    key = _own(JobInfo, "spawn_complete")
    desk = my_desk()
    now = time.time()

    def say(db: Statements) -> jobs.Job:
        from paraschut.store import copies

        runtime.check_current(db, key)
        db.run("attempt_runs", **key._asdict(), now=now, host=host_name())
        state = "complete" if copies.complete(db, key) else "spawn"
        job = runtime.read_job(db, desk.index, *key[:2], desk.trusted, key)
        # What it says here is a message: who writes this dict does not write that.
        job["state"] = state
        if job.origin is not None:
            job.origin = job.origin._replace(state=state)
        return job

    return desk.write(say, key)


def spawn_resubmit(BatchID: int, JobIndex: int) -> list[int]:
    """Submit those copies of a job again that are missing, and only these.

    Parameters
    ----------
    BatchID, JobIndex : int
        The job.

    Returns
    -------
    list[int]
        Their SpawnIDs.

    Raises
    ------
    NotFoundError
        If there is no such job.
    SubmitError
        If the executor refused some.

    Examples
    --------
    >>> spawn_resubmit(20260101000000, 0)  # doctest: +SKIP
    [3]
    """
    from paraschut.store import spawns

    where = checks.number_of(BatchID), checks.number_of(JobIndex)
    claim = _hand_over(
        *where, None, lambda store, new, executor: spawns.again(store, new, *where, executor.asked)
    )
    return sorted(one.spawn_id for one in claim.jobs if one.spawn_id is not None)


def _hand_over(batch_id: int, job_index: int, n: int | None, take: Any) -> Claim:
    """Claim copies of a job, and hand them to the executor that the job itself is with."""
    from dataclasses import replace

    from paraschut import fold as folding
    from paraschut.config import load_config
    from paraschut.executors.choice import executor_of
    from paraschut.handover import as_before, hand_over, new_submission
    from paraschut.store.store import Store as OpenStore

    config = load_config()
    with OpenStore.of(config) as store:
        if n is None:
            folding.fold(store, config, thorough=True)
        name, defaults, environment = as_before(store, batch_id, job_index, n)
        executor: JobExecutor = executor_of(name, config, defaults)
        new: NewSubmission = replace(
            new_submission(store, config, executor, environment, defaults), whole=False, begins=False
        )
        claim: Claim = take(store, new, executor)
        handed = hand_over(store, config, executor, new, claim)
        if handed.refused is not None:
            raise handed.refused
        return claim


def spawn_get_info(BatchID: int | None = None, JobIndex: int | None = None) -> list[dict[str, Any]]:
    """Return where each copy of a job stands.

    Parameters
    ----------
    BatchID, JobIndex : int | None
        The job; inside a job, by default that job.

    Returns
    -------
    list[dict]
        One for each copy, with ``SpawnID``, ``state`` (``submit``, ``run``, ``complete``, ``init`` if it is to be tried
        again, or ``missing`` with the reason as ``failure``), ``attempt``, ``ClusterID``, ``hostname``, ``stdout`` and ``stderr``. Empty for a job that
        has no copies.

    Raises
    ------
    NotFoundError
        If there is no such job.
    NotInJobError
        If no job is named and this is none.

    Examples
    --------
    >>> [copy["state"] for copy in spawn_get_info(20260101000000, 0)]  # doctest: +SKIP
    ['complete', 'run', 'run', 'missing']
    """
    from paraschut.paths import Paths

    where, _ = job_meant(BatchID, JobIndex, "spawn_get_info")
    desk = my_desk()

    def look(db: Statements) -> list[dict[str, Any]]:
        runtime.job_row(db, *where)
        return db.rows("spawns_of", batch_id=where[0], job_index=where[1])

    paths = Paths(desk.index)
    return [
        {
            "SpawnID": one["SpawnID"],
            "state": _state_of(one),
            "failure": one["reason"] if _state_of(one) == "missing" else None,
            "attempt": one["n"],
            "ClusterID": runtime.cluster_id(one["token"], one["cluster_id"], one["task"]),
            "hostname": one["host"],
            "stdout": paths.log(*where, one["n"], "stdout"),
            "stderr": paths.log(*where, one["n"], "stderr"),
        }
        for one in desk.read(look)
    ]


def _state_of(one: dict[str, Any]) -> str:
    if one["state"] in {"complete", "init"}:
        return str(one["state"])
    if one["ended"] is not None:
        return "missing"
    return "submit" if one["started"] is None else "run"
