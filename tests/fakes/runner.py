"""The process that runs the jobs of one fake cluster, and leaves when there are none."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time

import core


def start(fake):
    """Start the process that runs jobs, unless there is one; it outlives the command."""
    with open(fake.path("runner.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    with open(fake.path("runner.log"), "a") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-S", here, fake.folder, "runner"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={"PATH": core.LOGIN_PATH, "LANG": os.environ.get("LANG", "C.UTF-8")},
        )  # fmt: skip


class Runner:
    """Starts tasks, ends those that are to end, and writes down how each ended."""

    def __init__(self, fake, dialect):
        self.fake, self.dialect = fake, dialect
        self.started = {}  # pid -> (job id, index)

    def run(self):
        with open(self.fake.path("runner.lock"), "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._work(lock)

    def _work(self, lock):
        idle_since = looked = time.monotonic()
        seen = None
        while True:
            time.sleep(0.02)
            ended, now = self._reap(), time.monotonic()
            # Reading the state of thousands of tasks costs more than they do: only when it has changed, or in time.
            if not ended and seen == self._version() and now - looked < 0.2:
                continue
            looked = now
            with self.fake.state() as known:
                self._note(known, ended)
                self._end(known)
                self._start(known)
                if ended or any(core.is_busy(job) for job in known["jobs"].values()):
                    idle_since = now
                if now - idle_since > known["settings"]["grace"]:
                    # Decided under the lock of the state: who submits now finds no runner and starts one.
                    lock.close()
                    return
            seen = self._version()

    def _version(self):
        return os.stat(self.fake.path("state.json")).st_mtime_ns

    def _reap(self):
        ended = []
        while self.started:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in self.started:
                ended.append((*self.started.pop(pid), os.waitstatus_to_exitcode(status)))
        return ended

    def _note(self, known, ended):
        now = time.time()
        for number, index, code in ended:
            if number not in known["jobs"]:
                continue  # a test made the cluster lose it
            job = known["jobs"][number]
            task = job["tasks"][index]
            if task.get("verdict") == "REQUEUE":
                self._wait_again(job, index, task)
                continue
            task.pop("due", None)
            task.update(state="ended", ended=now, code=max(code, 0), signal=max(-code, 0), pid=None)
            if self.dialect.note_end(known, job, index, task) == "again":
                self._wait_again(job, index, task)

    @staticmethod
    def _wait_again(job, index, task):
        del job["tasks"][index]
        job["waiting"].insert(0, index)
        job.setdefault("again", {})[index] = task["restarts"] + 1

    def _end(self, known):
        now = time.time()
        for job in known["jobs"].values():
            for task in job["tasks"].values():
                if task["state"] != "running":
                    continue
                limit = job.get("walltime")
                if limit and now - task["started"] > limit:
                    task.setdefault("verdict", "TIMEOUT")
                if not task.get("verdict") or not task["pid"]:
                    continue
                gentle = self.dialect.GENTLE and task["verdict"] not in (
                    "OUT_OF_MEMORY",
                    "NODE_FAIL",
                    "REQUEUE",
                )
                if "due" not in task:
                    task["due"] = now + (known["settings"]["kill_wait"] if gentle else 0)
                    if gentle:
                        self.dialect.last_words(job, task)
                        _signal(task["pid"], signal.SIGTERM)
                if now >= task["due"]:
                    _signal(task["pid"], signal.SIGKILL)

    def _start(self, known):
        settings = known["settings"]
        if settings["paused"]:
            return
        now = time.time()
        running = sum(
            t["state"] == "running" for job in known["jobs"].values() for t in job["tasks"].values()
        )
        for number, job in known["jobs"].items():
            if not job["waiting"] or self.dialect.holds(known, job, now):
                continue
            of_this = sum(task["state"] == "running" for task in job["tasks"].values())
            while job["waiting"] and running < settings["slots"]:
                if job["limit"] and of_this >= job["limit"]:
                    break
                index = job["waiting"].pop(0)
                task = {
                    "state": "running", "started": now, "ended": 0, "code": 0, "signal": 0,
                    "restarts": job.get("again", {}).get(index, 0),
                }  # fmt: skip
                # A task of a Slurm array gets an id of its own as it starts; the last one has that of the array.
                task["raw"] = job["id"]
                if job["array"] and job["waiting"]:
                    task["raw"] = known["next"]
                    if self.dialect.SPLITS:
                        known["next"] += 1
                job["tasks"][index] = task
                self._launch(number, job, index, task)
                running, of_this = running + 1, of_this + 1

    def _launch(self, number, job, index, task):
        """Start the process of a task; what cannot start ends as the dialect says."""
        way = self.dialect.way(self.fake, job, index, task)
        pid = os.fork()
        if pid:
            task["pid"] = pid
            self.started[pid] = (number, index)
            return
        code = 127
        try:
            code = _become(way)
        finally:
            os._exit(code)


def _become(way):
    """In the child: be the job. Return the exit code of what could not start."""
    os.setsid()
    os.umask(way.get("umask", 0o022))
    try:
        out = os.open(way["stdout"], way["flags"], 0o666)
        err = out if way["stderr"] == way["stdout"] else os.open(way["stderr"], way["flags"], 0o666)
    except OSError:
        return way["no_log"]
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    try:
        os.chdir(way["cwd"])
    except OSError:
        if "no_cwd" in way:
            return way["no_cwd"]
        os.chdir("/tmp")
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(way["argv"][0], way["argv"], way["environment"])
    except OSError as error:
        os.write(2, f"execve(): {error}\n".encode())
    return 127


def _signal(pid, number):
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
