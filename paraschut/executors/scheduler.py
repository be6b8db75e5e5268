"""How a scheduler is spoken to: what a subclass of ``ClusterJobExecutor`` says, and what its words can mean."""

from __future__ import annotations

import math
import re
import shlex
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn

from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors.base import JobExecutor
from paraschut.executors.queue import Kind, Queue, Row
from paraschut.executors.run import Answer
from paraschut.resources import GENERIC, other_keys


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


#: Keys of ``resources`` that only PBS knows; the template has some, and other schedulers ignore them with a note.
PBS_KEYS = words(
    "cput pcput pmem pvmem vmem file nice ncpus mpiprocs ompthreads ngpus select place software arch host"
)
#: Characters of a name before the token.
_LABEL = 40


class TooManyError(SubmitError):
    """The scheduler takes no more jobs of this user for now, or none so large."""


class UnreachableError(SubmitError):
    """The scheduler could not be reached, so nothing was submitted."""


class Cause(NamedTuple):
    """What a scheduler says of a task that has ended.

    Attributes
    ----------
    reason : str | None
        Why the scheduler ended it; None if it ended by itself.
    words : str
        What the scheduler said.
    """

    reason: str | None = None
    code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    words: str = ""


class Scheduler(JobExecutor):
    """The words of one scheduler: the commands that are run, what they print, and what that means.

    A subclass says at least ``name``, ``commands``, ``find_task``, ``resource_flags``, ``submit_command``, ``ask`` and
    ``delete_ids``; ``docs/executors.md`` shows one.
    """

    other_hosts: ClassVar[bool] = True
    ids_come_late: ClassVar[bool] = True
    #: The commands that a machine must have to submit.
    commands: ClassVar[tuple[str, ...]]
    #: What lines for the scheduler begin with, and the options in them that are ours to say; a colon: has a value.
    prefix: ClassVar[str] = ""
    ours: ClassVar[frozenset[str]] = frozenset()
    #: Whether such lines also count behind the first command of a script.
    directives_anywhere: ClassVar[bool] = False
    #: Flags that say who pays and where: a closer gets them too.
    account_flags: ClassVar[frozenset[str]] = frozenset()
    #: Options that name a job: what they say comes before the token, by which the job is known.
    name_flags: ClassVar[frozenset[str]] = frozenset()
    #: Options that say whether a job may be started again: those in a script win over what we say ourselves.
    restart_flags: ClassVar[frozenset[str]] = frozenset()
    #: What the command that submits says when it is refused and tries again by itself.
    tries_again: ClassVar[re.Pattern[str] | None] = None
    #: Whether an option of one letter may have its value right behind it.
    joined: ClassVar[bool] = True
    #: The shell that finds the task that a script was started for.
    find_task: ClassVar[str]
    #: Tasks of a job array.
    array_size: ClassVar[int] = 1000

    @abstractmethod
    def resource_flags(self, queue: str | None, resources: Mapping[str, Any]) -> list[str]:
        """Return the flags that ask for a queue and resources; raise JobError for what makes no sense."""

    @abstractmethod
    def submit_command(self, path: str, name: str, log: str, tasks: range | None) -> list[str]:
        """Return the command that submits a script, without the flags of its jobs.

        Parameters
        ----------
        log : str
            The folder of the scheduler's own logs.
        tasks : range | None
            The numbers of a job array's tasks; None for a plain job.
        """

    def begin_flags(self, at: float) -> list[str]:
        """Return the flags of a submission whose jobs start at a time (epoch seconds), or later.

        Only asked of a subclass that says that it ``begins`` jobs so; the others get them when the time has come.
        """
        del at
        raise ExecutorError(f"{self.name} cannot be told when a job may start.")

    def why_pending(self, cluster_id: str) -> str:
        """Return more of why a job waits than the scheduler's queue says; unless a subclass knows more, nothing."""
        del cluster_id
        return ""

    def closer_command(self, path: str, name: str, after: Sequence[str]) -> list[str]:
        """Return the command that submits a script that starts when jobs have ended in whatever way; without any, at once.

        A subclass whose scheduler cannot hold a job for that long leaves this out: there are no closers then, and
        what does not submit the next jobs itself goes on with the next pass.
        """
        del path, name, after
        raise ExecutorError(f"{self.name} cannot hold a job until others have ended.")

    def id_of(self, printed: str, *, array: bool) -> str:
        """Return the id from what the submission printed; with ``#`` for the number of a task. Raise ValueError.

        Unless a subclass says otherwise, it prints just that.
        """
        if array or len(printed.split()) != 1:
            raise ValueError(printed)
        return printed.strip()

    def refusal(self, answer: Answer) -> type[ExecutorError]:
        """Return what a submission that failed means: refused, too many, unreachable; or ExecutorError: nobody knows.

        Unless a subclass says otherwise, nobody knows, and the next passes look for it in the queue.
        """
        del answer
        return ExecutorError

    def job_of(self, cluster_id: str) -> str:
        """Return the id of the job in the queue from that of a submission, or of a task; the same without arrays."""
        return cluster_id

    def pattern_of(self, task_id: str) -> str:
        """Return the id of a submission from that of one of its tasks; the same without arrays."""
        return task_id

    @abstractmethod
    def ask(self) -> list[Row]:
        """Ask the scheduler for all jobs of this user; raise ExecutorError if it does not answer."""

    @abstractmethod
    def delete_ids(self, ids: Sequence[str]) -> list[str]:
        """Return the command that deletes jobs or tasks."""

    def task_ids(self, cluster_id: str, tasks: Sequence[int]) -> list[str]:
        """Return the words that name tasks of a submission to the command that deletes; its id without arrays."""
        del tasks
        return [cluster_id]

    def causes(self, cluster_id: str, tasks: Mapping[int, Row | None], folder: str) -> dict[int, Cause]:
        """Return what the scheduler knows of tasks that have ended, from its queue, accounting and logs."""
        del cluster_id, tasks, folder
        return {}

    def is_deleted(self, row: Row) -> bool:
        """Return whether a line of the queue says that somebody has deleted these tasks."""
        del row
        return False

    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return what the scheduler says of one task; unless a subclass knows more, its line in the queue."""
        found = Queue(time.time(), self.ask()).tasks(self.job_of(cluster_id))
        return found[-1]._asdict() if -1 in found else {}

    def ignored(self, job: Mapping[str, Any]) -> list[str]:
        """Return the keys of a job's resources that mean nothing to this scheduler."""
        return [key for key in other_keys(job.get("resources")) if key in PBS_KEYS]

    def will_start(self, row: Row | None, *, held: bool) -> bool:
        """Return whether a closer that was just submitted starts by itself, now or later.

        Parameters
        ----------
        row : Row | None
            Its line in the queue, if it is there.
        held : bool
            Whether the queue still has anything of what it waits for.
        """
        del held
        return row is not None and row.kind != Kind.ENDED

    def was_gone(self, answer: Answer) -> bool:
        """Return whether a deletion only failed because there was nothing left to delete."""
        del answer
        return False

    def refuse_key(self, key: str, valid: str) -> NoReturn:
        """Raise for a key of ``resources`` that this scheduler cannot be told."""
        raise JobError(
            f"its resources have the key {key!r}, which {self.name} does not know. Valid are {', '.join(GENERIC)} and {valid}."
        )


def words_of(options: object) -> list[str]:
    """Return flags that are given as a text or as a list of words."""
    if options is None:
        return []
    if isinstance(options, str):
        try:
            return shlex.split(options)
        except ValueError as error:
            raise JobError(f"its options {options!r} cannot be read ({error}).") from error
    if isinstance(options, (list, tuple)) and all(isinstance(word, str) for word in options):
        return list(options)
    raise JobError(f"its options are {options!r}; they must be a text of flags, or a list of words.")


def begin_option(at: float) -> list[str]:
    """Return the option of qsub for a time before which a job does not start, in the time of this machine."""
    return ["-a", time.strftime("%Y%m%d%H%M.%S", time.localtime(math.ceil(at)))]


def name_of(label: str, token: str) -> str:
    """Return the name of a submission that every scheduler takes.

    Examples
    --------
    >>> name_of("7 genes/é", "f00"), name_of("", "f00")
    ('j7_genes.f00', 'j.f00')
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", label).strip("_")[:_LABEL]
    return f"{plain if plain[:1].isalpha() else f'j{plain}'}.{token}"
