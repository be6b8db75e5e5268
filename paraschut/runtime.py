"""What a job calls: who am I, I run, this far, complete, and the next group.

It imports little, so that a job pays a few milliseconds (a test holds that true). Outside of a job the same calls
work with ``BatchID, JobIndex`` given.
"""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any

from paraschut import checks
from paraschut import job as jobs
from paraschut.desk import Desk, job_meant, my_desk
from paraschut.errors import JobError, NotFoundError, NotInJobError, StoreError
from paraschut.paths import absolute
from paraschut.process import host_name
from paraschut.store import runtime, spool
from paraschut.store.runtime import Key, Statements


def get_job_info(BatchID: int | None = None, JobIndex: int | None = None, SetID: bool = False) -> jobs.Job:
    """Return a job's dict with all its fields.

    Parameters
    ----------
    BatchID, JobIndex : int | None
        The job; inside a job, by default that job.
    SetID : bool
        Inside a job: also set its state to ``run``. It may be called as often as one likes.

    Returns
    -------
    Job
        The fields as they were given, and ``ClusterID, hostname, subtime, stdout, stderr`` with one entry for each
        attempt. It remembers what it was read as, for ``update_job``.

    Raises
    ------
    NotFoundError
        If there is no such job.
    NotInJobError
        If no job is named and this is none, or ``SetID`` is asked for outside of the job.
    StaleJobError
        With ``SetID``: if this attempt no longer counts, because the job was reset or submitted again.

    Examples
    --------
    >>> job = get_job_info(SetID=True)  # doctest: +SKIP
    """
    where, key = job_meant(BatchID, JobIndex, "get_job_info")
    desk = my_desk()
    if not SetID:
        return desk.read(lambda db: runtime.read_job(db, desk.index, *where, desk.trusted, key))
    if key is None:
        raise NotInJobError(
            f"get_job_info(SetID=True) says that job {where[0]}:{where[1]} runs, and this process is not that job. Leave "
            f"SetID out to look at it; submit_jobs() runs it."
        )
    now = time.time()

    def run_and_read(db: Statements) -> jobs.Job:
        runtime.mark_run(db, key, now)
        return runtime.read_job(db, desk.index, *where, desk.trusted, key)

    try:
        return desk.write(run_and_read, key)
    except NotFoundError:
        raise
    except StoreError:
        # The index cannot be written now; that the job runs is kept beside it, and reading may still work.
        desk.keep(key, {"kind": "run", "at": now, "host": host_name()})
        return desk.read(lambda db: runtime.read_job(db, desk.index, *where, desk.trusted, key))


def update_job(JobInfo: dict[str, Any]) -> None:
    """Write the fields that were changed in a job's dict.

    Parameters
    ----------
    JobInfo : dict
        A dict from ``get_job_info`` (only what was changed in it is written) or one with BatchID, JobIndex and some
        fields (all of them are written). It remembers what was written, and is not changed otherwise. A ``workdir``
        that is relative is meant from the current folder.

    Raises
    ------
    JobError
        If a value makes no sense, or the state is one that only submission sets; nothing is written then.
    StaleJobError
        If another process changed one of the same fields since the dict was read; nothing is written then.
    NotFoundError
        If there is no such job.

    Examples
    --------
    >>> job = get_job_info(20260101000000, 0)  # doctest: +SKIP
    >>> job["comment"] = "looks good"  # doctest: +SKIP
    >>> update_job(job)  # doctest: +SKIP
    """
    job = JobInfo if isinstance(JobInfo, jobs.Job) else jobs.Job(JobInfo)
    if not checks.is_index(job.get("BatchID")) or not checks.is_index(job.get("JobIndex")):
        raise JobError(
            f"{jobs.label(job)} cannot be updated: its dict must have BatchID and JobIndex as numbers."
        )
    told = _checked(job)
    desk = my_desk()
    now = time.time()
    _, key = job_meant(job["BatchID"], job["JobIndex"], "update_job")
    try:
        job.origin = desk.write(lambda db: runtime.update_job(db, told, now, own=key is not None), key)
    except NotFoundError:
        raise
    except StoreError:
        if key is None:
            raise
        desk.keep(key, spool.describe(told, kind="fields", at=now, host=host_name()))
        if job.origin is not None:
            job.origin = jobs.remembered(job.origin, jobs.changes(told))


def _checked(job: jobs.Job) -> jobs.Job:
    """Return a job whose fields can be kept, with its ``workdir`` as it is meant here."""
    checks.check_change(job)
    workdir = job.get("workdir")
    if workdir is None or os.path.isabs(workdir):
        return job
    told = job.copy()
    told["workdir"] = absolute(workdir)
    return told


