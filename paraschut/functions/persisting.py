r"""Functions as jobs: started in the background by name, and fetched whenever, wherever the index is seen.

>>> import math, time
>>> def hello():
...     time.sleep(1)  # a long task
...     print("Hello, World!")
...     return [42]
>>> job = persist(hello, "hello", "local")
>>> job.status() in {"queued", "running"}  # meanwhile, do something else
True
>>> job.fetch()
[42]
>>> job.getstdout(), job.getstderr()
('Hello, World!\n', '')
>>> job.wait(), job.isready(), job.status()
(True, True, 'done')
>>> job.cleanup()

On a cluster it is the same, and so it is in another session.

>>> job = persist(lambda: 4 * math.atan(1), "calcpi")  # or with "slurm"
>>> job = readmgr("calcpi")
>>> job.jobinfo().startswith("'calcpi' (job ")
True
>>> print("pi =", job.fetch())
pi = 3.141592653589793
>>> job.cleanup()
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paraschut.config import Config, load_config
from paraschut.errors import (
    JobError,
    NotFoundError,
)
from paraschut.executors.base import JobExecutor
from paraschut.functions.handle import FunctionJob
from paraschut.functions.making import Maker, named
from paraschut.store import calls
from paraschut.store.store import Store


def persist(
    fn: Callable[..., Any],
    name: str,
    Executor: JobExecutor | str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    resources: Mapping[str, Any] | None = None,
) -> FunctionJob:
    """Call a function in the background, as a job that survives this session.

    Parameters
    ----------
    fn : Callable
        What is called: any function, also a lambda, a closure, one of a notebook, or a method of an object.
    name : str
        Names the job, so that ``readmgr(name)`` finds it, from any session.
    Executor : JobExecutor | str | None
        Who runs it; None: as configured.
    args, kwargs : Sequence, Mapping | None
        What it is called with. Large arrays are welcome.
    resources : Mapping | None
        What it needs, such as ``{"mem": "4gb", "walltime": "2h"}``.

    Returns
    -------
    FunctionJob
        The handle, at once: ``status, jobinfo, cancel, isready, wait, fetch, getstdout, getstderr, cleanup``.

    Raises
    ------
    NameTakenError
        If another job has that name.
    JobError
        If the function or an argument cannot be pickled, or a resource makes no sense.
    SubmitError
        If the executor refused it; nothing is left of it then.

    Examples
    --------
    >>> job = persist(sum, "six", args=([1, 2, 3],))
    >>> job.fetch(timeout=60)
    6
    >>> job.cleanup()
    """
    if not callable(fn):
        raise JobError(f"persist needs a function, and got {fn!r}. Nothing was started.")
    call = (fn, tuple(args), dict(kwargs or {}))
    with Maker(load_config(), name, Executor, resources) as maker:
        payload = maker.payload(0, call, f"The function {_called(fn)} or an argument", about=maker.about(fn))
        maker.add("call", [payload])
        return FunctionJob(maker.config, name, maker.batch_id, executor=maker.executor)


def readmgr(name: str) -> Any:
    """Return the handle of a function job by its name, from any session on any host that sees the index.

    Parameters
    ----------
    name : str
        As it was given to ``persist``, ``persist_map`` or ``BatchExecutor``.

    Returns
    -------
    FunctionJob | FunctionMap
        The handle that ``persist`` or ``persist_map`` returned.

    Raises
    ------
    NotFoundError
        If there is no job of that name.

    Examples
    --------
    >>> readmgr("calcpi").fetch()  # doctest: +SKIP
    3.14159
    """
    config = load_config()
    row = named(config, name)
    if row is None:
        raise NotFoundError(
            f"There is no function job named {name!r} in {config.index}. persist(fn, {name!r}) starts one; cleanup() "
            f"has removed one that was there."
        )
    if row["kind"] == "call":
        return FunctionJob(config, name, row["BatchID"])
    from paraschut.functions.map_handle import FunctionMap

    about = json.loads(row["about"]) if row["about"] else _calls_of(config, row["BatchID"])
    return FunctionMap(config, name, row["BatchID"], about)


def _calls_of(config: Config, batch_id: int) -> dict[str, Any]:
    """Return what is known of the calls of an executor: one to a job."""
    with Store.of(config) as store, store.reading() as connection:
        count = len(calls.standings(store.statements(connection), batch_id))
    return {"total": count, "pilots": 0, "chunk": 1, "reduce": False, "chunked": False}


def _called(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
