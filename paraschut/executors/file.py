"""Jobs as a shell script that a person runs by hand, where there is no scheduler and no agent."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar

from paraschut.errors import ExecutorError, SubmitError
from paraschut.executors import script, traces
from paraschut.executors.base import Evidence, JobExecutor, Mark, Submission
from paraschut.process import Identity, host_name, is_alive
from paraschut.progress import MANY_TASKS, shown

if TYPE_CHECKING:
    import psutil

#: Seconds that processes have to end by themselves before they are killed.
GRACE = 5.0
_SIGNED = b"# Written by paraschut"
#: The first words of a submission's script, before the path of the script that is to run it.
_QUEUE = b"# Written by paraschut, for "
#: Tells jobs which script runs them, so that what they submit goes there.
_VARIABLE = "PARASCHUT_JOBS_SCRIPT"


class FileJobExecutor(JobExecutor):
    """Writes a shell script, which runs the jobs one after the other when somebody runs it.

    The script goes on with what is submitted while it runs, also by its own jobs, and ends when nothing is left.
    It may be run as often as one likes, also twice at once: each job is started once. Ctrl-C ends the current
    job and stops; running the script again goes on with the next one.

    Parameters
    ----------
    path : str | os.PathLike[str] | None
        The script; by default ``jobs.sh`` beside the index.
    queue, resources, options
        For schedulers; ignored here.

    Notes
    -----
    Any POSIX shell runs it. What jobs ask for (``cpus``, ``mem``, ``walltime``, a queue, options) is neither
    waited for nor enforced. Beside the script lies ``<path>.queue``, which names what it is to run.

    Examples
    --------
    >>> FileJobExecutor("/data/night.sh")
    FileJobExecutor('/data/night.sh')
    """

    name: ClassVar[str] = "file"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        queue: str | None = None,
        resources: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(queue, resources, options)
        self.path = None if path is None else os.path.abspath(os.fspath(path))

    def defaults(self) -> dict[str, Any]:
        """Return what this one was given."""
        return {**super().defaults(), **({} if self.path is None else {"path": self.path})}

    def __repr__(self) -> str:
        return f"FileJobExecutor({'' if self.path is None else repr(self.path)})"

    def submit(self, submission: Submission) -> str:
        """Append the jobs to what the script runs; return the submission's token, its id here."""
        path = self._script_of(submission.index)
        folder = os.path.abspath(submission.folder)
        target = os.path.join(folder, script.SCRIPT)
        env = {**submission.env, _VARIABLE: path}
        text = script.script_text(replace(submission, folder=folder, env=env), _FUNCTIONS)
        try:
            _write_runner(path)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            script.write_beside(target, _QUEUE + _one_line(path) + b"\n" + text)
            _append(path, target)
        except OSError as error:
            # Even if the line reached the queue: without this file it does nothing.
            with suppress(OSError):
                os.unlink(target)
            with suppress(OSError):
                os.rmdir(folder)
            raise SubmitError(
                f"{error.filename or path} could not be written ({error.strerror}), so nothing was submitted. Make "
                f"room there, or give FileJobExecutor(path=...) a file in a folder that you may write to."
            ) from error
        return submission.token

    def _script_of(self, index: str) -> str:
        if self.path is not None:
            return self.path
        if os.environ.get("PARASCHUT_INDEX") == index and _VARIABLE in os.environ:
            return os.environ[_VARIABLE]
        return os.path.join(os.path.dirname(os.path.abspath(index)), "jobs.sh")

    def find(self, submission: Submission) -> str | None:
        """Return the token if the submission's script was written, and see to it that it will be run."""
        target = os.path.join(os.path.abspath(submission.folder), script.SCRIPT)
        try:
            try:
                with open(target, "rb") as file:
                    first = file.readline()
            except FileNotFoundError:
                return None
            # Whether its owner still appended the line does not matter: a second one starts nothing again.
            _append(_from_line(first.removeprefix(_QUEUE)), target)
        except OSError as error:
            raise ExecutorError(
                f"{error.filename or target} cannot be used ({error.strerror}), so it is not known whether these "
                f"jobs were submitted. Try again when it can."
            ) from error
        return submission.token

    def delete(self, submission: Submission, tasks: Sequence[int]) -> Collection[int]:
        """See to it that tasks do not start, and end those that run on this machine, with all their processes.

        Returns those that have ended or can never start; what runs on another machine goes on.
        """
        folder = submission.folder
        ended = self.evidence(folder).exits
        holder = traces.reset_holder()
        try:
            open_ones = [task for task in tasks if task not in ended]
            started = [
                task
                for task in shown(open_ones, "taking back", many=MANY_TASKS)
                if not traces.take_mark(folder, task, holder)
            ]
        except OSError as error:
            raise ExecutorError(
                f"{folder} could not be written ({error.strerror}), so jobs in it may still start. Make room there "
                f"and delete them again."
            ) from error
        found = self.evidence(folder)
        if started:
            _end_processes([mark for task in started if (mark := found.marks.get(task)) and mark.alive])
            found = self.evidence(folder)
        return {
            task
            for task in tasks
            if task in found.exits or task not in found.marks or found.marks[task].alive is False
        }

    def evidence(self, folder: str) -> Evidence:
        """Return what a submission's folder tells about its tasks.

        Raises
        ------
        ExecutorError
            If the folder cannot be read, which says nothing about its tasks.
        """
        try:
            found = traces.gather(folder)
        except OSError as error:
            raise ExecutorError(
                f"{folder} cannot be read ({error.strerror}), so it is not known what became of its jobs. Try again "
                f"when it can."
            ) from error
        exits = dict(found.exits)
        marks = {}
        for task, (text, at) in found.marks.items():
            holder = traces.parse_mark(text)
            alive = False if task in exits else _alive(holder, at)
            # What ended between the listing and the look at its process has left its words meanwhile.
            if alive is False and task not in exits and (end := traces.read_exit(folder, task)):
                exits[task] = end
            marks[task] = Mark(task, text if holder else "unknown unknown", at, alive)
        lost = {_id(mark): task for task, mark in marks.items() if mark.alive is False and task not in exits}
        for name, _ in _marked(lost):  # runs on, although what watched over it was killed
            marks[lost[name]] = replace(marks[lost[name]], alive=True)
        return Evidence(marks, exits)

    def qstat(self, cluster_id: str) -> dict[str, Any]:  # noqa: ARG002 - there is no scheduler to ask
        """Return an empty dict: a script knows of no more than its folder tells."""
        return {}


