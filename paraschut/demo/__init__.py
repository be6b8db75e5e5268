"""A small pipeline on real data, which asks which of 16 models reads handwritten digits best.

One batch, three priority groups. Each group is submitted by the last job of the group before it::

    priority 1      train   16 jobs, each cross-validates one model and keeps its score in its own dict
    priority 0.5    rank     1 job, reads the scores from the index, writes a table and a figure
    priority 0.25   refit    1 job, meets the images that nobody has seen yet with the best model

The three scripts (``train.py``, ``rank.py``, ``refit.py``) are what a user would write; ``sweep.py`` is the
science and ``figures.py`` what it leaves on disk. Importing this package loads none of the heavy libraries.

The batch goes into the index that is configured here, so ``get_queue`` shows it next to yours, and its table and
figures into the ``data`` folder of the batch: ``<job_dir>/<BatchID>/data``. Your own batches may wait in the same
index. So the demo submits nothing but itself: its jobs end with ``submit_one_batch`` where yours, if all that is
prepared may start, would say ``set_complete(Submit=True)``. ``remove_batch`` takes all of it away again.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import paraschut as psu
from paraschut.demo.sweep import format_ranking, label, parameter_grid
from paraschut.errors import ParaschutError
from paraschut.prepare import plain_template

__all__ = ["DemoResult", "format_ranking", "prepare", "run"]

_NEEDS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
_RESOURCES = {"cpus": 1, "mem": "600mb", "walltime": "00:10:00"}
# Numerical libraries start a thread for every core that they see, whatever the job has asked for.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PRIORITIES = {"train": 1, "rank": 0.5, "refit": 0.25}
_DONE = ("complete", "collected")
_POLL = 0.5


class DemoResult(NamedTuple):
    """What the demo found, and where it lies."""

    BatchID: int
    ranking: list[dict[str, Any]]
    """One row a model, best first: ``rank, JobIndex, model, params, mean, std, seconds``."""
    tested: dict[str, Any]
    """The best model on unseen images: ``accuracy, low, high, errors, images, confusion``."""
    table: Path
    figures: tuple[Path, Path]
    """The ranking and the confusion matrix, as PNG."""


def prepare(models: int | None = None) -> int:
    """Add the demo's batch to the index; submits nothing.

    Parameters
    ----------
    models
        How many models to compare, by default all 16.

    Returns
    -------
    int
        The BatchID. Its jobs are 0, 1, … (train), then one that ranks and one that refits.

    Raises
    ------
    JobError
        If there are not that many models.
    ParaschutError
        If scikit-learn or matplotlib is not installed.
    """
    _check_libraries()
    grid = parameter_grid(models)
    template = plain_template()
    steps = [*(("train", fields) for fields in grid), ("rank", {}), ("refit", {"ranked_by": len(grid)})]
    jobs = [_job(template, index, step, fields) for index, (step, fields) in enumerate(steps)]
    ranking = next(job for job in jobs if job["step"] == "rank")
    psu.generate_data(ranking, grid)
    psu.add_batch_to_queue(template["BatchID"], jobs)
    return int(template["BatchID"])


def run(
    timeout: float = 600, models: int | None = None, show: Callable[..., object] | None = None
) -> DemoResult:
    """Prepare the batch, submit its first group, and wait until the jobs have done the rest.

    Parameters
    ----------
    timeout
        How many seconds to wait at most.
    models
        How many models to compare, by default all 16.
    show
        Called a few times along the way with ``Filter='BatchID == …'``; give ``psu.get_queue`` to watch.

    Returns
    -------
    DemoResult
        The ranking, the accuracy on unseen images, and the files.

    Raises
    ------
    ParaschutError
        If nothing could be submitted, a job failed, or the time is over: with the reason. What runs goes on.

    Examples
    --------
    >>> result = run(show=psu.get_queue)  # doctest: +SKIP
    >>> print(format_ranking(result.ranking))  # doctest: +SKIP
    """
    batch_id = prepare(models)
    only = f"BatchID == {batch_id}"
    submitted = psu.submit_one_batch(batch_id, Verbose=False)
    deadline = time.monotonic() + timeout
    shown = ""
    while True:
        jobs = psu.get_queue(Filter=only, Verbose=False).get(batch_id, [])
        _check_jobs(batch_id, jobs)
        if not submitted.count and all(job["state"] == "init" for job in jobs):
            raise ParaschutError(
                f"The demo, batch {batch_id}, could not be started: {str(submitted).rstrip('.')}. It waits in the index: "
                f"submit_one_batch({batch_id}) tries again, remove_batch({batch_id}) takes it away."
            )
        reached = _milestone(jobs)
        if show and reached != shown:
            show(Filter=only)
            shown = reached
        if reached == "done":
            return _result(batch_id, jobs)
        if time.monotonic() > deadline:
            raise ParaschutError(_too_late(batch_id, jobs, timeout))
        time.sleep(_POLL)


def _too_late(batch_id: int, jobs: Iterable[Mapping[str, Any]], timeout: float) -> str:
    left = ", ".join(f"{job['JobIndex']} ({job['state']})" for job in jobs if job["state"] not in _DONE)
    return (
        f"The demo, batch {batch_id}, was not complete after {timeout:g} s; still open are jobs {left}. They go on "
        f"without us: look at them with get_queue(Filter='BatchID == {batch_id}'), or allow more time."
    )


def _check_libraries() -> None:
    lacking = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise ParaschutError(
            f"The demo needs {' and '.join(lacking)}, which this Python ({sys.executable}) does not have: "
            "pip install scikit-learn matplotlib"
        )


def _job(template: Mapping[str, Any], index: int, step: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in one job; ``step``, ``model`` and ``params`` are fields of our own, which the index keeps."""
    # A brace in a script means a field of the job, and folders may have one in their name.
    python = shlex.quote(sys.executable).replace("{", "{{").replace("}", "}}")
    job = {
        **template,
        "JobIndex": index,
        "priority": _PRIORITIES[step],
        "name": ["digits", "model_selection"],
        "data_type": "image",
        # -P: what lies in the current folder must not be taken for a module.
        "script": f"{python} -P -m paraschut.demo.{step}",
        "resources": dict(_RESOURCES),
        "vars": {**(template.get("vars") or {}), **_ONE_THREAD, **_where_we_are()},
        "step": step,
        **fields,
    }
    return psu.generate_script(job)


