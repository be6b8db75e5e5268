r"""The script that a scheduler starts for each task: POSIX sh, and nothing else is needed on the node.

It is one short script for all tasks; what differs between them is in the file ``tasks`` beside it, a line for
each. A line is shell with ``\`` and newline written as ``printf %b`` reads them, so a task finds its own without
reading the others as code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from paraschut.executors import script
from paraschut.executors.base import Submission

TASKS = "tasks"
#: A word of a line for the scheduler, as it is written there: with its quotes, of which one may be alone.
_WORD = re.compile(r"""(?:[^\s"']+|"[^"]*"|'[^']*'|["'])+""")


def write(submission: Submission, executor: str, directives: Iterable[str], find_task: str) -> str:
    """Write the files of a submission; return the path of the script.

    Parameters
    ----------
    executor : str
        The name of the executor, which jobs ask about themselves.
    directives : Iterable[str]
        Lines for the scheduler.
    find_task : str
        The shell that sets ``paraschut_task_number`` and ``paraschut_known_as``.

    Raises
    ------
    OSError
        If they cannot be written.
    SubmitError
        If something in a task cannot be said to a process.
    """
    folder = os.path.abspath(submission.folder)
    head, blocks = script.parts_of(replace(submission, folder=folder), _FUNCTIONS)
    tasks = script.encoded(submission.tasks, [_one_line(block) for block in blocks])
    os.makedirs(folder, mode=0o700, exist_ok=True)
    script.write_beside(os.path.join(folder, TASKS), tasks)
    prologue = "\n".join(["paraschut_prologue() {", "set +u", *submission.prologue, "}"])
    first = submission.tasks[0].number
    warned = "" if submission.warned_after is None else math.floor(submission.warned_after)
    text = (
        "\n".join(["#!/bin/sh", *directives, "# Written by paraschut", "set +e -u", prologue]).encode(
            "utf-8", "surrogateescape"
        )
        + b"\n"
        + head
        + f"{find_task}\nparaschut_first={first}\nparaschut_warned_after={warned}\nexport PARASCHUT_EXECUTOR={executor}\n{_MAIN}".encode()
    )
    path = os.path.join(folder, script.SCRIPT)
    # The scheduler takes a copy of it at once.
    script.write_beside(path, text, 0o700, sync=False)
    return path


def _one_line(block: str) -> str:
    return block.replace("\\", "\\0134").replace("\n", "\\n") + "\n"


def directives_of(
    path: str, prefix: str, ours: Iterable[str], *, joined: bool = True, anywhere: bool = False
) -> tuple[str, ...]:
    """Return the lines of a user's script that are for the scheduler, without the options that are ours to say.

    Parameters
    ----------
    prefix : str
        What they begin with, such as ``#SBATCH``.
    ours, joined
        As for ``picked``: names of logs, of arrays.
    anywhere : bool
        Whether they also count behind the first command.
    """
    found = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                text = line.strip()
                if text.startswith(prefix) and text[len(prefix) : len(prefix) + 1] in {" ", "\t", "-"}:
                    words = _WORD.findall(text[len(prefix) :])
                    mine, others = picked(words, ours, joined=joined)
                    if others:
                        found.append(text if not mine else f"{prefix} {' '.join(others)}")
                elif text and not text.startswith("#") and not anywhere:
                    break
    except OSError:
        return ()
    return tuple(found)


def picked(
    words: Sequence[str], wanted: Iterable[str], *, joined: bool = True
) -> tuple[list[str], list[str]]:
    """Return those of some options that are wanted, with their values, and the others.

    Parameters
    ----------
    wanted : Iterable[str]
        The options; a colon behind one says that it has a value.
    joined : bool
        Whether ``-a1`` is ``-a 1``, as in most programs; in others ``-a1`` is an option of that name.

    Examples
    --------
    >>> picked(["-n", "2", "--array=1-3", "-a", "1", "-H", "-a7"], ["--array:", "-a:"])
    (['--array=1-3', '-a', '1', '-a7'], ['-n', '2', '-H'])
    """
    has_value = {name.rstrip(":"): name.endswith(":") for name in wanted}
    found: tuple[list[str], list[str]] = [], []
    which, value_next = 1, False
    for word in words:
        if value_next:
            value_next = False
        else:
            name, equals, _ = word.partition("=")
            if name.startswith("--"):  # may be shortened
                name = next((one for one in has_value if len(name) > 2 and one.startswith(name)), "")  # noqa: PLR2004
                value_next = has_value.get(name, False) and not equals
            elif word in has_value:
                name, value_next = word, has_value[word]
            else:
                name = word[:2] if joined and has_value.get(word[:2]) else ""
            which = 0 if name in has_value else 1
        found[which].append(word)
    return found


#: Beyond the shared functions: what a task is told, and what can be known of its memory.
_FUNCTIONS = r"""
# TASK LABEL WORKDIR STDOUT STDERR: runs a task, if nobody has the right to.
paraschut_task() {
    paraschut_before_memory
    paraschut_warner=
    if [ -n "$paraschut_warned_after" ]; then
        paraschut_warn 3>&- &
        paraschut_warner=$!
    fi
    paraschut_attempt "$@"
    paraschut_result=$?
    [ -z "$paraschut_warner" ] || kill -s TERM "$paraschut_warner" 2> /dev/null
    case $paraschut_result in
        0) paraschut_code=0 ;;
        1) ;;
        2)
            # Too late: it was taken back, or another start of it runs. That this one was refused is written down.
            printf 'paraschut: job %s was not run: it was taken back, or runs elsewhere.\n' "$2" >&2
            ln -s "$paraschut_id" "$paraschut_folder/$1.refused.$paraschut_pid" 2> /dev/null
            paraschut_code=0
            ;;
        *)
            printf 'paraschut: job %s was not run: %s cannot be written.\n' "$2" "$paraschut_folder" >&2
            paraschut_code=1
            ;;
    esac
}