def _one_line(path: str) -> bytes:
    return path.replace("\\", "\\\\").replace("\n", "\\n").encode("utf-8", "surrogateescape")


def _from_line(line: bytes) -> str:
    text = line.decode("utf-8", "surrogateescape").removesuffix("\n")
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


def _append(path: str, target: str) -> None:
    """Add the line that names a submission's script to the queue of the script that people run.

    It ends the line before it as well, in case a full disk cut that off. Such a half is never run, because no
    script has its name.
    """
    line = b"\n" + _one_line(target) + b"\n"
    queue = path + ".queue"
    handle = os.open(queue, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # One write: lines of processes that append at the same time are never mixed.
        if os.write(handle, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), queue)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_runner(path: str) -> None:
    content = _RUNNER.replace("@QUEUE@", quote(path + ".queue")).encode("utf-8", "surrogateescape")
    present = b""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        present = file.read()
    if present == content:
        return
    if present and _SIGNED not in present[:200]:
        raise SubmitError(
            f"{path} exists and was not written by paraschut, so nothing was submitted. Move it away, or name "
            f"another file in FileJobExecutor(path=...)."
        )
    script.write_beside(path, content, 0o700)


def _alive(holder: traces.Holder | None, at: float) -> bool | None:
    if holder is None or holder.pid is None or holder.host != host_name():
        return None
    ticks, dot, boot_id = holder.nonce.partition(".")
    if dot and ticks.isdecimal():
        return is_alive(Identity(holder.host, holder.pid, boot_id, int(ticks)))
    import psutil

    try:
        process = psutil.Process(holder.pid)
        # A mark is younger than its holder, but clocks and file systems round.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= at + 2
    except psutil.NoSuchProcess:
        return False


def _id(mark: Mark) -> str:
    return mark.holder.split(" ", 1)[0]