def _where_we_are() -> dict[str, str]:
    """Return what a job needs to find this package if it is a copy that was not installed."""
    home = Path(psu.__file__).resolve().parents[1]
    if home.name in {"site-packages", "dist-packages"}:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))}


def _check_jobs(batch_id: int, jobs: Iterable[Mapping[str, Any]]) -> None:
    """Raise if the batch can no longer end well."""
    jobs = list(jobs)
    if not jobs:
        raise ParaschutError(
            f"The demo's batch {batch_id} was removed from the index while it ran: start again."
        )
    reasons = []
    for job in jobs:
        title = label(job["model"], job["params"]) if job["step"] == "train" else job["step"]
        why = job.get("failure") or ("it was taken off the queue" if job["state"] == "held" else None)
        if why and job["state"] not in _DONE:
            reasons.append(f"job {job['JobIndex']} ({title}): {why}")
    if reasons:
        raise ParaschutError(
            f"The demo, batch {batch_id}, cannot go on. {'; '.join(reasons)}. "
            f"What a job wrote: print_log({batch_id}, JobIndex, 'stderr'). To try again: "
            f"set_batch_field({batch_id}), then submit_jobs()."
        )


def _milestone(jobs: Iterable[Mapping[str, Any]]) -> str:
    """Say how far the batch has come, in the few words that are worth showing it for."""
    jobs = list(jobs)
    done = {step: [job["state"] in _DONE for job in jobs if job["step"] == step] for step in _PRIORITIES}
    for step in _PRIORITIES:
        if not all(done[step]):
            return f"{step}, half done" if 2 * sum(done[step]) >= len(done[step]) else step
    return "done"


def _result(batch_id: int, jobs: Iterable[Mapping[str, Any]]) -> DemoResult:
    by_step = {
        job["step"]: psu.get_job_info(batch_id, job["JobIndex"]) for job in jobs if job["step"] != "train"
    }
    ranked, refitted = by_step["rank"], by_step["refit"]
    return DemoResult(
        BatchID=batch_id,
        ranking=ranked["ranking"],
        tested=refitted["tested"],
        table=Path(ranked["table"]),
        figures=(Path(ranked["figure"]), Path(refitted["figure"])),
    )
