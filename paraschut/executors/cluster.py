"""What is done with every scheduler alike: job arrays, closers, deletions, and what a folder tells of its tasks.

How each of them is spoken to is in its own module; what those have to say, in ``scheduler``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from paraschut.config import Config
from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors import cluster_script, script, traces
from paraschut.executors.base import Evidence, Mark, Submission, Task
from paraschut.executors.queue import Queue
from paraschut.executors.run import Answer, run_command, start_command
from paraschut.executors.scheduler import Scheduler, name_of, words_of
from paraschut.resources import GENERIC
from paraschut.retry import MEMORY_KEYS, TIME_KEYS

_CLOSER, _CLOSER_FLAGS = "closer.sh", "closer.json"
#: Ids on one command line.
_CHUNK = 500


class ClusterJobExecutor(Scheduler):
    """The base of executors whose jobs a scheduler runs on other machines.

    A subclass says at least ``name``, ``commands``, ``find_task``, ``resource_flags``, ``submit_command``, ``ask`` and
    ``delete_ids``; ``docs/executors.md`` shows one.

    Parameters
    ----------
    queue : str | None
        The queue (partition) of jobs that name none.
    resources : Mapping | None
        What jobs ask for that do not say otherwise, key by key.
    options : Sequence[str]
        More flags for each submission.
    """

    def __init__(
        self,
        queue: str | None = None,
        resources: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(queue, resources, options)
        self.timeout = 60.0
        self.retries = 0
        # Thousands of jobs ask for the same.
        self._flags: dict[Hashable, tuple[str, ...]] = {}
        self._asked: dict[str, dict[str, Any]] = {}
        self.flags_of(None, {}, None)

    def heed(self, config: Config) -> None:
        """Take from the configuration the time limit of commands, and how often jobs are tried again by default."""
        self.timeout = config.command_timeout
        self.retries = config.retries

    def __repr__(self) -> str:
        given = {"queue": self.queue, "resources": self.resources, "options": self.options}
        return (
            f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in given.items() if value)})"
        )

    # -- handing over -------------------------------------------------------------------------------------------

    def asked(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a job asks for; raise JobError if the scheduler could not be told."""
        key = repr((job.get("queue"), job.get("resources"), job.get("options")))
        if key not in self._asked:
            asked = super().asked(job)
            self._flags_of_job(job)
            given = {**self.resources, **(job.get("resources") or {})}
            more = {
                **{
                    name: given[name]
                    for name in (*MEMORY_KEYS, *TIME_KEYS)
                    if name not in GENERIC and type(given.get(name)) in {int, float, str}
                },
                "nodes": given.get("nodes"),
                "queue": job.get("queue") or self.queue,
            }
            self._asked[key] = {**asked, **{name: value for name, value in more.items() if value}}
        return self._asked[key]

    def shape(self, batch_id: int, job: Mapping[str, Any], asked: Mapping[str, Any]) -> Hashable:
        """Return what a job asks for; and its batch, where a closer is to carry that on."""
        # The same dict is given to all that ask for the same.
        return (batch_id if self.carries(job) else None, id(asked))

    def carries(self, job: Mapping[str, Any]) -> bool:
        """Return whether a closer must go on when a job has ended, because it does not do so itself."""
        if type(self).closer_command is ClusterJobExecutor.closer_command:
            return False
        retries = job.get("retries")
        return bool(job.get("complete_on_exit") or (self.retries if retries is None else retries))

    def most(self) -> int:
        """Return how many tasks go into one job array."""
        return self.array_size

    def most_of(self, command: Sequence[str], pattern: str) -> int:
        """Return how many tasks an array may have, where a command prints that; a refusal will say it otherwise."""
        try:
            said = re.search(pattern, run_command(command, self.timeout).out, re.MULTILINE)
        except ExecutorError:
            said = None
        return min(self.array_size, max(1, int(said[1]))) if said else self.array_size

    def _flags_of_job(self, job: Mapping[str, Any]) -> tuple[str, ...]:
        return self.flags_of(
            job.get("queue") or self.queue,
            {**self.resources, **(job.get("resources") or {})},
            job.get("options"),
        )

    def flags_of(self, queue: str | None, resources: Mapping[str, Any], options: object) -> tuple[str, ...]:
        """Return all flags of a job; options come last, so that they win."""
        key = repr((queue, sorted(resources.items(), key=str), options))
        if key not in self._flags:
            if queue is not None and not isinstance(queue, str):
                raise JobError(f"its queue is {queue!r}; it must be the name of one.")
            kept = {name: value for name, value in resources.items() if value is not None}
            self._flags[key] = (
                *self.resource_flags(queue or None, kept),
                *self.options,
                *words_of(options),
            )
        return self._flags[key]

    def arrange(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Return tasks in groups whose scripts have the same lines for the scheduler."""
        groups: dict[tuple[str, ...], list[Task]] = {}
        # Thousands of tasks have the same script: it is read once.
        known: dict[str | None, tuple[str, ...]] = {}
        for task in tasks:
            if task.source not in known:
                known[task.source] = self._directives(task)
            groups.setdefault(known[task.source], []).append(task)
        return list(groups.values())

    def _directives(self, task: Task) -> tuple[str, ...]:
        if task.source is None or not self.prefix:
            return ()
        return cluster_script.directives_of(
            task.source, self.prefix, self.ours, joined=self.joined, anywhere=self.directives_anywhere
        )

    def _directive_words(self, task: Task) -> Iterable[str]:
        for line in self._directives(task):
            text = line.removeprefix(self.prefix)
            try:
                yield from shlex.split(text)
            except ValueError:  # a quote that is alone
                yield from text.split()

    def submit(self, submission: Submission) -> str:
        """Hand tasks over, as one job array or as a plain job; return the scheduler's id."""
        return self.send(submission)()

    def send(self, submission: Submission) -> Callable[[], str]:
        """Write the files of a submission and start the command that hands it over."""
        first = submission.tasks[0]
        folder = os.path.abspath(submission.folder)
        try:
            path = cluster_script.write(submission, self.name, self._directives(first), self.find_task)
            if submission.carries is not None:
                self._write_closer(submission)
        except OSError as error:
            raise SubmitError(
                f"{error.filename or folder} could not be written ({error.strerror}), so nothing was submitted. Make "
                f"room there and try again."
            ) from error
        array = len(submission.tasks) > 1
        numbers = range(first.number, first.number + len(submission.tasks)) if array else None
        flags = self.flags_of(first.queue or self.queue, first.resources, first.options)
        named, others = cluster_script.picked(flags, self.name_flags, joined=self.joined)
        label = re.sub(r"^--[a-z-]+=|^-J", "", named[-1]) if named else submission.label
        command = self.submit_command(path, name_of(label, submission.token), folder, numbers)
        restarts, _ = cluster_script.picked(
            [*self._directive_words(first)], self.restart_flags, joined=self.joined
        )
        begin = [] if submission.begin is None else self.begin_flags(submission.begin)
        ended = start_command(
            [*command, *begin, *restarts, *others, path], self.timeout, cwd=folder, enough=self.tries_again
        )
        return lambda: self._submitted(command[0], ended(), array=array)

    def _submitted(self, command: str, answer: Answer, *, array: bool) -> str:
        if answer.code == 0:
            try:
                return self.id_of(answer.out, array=array)
            except ValueError:
                raise ExecutorError(
                    f"{command} printed {answer.out.strip()[:200]!r}, which names no job. Whether it was submitted is "
                    f"found out by the next pass."
                ) from None
        kind = self.refusal(answer)
        took = (
            "what it did not take is in 'init' again"
            if issubclass(kind, SubmitError)
            else "whether it took the jobs is not known yet"
        )
        raise kind(
            f"{command} failed, and {took}. It said: {answer.words or f'nothing (exit code {answer.code})'}"
        )

    def _write_closer(self, submission: Submission) -> None:
        """Write what goes on with a batch, and with which flags it is submitted; whoever sends it reads that."""
        first = submission.tasks[0]
        folder = os.path.abspath(submission.folder)
        theirs = [*self._directive_words(first), *self.options, *words_of(first.options)]
        account, _ = cluster_script.picked(theirs, self.account_flags, joined=self.joined)
        flags = [*self.resource_flags(first.queue or self.queue, {}), *account]
        run = [sys.executable, "-m", "paraschut.closer", submission.index, str(submission.carries)]
        log = shlex.quote(os.path.join(os.path.dirname(folder), "closers.log"))
        lines = [
            "#!/bin/sh",
            "# Written by paraschut: goes on with a batch when its jobs have ended.",
            f"exec >> {log} 2>&1",
            f"trap 'echo \"batch {submission.carries}: its closer ended before it began; look at the prologue\"' EXIT",
            script.exports(submission.env),
            *submission.prologue,
            f"cd / && exec {shlex.join(run)}",
        ]
        text = "\n".join(lines) + "\n"
        script.write_beside(
            os.path.join(folder, _CLOSER), text.encode("utf-8", "surrogateescape"), 0o700, sync=False
        )
        script.write_beside(os.path.join(folder, _CLOSER_FLAGS), json.dumps(flags).encode(), sync=False)

    def submit_closer(
        self, submissions: Sequence[Submission], after: Collection[Submission] | None = None
    ) -> str:
        """Submit the small job that goes on with a batch when submissions of it have ended; return its id.

        Account and queue are those of the first.

        Parameters
        ----------
        after : Collection[Submission] | None
            Those that it waits for; None: all of them. If there are none, it starts at once.
        """
        first = submissions[0]
        folder = os.path.abspath(first.folder)
        path = os.path.join(folder, _CLOSER)
        try:
            with open(os.path.join(folder, _CLOSER_FLAGS), encoding="utf-8") as file:
                flags = json.load(file)
        except OSError as error:
            raise ExecutorError(f"{error.filename} cannot be read ({error.strerror}).") from error
        waits_for = submissions if after is None else after
        ids = [self.job_of(one.cluster_id) for one in waits_for if one.cluster_id is not None]
        command = self.closer_command(path, name_of("closer", first.token), ids)
        answer = run_command([*command, *flags, path], self.timeout, cwd=folder, enough=self.tries_again)
        return self._submitted(command[0], answer, array=False)

    def find(self, submission: Submission) -> str | None:
        """Return the id of a submission whose owner died before recording it, if it left any trace."""
        for text, _ in traces.gather(submission.folder).marks.values():
            holder = traces.parse_mark(text)
            if holder is not None:
                return self.pattern_of(holder.id)
        if not os.path.exists(os.path.join(submission.folder, script.SCRIPT)):
            return None
        job = Queue(time.time(), self.ask()).named(submission.token)
        if job is None:
            return None
        with open(os.path.join(submission.folder, cluster_script.TASKS), "rb") as file:
            array = sum(1 for _ in file) > 1
        return self.id_of(job, array=array)

    # -- what became of them ------------------------------------------------------------------------------------

    def evidence(self, folder: str) -> Evidence:
        """Return what a submission's folder tells; whether a task still runs, only the queue does."""
        try:
            found = traces.gather(folder)
        except OSError as error:
            raise ExecutorError(
                f"{folder} cannot be read ({error.strerror}), so it is not known what became of its jobs. Try again "
                f"when it can."
            ) from error
        marks = {
            task: Mark(task, text, at, restarts=found.restarts.get(task, 0))
            for task, (text, at) in found.marks.items()
        }
        return Evidence(marks, found.exits)

    def bar(self, folder: str, tasks: Iterable[int]) -> set[int]:
        """Take the right to start of tasks, so that nothing starts them from now on; return those that had not."""
        holder = traces.reset_holder()
        try:
            return {task for task in tasks if traces.take_mark(folder, task, holder)}
        except OSError as error:
            raise ExecutorError(
                f"{folder} could not be written ({error.strerror}), so jobs in it may still start. Make room there "
                f"and delete them again."
            ) from error

    def delete(self, submission: Submission, tasks: Sequence[int]) -> Collection[int]:
        """See to it that tasks do not start, and tell the scheduler to end them.

        Returns those that had not started, which now never will.
        """
        return self.delete_all([(submission, tasks)])[0]

    def delete_all(self, wanted: Sequence[tuple[Submission, Sequence[int]]]) -> list[Collection[int]]:
        """Delete tasks of several submissions, with one command for many; as ``delete`` does."""
        gone: list[Collection[int]] = [self.bar(submission.folder, tasks) for submission, tasks in wanted]
        known = [submission.cluster_id or self.find(submission) for submission, _ in wanted]
        queue = self._to_delete_from() if any(known) else Queue(0.0, ())
        ids = []
        for (submission, tasks), barred, known_as in zip(wanted, gone, known, strict=True):
            started = len(barred) < len(tasks)
            if known_as is not None and queue.is_ours(
                self.job_of(known_as), submission.token, renamed=started
            ):
                ids += self.task_ids(known_as, tasks)
        self.delete_jobs(ids)
        return gone

    def delete_closers(self, closers: Mapping[str, Collection[str]]) -> None:
        """Delete closers by their ids, of which each is named after one of some tokens."""
        queue = self._to_delete_from() if closers else Queue(0.0, ())
        self.delete_jobs(
            [
                closer
                for closer, tokens in sorted(closers.items())
                if any(queue.is_ours(self.job_of(closer), token) for token in tokens)
            ]
        )

    def _to_delete_from(self) -> Queue:
        """Return the queue as it is now: what is not in it, or is another job's by now, is not to be deleted."""
        try:
            return Queue(time.time(), self.ask())
        except ExecutorError as error:
            raise ExecutorError(
                f"Nothing was deleted from {self.name}, so jobs may still run; they are not started anew before they "
                f"have ended. {error}"
            ) from error

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Delete jobs from the scheduler; that one has ended already is no error."""
        for start in range(0, len(ids), _CHUNK):
            answer = run_command(self.delete_ids(ids[start : start + _CHUNK]), self.timeout)
            if answer.code != 0 and not self.was_gone(answer):
                raise ExecutorError(
                    f"{self.commands[-1]} failed, so jobs may still run; they are not started anew before they have "
                    f"ended. It said: {answer.words or answer.code}"
                )

    def isconnected(self) -> bool:
        """Return whether this machine has the scheduler's commands."""
        return all(shutil.which(command) for command in self.commands)
