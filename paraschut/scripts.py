"""The scripts of jobs: templates, command lines, and files that are written whole."""

from __future__ import annotations

import os
import shutil
import string
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from paraschut import checks
from paraschut import job as jobs
from paraschut.config import load_config
from paraschut.errors import ScriptError, StoreError
from paraschut.paths import Paths, make_folder

#: What makes a script a command line for sure, rather than the path of a file.
_SHELL = frozenset(" \t\n;&|<>()$`'\"*?[]#=%!{}")


def generate_script(
    JobInfo: dict[str, Any], Template: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Write a job's own script from a template, or fill in its command line; sets ``script`` in the dict.

    Parameters
    ----------
    JobInfo : dict
        The job. ``{field}`` in the template becomes its field (and ``{resources[mem]}`` what is in one), ``{{`` and
        ``}}`` become braces. A name of several parts is joined by ``/``.
    Template : str | PathLike | None
        A template file or a command line; None: the job's ``script``.

    Returns
    -------
    dict
        The same dict.

    Raises
    ------
    ScriptError
        If the template does not exist, or names a field that the job does not have.

    Examples
    --------
    >>> generate_script({"BatchID": 1, "JobIndex": 7, "script": "echo {JobIndex} {{}}"})["script"]
    'echo 7 {}'
    """
    text, source = text_of(JobInfo, Template)
    if source is None:
        JobInfo["script"] = text
        return JobInfo
    for field in ("BatchID", "JobIndex"):
        if not checks.is_index(JobInfo.get(field)):
            raise ScriptError(
                f"The script of a job is named by its BatchID and JobIndex, and {field} is {JobInfo.get(field)!r}. Set "
                f"both first, or add the job with set_index=True, build_script=True."
            )
    target = script_path(Paths(load_config().index), JobInfo, source)
    write(target, text.encode(errors="surrogateescape"), 0o700)
    JobInfo["script"] = target
    return JobInfo


def script_path(paths: Paths, job: Mapping[str, Any], source: str) -> str:
    """Return where a job's own script goes that is made from a file."""
    return os.path.join(paths.scripts(job["BatchID"]), f"{job['JobIndex']}{os.path.splitext(source)[1]}")


def text_of(job: Mapping[str, Any], given: str | os.PathLike[str] | None = None) -> tuple[str, str | None]:
    """Return a job's script, filled in, and the file that it was made from; None for a command line."""
    template = os.fspath(job.get("script") or "" if given is None else given)
    workdir = job.get("workdir") or os.getcwd()
    if not is_file(template, workdir):
        return _filled(template, job, "the command line"), None
    path = os.path.join(workdir, os.path.expanduser(template))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"The template {path} of {jobs.label(job)} cannot be read: {error}") from error
    return _filled(text, job, path), path


def _filled(template: str, job: Mapping[str, Any], where: str) -> str:
    fields = dict(job)
    if isinstance(fields.get("name"), (list, tuple)):
        fields["name"] = jobs.joined_name(fields["name"])
    try:
        return string.Formatter().vformat(template, (), fields)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        missing = error.args[0] if error.args else error
        raise ScriptError(
            f"The script of {jobs.label(job)} ({where}) names the field {missing!r}, which the job does not have. It has: "
            f"{', '.join(map(str, job))}. Braces of the script itself are written {{{{ and }}}}."
        ) from error
    except ValueError as error:
        raise ScriptError(
            f"The script of {jobs.label(job)} ({where}) has braces that name no field: {error}. Braces of the script "
            f"itself are written {{{{ and }}}}."
        ) from error


def is_file(script: str, workdir: str) -> bool:
    """Return whether a script is a file; raise if it looks like one that does not exist."""
    if (
        "\n" not in script
        and "\0" not in script
        and os.path.isfile(os.path.join(workdir, os.path.expanduser(script)))
    ):
        return True
    if _SHELL.isdisjoint(script) and not shutil.which(script) and script not in _BUILTINS:
        raise ScriptError(
            f"The script {script!r} does not exist in {workdir}, and is no command either. Give the path of a file, or "
            f"a command line such as 'python train.py'."
        )
    return False


#: Commands of the shell that are no files (POSIX.1-2017, 2.14).
_BUILTINS = frozenset({":", "true", "false", "exit", "wait", "times", "pwd", "set", "umask", "ulimit"})


def write(path: str, data: bytes, mode: int, *, anew: bool = False) -> str:
    """Write a file beside and give it its name; ``anew``: or a longer one, if that name is taken."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        make_folder(folder)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if not anew:
            os.rename(beside, path)
            return path
        path = _linked(beside, path)
        os.unlink(beside)
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Is the disk full, or the folder not yours?"
        ) from error
    return path


def _linked(beside: str, path: str) -> str:
    start, suffix = os.path.splitext(path)
    while True:
        try:
            os.link(beside, path)
        except FileExistsError:
            path = f"{start}.{os.urandom(4).hex()}{suffix}"
        else:
            return path