def set_complete(
    BatchID: int | None = None,
    JobIndex: int | None = None,
    JobInfo: dict[str, Any] | None = None,
    Submit: bool = False,
) -> None:
    """Set a job's state to ``complete``, and optionally submit what became free.

    Parameters
    ----------
    BatchID, JobIndex : int | None
        The job; inside a job, by default that job.
    JobInfo : dict | None
        Its dict: the fields that were changed in it are written in the same transaction.
    Submit : bool
        Whether to make a pass afterwards, as ``submit_jobs()`` does. Where this machine cannot submit, the job's
        error log says so.

    Raises
    ------
    NotInJobError
        If no job is named and this is none.
    StaleJobError
        If this attempt no longer counts, because the job was reset or submitted again; never because a field was
        changed meanwhile: the later one wins.

    Examples
    --------
    >>> set_complete(Submit=True)  # doctest: +SKIP
    """
    job = JobInfo if JobInfo is None or isinstance(JobInfo, jobs.Job) else jobs.Job(JobInfo)
    if job is not None:
        BatchID = job.get("BatchID") if BatchID is None else BatchID
        JobIndex = job.get("JobIndex") if JobIndex is None else JobIndex
        job = _checked(job)
    where, key = job_meant(BatchID, JobIndex, "set_complete")
    desk = my_desk()
    now = time.time()
    try:
        desk.write(lambda db: runtime.mark_complete(db, key, job, where, now), key)
    except NotFoundError:
        raise
    except StoreError:
        if key is None:
            raise
        event = spool.describe(job, kind="fields", at=now, host=host_name())
        event["columns"]["state"] = "complete"
        desk.keep(key, event)
        return
    if key is not None and os.environ.get("PARASCHUT_EXECUTOR"):
        _keep_summary(desk, key, os.environ["PARASCHUT_EXECUTOR"])
    if Submit:
        submit_next(desk)


def _keep_summary(desk: Desk, key: Key, name: str) -> None:
    """Keep with this attempt what its scheduler says of it, which it forgets soon; it is no reason to fail."""
    from paraschut.config import load_config
    from paraschut.errors import ExecutorError
    from paraschut.executors.choice import executor_of

    try:
        summary = executor_of(name, load_config()).get_job_summary(os.environ["PARASCHUT_CLUSTERID"])
        if summary:
            desk.write(lambda db: db.run("attempt_qstat", **key._asdict(), qstat=summary), key)
    except (ExecutorError, StoreError):
        return


def submit_next(desk: Desk) -> None:
    """Make a pass if anything may be submitted."""

    def any_ready(db: Statements) -> bool:
        limits = {head["max_jobs"] for head in db.rows("heads", now=time.time())}
        if not limits:
            return False
        (active,) = db.run("active_count").fetchone()
        usual = int(os.environ.get("PARASCHUT_MAX_JOBS", "1000"))
        return bool(active < max(usual if limit is None else limit for limit in limits))

    if desk.read(any_ready):
        desk.close()
        from paraschut.submitting import submit_jobs

        done = submit_jobs(Verbose=False)
        sys.stderr.writelines(f"paraschut: {one}\n" for one in done.elsewhere)


def set_progress(
    fraction: float, message: str = "", BatchID: int | None = None, JobIndex: int | None = None
) -> None:
    """Tell how far a job is; ``get_queue`` shows it.

    Parameters
    ----------
    fraction : float
        Between 0 and 1.
    message : str
        A few words.
    BatchID, JobIndex : int | None
        The job; inside a job, by default that job.

    Examples
    --------
    >>> set_progress(0.5, "epoch 10 of 20")  # doctest: +SKIP
    """
    if not checks.is_number(fraction) or not 0 <= float(fraction) <= 1:
        raise JobError(f"The progress is {fraction!r}; it must be a number between 0 and 1.")
    where, key = job_meant(BatchID, JobIndex, "set_progress")
    desk = my_desk()
    told = {"progress": float(fraction), "progress_message": jobs.writable(str(message))}

    def tell(db: Statements) -> None:
        if not db.changed("job_progress", batch_id=where[0], job_index=where[1], **told):
            runtime.job_row(db, *where)  # says that there is none

    try:
        desk.write(tell, key)
    except NotFoundError:
        raise
    except StoreError:
        if key is None:
            raise
        event = {"kind": "progress", "at": time.time(), "progress": float(fraction), "message": str(message)}
        desk.keep(key, event)


def get_qstat(ClusterID: str | None = None) -> dict[str, Any]:
    """Return what the executor says of a job, as a dict.

    Parameters
    ----------
    ClusterID : str | None
        As in a job's ``ClusterID``; inside a job, by default that job's.

    Returns
    -------
    dict
        Empty if the executor does not know the job (any more).

    Raises
    ------
    NotInJobError
        If no id is given and this is no job.

    Examples
    --------
    >>> get_qstat()["mem"]  # doctest: +SKIP
    """
    known_as = ClusterID or os.environ.get("PARASCHUT_CLUSTERID")
    if known_as is None:
        raise NotInJobError("get_qstat was called outside of a job, so a ClusterID must be given.")
    from paraschut.config import load_config
    from paraschut.executors.choice import executor_of

    # As it was recorded: the token of a submission, the id of a job, or of an array with # for the number of a task.
    forms = dict.fromkeys(
        [known_as.rpartition(".")[0], known_as, re.sub(r"(?<=[._\[])[0-9]+(?=\]|$)", "#", known_as, count=1)]
    )
    row = my_desk().read(
        lambda db: next(filter(None, (db.row("submission_of", cluster_id=form) for form in forms)), None)
    )
    if row is None:
        raise NotFoundError(f"No job with the ClusterID {known_as!r} was submitted from this index.")
    executor = executor_of(row["executor"], load_config())
    said = executor.qstat(known_as)
    # A scheduler that lost its memory gives ids out again: the token is in the name of ours, and in paths.
    return said if not executor.ids_come_late or row["token"] in repr(said) else {}
