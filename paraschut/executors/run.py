"""The one place where a scheduler's command is started: always with a time limit, never with a job's variables."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from paraschut.command import handed_on
from paraschut.errors import ExecutorError

#: What the commands of schedulers need to find their servers, also inside jobs. All other variables of a job, its
#: own ``vars`` among them, would reach the commands and, through them, the next jobs.
CLIENT = (
    *(
        "SLURM_CONF",
        "SBATCH_ACCOUNT",
        "SBATCH_PARTITION",
        "SBATCH_QOS",
        "SBATCH_RESERVATION",
        "SBATCH_CLUSTERS",
    ),
    *("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_ARCH"),
    *("PBS_CONF_FILE", "PBS_EXEC", "PBS_DEFAULT", "PBS_SERVER"),
)
_PLAIN = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "LD_LIBRARY_PATH", "KRB5CCNAME", "TZ")


def user_name() -> str:
    """Return who this process is for a scheduler: cron and sudo may leave another name, or none, in the environment."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


#: Seconds between two looks at what a command said that may have given up: less than sbatch's first pause.
_LOOK = 0.4


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said of what is wrong, on one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return " ".join(lines)[:1000]


class NoAnswerError(ExecutorError):
    """A scheduler's command did not end in time; what it was to do may have happened or not."""


def run_command(
    command: Sequence[str],
    timeout: float,
    *,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    enough: re.Pattern[str] | None = None,
) -> Answer:
    """Run a scheduler's command to its end; the arguments are those of ``start_command``.

    Raises
    ------
    NoAnswerError
        If it took too long.
    ExecutorError
        If there is no such command.
    """
    return start_command(command, timeout, cwd=cwd, environ=environ, more=more, enough=enough)()


def start_command(
    command: Sequence[str],
    timeout: float,
    *,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    enough: re.Pattern[str] | None = None,
) -> Callable[[], Answer]:
    """Start a scheduler's command; return what waits for its end, which must be called once.

    Parameters
    ----------
    timeout : float
        Seconds after which it is killed.
    cwd : str | None
        Where it runs.
    environ : Mapping[str, str] | None
        What the variables that it gets are taken from; None: this process's.
    more : Mapping[str, str] | None
        Variables that it gets as well.
    enough : re.Pattern[str] | None
        Words of a command that tries again by itself, for minutes: it is killed when it has said them, while it
        pauses, and has failed.

    Raises
    ------
    ExecutorError
        If there is no such command.
    """
    env = {**handed_on(os.environ if environ is None else environ, (*_PLAIN, *CLIENT)), **(more or {})}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise ExecutorError(
            f"{command[0]} cannot be run here ({error.strerror}). Is this a machine that can submit, and is its folder "
            f"in PATH?"
        ) from error
    deadline = time.monotonic() + timeout
    return lambda: _answer(process, command[0], timeout, deadline, enough)


def _answer(
    process: subprocess.Popen[bytes],
    name: str,
    timeout: float,
    deadline: float,
    enough: re.Pattern[str] | None,
) -> Answer:
    try:
        out, err = _ended(process, deadline, enough)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise NoAnswerError(
            f"{name} did not answer within {timeout:g} s (command_timeout in the configuration); the scheduler is "
            f"down or slow. Try again later: nothing is lost meanwhile."
        ) from None
    except BaseException:
        _kill(process)
        raise
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _ended(
    process: subprocess.Popen[bytes], deadline: float, enough: re.Pattern[str] | None
) -> tuple[bytes, bytes]:
    """Return what a command printed until its end, or until it said enough."""
    while enough is not None and deadline - time.monotonic() > _LOOK:
        try:
            return process.communicate(timeout=_LOOK)
        except subprocess.TimeoutExpired as waits:
            if enough.search((waits.stderr or b"").decode(errors="replace")):
                _kill(process)
                return waits.output or b"", waits.stderr or b""
    return process.communicate(timeout=max(0.0, deadline - time.monotonic()))


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Some of these commands are scripts: what they started must not keep the pipes open.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
