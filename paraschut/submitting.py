"""What people call to submit: passes over all batches or over some, and single jobs."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace

from paraschut import checks
from paraschut import fold as folding
from paraschut.config import load_config
from paraschut.dispatch import Request, Submitted, make_pass
from paraschut.errors import JobError
from paraschut.executors.base import JobExecutor
from paraschut.executors.choice import executor_of, kept_defaults
from paraschut.handover import hand_over, new_submission
from paraschut.store.store import Store


def submit_jobs(
    Executor: JobExecutor | str | None = None,
    MaxJobs: int | None = None,
    MinPrior: float = 0,
    ForceSubmit: bool = False,
    Filter: str = "",
    Verbose: bool = True,
) -> Submitted:
    """Submit the next priority group of each batch: one pass.

    Parameters
    ----------
    Executor : JobExecutor | str | None
        Who runs them; None: each batch's own, and the configured one for a batch that was never submitted.
    MaxJobs : int | None
        At most this many jobs of the index are queued or running at once, also when these batches go on by
        themselves; None: as configured (1000), or, inside a job, as the last pass over each batch was given.
    MinPrior : float
        Nothing of a lower priority is submitted.
    ForceSubmit : bool
        Settle the claims of submitters that fell silent at once, instead of after the grace.
    Filter : str
        A condition that restricts what is submitted; it never changes what holds back what.
    Verbose : bool
        Whether to print the line.

    Returns
    -------
    Submitted
        What was submitted, and what was left and why.

    Raises
    ------
    FilterError
        If the Filter is not a condition.
    SubmitError
        If the executor refused all there was; the jobs are in ``init`` again.

    Examples
    --------
    >>> submit_jobs(MaxJobs=100)  # doctest: +SKIP
    submitted 16 jobs of 1 batch
    """
    return _pass(Executor, MaxJobs, MinPrior, ForceSubmit, Filter, Verbose, None)


def submit_one_batch(
    BatchID: int | Sequence[int],
    Executor: JobExecutor | str | None = None,
    MaxJobs: int | None = None,
    MinPrior: float = 0,
    ForceSubmit: bool = False,
    Filter: str = "",
    Verbose: bool = True,
) -> Submitted:
    """Submit the next priority group of one batch, or of several: a pass over these alone.

    Priorities hold as in ``submit_jobs``, also those above 100 of other batches. The other arguments, what is
    returned and what is raised are those of ``submit_jobs``.

    Parameters
    ----------
    BatchID : int | Sequence[int]
        The batch, or several.
    Executor, MaxJobs, MinPrior, ForceSubmit, Filter, Verbose
        As for ``submit_jobs``.

    Examples
    --------
    >>> submit_one_batch(20260101000000)  # doctest: +SKIP
    submitted 4 jobs of 1 batch
    """
    return _pass(Executor, MaxJobs, MinPrior, ForceSubmit, Filter, Verbose, checks.numbers_of(BatchID))


def submit_one_job(
    BatchID: int,
    JobIndex: int | Sequence[int],
    Executor: JobExecutor | str | None = None,
    Verbose: bool = True,
) -> Submitted:
    """Submit one job of a batch, or several, now: whatever their priority and what else is unfinished.

    Parameters
    ----------
    BatchID : int
        The batch.
    JobIndex : int | Sequence[int]
        The job, or several.
    Executor : JobExecutor | str | None
        Who runs them; None: the batch's own, or the configured one.
    Verbose : bool
        Whether to print the line.

    Raises
    ------
    NotFoundError
        If there is no such job.
    JobError
        If one of them is not in ``init``; nothing is submitted then.

    Examples
    --------
    >>> submit_one_job(20260101000000, [3, 4])  # doctest: +SKIP
    submitted 2 jobs of 1 batch
    """
    config = load_config()
    batch_id = checks.number_of(BatchID)
    indices = checks.numbers_of(JobIndex)
    done = Submitted()
    with Store.of(config) as store:
        folding.fold(store, config)
        from paraschut.store import views

        with store.reading() as connection:
            known = views.batches(connection).get(batch_id)
        which = Executor or (known and known.executor) or config.executor_name
        defaults = kept_defaults(Executor) if Executor else known and known.executor_defaults
        executor = executor_of(which, config, defaults)
        new = replace(new_submission(store, config, executor, None, defaults), whole=False, begins=False)
        claim = store.claim_jobs(new, [(batch_id, index) for index in indices], executor.asked)
        handed = hand_over(store, config, executor, new, claim)
        done.take(handed)
        if handed.refused is not None and not done.jobs:
            raise handed.refused
    return _told(done) if Verbose else done


def _pass(
    Executor: JobExecutor | str | None,
    MaxJobs: int | None,
    MinPrior: float,
    ForceSubmit: bool,
    Filter: str,
    Verbose: bool,
    only: Collection[int] | None,
) -> Submitted:
    config = load_config()
    if MaxJobs is not None and not checks.is_index(MaxJobs):
        raise JobError(f"MaxJobs is {MaxJobs!r}; it must be a number of jobs of 0 or more.")
    if Executor is not None:
        executor_of(Executor, config)  # a wrong name is an error, whatever there is to submit
    inside = os.environ.get("PARASCHUT_INDEX") == str(config.index)
    request = Request(
        None if MaxJobs is None else checks.number_of(MaxJobs),
        config.max_jobs,
        MinPrior,
        only,
        Filter,
        remembers=inside and MaxJobs is None,
    )
    with Store.of(config) as store:
        notes = folding.fold(store, config, force=ForceSubmit, down_since=request.since)
        done = make_pass(store, config, request, Executor)
    done.left.extend(notes)
    return _told(done) if Verbose else done


def _told(done: Submitted) -> Submitted:
    print(done)  # noqa: T201 - the line that the call promises
    done.printed = True
    return done
