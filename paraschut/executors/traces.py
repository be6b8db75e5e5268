"""What tasks leave behind in a submission folder: who has taken the right to start, and how it ended.

The folder tells what became of its tasks::

    script.sh       what runs them
    7.run.0         task 7 was started; a symbolic link, whose target says by whom (the *mark*)
    7.exit          task 7 ended: exit code, start, end (epoch seconds), host

The right to start is taken by making the mark: making a link is exclusive, also on network file systems. Its
target is ``<id of the task> <host> <pid> <nonce>``; the pid is that of the shell that watches over the job, and
the nonce, where the system tells, ``<start ticks>.<boot id>`` of that process, so that it is known for all time.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import NamedTuple

from paraschut.executors.base import Exit
from paraschut.process import host_name

#: The first word of a mark that was made so that its task can never start.
RESET = "reset"
_NUMBER = re.compile(r"[0-9]{1,18}")
_FILE = re.compile(r"(0|[1-9][0-9]{0,17})\.(?:(exit)|run\.(0|[1-9][0-9]{0,17}))")
# 128 + the signal is what a shell says of a job that a signal ended; above are the job's own codes, such as 255.
_NO_SIGNAL, _LAST_SIGNAL, _LAST_CODE = 128, 128 + 64, 255


class Holder(NamedTuple):
    """Who took the right to start a task: the id of the task, and the process where that is said."""

    id: str
    host: str | None
    pid: int | None
    nonce: str


class Found(NamedTuple):
    """What lies in a submission folder: the newest mark of each started task as text and time, and the ends.

    ``restarts`` tells how often tasks were started again by their scheduler.
    """

    marks: dict[int, tuple[str, float]]
    exits: dict[int, Exit]
    restarts: dict[int, int]


def mark_name(task: int, n: int) -> str:
    """Return the name of a task's mark, from 0."""
    return f"{task}.run.{n}"


def exit_name(task: int) -> str:
    """Return the name of a task's exit file."""
    return f"{task}.exit"


def parse_mark(text: str) -> Holder | None:
    """Return who holds a mark, or None if it does not say so in the way that marks do.

    Examples
    --------
    >>> parse_mark("a1.7 node3 4711 5092.b00t")
    Holder(id='a1.7', host='node3', pid=4711, nonce='5092.b00t')
    """
    match text.split():
        case [name, nonce]:
            return Holder(name, None, None, nonce)
        case [name, host, pid, nonce] if _NUMBER.fullmatch(pid):
            return Holder(name, host, int(pid), nonce)
    return None


def parse_exit(text: str, task: int) -> Exit | None:
    r"""Return how a task ended, or None if its exit file is not whole.

    A fifth word, where there is one, is the peak memory in bytes, and a sixth how many of its processes were killed
    because there was no more.

    Examples
    --------
    >>> parse_exit("137 1700000000 1700000009 node3\n", 7)
    Exit(task=7, code=None, signal=9, started=1700000000.0, ended=1700000009.0, host='node3', max_rss=None, cause=None)
    """
    words = text.split()
    numbers = [*words[:3], *words[4:]]
    if not text.endswith("\n") or not 4 <= len(words) <= 6 or not all(map(_NUMBER.fullmatch, numbers)):  # noqa: PLR2004
        return None
    status, started, ended, *used = map(int, numbers)
    if status > _LAST_CODE:
        return None
    ended_by_signal = _NO_SIGNAL < status <= _LAST_SIGNAL
    code, signal = (None, status - _NO_SIGNAL) if ended_by_signal else (status, None)
    rss, kills = (*used, 0, 0)[:2]
    cause = "out of memory" if kills and status else None
    return Exit(task, code, signal, float(started), float(ended), words[3], rss or None, cause)


def gather(folder: str) -> Found:
    """Return the marks and ends in a submission folder, from listing it once; empty if there is none."""
    marks: dict[int, tuple[int, str, float]] = {}
    exits: dict[int, Exit] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (match := _FILE.fullmatch(entry.name)) is None:
                    continue
                task = int(match[1])
                if match[2]:
                    if (end := read_exit(folder, task)) is not None:
                        exits[task] = end
                elif (mark := _read_mark(entry)) and (task not in marks or marks[task][0] < int(match[3])):
                    marks[task] = (int(match[3]), *mark)
    except FileNotFoundError:
        return Found({}, {}, {})
    again = {task: n for task, (n, *_) in marks.items() if n}
    return Found({task: mark[1:] for task, mark in marks.items()}, exits, again)


def _read_mark(entry: os.DirEntry[str]) -> tuple[str, float] | None:
    try:
        text = os.readlink(entry.path) if entry.is_symlink() else ""
        at = entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None
    return None if _is_reset(text) else (text, at)


def _is_reset(text: str) -> bool:
    return text.split(" ", 1)[0] == RESET


def read_exit(folder: str, task: int) -> Exit | None:
    """Return how a task ended, or None if there is no whole exit file."""
    try:
        with open(os.path.join(folder, exit_name(task)), encoding="utf-8", errors="replace") as file:
            return parse_exit(file.read(1000), task)
    except OSError:
        return None


def reset_holder() -> str:
    """Return the target of a mark of this process that is made so that a task never starts."""
    return f"{RESET} {host_name()} {os.getpid()} {secrets.token_hex(4)}"


def take_mark(folder: str, task: int, holder: str) -> bool:
    """Take the next free mark of a task, so that nothing starts it any more; return whether nothing had.

    The folder is made if there is none yet: its submitter may only be late. A task that was reset before is
    left as it is.
    """
    n, started = 0, False
    while True:
        path = os.path.join(folder, mark_name(task, n))
        try:
            os.symlink(holder, path)
        except FileNotFoundError:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            continue
        except FileExistsError:
            if os.path.islink(path) and _is_reset(os.readlink(path)):
                return not started
        else:
            return not started
        n, started = n + 1, True
