"""Prepares jobs: templates, scripts, data, and adding them to the queue."""

from __future__ import annotations

import os
import pickle
import shutil
import string
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from paraschut import job as jobs
from paraschut.config import Config, load_config
from paraschut.errors import JobError, NotFoundError, ScriptError, StoreError
from paraschut.paths import Paths
from paraschut.resources import needs_of
from paraschut.store.store import Store
from paraschut.store.trust import check_trusted

_STAMP = "%Y%m%d%H%M%S"
#: What makes a script a command line for sure, rather than the path of a file.
_SHELL = frozenset(" \t\n;&|<>()$`'\"*?[]#~=%!{}")


def get_job_template(SetID: bool = False) -> jobs.Job:
    """Return a fresh job from the configured template.

    Parameters
    ----------
    SetID : bool
        Whether to set ``BatchID`` to a new one: the UTC second as YYYYMMDDHHMMSS. It is reserved in the index,
        so it is unique even when many processes ask in the same second.

    Returns
    -------
    Job
        A dict with the fields BatchID, JobIndex, priority, name, data_type, data, script, queue, resources,
        state, and those that the configuration adds.

    Examples
    --------
    >>> job = get_job_template()
    >>> job["state"]
    'init'
    """
    config = load_config()
    batch_id = None
    if SetID:
        now = time.time()
        wanted = int(datetime.fromtimestamp(now, UTC).strftime(_STAMP))
        with Store.of(config, create=True) as store:
            batch_id = store.reserve(wanted, _next_second, now)
    return jobs.Job({"BatchID": batch_id, "JobIndex": None, **config.fresh_template()})


def _next_second(stamp: int) -> int:
    then = datetime.strptime(str(stamp), _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
    return int(then.strftime(_STAMP))


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
    template = os.fspath(JobInfo.get("script") or "" if Template is None else Template)
    workdir = JobInfo.get("workdir") or os.getcwd()
    path = os.path.join(workdir, os.path.expanduser(template))
    if not _is_file(template, workdir):
        JobInfo["script"] = _filled(template, JobInfo, "the command line")
        return JobInfo
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"The template {path} of {jobs.label(JobInfo)} cannot be read: {error}") from error
    filled = _filled(text, JobInfo, path)
    for field in ("BatchID", "JobIndex"):
        if not isinstance(JobInfo.get(field), int):
            raise ScriptError(
                f"The script of a job is named by its BatchID and JobIndex, and {field} is {JobInfo.get(field)!r}. Set "
                f"both first, or add the job with set_index=True, build_script=True."
            )
    folder = Paths(load_config().index).scripts(JobInfo["BatchID"])
    target = os.path.join(folder, f"{JobInfo['JobIndex']}{os.path.splitext(path)[1]}")
    _write(target, filled.encode(), 0o700)
    JobInfo["script"] = target
    return JobInfo


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


def _is_file(script: str, workdir: str) -> bool:
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


def _write(path: str, data: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(beside, path)
    except OSError as error:
        if os.path.exists(beside):
            os.unlink(beside)
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Is the disk full, or the folder not yours?"
        ) from error


def generate_data(JobInfo: dict[str, Any], Data: Any) -> dict[str, Any]:
    """Save data for a job in the folder of its batch; sets ``data`` in the dict to the file's path.

    Parameters
    ----------
    JobInfo : dict
        The job, with BatchID and JobIndex.
    Data : Any
        Anything that can be pickled.

    Returns
    -------
    dict
        The same dict.

    Raises
    ------
    JobError
        If the data cannot be pickled, or the job has no number yet.

    Examples
    --------
    >>> generate_data(job, {"x": [1, 2, 3]})  # doctest: +SKIP
    """
    import cloudpickle

    for field in ("BatchID", "JobIndex"):
        if not isinstance(JobInfo.get(field), int):
            raise JobError(
                f"The data of a job is kept by BatchID and JobIndex, and {field} is {JobInfo.get(field)!r}."
            )
    try:
        data = cloudpickle.dumps(Data, protocol=5)
    except Exception as error:
        raise JobError(
            f"The data of {jobs.label(JobInfo)} cannot be pickled: {type(error).__name__}: {error}. Save it in a file of "
            f"its own kind, and give the job its path."
        ) from error
    path = os.path.join(Paths(load_config().index).data(JobInfo["BatchID"]), f"{JobInfo['JobIndex']}.pkl")
    _write(path, data, 0o600)
    JobInfo["data"] = path
    return JobInfo


