r"""Shell scripts that run jobs: pieces for every executor whose jobs start from one. No store, no scheduler.

What they leave behind in the submission folder, ``traces`` reads.

Values reach the shell only in single quotes, so they arrive as they are, whatever they hold.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from shlex import quote
from typing import NamedTuple

from paraschut.errors import SubmitError
from paraschut.executors.base import Submission, Task
from paraschut.progress import MANY_TASKS, shown

SCRIPT = "script.sh"

# Not the names that shells keep for themselves: to set them there fails, ends the shell or changes how it reads on.
_NAME = re.compile(
    r"(?!(BASH.*|DIRSTACK|EPOCH.*|EUID|FUNCNAME|GROUPS|HISTCMD|IFS|LINENO|OLDPWD|OPTARG|OPTIND|PPID|PWD|RANDOM"
    r"|SECONDS|SHELLOPTS|SRANDOM|UID|_)$)[A-Za-z_][A-Za-z0-9_]*"
)


class _Names(NamedTuple):
    """The names of variables, by what has to be done with them."""

    #: What the shell exports.
    settable: list[str]
    #: Those of them that are a task's own: others are the same for all tasks, or said by the call of each.
    own: list[str]
    #: What the shell cannot set, or keeps for itself.
    others: list[str]
    #: What no process can have.
    bad: list[str]


#: Thousands of tasks have the same variables, and most of their words in common.
@lru_cache(maxsize=1024)
def _sorted_out(names: tuple[str, ...]) -> _Names:
    settable = [name for name in names if _NAME.fullmatch(name)]
    return _Names(
        settable=settable,
        own=[name for name in settable if name not in _SET_BY_SCRIPT],
        others=[name for name in names if not _NAME.fullmatch(name)],
        bad=[name for name in names if not name or "=" in name],
    )


_SET_BY_SCRIPT = frozenset({"PARASCHUT_INDEX", "PARASCHUT_TOKEN", "PARASCHUT_TASK"})


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    """Return a text as a word of shell. Grid Engine takes each line that begins with ``#$`` for one of its own."""
    return quote(text).replace("\n#", "\n''#")


def exports(env: Mapping[str, str]) -> str:
    r"""Return the line of shell that exports variables; ``:``, which does nothing, if there are none.

    Names that no shell can set, or that it keeps for itself, are left to ``command_line``.

    Examples
    --------
    >>> exports({"LEVEL": "3", "TITLE": "it's\n"})
    'export LEVEL=3 TITLE=\'it\'"\'"\'s\n\''
    """
    return _export(_sorted_out(tuple(env)).settable, env)


def _export(names: list[str], env: Mapping[str, str]) -> str:
    # Most are numbers, each its own, which needs no quotes.
    words = [
        f"{name}={value if (value := env[name]).isalnum() and value.isascii() else _quoted(value)}"
        for name in names
    ]
    return f"export {' '.join(words)}" if words else ":"


def command_line(command: Iterable[str], env: Mapping[str, str]) -> str:
    """Return the line of shell that becomes the job, with those variables that the shell cannot set."""
    return _command_line(command, _sorted_out(tuple(env)).others, env)


def _command_line(command: Iterable[str], others: Iterable[str], env: Mapping[str, str]) -> str:
    return _line_of(tuple(command), tuple([f"{name}={env[name]}" for name in others]))


@lru_cache(maxsize=1024)
def _line_of(command: tuple[str, ...], others: tuple[str, ...]) -> str:
    words = [quote(word) for word in command]
    if "=" in words[0]:  # env(1) would take such a program for a variable
        words = ["/bin/sh", "-c", quote('exec "$0" "$@"'), *words]
    plain = "${paraschut_plain:-/usr/bin/env}" if others else "$paraschut_plain"
    return " ".join(["exec", plain, *map(quote, others), *words])


