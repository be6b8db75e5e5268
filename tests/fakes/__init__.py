"""Fake clusters for the tests: commands on PATH that print what the real ones were seen to print."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from fakes.core import SETTINGS, Fake, is_live

COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo"),
    "sge": ("qsub", "qstat", "qdel", "qacct", "qconf", "qhost"),
    "pbs": ("qsub", "qstat", "qdel", "qselect", "pbsnodes"),
}
HERE = Path(__file__).parent


class FakeCluster:
    """One fake cluster, as a test sees it.

    ``kind`` is ``slurm``, ``sge`` or ``pbs``. Put ``bin`` first on PATH; the job's processes get it as well.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.bin = kind, Path(folder), Path(folder) / "bin"
        self._fake = Fake(folder)
        for name in ("bin", "home", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "dialect").write_text(kind)
        for command in COMMANDS[kind]:
            wrapper = self.bin / command
            # What runs the wrapper is the caller that a rule kills, so the wrapper must become Python, not start it.
            wrapper.write_text(
                f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", str(HERE / "__main__.py"), str(self.folder), command])} "$@"\n'
            )
            wrapper.chmod(0o755)
        with self._fake.state():
            pass

    def environment(self) -> dict[str, str]:
        """Return the variables with which the commands are found."""
        return {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    # --- what the cluster is like -----------------------------------------------------------------------------

    def set(self, **settings: object) -> None:
        """Change settings: see ``SETTINGS`` in core.py, such as ``slots=1``, ``down=True`` or ``forget=0``."""
        unknown = set(settings) - set(SETTINGS)
        assert not unknown, f"no such setting: {unknown}"
        with self._fake.state() as known:
            known["settings"].update(settings)

    def first_id(self, number: int) -> None:
        """Let the next job have this number."""
        with self._fake.state() as known:
            known["next"] = number

    def rule(
        self,
        command: str,
        do: str,
        *,
        at: str = "before",
        skip: int = 0,
        times: int | None = 1,
        seconds: float = 0,
        words: str = "",
        code: int = 1,
    ) -> None:
        """Tell a command (``*``: each) what to ``do`` instead of plain work.

        ``kill`` kills its caller with SIGKILL, ``hang`` says ``words`` and waits ``seconds``, ``fail`` says
        ``words`` and ends with ``code``; ``at`` the beginning (``before`` anything happened) or ``after`` it has worked but not printed;
        for the first ``skip`` calls not, then ``times`` times (None: always).
        """
        assert do in ("kill", "hang", "fail"), do
        assert at in ("before", "after"), at
        with self._fake.state() as known:
            known["rules"].append(
                {
                    "command": command, "do": do, "at": at, "skip": skip, "times": times,
                    "seconds": seconds, "words": words, "code": code,
                }
            )  # fmt: skip

    # --- what happens to jobs ---------------------------------------------------------------------------------

    def end(self, job: str | int, index: int | None = None, verdict: str = "OUT_OF_MEMORY") -> None:
        """End a running task as the cluster would: OUT_OF_MEMORY, TIMEOUT, NODE_FAIL, PREEMPTED or REQUEUE.

        REQUEUE is the failure of its node: it waits again, or ends as NODE_FAIL when it asked not to.
        """
        with self._fake.state() as known:
            found = known["jobs"][str(job)]
            task = found["tasks"]["" if index is None else str(index)]
            assert task["state"] == "running", task
            task["verdict"] = "NODE_FAIL" if verdict == "REQUEUE" and not found["restarts"] else verdict

    def forget(self, job: str | int) -> None:
        """Lose a job altogether, as a cluster does that was set up anew."""
        with self._fake.state() as known:
            found = known["jobs"].pop(str(job))
            for task in found["tasks"].values():
                if task.get("pid"):
                    os.killpg(task["pid"], signal.SIGKILL)

    # --- what a test looks at ---------------------------------------------------------------------------------

    def calls(self, command: str = "") -> list[dict[str, object]]:
        """Return the calls of a command, or all: time, command, argv, environment."""
        try:
            lines = (self.folder / "calls.log").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [call for call in found if not command or call["command"] == command]

    def jobs(self) -> dict[str, dict[str, object]]:
        """Return every job that was ever submitted, by its number."""
        with self._fake.state(change=False) as known:
            return known["jobs"]

    def tasks(self, state: str) -> list[tuple[str, str]]:
        """Return (job, index) of the tasks in a state."""
        return [task for task, is_ in self.states().items() if is_ == state]

    def states(self) -> dict[tuple[str, str], str]:
        """Return the state of each task, by (job, index): ``waiting``, ``running``, ``ended`` or ``error``."""
        found = {}
        for number, job in self.jobs().items():
            found |= {(number, index): "waiting" for index in job["waiting"]}
            found |= {(number, index): task["state"] for index, task in job["tasks"].items()}
        return found

    def wait(self, seconds: float = 60) -> None:
        """Return when nothing waits or runs."""
        self.until(lambda: not any(is_live(job) for job in self.jobs().values()), seconds)

    def until(self, true, seconds: float = 60) -> None:
        """Return when it has become true; fail when it never does."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"it did not happen: {self.states()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill every job, so that the runner leaves."""
        with self._fake.state() as known:
            known["settings"]["grace"] = 0.0
            for job in known["jobs"].values():
                job["waiting"] = []
                for task in job["tasks"].values():
                    task.setdefault("verdict", "CANCELLED")
                    task["due"] = 0
        self.until(self._no_runner)

    def _no_runner(self) -> bool:
        import fcntl

        with (self.folder / "runner.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True
