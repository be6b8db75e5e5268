"""Makes passes: look, decide, claim, hand over, record. Decisions are in ``plan``; nothing is decided here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paraschut import fold as folding
from paraschut import job as jobs
from paraschut.command import command_of, handed_on, job_variables
from paraschut.config import Config, load_config
from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors.base import JobExecutor, Submission, Task, executor_of
from paraschut.paths import Paths
from paraschut.plan import Head, Limits, next_groups
from paraschut.process import host_name, identity
from paraschut.store.runtime import Statements, cluster_id
from paraschut.store.store import Claim, Claimed, NewSubmission, Ready, Store

#: Reasons that the line of a pass has room for.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a pass did; its text is one line.

    Attributes
    ----------
    jobs : dict[int, list[int]]
        The indices of the jobs that were submitted, by batch.
    left : list[str]
        What was left and why, a sentence each.
    """

    jobs: dict[int, list[int]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many jobs were submitted."""
        return sum(map(len, self.jobs.values()))

    def __str__(self) -> str:
        count, batches = self.count, len(self.jobs)
        done = (
            f"submitted {count} job{'s' * (count != 1)} of {batches} batch{'es' * (batches != 1)}"
            if count
            else "nothing to submit"
        )
        more = len(self.left) - _SHOWN
        return "; ".join([done, *self.left[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


@dataclass(frozen=True, slots=True)
class _Request:
    """What bounds a pass."""

    max_jobs: int
    min_prior: float = 0.0
    only: Collection[int] | None = None
    filter: str = ""
    #: Whether the pass goes on with what was submitted before, in the environment of that submission.
    by_itself: bool = False


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
        At most this many jobs of the index are queued or running at once; None: as configured (1000).
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
    return _pass(Executor, MaxJobs, MinPrior, ForceSubmit, Filter, Verbose, jobs.numbers_of(BatchID))


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
    if MaxJobs is not None and (isinstance(MaxJobs, bool) or MaxJobs < 0):
        raise JobError(f"MaxJobs is {MaxJobs!r}; it must be a number of jobs of 0 or more.")
    if Executor is not None:
        Executor = executor_of(Executor, config)
    request = _Request(config.max_jobs if MaxJobs is None else MaxJobs, MinPrior, only, Filter)
    with Store.of(config) as store:
        notes = folding.fold(store, config, force=ForceSubmit)
        done = _submit(store, config, request, Executor)
    done.left.extend(notes)
    if Verbose:
        print(done)  # noqa: T201 - the line that the call promises
    return done


def submit_batch(
    store: Store, config: Config, batch_id: int, executor: JobExecutor | str | None
) -> Submitted:
    """Submit what is next of one batch: what those who wait for its jobs do again and again."""
    return _submit(store, config, _Request(config.max_jobs, only=[batch_id]), executor)


def add_and_submit(
    store: Store,
    config: Config,
    executor: JobExecutor,
    batch_id: int,
    group: Sequence[Mapping[str, Any]],
    also: Callable[[Statements], None],
    *,
    new: bool,
) -> None:
    """Add jobs to a batch that has none of other priorities, and submit those that come first of them.

    Where the index is the queue, that is one transaction.
    """
    priority = max(one["priority"] for one in group)
    submission = _new_submission(config, executor, None, whole=True)

    def claim(connection: Any, db: Statements) -> None:
        also(db)
        if not executor.index_is_queue:
            return
        (top,) = db.run("global_top").fetchone()
        (active,) = db.run("active_count").fetchone()
        if top is None or top <= priority:
            room = config.max_jobs - active
            store.claim_within(connection, db, submission, [(batch_id, priority)], room, executor.asked)

    store.add({batch_id: group}, time.time(), os.getcwd(), new=new, also=claim)
    if executor.index_is_queue:
        executor.submit(folding.bare(store, submission.token))
    else:
        submit_batch(store, config, batch_id, executor)


def tend(store: Store, config: Config, batch_id: int, executor: JobExecutor | str | None) -> Submitted:
    """Fold what became of jobs, killed ones too, submit what is next of one batch, and keep the agent alive."""
    notes = folding.fold(store, config, thorough=True)
    done = submit_batch(store, config, batch_id, executor)
    done.left.extend(notes)
    return done


def go_on(index: str) -> Submitted:
    """Make a pass over the batches that were submitted before, as they were: the agent's and the closers'."""
    config = load_config(environ={**os.environ, "PARASCHUT_INDEX": index})
    with Store.of(config) as store:
        folding.fold(store, config)
        return _submit(store, config, _Request(config.max_jobs, by_itself=True), None)


def _groups(ready: Ready, request: _Request) -> list[Head]:
    heads = (
        Head(*head)
        for head in ready.heads
        if (request.only is None or head[0] in request.only) and not (request.by_itself and head[1] is None)
    )
    return next_groups(heads, Limits(request.max_jobs - ready.active, request.min_prior, ready.global_top))


def _submit(store: Store, config: Config, request: _Request, given: JobExecutor | str | None) -> Submitted:
    condition: Any = None
    if request.filter.strip():
        from paraschut.store.filters import compile_filter

        condition = compile_filter(request.filter)
    done = Submitted()
    ready = store.ready()
    groups = _groups(ready, request)
    refused: list[SubmitError] = []
    kinds = dict.fromkeys(
        (
            given or head.executor or config.executor_name,
            ready.environments[head.batch_id] if request.by_itself else None,
        )
        for head in groups
    )
    for which, environment in kinds:
        try:
            executor = executor_of(which, config)
            if not executor.isconnected():
                done.left.append(
                    f"this machine cannot submit to {executor.name}: the next pass elsewhere will"
                )
                continue
        except ExecutorError as error:
            done.left.append(str(error))
            continue

        def decide(now: Ready, which: Any = which, environment: str | None = environment) -> tuple[Any, int]:
            mine = [
                (head.batch_id, head.priority)
                for head in _groups(now, request)
                if (given or head.executor or config.executor_name) == which
                and (not request.by_itself or now.environments[head.batch_id] == environment)
            ]
            return mine, request.max_jobs - now.active

        new = _new_submission(config, executor, environment, whole=not request.filter.strip())
        claim = store.claim(new, decide, executor.asked, condition)
        try:
            _hand_over(store, config, executor, new, claim, done)
        except SubmitError as error:
            refused.append(error)
            done.left.append(str(error))
    _say_full(done, request, ready)
    if not request.by_itself:
        _keep_agent(store, config)
    if refused and not done.jobs:
        raise refused[0]
    return done


def _say_full(done: Submitted, request: _Request, before: Ready) -> None:
    active = before.active + done.count
    if before.heads and active >= request.max_jobs:
        done.left.append(
            f"{active} jobs are queued or running, which is the limit (MaxJobs {request.max_jobs})"
        )


def _keep_agent(store: Store, config: Config) -> None:
    """See to it that what waits for this machine has an agent, whoever died before."""
    with store.reading() as connection:
        db = store.statements(connection)
        host = host_name()
        needed = any(db.row(name, host=host) is not None for name in ("any_waiting", "any_running"))
    if needed:
        executor_of("local", config).submit(folding.bare(store, ""))


def _new_submission(
    config: Config, executor: JobExecutor, environment: str | None, *, whole: bool
) -> NewSubmission:
    mine = handed_on(os.environ, config.environment)
    if config.source is not None:
        mine["PARASCHUT_CONFIG"] = str(config.source)
    if config.trusted_users:
        mine["PARASCHUT_TRUSTED"] = ":".join(config.trusted_users)
    mine["PARASCHUT_LOCK_TIMEOUT"] = str(config.lock_timeout)
    mine["PARASCHUT_MAX_JOBS"] = str(config.max_jobs)
    return NewSubmission(
        token=os.urandom(8).hex(),
        executor=executor.name,
        owner=identity(),
        environment=mine if environment is None else environment,
        now=time.time(),
        whole=whole,
        host=host_name() if executor.index_is_queue else None,
    )


def _hand_over(
    store: Store, config: Config, executor: JobExecutor, new: NewSubmission, claim: Claim, done: Submitted
) -> None:
    done.left.extend(
        f"job {batch_id}:{job_index} was left: {why.rstrip('.')}"
        for batch_id, job_index, why in claim.refused
    )
    if not claim.jobs:
        return
    paths = Paths(store.index)
    if executor.index_is_queue:
        executor.submit(folding.bare(store, new.token))
    else:
        if executor.other_hosts:
            store.keep_journal("delete")
        environment = (
            new.environment if not isinstance(new.environment, str) else store.environment(new.environment)
        )
        tasks = tuple(_task(paths, executor, new.token, one) for one in claim.jobs)
        folder = paths.submission(new.token)
        submission = Submission(new.token, store.index, folder, environment, tasks)
        try:
            known_as = executor.submit(submission)
        except SubmitError as error:
            store.release(new.token, str(error), time.time())
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:
            # Interrupted: whether it happened is asked now, as the next pass would.
            _settle(store, config, executor, new.token)
            raise
        if not store.record(new.token, known_as, time.time()):
            executor.delete(submission, [one.task for one in claim.jobs])
            return
    for one in claim.jobs:
        done.jobs.setdefault(one.batch_id, []).append(one.job_index)


def _settle(store: Store, config: Config, executor: JobExecutor, token: str) -> None:
    from paraschut.store import views

    with store.reading() as connection:
        mine = [one for one in views.open_submissions(connection, unrecorded=True) if one.token == token]
    for one in mine:
        folding.settle_claim(store, config, executor, one, force=True)


def _task(paths: Paths, executor: JobExecutor, token: str, one: Claimed) -> Task:
    fields = one.fields
    workdir = fields.get("workdir") or one.workdir or paths.folder
    key = (one.batch_id, one.job_index, one.n)
    known_as = str(cluster_id(token, one.task))
    return Task(
        number=one.task,
        batch_id=one.batch_id,
        job_index=one.job_index,
        n=one.n,
        command=command_of(str(fields["script"]), workdir),
        env={**(fields.get("vars") or {}), **job_variables(paths.index, *key, token, one.task, known_as)},
        workdir=workdir,
        stdout=paths.log(*key, "stdout"),
        stderr=paths.log(*key, "stderr"),
        resources={**executor.resources, **(fields.get("resources") or {})},
        options=fields.get("options"),
    )


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
    (batch_id,) = jobs.numbers_of(BatchID)
    indices = jobs.numbers_of(JobIndex)
    done = Submitted()
    with Store.of(config) as store:
        folding.fold(store, config)
        from paraschut.store import views

        with store.reading() as connection:
            known = views.batches(connection).get(batch_id)
        executor = executor_of(Executor or (known and known.executor) or config.executor_name, config)
        new = _new_submission(config, executor, None, whole=False)
        claim = store.claim_jobs(new, [(batch_id, index) for index in indices], executor.asked)
        _hand_over(store, config, executor, new, claim, done)
    if Verbose:
        print(done)  # noqa: T201 - the line that the call promises
    return done