def _marked(ids: Collection[str]) -> list[tuple[str, psutil.Process]]:
    """Return the processes of this user that have one of these ids in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter() if ids else ():
        with suppress(psutil.Error, OSError):  # of another user, or gone
            if (name := process.environ().get("PARASCHUT_CLUSTERID", "")) in ids:
                found.append((name, process))
    return found


def _end_processes(marks: Sequence[Mark]) -> None:
    """End what runs under these marks: first kindly, then not.

    The shell that watches over a job is told to start nothing any more, and left to write down how the job ended.
    """
    import psutil

    watchers = []
    for mark in marks:
        holder = traces.parse_mark(mark.holder)
        if holder is not None and holder.pid is not None and _alive(holder, mark.at):
            with suppress(psutil.NoSuchProcess):
                watchers.append(psutil.Process(holder.pid))
    ids = {_id(mark) for mark in marks}
    _send(watchers, signal.SIGTERM)
    targets = _below(watchers, ids)
    _send(targets, signal.SIGTERM)
    _, left = psutil.wait_procs(targets, timeout=GRACE)
    left = [process for process in targets if process in left]
    for _ in range(3):  # also what was born between the look and the signal
        # Not what is below the watchers now: those are the programs that write down the end.
        _send([*left, *_below(left, ids)], signal.SIGKILL)
    _, left = psutil.wait_procs(watchers, timeout=GRACE)
    _send(left, signal.SIGKILL)


def _below(watchers: Iterable[psutil.Process], ids: Collection[str]) -> list[psutil.Process]:
    import psutil

    # Each before its children: a shell whose child ends first would go on.
    found: dict[psutil.Process, None] = {}
    for watcher in watchers:
        with suppress(psutil.NoSuchProcess):
            found.update(dict.fromkeys(watcher.children(recursive=True)))
    found.update({process: None for _, process in _marked(ids)})
    return [process for process in found if process.pid != os.getpid()]


def _send(processes: Iterable[psutil.Process], which: signal.Signals) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(which)


#: Runs what the queue names. It never changes while it is read: what grows is the queue.
_RUNNER = r"""#!/bin/sh
# Written by paraschut: runs jobs, one after the other. Run it again whenever you like: each job is started once,
# and what is submitted meanwhile is run as well. Ctrl-C ends the current job and stops.
set +e -u
paraschut_queue=@QUEUE@
paraschut_stop= paraschut_current= paraschut_ran=0 paraschut_failed=0

# Started from inside a job, it would hand that job's names to its own.
for paraschut_name in $(env | sed -n 's/^\(PARASCHUT_[A-Za-z0-9_]*\)=.*/\1/p'); do
    unset "$paraschut_name"
done

if [ ! -f "$paraschut_queue" ]; then
    printf 'paraschut: nothing was submitted: there is no %s\n' "$paraschut_queue" >&2
    exit 1
fi
# The last line may not be whole yet; read fails on it, and a later run takes it up.
while [ -z "$paraschut_stop" ] && IFS= read -r paraschut_line <&3; do
    paraschut_line=$(printf '%b.' "$paraschut_line")
    paraschut_line=${paraschut_line%.}
    case $paraschut_line in
        */script.sh) [ ! -f "$paraschut_line" ] || command . "$paraschut_line" ;;
    esac
done 3< "$paraschut_queue"

printf 'paraschut: jobs run: %s, of these ended with an error: %s\n' "$paraschut_ran" "$paraschut_failed"
case $paraschut_stop in
    '') [ "$paraschut_failed" -eq 0 ] ;;
    HUP) exit 129 ;;
    INT) exit 130 ;;
    TERM) exit 143 ;;
    *) exit 1 ;;
esac
"""

#: What a submission's script needs beyond the shared functions to run its tasks one after the other.
_FUNCTIONS = r"""
# TASK LABEL WORKDIR STDOUT STDERR: runs a task that nobody started, and waits for it.
paraschut_task() {
    if [ -n "$paraschut_stop" ] || [ -L "$paraschut_folder/$1.run.0" ] || [ ! -d "$paraschut_folder" ]; then
        return 0
    fi
    # In the background, because a shell that waits for something in its foreground hears no signals.
    paraschut_attempt "$@" 3<&- &
    paraschut_current=$!
    [ -z "$paraschut_stop" ] || paraschut_end TERM
    paraschut_status=255
    # A signal to this shell ends the waiting, not what it waits for.
    while [ "$paraschut_status" -gt 128 ] && kill -0 "$paraschut_current" 2> /dev/null; do
        wait "$paraschut_current"
        paraschut_status=$?
    done
    paraschut_current=
    case $paraschut_status in
        0) paraschut_ran=$((paraschut_ran + 1)) ;;
        2) ;;
        3) paraschut_stop=3 && printf 'paraschut: stopped: %s cannot be written\n' "$paraschut_folder" >&2 ;;
        *) paraschut_ran=$((paraschut_ran + 1)) paraschut_failed=$((paraschut_failed + 1)) ;;
    esac
}

# SIGNAL: ends what the current job runs. The shell that watches over it writes down its end.
paraschut_end() {
    [ -n "$paraschut_current" ] || return 0
    kill -s TERM "$paraschut_current" 2> /dev/null
    paraschut_pids=$(paraschut_below "$paraschut_current")
    [ -z "$paraschut_pids" ] || kill -s "$1" $paraschut_pids 2> /dev/null
}

# SIGNAL: what to do when this script gets it.
paraschut_hear() {
    if [ -n "$paraschut_stop" ]; then
        paraschut_end KILL
        return
    fi
    paraschut_stop=$1
    printf 'paraschut: ending the current job; once more to kill it.\n' >&2
    paraschut_end TERM
}
for paraschut_name in HUP INT TERM; do
    trap "paraschut_hear $paraschut_name" "$paraschut_name"
done
"""
