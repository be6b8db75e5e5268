"""Makes passes: look, decide, claim, hand over, record. Decisions are in ``plan``; nothing is decided here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from paraschut import fold as folding
from paraschut.bulk import uncollected
from paraschut.config import Config, load_config
from paraschut.errors import ExecutorError, SubmitError
from paraschut.executors.base import JobExecutor
from paraschut.executors.choice import executor_of, kept_defaults
from paraschut.executors.scheduler import UnreachableError
from paraschut.handover import Handed, as_before, hand_over, new_submission, variables_of
from paraschut.plan import Head, Limits, next_groups
from paraschut.process import host_name
from paraschut.store import copies, spawns
from paraschut.store.claims import Ready
from paraschut.store.runtime import Statements
from paraschut.store.store import Store

#: Reasons that the line of a pass has room for.
_SHOWN = 3


@dataclass(slots=True)
class Submitted:
    """What a pass did; its text is one line, which a notebook shows once.

    Attributes
    ----------
    jobs : dict[int, list[int]]
        The indices of the jobs that were submitted, by batch.
    left : list[str]
        What was left and why, a sentence each.
    notes : list[str]
        What else there is to know, such as resources that the scheduler does not have.
    printed : bool
        Whether the line was printed, so that a notebook need not show it again.
    """

    jobs: dict[int, list[int]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    printed: bool = field(default=False, repr=False, compare=False)
    #: Whether the pass is to be made once more (``Handed.stranded``).
    stranded: bool = field(default=False, repr=False, compare=False)
    #: Those of ``left`` that say that this machine cannot submit.
    elsewhere: list[str] = field(default_factory=list, repr=False, compare=False)

    def _ipython_display_(self) -> None:
        if not self.printed:
            print(self)  # noqa: T201 - what a notebook shows
        self.printed = False

    @property
    def count(self) -> int:
        """How many jobs were submitted."""
        return sum(map(len, self.jobs.values()))

    def take(self, handed: Handed) -> None:
        """Add what became of a claim."""
        for batch_id, indices in handed.jobs.items():
            self.jobs.setdefault(batch_id, []).extend(indices)
        self.left.extend(handed.left)
        self.notes.extend(handed.notes)
        self.stranded |= handed.stranded

    def __str__(self) -> str:
        count, batches = self.count, len(self.jobs)
        done = (
            f"submitted {count} job{'s' * (count != 1)} of {batches} batch{'es' * (batches != 1)}"
            if count
            else "nothing to submit"
        )
        more = len(self.left) - _SHOWN
        return "; ".join(
            [done, *self.left[:_SHOWN], *([f"and {more} more"] if more > 0 else []), *self.notes]
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What bounds a pass."""

    #: The MaxJobs that it was given; None: the configured one, or what a batch remembers.
    max_jobs: int | None
    #: The configured MaxJobs.
    usual: int
    min_prior: float = 0.0
    only: Collection[int] | None = None
    filter: str = ""
    #: Whether the pass goes on with what was submitted before, in the environment of that submission.
    by_itself: bool = False
    #: Whether the limit is, for each batch, the one that its last whole pass was given.
    remembers: bool = False
    #: When the pass began.
    since: float = field(default_factory=time.time)

    def limit(self, ready: Ready, batch_id: int) -> int | None:
        """Return the MaxJobs that holds for a batch; None for the configured one."""
        return ready.limits[batch_id] if self.remembers else self.max_jobs

    def bound(self, ready: Ready) -> int:
        """Return the highest limit of all batches."""
        limits = ready.limits.values() if self.remembers else [self.max_jobs]
        return max((self.usual if limit is None else limit for limit in limits), default=self.usual)


class _Kind(NamedTuple):
    """What is submitted at once: the executor, as it was given, and the environment that it goes on in."""

    executor: JobExecutor | str
    defaults: str | None = None
    environment: str | None = None
    #: The MaxJobs that holds for it; None: as configured.
    max_jobs: int | None = None