# Tells the job, some time before its limit, that it will be over: the signal harms nobody who does not listen.
paraschut_warn() {
    trap 'kill "$paraschut_sleep" 2> /dev/null; exit 0' TERM
    sleep "$paraschut_warned_after" > /dev/null 2>&1 &
    paraschut_sleep=$!
    wait "$paraschut_sleep"
    for paraschut_one in $(paraschut_below "$$"); do
        kill -s URG "$paraschut_one" 2> /dev/null
    done
}

# Sets where the kernel counts the memory of this job, if it does so for each job.
paraschut_memory=
paraschut_before_memory() {
    [ -r /proc/self/cgroup ] || return 0
    while IFS=: read -r paraschut_x paraschut_kind paraschut_path; do
        case $paraschut_path in
            *slurm* | *pbs* | *sge* | *uge*) ;;
            *) continue ;;
        esac
        case $paraschut_kind in
            memory) paraschut_memory=/sys/fs/cgroup/memory$paraschut_path ;;
            '') [ -n "$paraschut_memory" ] || paraschut_memory=/sys/fs/cgroup$paraschut_path ;;
        esac
    done < /proc/self/cgroup
}
# Sets what it says at the end: the peak in bytes, and how many processes were killed for want of memory.
paraschut_before=paraschut_prologue paraschut_after=paraschut_after_memory
paraschut_after_memory() {
    # To be told to end and to exit 0 is not to be done.
    [ -z "$paraschut_told" ] || [ "$paraschut_code" -ne 0 ] || paraschut_code=$paraschut_told
    paraschut_used= paraschut_peak= paraschut_kills=0
    [ -n "$paraschut_memory" ] || return 0
    for paraschut_file in memory.max_usage_in_bytes memory.peak; do
        if [ -r "$paraschut_memory/$paraschut_file" ]; then
            read -r paraschut_peak < "$paraschut_memory/$paraschut_file"
        fi
    done
    for paraschut_file in memory.oom_control memory.events; do
        if [ -r "$paraschut_memory/$paraschut_file" ]; then
            while read -r paraschut_x paraschut_y; do
                [ "$paraschut_x" != oom_kill ] || paraschut_kills=$paraschut_y
            done < "$paraschut_memory/$paraschut_file"
        fi
    done
    [ -z "$paraschut_peak" ] || paraschut_used=" $paraschut_peak $paraschut_kills"
}
"""

_MAIN = r"""
: "${PATH:=/usr/local/bin:/usr/bin:/bin}"
export PATH
paraschut_restarts=1
paraschut_code=1
if [ ! -r "$paraschut_folder/tasks" ]; then
    # All of it was taken back, or ended, and its folder is gone.
    printf 'paraschut: nothing was run: there is no %s\n' "$paraschut_folder/tasks" >&2
    exit 0
fi
paraschut_line=$(LC_ALL=C sed -n "$((paraschut_task_number - paraschut_first + 1)){p;q;}" "$paraschut_folder/tasks")
paraschut_line=$(printf '%b.' "$paraschut_line")
eval "${paraschut_line%.}"
# To Grid Engine, 99 and 100 ask for another start and for a stop.
case $paraschut_code in
    99 | 100) exit 1 ;;
    *) exit "$paraschut_code" ;;
esac
"""