def task_block(task: Task, others: Mapping[str, str]) -> str:
    """Return the shell of one task: the job as a function, and the call of ``paraschut_task`` that runs it.

    Parameters
    ----------
    others : Mapping[str, str]
        The variables of the whole submission that the shell cannot set itself.

    Raises
    ------
    SubmitError
        If a variable has a name that no process can have, or there is no command.
    """
    label = f"{task.batch_id}:{task.job_index}"
    if not task.command:
        raise SubmitError(f"Job {label} has no command, so nothing was submitted; give it a script.")
    env = {**others, **task.env} if others else task.env
    names = _sorted_out(tuple(env))
    if names.bad:
        _check_names(f"Job {label}", task.env)
    return (
        f"paraschut_job() {{\n{_export(names.own, env)}\n{_command_line(task.command, names.others, env)}\n}}\n"
        f"paraschut_task {task.number} {label} {_quoted(task.workdir)} {_path(task.stdout)} {_path(task.stderr)}\n"
    )


def _path(path: str) -> str:
    """Return a path as a word of shell; the logs of thousands of tasks have one folder."""
    folder, slash, name = path.rpartition("/")
    return f"{_quoted(folder)}{slash}{quote(name)}" if slash and folder else quote(path)


def _check_names(who: str, env: Mapping[str, str]) -> None:
    if bad := _sorted_out(tuple(env)).bad:
        raise SubmitError(
            f"{who} has a variable named {bad[0]!r}, so nothing was submitted; a name is not empty and has no '='."
        )


def script_text(submission: Submission, functions: str) -> bytes:
    """Return the script that runs all tasks of a submission; the arguments are those of ``parts_of``."""
    head, blocks = parts_of(submission, functions)
    return head + encoded(submission.tasks, blocks)


def parts_of(submission: Submission, functions: str) -> tuple[bytes, list[str]]:
    """Return what the script of a submission begins with, and the shell of each task.

    Parameters
    ----------
    functions : str
        The executor's own, ``paraschut_task`` among them.

    Raises
    ------
    SubmitError
        If something in a task cannot be said to a process.
    """
    _check_names("The submitter's environment", submission.env)
    others = {name: value for name, value in submission.env.items() if not _NAME.fullmatch(name)}
    head = (
        f"paraschut_folder={_quoted(submission.folder)}\nparaschut_token={quote(submission.token)}\n"
        f"paraschut_common() {{\n{exports({**submission.env, 'PARASCHUT_INDEX': submission.index})}\n}}\n"
        f"{FUNCTIONS}{functions}"
    )
    return _encoded(head, "this submission"), [
        task_block(task, others) for task in shown(submission.tasks, "writing", many=MANY_TASKS)
    ]


def encoded(tasks: Iterable[Task], blocks: Sequence[str]) -> bytes:
    """Return the shell of tasks as it is written; raise SubmitError if it cannot be said to a process."""
    try:
        return _encoded("".join(blocks), "these jobs")
    except SubmitError:
        for task, block in zip(tasks, blocks, strict=True):
            _encoded(block, f"job {task.batch_id}:{task.job_index}")
        raise


def _encoded(text: str, whose: str) -> bytes:
    try:
        if "\0" not in text:
            return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    raise SubmitError(
        f"The command, a variable or a path of {whose} has a null character or half of a surrogate pair, which no "
        f"process can be given. Nothing was submitted; take it out."
    )