def submit_batch(
    store: Store, config: Config, batch_id: int, executor: JobExecutor | str | None
) -> Submitted:
    """Submit what is next of one batch: what those who wait for its jobs do again and again."""
    return make_pass(store, config, Request(None, config.max_jobs, only=[batch_id], remembers=True), executor)


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
    submission = new_submission(store, config, executor, None, None) if executor.index_is_queue else None

    def claim(connection: Any, db: Statements) -> None:
        also(db)
        if submission is None:
            return
        (top,) = db.run("global_top").fetchone()
        (active,) = db.run("active_count").fetchone()
        if top is None or top <= priority:
            room = config.max_jobs - active
            store.claim_within(connection, db, submission, [(batch_id, priority)], room, executor.asked)

    store.add({batch_id: group}, time.time(), os.getcwd(), new=new, also=claim)
    if submission is not None:
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
    request = Request(None, config.max_jobs, by_itself=True, remembers=True)
    with Store.of(config) as store:
        folding.fold(store, config)
        return make_pass(store, config, request, None)


def _groups(ready: Ready, request: Request) -> list[Head]:
    """Return the groups that are next; those whose jobs have a pause first only some executors take."""
    heads = (
        Head(*head)
        for head in (*ready.heads, *ready.paused)
        if (request.only is None or head[0] in request.only) and not (request.by_itself and head[1] is None)
    )
    room = request.bound(ready) - ready.active
    return next_groups(heads, Limits(room, request.min_prior, ready.global_top))


def make_pass(store: Store, config: Config, request: Request, given: JobExecutor | str | None) -> Submitted:
    """Submit what is next; once more, where what was to go on with a batch does not wait for its jobs."""
    done = _submit_once(store, config, request, given)
    if not request.by_itself:
        _note(store, request)
    if done.stranded:
        done.left.extend(folding.fold(store, config))
        try:
            more = _submit_once(store, config, request, given)
        except SubmitError as error:
            done.left.append(str(error))
            return done
        for batch_id, indices in more.jobs.items():
            done.jobs.setdefault(batch_id, []).extend(indices)
        done.left.extend(one for one in more.left if one not in done.left)
    return done


def _submit_once(
    store: Store, config: Config, request: Request, given: JobExecutor | str | None
) -> Submitted:
    condition: Any = None
    if request.filter.strip():
        from paraschut.store.filters import compile_filter

        condition = compile_filter(request.filter)
    done = Submitted()
    ready = store.ready()
    groups = _groups(ready, request)
    refused: list[SubmitError] = []
    told = kept_defaults(given) if given else None

    def kind_of(head: Head, ready: Ready) -> _Kind:
        which = given or head.executor or config.executor_name
        return _Kind(
            which,
            told if given else ready.defaults[head.batch_id],
            ready.environments[head.batch_id] if request.by_itself else None,
            request.limit(ready, head.batch_id),
        )

    for kind in dict.fromkeys(kind_of(head, ready) for head in groups):
        executor = _reached(store, config, kind, request.since, done, refused)
        if executor is None:
            continue

        def decide(now: Ready, kind: _Kind = kind) -> tuple[Any, int]:
            mine = [
                (head.batch_id, head.priority) for head in _groups(now, request) if kind_of(head, now) == kind
            ]
            limit = request.usual if kind.max_jobs is None else kind.max_jobs
            return mine, limit - now.active

        new = new_submission(store, config, executor, kind.environment, kind.defaults)
        new = replace(new, max_jobs=kind.max_jobs, whole=not request.filter.strip())
        with executor.preparing(store.index), uncollected():
            # What was claimed is let go of at once: looking for garbage among it is a twentieth of the work.
            handed = hand_over(
                store, config, executor, new, store.claim(new, decide, executor.asked, condition)
            )
        done.take(handed)
        if handed.refused is not None:
            refused.append(handed.refused)
    _send_copies(store, config, request, done, refused)
    _say_full(done, request, ready)
    if not request.by_itself:
        if not request.filter.strip():
            _take_on(store, config, request, given, told)
        _keep_agent(store, config)
    if refused and not done.jobs:
        raise refused[0]
    return done


