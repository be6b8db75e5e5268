"""From a job's fields to what is run: the command and the variables that let a job find itself.

Part of the road of a job and of the agent: imports little.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

#: Begins the names of all variables by which a job finds itself.
PREFIX = "PARASCHUT_"
#: What a function job runs, by its path, so that it is found wherever the package lies.
FUNCTION_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_run.py")


def command_of(script: str, workdir: str) -> tuple[str, ...]:
    """Return the command for a job's script: a file, or a command line for ``/bin/sh``.

    A file that may not be executed is run by the interpreter of its first line, else by ``/bin/sh``.
    """
    path = os.path.join(workdir, os.path.expanduser(script))
    if "\n" in script or not os.path.isfile(path):
        return ("/bin/sh", "-c", script)
    with open(path, "rb") as file:
        start = file.read(256)
    shebang = _shebang(start)
    if os.access(path, os.X_OK) and (
        shebang or b"\0" in start
    ):  # a script that says how, or a compiled program
        return (path,)
    return (*(shebang or ("/bin/sh",)), path)


def _shebang(start: bytes) -> tuple[str, ...]:
    first = start.partition(b"\n")[0]
    if not first.startswith(b"#!"):
        return ()
    return tuple(os.fsdecode(first[2:].strip()).split(None, 1))


def job_variables(
    index: str,
    batch_id: int,
    job_index: int,
    n: int,
    token: str,
    task: int,
    cluster_id: str | None,
    spawn_id: int | None = None,
) -> dict[str, str]:
    """Return the variables by which a job finds itself, on every executor; an id may be known later."""
    mine = {
        "PARASCHUT_INDEX": index,
        "PARASCHUT_BATCHID": str(batch_id),
        "PARASCHUT_JOBINDEX": str(job_index),
        "PARASCHUT_ATTEMPT": str(n),
        "PARASCHUT_TOKEN": token,
        "PARASCHUT_TASK": str(task),
    }
    if cluster_id is not None:
        mine["PARASCHUT_CLUSTERID"] = cluster_id
    if spawn_id is not None:
        mine["PARASCHUT_SPAWNID"] = str(spawn_id)
    return mine


def handed_on(environ: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Return the variables of a submitter that its jobs get; ``CONDA*`` stands for all that begin so.

    Examples
    --------
    >>> handed_on({"PATH": "/bin", "CONDA_PREFIX": "/opt", "SECRET": "x"}, ("PATH", "CONDA*"))
    {'PATH': '/bin', 'CONDA_PREFIX': '/opt'}
    """
    whole = {name for name in names if not name.endswith("*")}
    starts = tuple(name[:-1] for name in names if name.endswith("*"))
    return {
        name: value
        for name, value in environ.items()
        if (name in whole or name.startswith(starts)) and not name.startswith(PREFIX)
    }


def without_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what says which job it is of."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
