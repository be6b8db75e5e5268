"""Slurm (https://slurm.schedmd.com): sbatch, squeue, scancel, sacct, scontrol."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from paraschut.errors import ExecutorError, SubmitError
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Kind, Row, expanded, ranges
from paraschut.executors.run import Answer, run_command
from paraschut.executors.scheduler import PBS_KEYS, Cause, TooManyError, UnreachableError, words
from paraschut.resources import GENERIC, needs_of

#: Options of sbatch(1) that a job may ask for by name. Those that name logs, arrays and scripts are ours.
_LONG = words(
    "account acctg-freq batch bb bbf begin cluster-constraint clusters comment constraint container contiguous "
    "core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution "
    "exclude exclusive extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres "
    "gres-flags hint hold kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu "
    "mem-per-gpu mincpus network nice no-kill no-requeue nodelist nodes ntasks ntasks-per-core ntasks-per-gpu "
    "ntasks-per-node ntasks-per-socket overcommit oversubscribe partition power prefer priority profile propagate qos "
    "reboot requeue reservation signal sockets-per-node spread-job switches thread-spec threads-per-core time "
    "time-min tmp tres-per-task use-min-nodes wckey"
)

_WAITS = words("PENDING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT")
_RUNS = words("RUNNING CONFIGURING RESIZING SIGNALING STAGE_OUT SUSPENDED STOPPED")
_KINDS = {
    **dict.fromkeys(_WAITS, Kind.WAITS),
    **dict.fromkeys(_RUNS, Kind.RUNS),
    "COMPLETING": Kind.ENDS,
}
#: States (squeue(1)) that say why the scheduler ended a task.
_REASONS = {
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled",
    "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure",
    "PREEMPTED": "preempted",
}
#: What slurmstepd writes into a task's log when it ends it.
_WORDS = (
    (re.compile(r"DUE TO TIME LIMIT", re.IGNORECASE), "time limit"),
    (re.compile(r"oom[-_ ]?kill|out[- ]of[- ]memory|exceeded memory limit", re.IGNORECASE), "out of memory"),
    (re.compile(r"DUE TO NODE FAILURE", re.IGNORECASE), "node failure"),
    (re.compile(r"DUE TO PREEMPTION", re.IGNORECASE), "preempted"),
    (re.compile(r"\*\*\* (JOB|STEP) .* CANCELLED AT", re.IGNORECASE), "cancelled"),
)
_TOO_MANY = re.compile(
    r"job submit limit|MaxSubmitJob|MaxJobCount|submit limit|array job limit|too many jobs|Invalid job array specification"
    r"|Slurm temporarily unable to accept job|job queue full|Resource temporarily unavailable",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"Unable to contact slurm controller \(connect failure\)|Connection refused", re.IGNORECASE
)
_UNCLEAR = re.compile(
    r"timed out|Zero Bytes were transmitted|Unable to contact|Unexpected message|Transport endpoint|Connection reset"
    r"|communication|Unspecified error",
    re.IGNORECASE,
)
#: Why a job waits whose dependency can not be met any more.
_NEVER = "DependencyNeverSatisfied"
#: More than any signal's number that ends a process by itself.
_SIGNALS = 32
#: The end of a log that is looked at for the scheduler's words, in bytes.
_TAIL = 4000


class SlurmJobExecutor(ClusterJobExecutor):
    """Runs jobs through Slurm, those that ask for the same as one job array.

    Parameters
    ----------
    queue : str | None
        The partition of jobs that name none.
    resources : Mapping | None
        What jobs ask for that do not say otherwise, such as ``{"mem": "4gb", "walltime": "2h"}``.
    options : Sequence[str]
        More flags of ``sbatch``, such as ``["--account=lab"]``.

    Notes
    -----
    Of a job's resources, ``cpus`` becomes ``--cpus-per-task``, ``mem`` ``--mem`` (for each node), ``walltime``
    ``--time``, ``gpus`` ``--gres=gpu:N``, ``nodes`` ``--nodes``. Other keys are long options of ``sbatch``, such as
    ``{"qos": "long", "exclusive": True}``. Keys that only PBS knows (``pmem``, ``cput`` …) are ignored, and the pass
    says so; all others are refused. Lines that begin with ``#SBATCH`` before the first command of a script are
    honoured; flags win over them.

    Examples
    --------
    >>> SlurmJobExecutor(queue="short")
    SlurmJobExecutor(queue='short')
    """

    name: ClassVar[str] = "slurm"
    begins: ClassVar[bool] = True
    commands: ClassVar[tuple[str, ...]] = ("sbatch", "squeue", "scancel")
    prefix: ClassVar[str] = "#SBATCH"
    ours: ClassVar[frozenset[str]] = words(
        "--array: -a: --output: -o: --error: -e: --job-name: -J: --parsable --wrap: --wait -W --export: --export-file: "
        "--input: -i: --open-mode: --chdir: -D: --quiet -Q --test-only"
    )
    account_flags: ClassVar[frozenset[str]] = words(
        "-A: --account: -q: --qos: -M: --clusters: --reservation: -p: --partition: -C: --constraint: --wckey:"
    )
    restart_flags: ClassVar[frozenset[str]] = words("--requeue")
    tries_again: ClassVar[re.Pattern[str]] = re.compile("sleeping and retrying")
    name_flags: ClassVar[frozenset[str]] = words("-J: --job-name:")
    find_task: ClassVar[str] = (
        # Unless a site says SignalChildrenProcesses, only the script itself is told that its time is over.
        "paraschut_forwards=1 paraschut_task_number=${SLURM_ARRAY_TASK_ID-0}\n"
        'paraschut_known_as="${SLURM_ARRAY_JOB_ID-${SLURM_JOB_ID-unknown}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"'
    )

    def resource_flags(self, queue: str | None, resources: Mapping[str, Any]) -> list[str]:
        """Return the flags of sbatch for a partition and resources."""
        needs = needs_of(resources)
        flags = [f"--partition={queue}"] if queue else []
        if needs.nodes > 1:
            flags += [f"--nodes={needs.nodes}", "--ntasks-per-node=1"]
        if needs.cpus > 1:
            flags.append(f"--cpus-per-task={needs.cpus}")
        if needs.mem:
            flags.append(f"--mem={math.ceil(needs.mem / 1024)}K")
        if needs.walltime:
            flags.append(f"--time={_time(needs.walltime)}")
        if needs.gpus:
            flags.append(f"--gres=gpu:{needs.gpus}")
        for key, value in resources.items():
            option = key.replace("_", "-")
            if key in GENERIC or key in PBS_KEYS or value is False:
                continue
            if option not in _LONG:
                self.refuse_key(key, "long options of sbatch, such as qos or mem-per-cpu")
            flags.append(f"--{option}" if value is True else f"--{option}={value}")
        return flags

    def submit_command(self, path: str, name: str, log: str, tasks: range | None) -> list[str]:
        """Return the sbatch command."""
        del path
        file = f"{log.replace('%', '%%')}/{'0' if tasks is None else '%a'}.log"
        array = [] if tasks is None else [f"--array={tasks.start}-{tasks.stop - 1}"]
        return [
            *("sbatch", "--parsable", f"--job-name={name}", "--export=ALL", "--no-requeue"),
            *(f"--output={file}", "--open-mode=append", *array),
        ]

    def begin_flags(self, at: float) -> list[str]:
        """Return ``--begin``, counted from now, which no time zone changes."""
        return [f"--begin=now+{max(0, math.ceil(at - time.time()))}"]

    def closer_command(self, path: str, name: str, after: Sequence[str]) -> list[str]:
        """Return the sbatch command of a closer."""
        del path
        return [
            *("sbatch", "--parsable", f"--job-name={name}", "--export=ALL", "--output=/dev/null"),
            *([f"--dependency=afterany:{':'.join(after)}"] if after else []),
        ]

    def will_start(self, row: Row | None, *, held: bool) -> bool:
        """Return whether a closer starts by itself."""
        return super().will_start(row, held=held) and row is not None and row.reason != _NEVER

    def id_of(self, printed: str, *, array: bool) -> str:
        """Return the id: ``21_#`` for an array; sbatch prints ``21`` or ``21;cluster``, sites print more before."""
        found = re.findall(r"^([0-9]+)(?:;\S+)?$", printed.strip(), re.MULTILINE)
        if not found:
            raise ValueError(printed)
        return f"{found[-1]}_#" if array else str(found[-1])

    def refusal(self, answer: Answer) -> type[ExecutorError]:
        """Return what a failed sbatch means."""
        if _TOO_MANY.search(answer.err):
            return TooManyError
        if _UNREACHABLE.search(answer.err):
            return UnreachableError
        return ExecutorError if _UNCLEAR.search(answer.err) or not answer.err.strip() else SubmitError

    def job_of(self, cluster_id: str) -> str:
        """Return ``21`` from ``21_#`` or ``21_3``."""
        return cluster_id.partition("_")[0]

    def pattern_of(self, task_id: str) -> str:
        """Return ``21_#`` from ``21_3``."""
        job, array, _ = task_id.partition("_")
        return f"{job}_#" if array else job

    def most(self) -> int:
        """Return how many tasks an array may have: MaxArraySize is one more than the highest index."""
        return self.most_of(["scontrol", "show", "config"], r"^MaxArraySize\s*=\s*([0-9]+)")

    def ask(self) -> list[Row]:
        """Ask squeue for all jobs of this user, those that ended lately too."""
        command = ["squeue", "--noheader", f"--user={os.getuid()}", "--states=all", "--format=%F|%K|%T|%r|%j"]
        # Without this, squeue cuts the indices of a long array with no mark.
        answer = run_command(command, self.timeout, more={"SLURM_BITSTR_LEN": "0"})
        if answer.code != 0:
            raise ExecutorError(
                f"squeue failed, so what became of jobs is not known. It said: {answer.words}"
            )
        return rows_of(answer.out)

    def delete_ids(self, ids: Sequence[str]) -> list[str]:
        """Return the scancel command."""
        return ["scancel", *ids]

    def was_gone(self, answer: Answer) -> bool:
        """Return whether there was nothing left to cancel."""
        lines = [line for line in answer.err.splitlines() if "error" in line]
        return bool(lines) and all("Invalid job id" in line or "already completed" in line for line in lines)

    def task_ids(self, cluster_id: str, tasks: Sequence[int]) -> list[str]:
        """Return ``21_[3-5,7]``, in pieces that scancel reads."""
        job, array, _ = cluster_id.partition("_")
        if not array:
            return [job]
        parts = ranges(tasks).split(",")
        return [f"{job}_[{','.join(parts[start : start + 100])}]" for start in range(0, len(parts), 100)]

    def causes(self, cluster_id: str, tasks: Mapping[int, Row | None], folder: str) -> dict[int, Cause]:
        """Return what the queue, the task's log and, where both are silent, the accounting say."""
        found: dict[int, Cause] = {}
        for task, row in tasks.items():
            log = _log_words(f"{folder}/{task}.log")
            reason = _REASONS.get(row.word.split()[0]) if row and row.word else None
            reason = reason or next((why for pattern, why in _WORDS if pattern.search(log)), None)
            if reason is None and row is None:
                continue
            said = f"{row.word} ({row.reason})" if row else ""
            if row and row.reason == "JobLaunchFailure":
                reason = "never started"
            found[task] = Cause(reason, words=" ".join(filter(None, [said, log])))
        token = os.path.basename(folder)
        unknown = [task for task in tasks if task not in found]
        if unknown:
            found |= self._accounted(cluster_id, unknown, token)
        silent = {
            task: cause
            for task, cause in found.items()
            if cause.reason in {None, "never started"} and cause.code is None and cause.signal is None
        }
        return {**found, **(self._remembered(cluster_id, silent, token) if silent else {})}

    def _remembered(self, cluster_id: str, silent: Mapping[int, Cause], token: str) -> dict[int, Cause]:
        """Add the exit codes of tasks that ended by themselves, as long as Slurm remembers them."""
        command = ["scontrol", "--oneliner", "show", "job", self.job_of(cluster_id)]
        try:
            answer = run_command(command, self.timeout)
        except ExecutorError:
            return {}
        found: dict[int, Cause] = {}
        for task, code, signal in remembered(answer.out, token):
            for one in silent if task is None else {task} & set(silent):
                # A signal that there is not, such as 53, stands for what Slurm could not do.
                if 0 < signal < _SIGNALS:
                    found[one] = silent[one]._replace(reason=None, signal=signal)
                elif not signal and silent[one].reason is None:
                    found[one] = silent[one]._replace(code=code)
        return found

    def _accounted(self, cluster_id: str, tasks: Sequence[int], token: str) -> dict[int, Cause]:
        job = self.job_of(cluster_id)
        command = [
            "sacct",
            "--parsable2",
            "--noheader",
            f"--jobs={job}",
            # The last record alone may be of another job that was given its id.
            "--duplicates",
            "--format=JobID,State,ExitCode,MaxRSS,JobName",
        ]
        try:
            answer = run_command(command, self.timeout)
        except ExecutorError:
            return {}
        return accounted(answer.out, set(tasks), token) if answer.code == 0 else {}

    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return the fields of ``scontrol show job`` for one task; empty if Slurm no longer knows it."""
        answer = run_command(["scontrol", "--oneliner", "show", "job", cluster_id], self.timeout)
        return dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", answer.out)) if answer.code == 0 else {}


def rows_of(printed: str) -> list[Row]:
    r"""Return what squeue printed, of arrays the tasks in the same state together.

    Examples
    --------
    >>> rows_of("14|3-9%3|PENDING|JobArrayTaskLimit|a.f00\n20|N/A|RUNNING|None|b.f01\n")[0]
    Row(job='14', tasks='3-9', kind=<Kind.WAITS: 'waits'>, word='PENDING', reason='JobArrayTaskLimit', name='a.f00')
    """
    rows = []
    for line in printed.splitlines():
        fields = line.split("|", 4)
        if len(fields) < 5 or not fields[0].isdecimal():  # noqa: PLR2004 - the rest of a name of somebody else's
            continue
        job, tasks, word, reason, name = fields
        numbers = "" if tasks == "N/A" else tasks.partition("%")[0]
        rows.append(Row(job, numbers, _KINDS.get(word, Kind.ENDED), word, reason, name))
    return rows


def remembered(printed: str, token: str = "") -> list[tuple[int | None, int, int]]:
    r"""Return the task (None: it is no array), exit code and signal of what scontrol says has ended by itself.

    Parameters
    ----------
    token : str
        What the name of the job ends in; its id may be another job's by now.

    Examples
    --------
    >>> remembered("JobId=23 ArrayJobId=21 ArrayTaskId=3 JobState=FAILED Reason=None ExitCode=0:9 RunTime=00:00:01\n")
    [(3, 0, 9)]
    """
    found: list[tuple[int | None, int, int]] = []
    for line in printed.splitlines():
        state = re.search(r"\bJobState=(\w+)", line)
        ended = re.search(r"\sExitCode=([0-9]+):([0-9]+)", line)
        task = re.search(r"\sArrayTaskId=(\S+)", line)
        single = task is None or task[1].isdecimal()
        name = re.search(r"\sJobName=(\S*)", line)
        if token and not (name and name[1].endswith(f".{token}")):
            continue
        if state and ended and single and state[1] in {"FAILED", "COMPLETED"}:
            found.append((int(task[1]) if task else None, int(ended[1]), int(ended[2])))
    return found


def accounted(printed: str, tasks: set[int], token: str = "") -> dict[int, Cause]:
    r"""Return what sacct printed of some tasks.

    Parameters
    ----------
    token : str
        What the name of the job ends in; the accounting knows others that had its id.

    Examples
    --------
    >>> accounted("21_3|TIMEOUT|0:0|\n21_3.batch|CANCELLED|0:15|3308K\n", {3})[3].reason
    'time limit'
    """
    found: dict[int, Cause] = {}
    rss: dict[int, int] = {}
    ours = False
    for line in printed.splitlines():
        known_as, state, ended, size, name = (*line.split("|", 4), *[""] * 4)[:5]
        match = re.fullmatch(r"[0-9]+(?:_(?:\[?([0-9,%-]+)\]?))?(\.\w+)?", known_as)
        if match is None:
            continue
        # A job comes before its steps, and what was started again is there once more.
        ours = ours if match[2] else not token or name.endswith(f".{token}")
        if not ours:
            continue
        numbers = tasks if match[1] is None else tasks.intersection(expanded(match[1].partition("%")[0]))
        for task in numbers:
            if match[2]:
                if peak := re.fullmatch(r"([0-9.]+)([KMGT]?)", size):
                    scale = 1024 ** " KMGT".index(peak[2] or " ")
                    rss[task] = max(rss.get(task, 0), int(float(peak[1]) * scale))
                continue
            word = state.split(maxsplit=1)[0] if state.strip() else ""
            code, _, number = ended.partition(":")
            if word in _KINDS or not code.isdecimal() or not number.isdecimal():
                found.pop(task, None)
                continue
            signal = int(number) if word == "FAILED" and number != "0" else None
            found[task] = Cause(
                _REASONS.get(word),
                int(code) if word in {"FAILED", "COMPLETED"} and signal is None else None,
                signal,
                words=f"sacct: {state} {ended}",
            )
    return {task: cause._replace(max_rss=rss.get(task)) for task, cause in found.items()}


def _time(seconds: float) -> str:
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02}:{minute:02}:{second:02}"


def _log_words(path: str) -> str:
    """Return the lines that the scheduler's daemon wrote at the end of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return " ".join(line.strip() for line in text.splitlines() if re.match(r"slurmstepd|srun|sbatch", line))
