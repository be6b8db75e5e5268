"""The little scheduler behind the fake commands: its state is one file in a folder, its jobs really run.

A command takes the lock, changes or reads the state, and prints what its dialect would. One runner process for
each folder starts what waits, up to ``slots`` at once, and leaves when nothing is left to do.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shlex
import signal
import sys
import time
from contextlib import contextmanager

#: What a cluster does unless a test says otherwise.
SETTINGS = {
    "slots": 8,  # tasks at once
    "paused": False,  # nothing starts
    "down": False,  # each command says that nobody answers
    "forget": 300.0,  # seconds after which an ended job is unknown (but to the accounting)
    "accounting": True,  # whether sacct, qacct and qstat -x know anything
    "accounting_delay": 0.0,  # seconds after its end in which the accounting does not know a task yet
    "array_limit": 10_000,  # Slurm: highest index + 1; Grid Engine and PBS: tasks of an array
    "user_limit": None,  # tasks that a user may have queued and running
    "kill_wait": 1.0,  # seconds between SIGTERM and SIGKILL
    "grace": 2.0,  # seconds that the runner waits for more
}
#: ``error`` is the state Eqw of Grid Engine: it stays in the queue until somebody deletes it.
LIVE = ("running", "error")
#: What a runner that a test starts from a shell of its own would pass on.
LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"


class Refused(Exception):  # noqa: N818  not an error of the project but the answer of a command
    """A command says no: its words and its exit code."""

    def __init__(self, words, code=1):
        super().__init__(words)
        self.words, self.code = words, code


class Fake:
    """The state of one fake cluster, in a folder."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.home = self.path("home")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    @contextmanager
    def state(self, *, change=True):
        """Hold the lock and give the state, which is written again unless ``change`` is false."""
        with open(self.path("lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                with open(self.path("state.json")) as file:
                    known = json.load(file)
            except FileNotFoundError:
                known = {"next": 1, "jobs": {}, "rules": [], "settings": dict(SETTINGS)}
            yield known
            if change:
                beside = self.path("state.new")
                with open(beside, "w") as file:
                    json.dump(known, file)
                os.replace(beside, self.path("state.json"))

    def log(self, command, argv):
        """Write down one call, with the variables that a scheduler would read."""
        kept = ("SLURM_", "SBATCH_", "SQUEUE_", "PBS_", "SGE_", "PARASCHUT_", "JOB_ID")
        line = {
            "time": time.time(),
            "command": command,
            "argv": argv,
            "environment": {name: value for name, value in os.environ.items() if name.startswith(kept)},
        }
        with open(self.path("calls.log"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(line) + "\n")


# --- jobs and tasks -------------------------------------------------------------------------------------------


def new_job(known, **given):
    """Put a job into the state and return it; ``indices`` is None for a job that is no array."""
    number = known["next"]
    known["next"] += 1
    indices = given.pop("indices", None)
    job = {
        "id": number,
        "array": indices is not None,
        "waiting": [""] if indices is None else [str(index) for index in indices],
        "tasks": {},
        "submitted": time.time(),
        "user": user_name(),
        "held": False,
        "begin": 0,
        "after": [],  # [kind, [ids]]
        "limit": 0,
        "restarts": True,
        **given,
    }
    job["count"] = len(job["waiting"])
    known["jobs"][str(number)] = job
    return job


def user_name():
    return pwd.getpwuid(os.getuid()).pw_name


def is_live(job):
    return bool(job["waiting"]) or any(task["state"] in LIVE for task in job["tasks"].values())


def live_tasks(known):
    """Return how many tasks are queued or running."""
    return sum(
        len(job["waiting"]) + sum(task["state"] == "running" for task in job["tasks"].values())
        for job in known["jobs"].values()
    )


def over_limit(known, more):
    limit = known["settings"]["user_limit"]
    return limit is not None and live_tasks(known) + more > limit


def is_busy(job):
    """Return whether the runner has something to do for it, now or later."""
    return bool(job["waiting"]) or any(task["state"] == "running" for task in job["tasks"].values())


def remembered(known, job):
    """Return whether the cluster still knows the job: forgotten is what ended long enough ago."""
    if is_live(job):
        return True
    ended = max((task["ended"] for task in job["tasks"].values()), default=job.get("cancelled", 0))
    return time.time() - ended < known["settings"]["forget"]


def in_books(known, task):
    """Return whether the accounting knows a task by now."""
    settings = known["settings"]
    return settings["accounting"] and (
        task["state"] != "ended" or time.time() - task["ended"] >= settings["accounting_delay"]
    )


def cancel(known, job, indices=None, *, by=None):
    """Cancel a job or some tasks of it; return what was waiting and what was running."""
    chosen = None if indices is None else {str(index) for index in indices}
    waiting = [index for index in job["waiting"] if chosen is None or index in chosen]
    running = [
        index
        for index, task in job["tasks"].items()
        if task["state"] == "running" and (chosen is None or index in chosen)
    ]
    for index in [index for index, task in job["tasks"].items() if task["state"] == "error"]:
        if chosen is None or index in chosen:
            del job["tasks"][index]
            waiting.append(index)
    left = set(job["waiting"]) - set(waiting)
    job["waiting"] = [index for index in job["waiting"] if index in left]
    if waiting:
        job["cancelled"] = time.time()
        job.setdefault("dropped", []).extend(waiting)
        job["cancelled_by"] = by or user_name()
    for index in running:
        job["tasks"][index].setdefault("verdict", "CANCELLED")
        job["tasks"][index]["by"] = by or user_name()
    return waiting, running


def is_held(known, job, now, unknown="run"):
    """Return why a job may not start: ``hold``, ``begin``, ``after``, ``never``, or nothing."""
    if job["held"]:
        return "hold"
    if job["begin"] > now:
        return "begin"
    for kind, numbers in job["after"]:
        for number in numbers:
            needed = known["jobs"].get(str(number))
            if needed is None:
                if unknown == "drop":
                    return "never"
                continue
            if is_live(needed):
                return "after"
            good = not needed.get("dropped") and all(
                task["code"] == 0 and not task.get("verdict") for task in needed["tasks"].values()
            )
            if (kind == "afterok" and not good) or (kind == "afternotok" and good):
                return "never"
            if unknown == "drop" and needed.get("dropped") and not needed["tasks"]:
                return "after"  # PBS: who waits for a job that was deleted before it ran waits for ever
    return ""


# --- rules of the tests ---------------------------------------------------------------------------------------


def obey_rules(fake, command, at):
    """Do what a test told this call to do, ``at`` its beginning or its end."""
    with fake.state() as known:
        doing = []
        for rule in known["rules"]:
            if rule["at"] != at or rule["command"] not in ("*", command):
                continue
            if rule["skip"]:
                rule["skip"] -= 1
                continue
            if rule["times"] == 0:
                continue
            if rule["times"] is not None:
                rule["times"] -= 1
            doing.append(rule)
        down = known["settings"]["down"]
    for rule in doing:
        if rule["do"] == "hang":
            print(rule["words"], file=sys.stderr, end="\n" if rule["words"] else "", flush=True)
            time.sleep(rule["seconds"])
        elif rule["do"] == "kill":
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(137)
        elif rule["do"] == "fail":
            raise Refused(rule["words"], rule["code"])
    return down


# --- small things that dialects share -------------------------------------------------------------------------


def seconds(text):
    """Return the seconds of ``90``, ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS``; ValueError otherwise."""
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if len(parts) > 3 or any(part < 0 for part in parts):
        raise ValueError(text)
    total = 0
    for part in parts:
        total = total * 60 + part
    return total + (int(days) * 86400 if dash else 0)


def stamp(when):
    """Return a time as Slurm and the XML of Grid Engine write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))


def ranges(numbers):
    """Return ``0-4,7`` for sorted numbers."""
    found = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in found)


def moment(text):
    """Return the time that qsub's option ``-a`` means: ``202601311259``, also with ``.30`` for seconds."""
    return time.mktime(time.strptime(text[:12], "%Y%m%d%H%M")) + float(text[13:] or 0)


def directives(text, prefix):
    """Return the words after the prefix in the comment lines that begin a script."""
    words = []
    for line in text.splitlines():
        if line.startswith(prefix):
            words += shlex.split(line[len(prefix) :], comments=True)
        elif line.strip() and not line.startswith("#"):
            break
    return words


def keep_script(fake, job, text):
    """Keep the copy of a script that will run: what the caller does with the file later changes nothing."""
    folder = fake.path("spool", f"job{job['id']:05d}")
    os.makedirs(folder)
    path = os.path.join(folder, "script")
    with open(path, "w", newline="") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


def expand(pattern, letters):
    """Replace ``%j``, ``%5A`` ... by the values of the letters; the number is the width, filled with zeros."""

    def one(match):
        width, letter = match.groups()
        if letter == "%":
            return "%"
        if letter not in letters:
            return match.group()
        return str(letters[letter]).zfill(int(width or 0))

    return re.sub(r"%(\d*)([a-zA-Z%])", one, pattern)
