"""What an executor is: a few small questions. Executors know schedulers, and no store.

A subclass says what it needs to know of a job (``asked``), hands tasks over (``submit``), deletes them
(``delete``) and looks for evidence of what became of them (``evidence``). Everything else, which jobs, when,
and what the evidence means, is decided elsewhere.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from paraschut.errors import JobError
from paraschut.resources import needs_of

if TYPE_CHECKING:
    from paraschut.config import Config


class Task(NamedTuple):
    """One attempt of one job, ready to be run.

    Attributes
    ----------
    number : int
        Its place in the submission, from 0.
    n : int
        The number of the attempt, from 1.
    command : tuple[str, ...]
        What to run; the first is a program's path.
    env : Mapping[str, str]
        The variables of this job alone: its ``vars`` and PARASCHUT_*.
    """

    number: int
    batch_id: int
    job_index: int
    n: int
    command: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str
    stdout: str
    stderr: str
    resources: Mapping[str, Any]
    options: Any = None
    #: The queue (partition) that the job names, if any.
    queue: str | None = None
    #: The user's script, if it is a file: it may hold lines for the scheduler.
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What is handed to an executor at once.

    Attributes
    ----------
    token : str
        Names this submission for all time; letters and digits.
    folder : str
        Where its files belong; made by the executor if it needs one.
    env : Mapping[str, str]
        The variables that all its jobs get from their submitter.
    label : str
        What people call it: the name of its first job.
    prologue : tuple[str, ...]
        Lines of shell that are run before each job, such as ``module load gcc``.
    cluster_id : str | None
        The scheduler's id, once it is known.
    """

    token: str
    index: str
    folder: str
    env: Mapping[str, str]
    tasks: tuple[Task, ...]
    label: str = ""
    prologue: tuple[str, ...] = ()
    cluster_id: str | None = None
    #: Seconds after the start of each of its tasks at which the job is told that its time will be over.
    warned_after: float | None = None
    #: The batch that a closer is to go on with, because these jobs do not.
    carries: int | None = None
    #: When they may start at the earliest, in epoch seconds; None: at once.
    begin: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """That a task started: who took the right to start it, and when."""

    task: int
    holder: str
    at: float
    #: Whether the process that holds it still runs; None where that cannot be known here.
    alive: bool | None = None
    #: How often a scheduler had started it before.
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """That a task ended, as what ran it wrote down."""

    task: int
    code: int | None
    signal: int | None
    started: float
    ended: float
    host: str | None = None
    max_rss: int | None = None
    #: Why it was ended, where what ran it could see that: 'out of memory'.
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an executor finds about one submission."""

    marks: Mapping[int, Mark] = field(default_factory=dict)
    exits: Mapping[int, Exit] = field(default_factory=dict)


class JobExecutor(ABC):
    """The base of all executors.

    Parameters
    ----------
    queue : str | None
        The queue (partition) of jobs that name none.
    resources : Mapping[str, Any] | None
        What jobs ask for that do not say otherwise, key by key.
    options : Sequence[str]
        More flags for the scheduler.
    """

    name: ClassVar[str]
    #: Whether jobs on other hosts may open the index: it is then kept in a rollback journal.
    other_hosts: ClassVar[bool] = False
    #: Whether the index itself is the queue, so that nothing is written into a submission folder.
    index_is_queue: ClassVar[bool] = False
    #: Whether a job learns its id only when it starts, from the scheduler.
    ids_come_late: ClassVar[bool] = False
    #: Whether jobs can be handed over with a time before which they do not start.
    begins: ClassVar[bool] = False
    #: The number of the first task of a submission.
    first_task: ClassVar[int] = 0

    def __init__(
        self,
        queue: str | None = None,
        resources: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.queue = queue
        self.resources = dict(resources or {})
        self.options = tuple(options)
        needs_of(self.resources)

    @classmethod
    def configured(cls, config: Config) -> Self:
        """Return one as the configuration says, for a name."""
        del config
        return cls()

    @classmethod
    def from_defaults(cls, defaults: Mapping[str, Any]) -> Self:
        """Return one as another was given, whose ``defaults()`` these are."""
        return cls(**defaults)

    def heed(self, config: Config) -> None:  # noqa: B027 - most executors need nothing of it
        """Take from the configuration what nobody gives to an executor, such as time limits."""

    def defaults(self) -> dict[str, Any]:
        """Return what this one was given, by the names of its parameters, as JSON can hold it.

        A batch keeps it with the executor's name: later passes over it that name no executor, those of the agent
        too, make theirs from it. A subclass with parameters of its own adds them.
        """
        given = {"queue": self.queue, "resources": self.resources, "options": list(self.options)}
        return {key: value for key, value in given.items() if value}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def asked(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a job asks for, in the units of the index.

        Raises
        ------
        JobError
            If a resource makes no sense; the job is then left in ``init``, and the pass says why.
        """
        own = job.get("resources") or {}
        if not isinstance(own, Mapping):
            raise JobError(f"its resources are {own!r}; they must be a dict such as {{'mem': '1gb'}}.")
        needs = needs_of({**self.resources, **own})
        asked = {"cpus": needs.cpus, "mem": needs.mem, "walltime": needs.walltime, "gpus": needs.gpus}
        return {key: value for key, value in asked.items() if value}

    def shape(self, batch_id: int, job: Mapping[str, Any], asked: Mapping[str, Any]) -> Hashable:
        """Return what jobs must have in common to be handed over at once; ``asked`` is what ``asked(job)`` gave."""
        del batch_id, job, asked
        return None

    def carries(self, job: Mapping[str, Any]) -> bool:
        """Return whether somebody else must go on when a job has ended: its submission is then its batch's alone."""
        del job
        return False

    def most(self) -> int | None:
        """Return how many tasks can be handed over at once; None: as many as there are."""
        return None

    def most_mem(self) -> int | None:
        """Return the bytes of memory that one job can get at most; None: nobody knows."""
        return None

    def arrange(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Return tasks of the same shape in those groups that must still be handed over each for itself."""
        return [list(tasks)]

    @abstractmethod
    def submit(self, submission: Submission) -> str:
        """Hand tasks over; return the scheduler's id of the submission.

        In an id that is the pattern of its tasks' ids, ``#`` stands for the number of the task.

        Raises
        ------
        SubmitError
            If the scheduler refused; nothing of it will run.
        """

    def send(self, submission: Submission) -> Callable[[], str]:
        """Begin to hand tasks over; return what waits for the end of that, and returns and raises as ``submit`` does.

        Until it is called, which happens once, the next submission is prepared.
        """
        known_as = self.submit(submission)
        return lambda: known_as

    @abstractmethod
    def delete(self, submission: Submission, tasks: Sequence[int]) -> Collection[int]:
        """See to it that tasks end, and that none of them starts; what has ended already is no error.

        Returns those of which it is certain already.
        """

    def delete_all(self, wanted: Sequence[tuple[Submission, Sequence[int]]]) -> list[Collection[int]]:
        """Delete tasks of several submissions; as ``delete`` does."""
        return [self.delete(submission, tasks) for submission, tasks in wanted]

    def find(self, submission: Submission) -> str | None:
        """Return the scheduler's id of a submission whose owner died before recording it; None if it never was."""
        return submission.token

    @abstractmethod
    def evidence(self, folder: str) -> Evidence:
        """Return what a submission's folder tells about its tasks."""

    @abstractmethod
    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return what the scheduler says of one task, its name too, by which it is ours; empty if unknown."""

    def get_job_id(self, environ: Mapping[str, str]) -> str | None:
        """Return the id of the job that an environment is of, or None outside of jobs."""
        return environ.get("PARASCHUT_CLUSTERID")

    def get_job_summary(self, cluster_id: str) -> str | None:
        """Return the scheduler's last words on a task as JSON, to be kept with its attempt."""
        summary = self.qstat(cluster_id)
        return json.dumps(summary) if summary else None

    def isconnected(self) -> bool:
        """Return whether this machine can submit."""
        return True

    def preparing(self, index: str) -> AbstractContextManager[None]:
        """Return the block in which jobs are chosen and submitted: what takes a while beforehand may begin with it."""
        del index
        return nullcontext()

    def shutdown(self) -> None:  # noqa: B027 - most executors hold nothing
        """Let go of what this executor holds; jobs go on."""
