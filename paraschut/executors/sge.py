"""Grid Engine (Son of Grid Engine and its relatives): qsub, qstat, qdel, qacct."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

from paraschut.errors import ExecutorError, JobError, SubmitError
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Kind, Row, ranges
from paraschut.executors.run import Answer, run_command, user_name
from paraschut.executors.scheduler import PBS_KEYS, Cause, TooManyError, UnreachableError, begin_option, words
from paraschut.resources import GENERIC, needs_of

_TOO_MANY = re.compile(
    r"jobs are allowed per (user|cluster)|max_u_jobs|max_jobs|more than \d+ (jobs|tasks)|tasks? (are|is) allowed",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"unable to (contact|send message to) qmaster|can't connect|connection refused", re.IGNORECASE
)
_UNCLEAR = re.compile(r"read error|timeout|timed out|failed receiving gdi", re.IGNORECASE)
#: Codes of ``failed`` in sge_status(5), as qacct gives them: a limit of time or memory; what ran all the same; and
#: what Grid Engine itself lost sight of, as it does when a node or its daemon dies.
_FAILED_LIMIT, _RAN, _LOST = 37, {0, *range(12, 18), 24, 25, 30, 100}, {18, 19, 21}
_BY_SIGNAL = 128
#: Files of defaults, the site's and the user's own, may say otherwise.
_QSUB = ("qsub", "-terse", "-S", "/bin/sh", "-b", "n", "-now", "n")
#: Reasons why a job waits that are shown: there may be one for each host.
_MOST_REASONS = 3
#: What does not belong into the names of logs: qsub takes it for a host, the next path, or a variable.
_ODD = re.compile(r"[:,$\n]")


class SGEJobExecutor(ClusterJobExecutor):
    """Runs jobs through Grid Engine, those that ask for the same as one job array.

    Parameters
    ----------
    queue : str | None
        The queue of jobs that name none.
    resources : Mapping | None
        What jobs ask for that do not say otherwise, such as ``{"mem": "4gb", "walltime": "2h"}``.
    options : Sequence[str]
        More flags of ``qsub``, such as ``["-P", "lab"]``.
    parallel_environment : str
        The one that gives several processors of one machine; its name is the site's choice.
    memory : str
        The resource that limits memory, for each processor.
    gpu : str
        The resource that counts graphics cards.

    Notes
    -----
    Of a job's resources, ``cpus`` becomes ``-pe smp``, ``mem`` ``-l h_vmem`` (divided by the processors), ``walltime``
    ``-l h_rt``, ``gpus`` ``-l gpu``; more than one of ``nodes`` is refused. Other keys are resources of ``-l``, as they
    are. Keys that only PBS knows (``pmem``, ``cput`` …) are ignored, and the pass says so. Lines of a script that
    begin with ``#$`` are honoured; flags win over them.

    Examples
    --------
    >>> SGEJobExecutor(queue="all.q")
    SGEJobExecutor(queue='all.q')
    """

    name: ClassVar[str] = "sge"
    begins: ClassVar[bool] = True
    commands: ClassVar[tuple[str, ...]] = ("qsub", "qstat", "qdel")
    prefix: ClassVar[str] = "#$"
    directives_anywhere: ClassVar[bool] = True
    ours: ClassVar[frozenset[str]] = words(
        "-t: -tc: -o: -e: -j: -N: -S: -terse -sync: -cwd -wd: -b: -V -v: -i: -verify -now: -shell: -ac: -dc: -sc: "
        "-clear -C:"
    )
    account_flags: ClassVar[frozenset[str]] = words("-A: -P: -q: -dept:")
    joined: ClassVar[bool] = False
    #: SGE numbers tasks from 1.
    first_task: ClassVar[int] = 1
    restart_flags: ClassVar[frozenset[str]] = words("-r:")
    name_flags: ClassVar[frozenset[str]] = words("-N:")
    find_task: ClassVar[str] = (
        "paraschut_task_number=1 paraschut_known_as=${JOB_ID-unknown}\n"
        "case ${SGE_TASK_ID-undefined} in\n"
        "    undefined) ;;\n"
        '    *) paraschut_task_number=$SGE_TASK_ID paraschut_known_as="$JOB_ID.$SGE_TASK_ID" ;;\n'
        "esac"
    )

    def __init__(
        self,
        queue: str | None = None,
        resources: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
        *,
        parallel_environment: str = "smp",
        memory: str = "h_vmem",
        gpu: str = "gpu",
    ) -> None:
        self.parallel_environment, self.memory, self.gpu = parallel_environment, memory, gpu
        super().__init__(queue, resources, options)

    def defaults(self) -> dict[str, Any]:
        """Return what this one was given."""
        mine = {
            "parallel_environment": (self.parallel_environment, "smp"),
            "memory": (self.memory, "h_vmem"),
            "gpu": (self.gpu, "gpu"),
        }
        given = {key: value for key, (value, usual) in mine.items() if value != usual}
        return {**super().defaults(), **given}

    def resource_flags(self, queue: str | None, resources: Mapping[str, Any]) -> list[str]:
        """Return the flags of qsub for a queue and resources."""
        needs = needs_of(resources)
        if needs.nodes > 1:
            raise JobError(
                f"it asks for {needs.nodes} nodes, which Grid Engine gives through a parallel environment of the site: "
                f"name that in its options, such as '-pe mpi 32', and leave nodes out."
            )
        flags = ["-q", queue] if queue else []
        if needs.cpus > 1:
            flags += ["-pe", self.parallel_environment, str(needs.cpus)]
        asked = []
        if needs.mem:
            asked.append(f"{self.memory}={math.ceil(needs.mem / needs.cpus / 1024)}K")
        if needs.walltime:
            asked.append(f"h_rt={math.ceil(needs.walltime)}")
        if needs.gpus:
            asked.append(f"{self.gpu}={needs.gpus}")
        for key, value in resources.items():
            if key in GENERIC or key in PBS_KEYS or value is False:
                continue
            if not re.fullmatch(r"\w[\w.-]*", key):
                self.refuse_key(key, "the names of complexes ('qconf -sc' lists them)")
            if "," in str(value):
                raise JobError(
                    f"its resources have {key} = {value!r}, but a comma begins another complex there."
                )
            asked.append(f"{key}={'TRUE' if value is True else value}")
        return [*flags, *(["-l", ",".join(asked)] if asked else [])]

    def submit_command(self, path: str, name: str, log: str, tasks: range | None) -> list[str]:
        """Return the qsub command."""
        del path
        odd = _ODD.search(log)
        file = "/dev/null" if odd else f"{log}/{'1' if tasks is None else '$TASK_ID'}.log"
        array = [] if tasks is None else ["-t", f"{tasks.start}-{tasks.stop - 1}"]
        return [
            *(*_QSUB, "-N", name, "-r", "n", "-j", "y", "-o", file),
            *("-wd", "/" if odd else log, *array),
        ]

    def begin_flags(self, at: float) -> list[str]:
        """Return ``-a``, in the time of this machine."""
        return begin_option(at)

    def closer_command(self, path: str, name: str, after: Sequence[str]) -> list[str]:
        """Return the qsub command of a closer."""
        del path
        return [
            *(*_QSUB, "-N", name, "-j", "y", "-o", "/dev/null", "-wd", "/"),
            *(("-hold_jid", ",".join(after)) if after else ()),
        ]

    def id_of(self, printed: str, *, array: bool) -> str:
        """Return the id: ``11.#`` for an array, of which qsub prints ``11.1-10:1``."""
        found = re.findall(r"^([0-9]+)(?:\.[0-9:-]+)?$", printed.strip(), re.MULTILINE)
        if not found:
            raise ValueError(printed)
        return f"{found[-1]}.#" if array else str(found[-1])

    def refusal(self, answer: Answer) -> type[ExecutorError]:
        """Return what a failed qsub means."""
        if _TOO_MANY.search(answer.err):
            return TooManyError
        if _UNCLEAR.search(answer.err) or not answer.err.strip():
            return ExecutorError
        return UnreachableError if _UNREACHABLE.search(answer.err) else SubmitError

    def job_of(self, cluster_id: str) -> str:
        """Return ``11`` from ``11.#`` or ``11.3``."""
        return cluster_id.partition(".")[0]

    def pattern_of(self, task_id: str) -> str:
        """Return ``11.#`` from ``11.3``."""
        job, array, _ = task_id.partition(".")
        return f"{job}.#" if array else job

    def ask(self) -> list[Row]:
        """Ask qstat for all jobs of this user; it forgets those that have ended at once."""
        answer = run_command(["qstat", "-xml", "-u", user_name()], self.timeout)
        if answer.code != 0:
            raise ExecutorError(f"qstat failed, so what became of jobs is not known. It said: {answer.words}")
        try:
            return list(rows_of(answer.out))
        except ET.ParseError as error:
            raise ExecutorError(
                f"qstat printed what is no XML ({error}), so what became of jobs is not known."
            ) from error

    def delete_ids(self, ids: Sequence[str]) -> list[str]:
        """Return the qdel command."""
        return ["qdel", *ids]

    def was_gone(self, answer: Answer) -> bool:
        """Return whether the only complaints are of jobs that are not there any more."""
        lines = [line for line in (answer.out + answer.err).splitlines() if line.strip()]
        fine = re.compile(r"does not exist|has (registered|deleted)|already in deletion|already finished")
        return bool(lines) and all(fine.search(line) for line in lines)

    def task_ids(self, cluster_id: str, tasks: Sequence[int]) -> list[str]:
        """Return ``11.3-5`` and ``11.7``."""
        job, array, _ = cluster_id.partition(".")
        return [f"{job}.{part}" for part in ranges(tasks).split(",")] if array else [job]

    def causes(self, cluster_id: str, tasks: Mapping[int, Row | None], folder: str) -> dict[int, Cause]:
        """Return what the accounting says."""
        try:
            answer = run_command(["qacct", "-j", self.job_of(cluster_id)], self.timeout)
        except ExecutorError:
            return {}
        found = accounted(answer.out, os.path.basename(folder)) if answer.code == 0 else {}
        if "." not in cluster_id:
            found = {task: found[-1] for task in tasks if -1 in found}
        return {task: cause for task, cause in found.items() if task in tasks}

    def why_pending(self, cluster_id: str) -> str:
        """Return the error reasons and the scheduling info of ``qstat -j``, where the site has it."""
        answer = run_command(["qstat", "-j", self.job_of(cluster_id)], self.timeout)
        return scheduling_info(answer.out) if answer.code == 0 else ""

    def is_deleted(self, row: Row) -> bool:
        """Return whether tasks are marked for deletion: the accounting only knows the signal that ended them."""
        return "d" in row.word

    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return the fields of ``qstat -j`` for a job; empty if Grid Engine no longer knows it."""
        answer = run_command(["qstat", "-j", self.job_of(cluster_id)], self.timeout)
        return (
            dict(re.findall(r"^([\w ()]+?):\s+(.*)$", answer.out, re.MULTILINE)) if answer.code == 0 else {}
        )


def scheduling_info(printed: str) -> str:
    r"""Return what ``qstat -j`` says of why a job waits, in one line; first what went wrong when it was to start.

    Examples
    --------
    >>> scheduling_info("job_name:  a\nscheduling info:   queue a is full\n                   queue b is disabled\n")
    'queue a is full; queue b is disabled'
    """
    # Each task has its own, with the time and the process.
    errors = re.findall(r"^error reason\s+\d+:\s+(?:\S+ \S+ \[\S*\]: )?(.*\S)", printed, re.MULTILINE)
    found = re.search(r"^scheduling info:((?:\s+\S.*$)+)", printed, re.MULTILINE)
    lines = [line.strip() for line in found[1].splitlines()] if found else []
    return "; ".join([*list(dict.fromkeys(errors))[:_MOST_REASONS], *filter(None, lines[:_MOST_REASONS])])


def rows_of(printed: str) -> Iterator[Row]:
    """Yield what ``qstat -xml`` printed.

    Examples
    --------
    >>> job = "<JB_job_number>10</JB_job_number><JB_name>a.f00</JB_name><state>qw</state><tasks>4-10:1</tasks>"
    >>> list(rows_of(f"<job_info><job_info><job_list state='pending'>{job}</job_list></job_info></job_info>"))
    [Row(job='10', tasks='4-10:1', kind=<Kind.WAITS: 'waits'>, word='qw', reason='', name='a.f00')]
    """
    for entry in ET.fromstring(printed).iter("job_list"):  # noqa: S314 - the scheduler's own words
        word = entry.findtext("state") or ""
        kind = Kind.RUNS if entry.get("state") == "running" else Kind.WAITS
        yield Row(
            job=entry.findtext("JB_job_number") or "",
            tasks=entry.findtext("tasks") or "",
            kind=Kind.ENDS if "d" in word else kind,
            word=word,
            reason="",
            name=entry.findtext("JB_name") or "",
        )


def accounted(printed: str, token: str = "") -> dict[int, Cause]:
    r"""Return what qacct printed, by task; a job that is no array has the number -1.

    Parameters
    ----------
    token : str
        What the name of the job ends in: the books of years also have others that had its number.

    Examples
    --------
    >>> accounted("====\ntaskid  2\nfailed  37  : qmaster enforced h_rt limit\nexit_status  137\nmaxvmem  1.5M\n")[2].reason
    'time limit'
    """
    found: dict[int, Cause] = {}
    for record in re.split(r"^=+\s*$", printed, flags=re.MULTILINE):
        fields = dict(re.findall(r"^(\w+)\s+(.*?)\s*$", record, re.MULTILINE))
        if "failed" not in fields or not fields.get("jobname", "").endswith(token):
            continue
        task = _number(fields["taskid"]) if fields.get("taskid", "u")[0].isdecimal() else -1
        found[task] = _cause(fields)._replace(
            # The kernel counts it in kilobytes, and Grid Engine takes that for bytes.
            max_rss=(_size(fields.get("ru_maxrss", "")) or 0) * 1024 or None,
            words=f"qacct: failed {fields['failed']}, exit_status {fields.get('exit_status', '?')}",
        )
    return found


def _cause(fields: Mapping[str, str]) -> Cause:
    failed, status = _number(fields["failed"]), _number(fields.get("exit_status", "0"))
    if failed == _FAILED_LIMIT:
        return Cause("out of memory" if _took_too_much(fields) else "time limit")
    if fields.get("deleted_by", "NONE") not in {"NONE", "UNKNOWN", ""}:
        return Cause("cancelled")  # Grid Engines of other makers say so
    if failed in _LOST:
        return Cause("node failure")
    if status > _BY_SIGNAL:
        return Cause(signal=status - _BY_SIGNAL)
    return Cause(code=status) if failed in _RAN else Cause("never started")


def _took_too_much(fields: Mapping[str, str]) -> bool:
    """Return whether a job that was ended for a limit had reached that of memory, not one of time."""
    limits = dict(re.findall(r"\b(h_vmem|h_rt|h_cpu)=([^\s,]+)", fields.get("category", "")))
    used, most = _size(fields.get("maxvmem", "")), _size(limits.get("h_vmem", ""))
    if used and most:
        return used >= most * max(1, _number(fields.get("slots", "1")))
    # The limit may be what the site gives to those who ask for none.
    return (
        limits.keys() == {"h_rt"} and _number(fields.get("ru_wallclock", "")) < _seconds(limits["h_rt"]) - 1
    )


def _seconds(text: str) -> int:
    return sum(_number(part) * 60**power for power, part in enumerate(reversed(text.split(":"))))


def _number(text: str) -> int:
    match = re.match(r"[0-9]+", text)
    return int(match[0]) if match else 0


def _size(text: str) -> int | None:
    match = re.match(r"([0-9]+(?:\.[0-9]*)?)\s*([KMGT]?)", text, re.IGNORECASE)
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else None