def load_data(JobInfo: Mapping[str, Any]) -> Any:
    """Return the data that ``generate_data`` saved for a job.

    Parameters
    ----------
    JobInfo : Mapping
        The job.

    Raises
    ------
    NotFoundError
        If there is no such file.
    TrustError
        If somebody else could have written it: loading a pickle runs what is in it.

    Examples
    --------
    >>> load_data(get_job_info())["x"]  # doctest: +SKIP
    [1, 2, 3]
    """
    config = load_config()
    path = JobInfo.get("data")
    if not isinstance(path, str):
        raise NotFoundError(
            f"{jobs.label(JobInfo)} has no data; generate_data saves it before the job is added."
        )
    if not os.path.exists(path):
        # The folder of the index may have been moved.
        path = os.path.join(Paths(config.index).data(JobInfo["BatchID"]), os.path.basename(path))
    if not os.path.exists(path):
        raise NotFoundError(
            f"The data of {jobs.label(JobInfo)} is not at {JobInfo['data']}: the file was removed."
        )
    check_trusted(path, config.trusted_users)
    with open(path, "rb") as file:
        return pickle.load(file)


def add_batch_to_queue(
    BatchID: int,
    JobInfoList: Sequence[Mapping[str, Any]],
    set_index: bool = False,
    build_script: bool = False,
) -> None:
    """Add a whole new batch, in one transaction.

    Parameters
    ----------
    BatchID : int
        The batch; a reserved id (``get_job_template(SetID=True)``) is not an existing batch.
    JobInfoList : Sequence[Mapping]
        The jobs; they are not changed. A job without BatchID gets this one.
    set_index : bool
        Whether to number the jobs 0, 1, 2, … in this order.
    build_script : bool
        Whether to call ``generate_script`` for each.

    Raises
    ------
    BatchExistsError
        If the batch has jobs already; ``add_job_to_queue`` adds to it.
    JobError
        If a job is wrong, is of another batch, or has the JobIndex of another; nothing is added then.

    Examples
    --------
    >>> job = get_job_template(SetID=True)
    >>> job["script"] = "echo {JobIndex}"
    >>> add_batch_to_queue(job["BatchID"], [job] * 3, set_index=True, build_script=True)
    """
    _refuse_single(JobInfoList)
    foreign = [one for one in JobInfoList if one.get("BatchID") not in (None, BatchID)]
    if foreign:
        raise JobError(f"{jobs.label(foreign[0])} is not of batch {BatchID}. Nothing was added.")
    numbered: Iterable[Mapping[str, Any]] = (
        {**one, "BatchID": BatchID, "JobIndex": number if set_index else one.get("JobIndex")}
        for number, one in enumerate(JobInfoList)
    )
    _add(load_config(), list(numbered), build_script=build_script, new=True)


def add_job_to_queue(
    JobInfo: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    set_index: bool = False,
    build_script: bool = False,
) -> list[int]:
    """Add one or many jobs, to new or existing batches, in one transaction.

    Parameters
    ----------
    JobInfo : Mapping | Sequence[Mapping]
        The jobs, each with its BatchID; they are not changed.
    set_index : bool
        Whether to number them on from the highest JobIndex of their batch.
    build_script : bool
        Whether to call ``generate_script`` for each.

    Returns
    -------
    list[int]
        The JobIndex of each.

    Raises
    ------
    JobError
        If a job is wrong, or its JobIndex is taken; nothing is added then.

    Examples
    --------
    >>> add_job_to_queue({**get_job_template(SetID=True), "script": "true"}, set_index=True)
    [0]
    """
    group = [JobInfo] if isinstance(JobInfo, Mapping) else list(JobInfo)
    _refuse_single(group)
    config = load_config()
    given = [dict(one) for one in group]
    if set_index:
        from paraschut.store import views

        following: dict[int, int] = {}
        with Store.of(config, create=True) as store, store.reading() as connection:
            for one in given:
                batch_id = one["BatchID"]
                if batch_id not in following:
                    following[batch_id] = views.highest_index(connection, batch_id) + 1
                one["JobIndex"] = following[batch_id]
                following[batch_id] += 1
    _add(config, given, build_script=build_script, new=False)
    return [one["JobIndex"] for one in given]


def _refuse_single(group: Any) -> None:
    if isinstance(group, Mapping) or not all(isinstance(one, Mapping) for one in group):
        raise JobError("A list of job dicts is needed; get_job_template() makes one. Nothing was added.")
    if not group:
        raise JobError("The list of jobs is empty. Nothing was added.")


def _add(config: Config, given: Sequence[Mapping[str, Any]], *, build_script: bool, new: bool) -> None:
    workdir = os.getcwd()
    scripts: set[Any] = set()
    resources: set[str] = set()
    batches: dict[int, list[Mapping[str, Any]]] = {}
    ready: list[Mapping[str, Any]] = []
    for one in given:
        jobs.check(one)
        key = repr(one["resources"])
        if key not in resources:
            try:
                needs_of(one["resources"])
            except JobError as error:
                raise JobError(f"{jobs.label(one)}: {error} Nothing was added.") from error
            resources.add(key)
        ready.append(generate_script(dict(one)) if build_script else one)
    for one in ready:
        where = (one["script"], one.get("workdir"))
        if where not in scripts:
            _is_file(os.fspath(one["script"]), one.get("workdir") or workdir)
            scripts.add(where)
        batches.setdefault(one["BatchID"], []).append(one)
    with Store.of(config, create=True) as store:
        store.add(batches, time.time(), workdir, new=new)
