"""Prepares jobs: templates, scripts, data, and adding them to the queue."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from paraschut import checks
from paraschut import job as jobs
from paraschut.bulk import Checker
from paraschut.config import Config, load_config
from paraschut.errors import JobError, NotFoundError
from paraschut.executors.choice import on_other_hosts
from paraschut.paths import Paths, absolute
from paraschut.progress import shown
from paraschut.resources import needs_of
from paraschut.scripts import is_file, script_path, text_of, write
from paraschut.store.store import JobIndexTakenError, Store
from paraschut.store.trust import check_trusted

_STAMP = "%Y%m%d%H%M%S"


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
        with Store.of(config, create=True, other_hosts=on_other_hosts(config)) as store:
            batch_id = new_batch_id(store)
    return jobs.Job({"BatchID": batch_id, "JobIndex": None, **config.fresh_template()})


def plain_template() -> jobs.Job:
    """Return a fresh job with a BatchID, without what only the example of a template says, which is of another site."""
    template = get_job_template(SetID=True)
    example = Config().template
    nothing: dict[str, Any] = {"data_type": "", "queue": "", "resources": {}}
    return jobs.Job(
        {**template, **{key: none for key, none in nothing.items() if template[key] == example[key]}}
    )


def new_batch_id(store: Store) -> int:
    """Reserve a BatchID."""
    now = time.time()
    wanted = int(datetime.fromtimestamp(now, UTC).strftime(_STAMP))
    return store.reserve(wanted, _next_second, now)


def _next_second(stamp: int) -> int:
    then = datetime.strptime(str(stamp), _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
    return int(then.strftime(_STAMP))


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
        if not checks.is_index(JobInfo.get(field)):
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
    write(path, data, 0o600)
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
    group = _listed(JobInfoList)
    batch_id = checks.number_of(BatchID)
    foreign = [one for one in group if one.get("BatchID") not in (None, batch_id)]
    if foreign:
        raise JobError(f"{jobs.label(foreign[0])} is not of batch {batch_id}. Nothing was added.")
    numbered = [
        one
        if not set_index and one.get("BatchID") is not None and "JobIndex" in one
        else {**one, "BatchID": batch_id, "JobIndex": number if set_index else one.get("JobIndex")}
        for number, one in enumerate(group)
    ]
    _add(load_config(), numbered, build_script=build_script, new=True)


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
    group = [JobInfo] if isinstance(JobInfo, Mapping) else _listed(JobInfo)
    config = load_config()
    given = [dict(one) for one in group]
    for one in given:
        checks.check_index(one, "BatchID")
    while True:
        if set_index:
            _number(config, given)
        try:
            _add(config, given, build_script=build_script, new=False)
        except JobIndexTakenError:
            if not set_index:
                raise
            continue  # another process took the numbers meanwhile
        return [one["JobIndex"] for one in given]


def _number(config: Config, given: Iterable[dict[str, Any]]) -> None:
    from paraschut.store import views

    following: dict[int, int] = {}
    with Store.of(config, create=True) as store, store.reading() as connection:
        for one in given:
            batch_id = one["BatchID"]
            if batch_id not in following:
                following[batch_id] = views.highest_index(connection, int(batch_id)) + 1
            one["JobIndex"] = following[batch_id]
            following[batch_id] += 1


def _listed(group: Any) -> list[Mapping[str, Any]]:
    if isinstance(group, Mapping) or not isinstance(group, Iterable):
        group = [None]
    listed = list(group)
    if not all(issubclass(kind, Mapping) for kind in set(map(type, listed))):
        raise JobError("A list of job dicts is needed; get_job_template() makes one. Nothing was added.")
    if not listed:
        raise JobError("The list of jobs is empty. Nothing was added.")
    return listed


def _add(config: Config, given: Sequence[Mapping[str, Any]], *, build_script: bool, new: bool) -> None:
    workdir = os.getcwd()
    _check(given, workdir)
    given = [{**one, "workdir": absolute(one["workdir"])} if one.get("workdir") else one for one in given]
    made: list[str] = []
    try:
        ready = _built(config, given, made) if build_script else given
        batches: dict[int, list[Mapping[str, Any]]] = {}
        for one in ready:
            batches.setdefault(int(one["BatchID"]), []).append(one)
        with Store.of(config, create=True, other_hosts=on_other_hosts(config)) as store:
            store.add(batches, time.time(), workdir, new=new)
    except BaseException:
        for path in made:
            os.unlink(path)
        for folder in {os.path.dirname(path) for path in made}:
            with suppress(OSError):  # other scripts are in it
                os.removedirs(folder)
        raise


def _check(given: Sequence[Mapping[str, Any]], workdir: str) -> None:
    scripts: set[Any] = set()
    resources: set[int] = set()
    checker = Checker()
    for one in given:
        if checker.seen(one):
            continue
        key = id(one["resources"])  # most jobs share one dict, which lives as long as they do
        if key not in resources:
            try:
                needs_of(one["resources"])
            except JobError as error:
                raise JobError(f"{jobs.label(one)}: {error} Nothing was added.") from error
            resources.add(key)
        where = (one["script"], one.get("workdir"))
        if where not in scripts:
            is_file(os.fspath(one["script"]), absolute(one["workdir"]) if one.get("workdir") else workdir)
            scripts.add(where)


def _built(config: Config, given: Sequence[Mapping[str, Any]], made: list[str]) -> list[dict[str, Any]]:
    """Return the jobs with their own scripts; the files that were written are appended to ``made``."""
    texts = [text_of(one) for one in given]
    ready = []
    for one, (text, source) in zip(shown(given, "writing scripts"), texts, strict=True):
        script = text
        if source is not None:
            # A new name if need be: the file of that name may be of a job that is in the index already.
            path = script_path(Paths(config.index), one, source)
            script = write(path, text.encode(errors="surrogateescape"), 0o700, anew=True)
            made.append(script)
        ready.append({**one, "script": script})
    return ready
