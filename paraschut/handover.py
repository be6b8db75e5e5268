"""Hands claimed jobs over to an executor: writes down, submits, records; or gives them back with its words."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from paraschut import fold as folding
from paraschut import queues
from paraschut.command import command_of, handed_on, job_variables
from paraschut.config import Config
from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors.base import JobExecutor, Submission, Task
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.run import CLIENT
from paraschut.executors.scheduler import TooManyError, UnreachableError
from paraschut.paths import Paths, make_folder
from paraschut.process import host_name, identity
from paraschut.progress import MANY_TASKS, bar, shown
from paraschut.resources import needs_of, warned_after
from paraschut.retry import Policy, kept_policy
from paraschut.store import journal, unsettled
from paraschut.store.claims import Claim, Claimed, NewSubmission
from paraschut.store.runtime import job_row
from paraschut.store.store import Store

T = TypeVar("T")

#: Seconds for which what was submitted may wait to be recorded together with what comes next.
_UNRECORDED = 0.5


@dataclass(slots=True)
class Handed:
    """What became of a claim.

    Attributes
    ----------
    jobs : dict[int, list[int]]
        The indices of those that an executor has now, by batch.
    left : list[str]
        What was left and why, a sentence each.
    notes : list[str]
        What else people should know.
    refused : SubmitError | None
        The first refusal.
    """

    jobs: dict[int, list[int]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: SubmitError | None = None
    #: Whether a batch may have to go on by another pass of this process, because its closer did not wait.
    stranded: bool = False

    def take(self, claimed: Iterable[Claimed]) -> None:
        """Take note of jobs that an executor has now."""
        for one in claimed:
            self.jobs.setdefault(one.batch_id, []).append(one.job_index)

    def refuse(self, error: SubmitError) -> None:
        """Take note of a refusal."""
        self.refused = self.refused or error
        if str(error) not in self.left:
            self.left.append(str(error))


def new_submission(
    store: Store, config: Config, executor: JobExecutor, environment: str | None, defaults: str | None
) -> NewSubmission:
    """Return what a claim for an executor says of itself, in an index that its jobs can open.

    Parameters
    ----------
    environment : str | None
        The key of the variables that the jobs get; None: this process's.
    defaults : str | None
        What the executor was given, as a batch keeps it.
    """
    if executor.other_hosts:
        store.keep_journal(journal.mode_for(store.index, config.journal_mode, other_hosts=True))
    return NewSubmission(
        token=os.urandom(8).hex(),
        executor=executor.name,
        owner=identity(),
        environment=variables_of(config, executor) if environment is None else environment,
        now=time.time(),
        defaults=defaults,
        host=host_name() if executor.index_is_queue else None,
        shape=executor.shape,
        carries=executor.carries,
        most=executor.most(),
        first_task=executor.first_task,
        retry=kept_policy(_policy(config, executor)),
        begins=executor.begins,
    )


def as_before(
    store: Store, batch_id: int, job_index: int, n: int | None
) -> tuple[str, str | None, str | None]:
    """Return with which executor, what that was given, and in which environment a job was submitted."""
    with store.reading() as connection:
        db = store.statements(connection)
        job_row(db, batch_id, job_index)
        row = db.row("submitted_as", batch_id=batch_id, job_index=job_index, n=n)
    if row is None:
        raise JobError(f"Job {batch_id}:{job_index} was not submitted yet, so it has no copies.")
    defaults = row["executor_defaults"] if row["executor"] == row["usual"] else None
    return row["executor"], defaults, row["environment"]


def variables_of(config: Config, executor: JobExecutor) -> dict[str, str]:
    """Return the variables of this process that jobs get that it submits."""
    mine = handed_on(
        os.environ, (*config.environment, *CLIENT) if executor.other_hosts else config.environment
    )
    if config.source is not None:
        mine["PARASCHUT_CONFIG"] = str(config.source)
    if config.trusted_users:
        mine["PARASCHUT_TRUSTED"] = ":".join(config.trusted_users)
    mine["PARASCHUT_LOCK_TIMEOUT"] = str(config.lock_timeout)
    mine["PARASCHUT_MAX_JOBS"] = str(config.max_jobs)
    return mine


def _policy(config: Config, executor: JobExecutor) -> Policy:
    limits = [limit for limit in (config.retry_mem_limit, executor.most_mem()) if limit]
    return Policy(
        config.retries,
        config.retry_mem_factor,
        min(limits, default=0),
        config.retry_walltime_factor,
        config.retry_walltime_limit,
        config.retry_pause,
    )


def hand_over(
    store: Store, config: Config, executor: JobExecutor, new: NewSubmission, claim: Claim
) -> Handed:
    """Hand the jobs of a claim over, in as many submissions as the executor needs."""
    done = Handed()
    done.left.extend(
        f"job {batch_id}:{job_index} was left: {why.rstrip('.')}"
        for batch_id, job_index, why in claim.refused
    )
    if not claim.jobs:
        return done
    if executor.index_is_queue:
        executor.submit(folding.bare(store, new.token))
        done.take(claim.jobs)
        return done
    make_folder(Paths(store.index).submissions)
    environment = (
        new.environment if not isinstance(new.environment, str) else store.environment(new.environment)
    )
    desk = _Desk(store, config, executor, environment, done)
    if isinstance(executor, ClusterJobExecutor):
        done.notes.extend(_ignored(executor, claim.jobs))
    try:
        with bar(len(claim.jobs), "submitting") as more:
            for _, group in groupby(claim.jobs, key=attrgetter("token")):
                together = list(group)
                desk.hand(together)
                more(len(together))
    except BaseException:
        # What is on its way is heard; nothing more is sent in its place.
        desk.stopped = SubmitError("It was not submitted, because the pass was interrupted.")
        raise
    finally:
        try:
            desk.hear()
        finally:
            desk.record()
    desk.carry_on()
    return done


def _ignored(executor: ClusterJobExecutor, claimed: Sequence[Claimed]) -> list[str]:
    asked = {tuple(one.fields.get("resources") or ()): one.fields for one in claimed}
    keys = sorted({key for fields in asked.values() for key in executor.ignored(fields)})
    if not keys:
        return []
    return [f"{executor.name} has no {', '.join(keys)}: what resources say of that is ignored"]


class _Desk:
    """Hands over the submissions of one claim, one after the other: while one is sent, the next is prepared."""

    def __init__(
        self,
        store: Store,
        config: Config,
        executor: JobExecutor,
        environment: Mapping[str, str],
        done: Handed,
    ) -> None:
        self.store, self.config, self.executor = store, config, executor
        self.environment = environment
        self.done = done
        self.paths = Paths(store.index)
        #: Why nothing more is handed over in this pass.
        self.stopped: SubmitError | None = None
        #: By batch: what a closer has to wait for.
        self.carried: dict[int, list[Submission]] = {}
        self.touched = time.time()
        #: What was sent, its jobs, and what waits for the answer.
        self.sent: tuple[Submission, list[Claimed], Callable[[], str]] | None = None
        #: What was submitted and is to be recorded, with the jobs.
        self.submitted: list[tuple[Submission, list[Claimed]]] = []
        self.recorded = time.time()
        self._commands: dict[tuple[str, str], tuple[str, ...]] = {}

    def hand(self, claimed: list[Claimed]) -> None:
        """Hand over the jobs of one submission; in several, where their scripts differ in what they tell."""
        tasks = [self._task(one) for one in shown(claimed, "preparing", many=MANY_TASKS)]
        groups = self.executor.arrange(tasks)
        if len(groups) == 1:
            self._hand(claimed, tasks)
            return
        by_number = {one.task: one for one in claimed}
        for group in groups:
            part = [by_number[task.number] for task in group]
            self._hand(self.store.split(part, os.urandom(8).hex(), self.executor.first_task))
        self.store.release(claimed[0].token, "handed over in parts", time.time())

    def _hand(self, claimed: list[Claimed], tasks: Sequence[Task] | None = None) -> None:
        self.hear()
        if not claimed:
            return
        token = claimed[0].token
        if self.stopped is not None:
            self.store.release(token, str(self.stopped), time.time())
            return
        # Long after the claim, others may take its owner for silent.
        if time.time() - self.touched > self.config.command_timeout / 4:
            self.record()
            self.touched = time.time()
            if not self.store.renew(token, self.touched):
                return
        submission = self._submission(claimed, tasks or [self._task(one) for one in claimed])
        answer = self._unless_refused(submission, claimed, lambda: self.executor.send(submission))
        if answer is not None:
            self.sent = (submission, claimed, answer)

    def hear(self) -> None:
        """Wait for the answer to what was sent; what is too much is sent again in parts meanwhile."""
        while self.sent is not None:
            (submission, claimed, answer), self.sent = self.sent, None
            known_as = self._unless_refused(submission, claimed, answer)
            if known_as is not None:
                self.submitted.append((replace(submission, cluster_id=known_as), claimed))
                if time.time() - self.recorded > _UNRECORDED:
                    self.record()

    def record(self) -> None:
        """Record what was submitted; what others have given back meanwhile is deleted again."""
        submitted, self.submitted, self.recorded = self.submitted, [], time.time()
        if not submitted:
            return
        ids = {submission.token: submission.cluster_id for submission, _ in submitted}
        recorded = self.store.record(ids, time.time())
        for submission, claimed in submitted:
            if submission.token not in recorded:
                self.executor.delete(submission, [one.task for one in claimed])
                continue
            if submission.carries is not None:
                self.carried.setdefault(submission.carries, []).append(submission)
            self.done.take(claimed)

    def _unless_refused(
        self, submission: Submission, claimed: list[Claimed], step: Callable[[], T]
    ) -> T | None:
        """Return what a step gave; None if the submission was refused, or is not known to have happened."""
        try:
            return step()
        except TooManyError as error:
            self._fewer(claimed, error)
        except SubmitError as error:
            self._give_back(submission.token, error)
            if isinstance(error, UnreachableError):
                self.stopped = error
        except ExecutorError as error:
            # It may have worked: the claim stays, and is settled when that is known.
            self.done.left.append(str(error))
        except BaseException:
            self._settle(submission.token)
            raise
        return None

    def _fewer(self, claimed: list[Claimed], error: TooManyError) -> None:
        """Hand over as many jobs as the scheduler takes, by halves."""
        shutil.rmtree(self.paths.submission(claimed[0].token), ignore_errors=True)
        if len(claimed) == 1:
            self._give_back(claimed[0].token, error)
            self.stopped = error
            return
        middle = len(claimed) // 2
        rest = self.store.split(claimed[middle:], os.urandom(8).hex(), self.executor.first_task)
        self._hand(claimed[:middle])
        self._hand(rest)

    def _give_back(self, token: str, error: SubmitError) -> None:
        self.store.release(token, str(error), time.time())
        shutil.rmtree(self.paths.submission(token), ignore_errors=True)
        self.done.refuse(error)

    def _settle(self, token: str) -> None:
        """Interrupted: ask at once whether it happened, as the next pass would."""
        with self.store.reading() as connection:
            mine = [one for one in unsettled.open_submissions(connection) if one.token == token]
        for one in mine:
            folding.settle_claim(self.store, self.config, self.executor, one, force=True)

    def carry_on(self) -> None:
        """Send the closers of those batches whose jobs do not submit what comes after them."""
        if isinstance(self.executor, ClusterJobExecutor):
            sent = queues.send_closers(self.store, self.config, self.executor, self.carried)
            self.done.left.extend(sent.notes)
            self.done.stranded = sent.stranded

    def _submission(self, claimed: Sequence[Claimed], tasks: Sequence[Task]) -> Submission:
        token = claimed[0].token
        return Submission(
            token=token,
            index=self.store.index,
            folder=self.paths.submission(token),
            env=self.environment,
            tasks=tuple(tasks),
            label=claimed[0].label or "",
            prologue=self.config.prologue,
            carries=claimed[0].batch_id if self.executor.carries(claimed[0].fields) else None,
            warned_after=warned_after(needs_of(tasks[0].resources).walltime, self.config.warning),
            begin=claimed[0].begin,
        )

    def _command(self, script: str, workdir: str) -> tuple[str, ...]:
        # Thousands of jobs run the same script: each is looked at once.
        if (script, workdir) not in self._commands:
            self._commands[script, workdir] = command_of(script, workdir)
        return self._commands[script, workdir]

    def _task(self, one: Claimed) -> Task:
        fields = one.fields
        workdir = fields.get("workdir") or one.workdir or self.paths.folder
        key = (one.batch_id, one.job_index, one.n)
        known_as = None if self.executor.ids_come_late else f"{one.token}.{one.task}"
        mine = job_variables(self.paths.index, *key, one.token, one.task, known_as, one.spawn_id)
        own, asked = fields.get("vars"), fields.get("resources") or {}
        script = str(fields["script"])
        command = self._command(script, workdir)
        return Task(
            number=one.task,
            batch_id=one.batch_id,
            job_index=one.job_index,
            n=one.n,
            command=command,
            env={**own, **mine} if own else mine,
            workdir=workdir,
            stdout=self.paths.log(*key, "stdout"),
            stderr=self.paths.log(*key, "stderr"),
            resources={**self.executor.resources, **asked} if self.executor.resources else asked,
            options=fields.get("options"),
            queue=fields.get("queue"),
            source=None if "-c" in command and command[-1] == script else command[-1],
        )