def _send_copies(
    store: Store, config: Config, request: Request, done: Submitted, refused: list[SubmitError]
) -> None:
    """Hand over copies of jobs that are to be tried again, to the executors that they were with."""
    if request.filter.strip():
        return  # it says which jobs are meant, and these have begun
    with store.reading() as connection:
        found = copies.due(store.statements(connection))
    # One that cannot be reached says so once, not for each copy.
    reached: dict[_Kind, JobExecutor | None] = {}
    for row in found:
        where = (row["BatchID"], row["JobIndex"])
        if (request.only is not None and where[0] not in request.only) or (
            request.by_itself and row["executor"] is None
        ):
            continue
        name, defaults, environment = as_before(store, *where, None)
        kind = _Kind(name, defaults)
        if kind not in reached:
            reached[kind] = _reached(store, config, kind, request.since, done, refused)
        executor = reached[kind]
        if executor is None or (row["not_before"] > time.time() and not executor.begins):
            continue
        new = replace(new_submission(store, config, executor, environment, defaults), whole=False)
        claim = spawns.again(store, new, *where, executor.asked, retried=True)
        handed = hand_over(store, config, executor, new, claim)
        done.take(handed)
        if handed.refused is not None:
            refused.append(handed.refused)


def _note(store: Store, request: Request) -> None:
    """Remember what a pass of a person leaves out; jobs make theirs without any such bounds."""
    bounds: dict[str, Any] = {}
    if request.filter.strip():
        bounds["Filter"] = request.filter.strip()
    if request.min_prior > 0:
        bounds["MinPrior"] = request.min_prior
    if request.only is not None and bounds:
        bounds["BatchID"] = sorted(request.only)
    if bounds or (request.only is None and not request.remembers):
        store.note_pass(bounds, time.time())


def _take_on(
    store: Store, config: Config, request: Request, given: JobExecutor | str | None, defaults: str | None
) -> None:
    """Let batches of which every job comes after others go on by themselves as well, once these are done."""
    batches = [one for one in store.not_taken_on() if request.only is None or one in request.only]
    if batches:
        executor = executor_of(given or config.executor_name, config)
        environment = variables_of(config, executor)
        store.take_on(batches, executor.name, defaults, environment, request.max_jobs)


def _reached(
    store: Store,
    config: Config,
    kind: _Kind,
    since: float,
    done: Submitted,
    refused: list[SubmitError],
) -> JobExecutor | None:
    """Return the executor; None, with the reason in ``done``, if nothing can be submitted to it from here now."""
    try:
        executor = executor_of(kind.executor, config, kind.defaults)
        if executor.isconnected():
            folding.reach(store, config, executor, since)
            return executor
        done.elsewhere.append(f"this machine cannot submit to {executor.name}: the next pass elsewhere will")
        done.left.append(done.elsewhere[-1])
    except UnreachableError as error:
        refused.append(error)
        done.left.append(str(error))
    except ExecutorError as error:
        done.left.append(str(error))
    return None


def _say_full(done: Submitted, request: Request, before: Ready) -> None:
    active = before.active + done.count
    limit = request.bound(before)
    if before.heads and active >= limit:
        done.left.append(f"{active} jobs are queued or running, which is the limit (MaxJobs {limit})")


def _keep_agent(store: Store, config: Config) -> None:
    """See to it that what waits for this machine has an agent, whoever died before."""
    with store.reading() as connection:
        db = store.statements(connection)
        host = host_name()
        needed = any(db.row(name, host=host) is not None for name in ("any_waiting", "any_running"))
        now = time.time()
        (begin,) = db.run("next_begin", now=now, executor="local").fetchone()
        needed |= copies.earliest(begin, db, now, executor="local") is not None
    if needed:
        executor_of("local", config).submit(folding.bare(store, ""))
