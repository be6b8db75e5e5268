"""PBS (OpenPBS, PBS Pro): qsub, qstat, qselect, qdel."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from paraschut.errors import ExecutorError, SubmitError
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.executors.queue import Kind, Row, ranges
from paraschut.executors.run import Answer, run_command, user_name
from paraschut.executors.scheduler import Cause, TooManyError, UnreachableError, begin_option, words
from paraschut.resources import GENERIC, needs_of

_TOO_MANY = re.compile(
    r"exceeds server or queue size limit|would exceed|maximum number of jobs|limit on number of jobs|"
    r"violates queue and/or server resource limits.*(jobs|run|queued)",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"connection refused|cannot connect to server|couldn't connect|unknown host", re.IGNORECASE
)
_UNCLEAR = re.compile(
    r"timed out|end of file|premature|communication|cannot read|batch protocol", re.IGNORECASE
)
_KINDS = {
    **dict.fromkeys("QHWTM", Kind.WAITS),
    **dict.fromkeys("RSUB", Kind.RUNS),
    "E": Kind.ENDS,
}
#: Ids that are asked for by name: each costs a connection from a privileged port, of which there are a few hundred.
_FEW = 50
#: What ``Exit_status`` means below zero (JOB_EXEC_* in job.h of OpenPBS), and ``substate`` of a job that was deleted.
_PBS_ITSELF = {
    **dict.fromkeys([-29, -28], "time limit"),
    **dict.fromkeys([-31, -27, -26], "out of memory"),
    **dict.fromkeys([-32, -14, -6, -5, -4], "node failure"),
    **dict.fromkeys([-10, -3, -2, -1], "never started"),
}
_DELETED = 91
#: Resources of a chunk: PBS takes them nowhere else, once a job asks for chunks or says how to place them.
_OF_CHUNKS = words("ncpus mem vmem ngpus mpiprocs ompthreads arch host vnode")
_BY_SIGNAL, _BY_SIGNAL_DIRECTLY = 128, 256
_SUBJOB = re.compile(r"([0-9]+)\[([0-9]*)\](.*)", re.DOTALL)


class PBSJobExecutor(ClusterJobExecutor):
    """Runs jobs through PBS, those that ask for the same as one job array.

    Parameters
    ----------
    queue : str | None
        The queue of jobs that name none.
    resources : Mapping | None
        What jobs ask for that do not say otherwise, such as ``{"mem": "4gb", "walltime": "2h"}``.
    options : Sequence[str]
        More flags of ``qsub``, such as ``["-A", "lab"]``.

    Notes
    -----
    Of a job's resources, ``cpus`` becomes ``-l ncpus``, ``mem`` ``-l mem``, ``walltime`` ``-l walltime``, ``gpus``
    ``-l ngpus``; with several ``nodes``, or ``place``, all of these but the walltime go into ``-l select``. Other keys
    are resources of ``-l``, as they are: ``pmem``, ``cput``, ``place`` … Lines that begin with ``#PBS`` before the first command of
    a script are honoured; flags win over them.

    Built on what OpenPBS 23.06 was seen to print, and on a program that prints the same.

    Examples
    --------
    >>> PBSJobExecutor(queue="workq")
    PBSJobExecutor(queue='workq')
    """

    name: ClassVar[str] = "pbs"
    begins: ClassVar[bool] = True
    commands: ClassVar[tuple[str, ...]] = ("qsub", "qstat", "qdel")
    prefix: ClassVar[str] = "#PBS"
    ours: ClassVar[frozenset[str]] = words("-J: -o: -e: -j: -k: -N: -V -v: -I -X -z -S: -C:")
    account_flags: ClassVar[frozenset[str]] = words("-A: -P: -q:")
    restart_flags: ClassVar[frozenset[str]] = words("-r:")
    name_flags: ClassVar[frozenset[str]] = words("-N:")
    find_task: ClassVar[str] = (
        "paraschut_task_number=${PBS_ARRAY_INDEX-0} paraschut_known_as=${PBS_JOBID-unknown}"
    )

    def resource_flags(self, queue: str | None, resources: Mapping[str, Any]) -> list[str]:
        """Return the flags of qsub for a queue and resources."""
        needs = needs_of(resources)
        flags = ["-q", queue] if queue else []
        chunk = []
        if needs.cpus > 1 or needs.nodes > 1:
            chunk.append(f"ncpus={needs.cpus}")
        if needs.mem:
            chunk.append(f"mem={math.ceil(needs.mem / 1024)}kb")
        if needs.gpus:
            chunk.append(f"ngpus={needs.gpus}")
        others = {key: value for key, value in resources.items() if key not in GENERIC and value is not False}
        if "select" in others:
            asked = []  # who writes that knows better; PBS takes no second way of asking beside it
        elif needs.nodes > 1 or "place" in others:
            chunk += [f"{key}={others.pop(key)}" for key in sorted(_OF_CHUNKS & others.keys())]
            asked = [f"select={':'.join([str(needs.nodes), *chunk])}"]
        else:
            asked = chunk
        if needs.walltime:
            seconds = math.ceil(needs.walltime)
            asked.append(f"walltime={seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}")
        for key, value in others.items():
            if not re.fullmatch(r"\w[\w.-]*", key):
                self.refuse_key(key, "the resources of '-l', such as pmem or select")
            asked.append(f"{key}={value}")
        # One flag for each: a comma may be part of a value.
        return [*flags, *(word for one in asked for word in ("-l", one))]

    def ignored(self, job: Mapping[str, Any]) -> list[str]:
        """Return nothing: each key is a resource."""
        del job
        return []

    def submit_command(self, path: str, name: str, log: str, tasks: range | None) -> list[str]:
        """Return the qsub command; what it asks for is not changed by the umask of PBS's own."""
        del path
        file = f"{log}/{'0' if tasks is None else '^array_index^'}.log"
        array = ["-r", "n"] if tasks is None else ["-J", f"{tasks.start}-{tasks.stop - 1}"]
        return ["qsub", "-N", name, "-S", "/bin/sh", "-j", "oe", "-o", file, "-W", "umask=022", *array]

    def begin_flags(self, at: float) -> list[str]:
        """Return ``-a``, in the time of this machine."""
        return begin_option(at)

    def closer_command(self, path: str, name: str, after: Sequence[str]) -> list[str]:
        """Return the qsub command of a closer."""
        del path
        return [
            *("qsub", "-N", name, "-S", "/bin/sh", "-j", "oe", "-o", "/dev/null"),
            *(("-W", f"depend=afterany:{':'.join(after)}") if after else ()),
        ]

    def will_start(self, row: Row | None, *, held: bool) -> bool:
        """Return whether a closer starts by itself: if what it waits for was deleted before it started, PBS holds it for ever."""
        return super().will_start(row, held=held) and row is not None and (held or row.word != "H")

    def id_of(self, printed: str, *, array: bool) -> str:
        """Return the id: ``123[#].host`` for an array, of which qsub prints ``123[].host``."""
        found = re.findall(r"^([0-9]+(?:\[\])?(?:\.\S+)?)$", printed.strip(), re.MULTILINE)
        if not found or ("[]" in found[-1]) is not array:
            raise ValueError(printed)
        return str(found[-1]).replace("[]", "[#]")

    def refusal(self, answer: Answer) -> type[ExecutorError]:
        """Return what a failed qsub means."""
        if _TOO_MANY.search(answer.err):
            return TooManyError
        if _UNREACHABLE.search(answer.err):
            return UnreachableError
        return ExecutorError if _UNCLEAR.search(answer.err) or not answer.err.strip() else SubmitError

    def job_of(self, cluster_id: str) -> str:
        """Return ``123[].host`` from ``123[#].host`` or ``123[4].host``."""
        return re.sub(r"\[[0-9#]*\]", "[]", cluster_id)

    def pattern_of(self, task_id: str) -> str:
        """Return ``123[#].host`` from ``123[4].host``."""
        return re.sub(r"\[[0-9]*\]", "[#]", task_id)

    def most(self) -> int:
        """Return how many subjobs an array may have: the server says so."""
        return self.most_of(["qstat", "-Bf"], r"max_array_size\s*=\s*([0-9]+)")

    def ask(self) -> list[Row]:
        """Ask for this user's jobs: their ids first, because the long answer has everybody's."""
        mine = run_command(["qselect", "-u", user_name()], self.timeout)
        if mine.code != 0:
            raise ExecutorError(f"qselect failed, so what became of jobs is not known. It said: {mine.words}")
        ids = mine.out.split()
        if not ids:
            return []
        known = self._known(["-t"], ids if len(ids) <= _FEW else [])
        wanted = set(ids)
        return [row for row in rows_of(known) if row.job in wanted]

    def _known(self, flags: Sequence[str], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the attributes of jobs by id; asked once more as text where the JSON is none."""
        answer = run_command(["qstat", *flags, "-f", "-F", "json", *ids], self.timeout)
        try:
            jobs = json.loads(answer.out).get("Jobs", {})
        except ValueError:
            answer = run_command(["qstat", *flags, "-f", "-w", *ids], self.timeout)
            jobs = _from_text(answer.out)
        # One of many ids that has ended meanwhile is an error, and the others are there all the same.
        if answer.code != 0 and not jobs and not re.search("Unknown Job Id|has finished", answer.err):
            raise ExecutorError(f"qstat failed, so what became of jobs is not known. It said: {answer.words}")
        return dict(jobs)

    def delete_ids(self, ids: Sequence[str]) -> list[str]:
        """Return the qdel command."""
        return ["qdel", *ids]

    def was_gone(self, answer: Answer) -> bool:
        """Return whether the only complaints are of jobs that have ended."""
        lines = [line for line in answer.err.splitlines() if line.strip()]
        fine = re.compile(
            "Unknown Job Id|has finished|invalid for finished|Request invalid for state", re.IGNORECASE
        )
        return bool(lines) and all(fine.search(line) for line in lines)

    def task_ids(self, cluster_id: str, tasks: Sequence[int]) -> list[str]:
        """Return ``123[3-5].host`` and ``123[7].host``."""
        if "[#]" not in cluster_id:
            return [cluster_id]
        return [cluster_id.replace("#", part) for part in ranges(tasks).split(",")]

    def causes(self, cluster_id: str, tasks: Mapping[int, Row | None], folder: str) -> dict[int, Cause]:
        """Return what the server's history and the task's log say."""
        token = os.path.basename(folder)
        job = self.job_of(cluster_id)
        array = job != cluster_id
        try:
            known = self._known(["-x", "-t"] if array else ["-x"], [job])
        except ExecutorError:
            known = {}
        found: dict[int, Cause] = {}
        for task in tasks:
            fields = known.get(cluster_id.replace("#", str(task)))
            if fields and not str(fields.get("Job_Name", "")).endswith(f".{token}"):
                fields = None  # the id is another job's by now
            log = _log_words(f"{folder}/{task}.log")
            cause = _cause(fields) if fields else Cause()
            if re.search("walltime|cput", log):
                cause = Cause("time limit")
            elif re.search(r"\bp?v?mem\b", log):
                cause = Cause("out of memory")
            elif not fields:
                continue
            said = f"{fields.get('comment', '')} (Exit_status {fields.get('Exit_status')})" if fields else ""
            found[task] = cause._replace(
                words=" ".join(filter(None, [said, log])), max_rss=_rss(fields or {})
            )
        return found

    def qstat(self, cluster_id: str) -> dict[str, Any]:
        """Return the attributes of a job; empty if PBS no longer knows it."""
        return next(iter(self._known(["-x"], [cluster_id]).values()), {})


def rows_of(known: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Yield what qstat knows, subjobs one by one.

    Examples
    --------
    >>> list(rows_of({"7[].h": {"job_state": "B"}, "7[2].h": {"job_state": "X", "Job_Name": "a.f00"}}))
    [Row(job='7[].h', tasks='2', kind=<Kind.ENDED: 'ended'>, word='X', reason='', name='a.f00')]
    """
    arrays = {match[1] for key in known if (match := _SUBJOB.fullmatch(key)) and match[2]}
    for key, fields in known.items():
        match = _SUBJOB.fullmatch(key)
        if match and not match[2] and match[1] in arrays:
            continue  # its subjobs say more
        word = str(fields.get("job_state", ""))
        yield Row(
            job=f"{match[1]}[]{match[3]}" if match else key,
            tasks=(match[2] or str(fields.get("array_indices_remaining", ""))) if match else "",
            kind=_KINDS.get(word, Kind.ENDED),
            word=word,
            reason=str(fields.get("comment", "")),
            name=str(fields.get("Job_Name", "")),
        )


def _from_text(printed: str) -> dict[str, dict[str, Any]]:
    """Return what ``qstat -f -w`` printed."""
    known: dict[str, dict[str, Any]] = {}
    for block in re.split(r"^Job Id:\s*", printed, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition("\n")
        fields: dict[str, Any] = dict(re.findall(r"^    (\w[\w.]*) = (.*)$", rest, re.MULTILINE))
        for number in ("Exit_status", "substate"):
            if number in fields:
                fields[number] = int(fields[number])
        known[name.strip()] = fields
    return known


def _cause(fields: Mapping[str, Any]) -> Cause:
    status, substate = fields.get("Exit_status"), fields.get("substate")
    if status in _PBS_ITSELF:
        return Cause(_PBS_ITSELF[status])
    if substate == _DELETED:
        return Cause("cancelled")
    if not isinstance(status, int):
        return Cause("never started")
    if status > _BY_SIGNAL_DIRECTLY:
        return Cause(signal=status - _BY_SIGNAL_DIRECTLY)
    if status > _BY_SIGNAL:
        return Cause(signal=status - _BY_SIGNAL)
    return Cause(code=status) if status >= 0 else Cause()


def _rss(fields: Mapping[str, Any]) -> int | None:
    used = fields.get("resources_used")
    match = (
        re.fullmatch(r"([0-9]+)([kmg]?)b", str(used.get("mem", ""))) if isinstance(used, Mapping) else None
    )
    size = int(match[1]) * 1024 ** " kmg".index(match[2] or " ") if match else 0
    return size or None


def _log_words(path: str) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20).decode(errors="replace")
    except OSError:
        return ""
    return " ".join(line.strip() for line in text.splitlines() if line.startswith("=>> PBS:"))