def write_beside(path: str, content: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
    """Write a file whole or not at all: beside, synced, then renamed."""
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)[:100]}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, mode)
            if sync:
                os.fsync(handle)
        os.rename(beside, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            error.filename = path
        raise


#: Needs paraschut_folder, paraschut_token, paraschut_common and paraschut_job; where a scheduler has
#: given the task an id of its own, it is in paraschut_known_as. All names begin with paraschut_: a
#: variable that came from the environment is exported, and setting it here would change it for jobs.
FUNCTIONS = r"""
paraschut_host=$(uname -n)
paraschut_boot=
if [ -r /proc/sys/kernel/random/boot_id ]; then
    read -r paraschut_boot < /proc/sys/kernel/random/boot_id
fi
# What a shell starts in the background ignores Ctrl-C; jobs shall find it as they would anywhere else.
paraschut_plain='/usr/bin/env --default-signal=INT,QUIT'
$paraschut_plain true 2> /dev/null || paraschut_plain=

# TASK: takes the right to start, or fails with 2 if another has it, 3 if it cannot be taken by anybody.
paraschut_take() {
    paraschut_pid=$(exec sh -c 'echo "$PPID"') || return 2
    paraschut_nonce=$paraschut_began
    if [ -n "$paraschut_boot" ] && [ -r "/proc/$paraschut_pid/stat" ]; then
        read -r paraschut_stat < "/proc/$paraschut_pid/stat"
        # The name of the program, in parentheses, may hold anything; words are safe to split only behind it.
        paraschut_ticks ${paraschut_stat##*") "}
    fi
    paraschut_id=${paraschut_known_as:-$paraschut_token.$1}
    paraschut_holder="$paraschut_id $paraschut_host $paraschut_pid $paraschut_nonce"
    paraschut_n=0
    while [ -L "$paraschut_folder/$1.run.$paraschut_n" ]; do
        # Where schedulers start a task again, an earlier mark under its own id is an earlier start of it.
        [ -n "${paraschut_restarts-}" ] || return 2
        case $(readlink "$paraschut_folder/$1.run.$paraschut_n") in
            "$paraschut_id "*) paraschut_n=$((paraschut_n + 1)) ;;
            *) return 2 ;;
        esac
    done
    paraschut_mark=$paraschut_folder/$1.run.$paraschut_n
    ln -s "$paraschut_holder" "$paraschut_mark" 2> /dev/null && return 0
    # Over a network, the answer to a link that was made may be lost, and asking again finds it there.
    [ "$(readlink "$paraschut_mark" 2> /dev/null)" != "$paraschut_holder" ] || return 0
    # Taken by another, or told to stop, or all that was in the folder has ended and it is gone.
    if [ -L "$paraschut_mark" ] || [ -e "$paraschut_mark" ] || [ -n "$paraschut_told" ] ||
        [ ! -d "$paraschut_folder" ]; then
        return 2
    fi
    return 3
}

# The fields of /proc/PID/stat from the third on: the 22nd is when the process started.
paraschut_ticks() {
    [ -z "${20-}" ] || paraschut_nonce=${20}.$paraschut_boot
}

# STDOUT STDERR: makes the logs, empty, and their folders.
paraschut_logs() {
    for paraschut_log in "$1" "$2"; do
        paraschut_dir=${paraschut_log%/*}
        [ -d "${paraschut_dir:-/}" ] || (umask 077 && mkdir -p "$paraschut_dir") || return
        # What an earlier start of it wrote is kept.
        if [ "$paraschut_n" -eq 0 ]; then true > "$paraschut_log"; else true >> "$paraschut_log"; fi || return
    done
}

# STDOUT STDERR: removes those logs that have nothing in them.
paraschut_tidy() {
    for paraschut_log in "$1" "$2"; do
        if [ -f "$paraschut_log" ] && [ ! -s "$paraschut_log" ]; then
            rm -f "$paraschut_log"
        fi
    done
}

# TASK WORKDIR STDOUT STDERR: becomes the job.
paraschut_become() {
    exec < /dev/null >> "$3" 2>> "$4" || exit 126
    if ! cd "$2"; then
        printf 'paraschut: the job was not run: its working directory %s cannot be entered.\n' "$2" >&2
        printf 'Make it, or give the job another workdir, and set the job back to init.\n' >&2
        exit 126
    fi
    paraschut_common
    export PARASCHUT_TOKEN="$paraschut_token" PARASCHUT_TASK="$1" PARASCHUT_CLUSTERID="$paraschut_id"
    ${paraschut_before:-:}
    paraschut_job
}

# TASK: writes down how it ended.
paraschut_write() {
    paraschut_ended=$(date +%s) || return
    printf '%s %s %s %s%s\n' "$paraschut_code" "$paraschut_began" "$paraschut_ended" "$paraschut_host" \
        "${paraschut_used-}" > "$paraschut_folder/.$1.exit" && mv -f "$paraschut_folder/.$1.exit" "$paraschut_folder/$1.exit"
}

# TASK WORKDIR STDOUT STDERR: runs the job beside this shell, which is the only one that is told to end.
paraschut_watched() {
    (paraschut_become "$@") &
    paraschut_child=$! paraschut_woken=1
    for paraschut_signal in HUP INT TERM; do
        trap "paraschut_told=143 paraschut_woken=1; kill -$paraschut_signal $paraschut_child" "$paraschut_signal"
    done
    for paraschut_signal in USR1 USR2 XCPU; do
        trap "paraschut_woken=1; kill -$paraschut_signal $paraschut_child" "$paraschut_signal"
    done
    [ -z "$paraschut_told" ] || kill -TERM "$paraschut_child"
    while [ -n "$paraschut_woken" ]; do
        paraschut_woken=
        wait "$paraschut_child"
        paraschut_now=$?
        # 127: the job was waited for already, and the signal came after that.
        [ "$paraschut_now" -eq 127 ] && [ "$paraschut_code" -ne 126 ] || paraschut_code=$paraschut_now
    done
}

# PID: prints the processes below it, each before its children: a shell whose child ends first would go on.
paraschut_below() {
    # Small systems have no ps.
    {
        ps -A -o pid= -o ppid= 2> /dev/null ||
            cat /proc/[0-9]*/status 2> /dev/null | awk '/^Pid:/ { pid = $2 } /^PPid:/ { print pid, $2 }'
    } | awk -v top="$1" '
        { parent[$1] = $2 }
        END {
            queue[last = 1] = top
            for (next_one = 1; next_one <= last; next_one++)
                for (pid in parent)
                    if (parent[pid] == queue[next_one]) queue[++last] = pid
            for (one = 2; one <= last; one++) print queue[one]
        }'
}

# TASK LABEL WORKDIR STDOUT STDERR: runs a task in this process, and writes down how it ended.
paraschut_attempt() {
    # What ends the job shall not end what writes it down; the job itself starts with the default again.
    paraschut_told=
    trap 'paraschut_told=143' HUP INT TERM
    trap : USR1 USR2 XCPU
    paraschut_began=$(date +%s) || return 2
    paraschut_take "$1" || return
    # How an earlier start of it ended says nothing any more.
    [ "$paraschut_n" -eq 0 ] || rm -f "$paraschut_folder/$1.exit"
    paraschut_code=126
    if [ -n "$paraschut_told" ]; then
        paraschut_code=$paraschut_told
    elif paraschut_logs "$4" "$5"; then
        # What the shell itself says of a job that was killed is said below.
        {
            if [ -n "${paraschut_forwards-}" ]; then
                paraschut_watched "$1" "$3" "$4" "$5"
            else
                (paraschut_become "$1" "$3" "$4" "$5")
                paraschut_code=$?
            fi
        } 2> /dev/null
    else
        printf 'paraschut: job %s was not run: its log %s cannot be written.\n' "$2" "$paraschut_log" >&2
    fi
    # From here on, the programs that are started are to be left alone. KILL may still hit one: once more then.
    trap '' HUP INT TERM USR1 USR2 XCPU
    paraschut_tidy "$4" "$5"
    [ -z "${paraschut_after-}" ] || $paraschut_after
    paraschut_write "$1" || paraschut_write "$1" ||
        printf 'paraschut: the end of job %s cannot be written to %s.\n' "$2" "$paraschut_folder" >&2
    [ "$paraschut_code" -ne 0 ] || return 0
    printf 'paraschut: job %s ended with exit code %s.\n' "$2" "$paraschut_code" >&2
    return 1
}
"""
