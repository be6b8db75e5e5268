"""Changes jobs: fields, states, priorities; deletes them from their executor, removes them from the index."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from paraschut import checks
from paraschut import fold as folding
from paraschut import job as jobs
from paraschut.config import Config, load_config
from paraschut.errors import ExecutorError, JobError, NotFoundError
from paraschut.executors.choice import executor_of
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.paths import Paths, absolute
from paraschut.process import identity
from paraschut.progress import shown
from paraschut.resources import needs_of
from paraschut.store import unsettled, views
from paraschut.store.ending import end_attempt
from paraschut.store.rows import Running
from paraschut.store.runtime import Ended, Key
from paraschut.store.store import Store

#: Seconds that a removal waits for jobs that were deleted to have ended.
REMOVE_WAIT = 30.0
_FINISHED = ("complete", "collected")

#: One batch, several, or what ``get_queue(Verbose=False)`` returns.
Batches = int | Iterable[int] | Mapping[int, Sequence[Mapping[str, Any]]]


def set_job_field(
    BatchID: int,
    JobIndex: int | Sequence[int],
    Fields: Mapping[str, Any] | None = None,
    Unless: Mapping[str, Iterable[Any]] | None = None,
) -> int:
    """Set fields of one job, or of several of a batch.

    A job that is set to ``init`` or ``held`` while its executor has it is deleted from there, and is not submitted
    again before its former attempt has ended. Any other state only calls it something, once it has started.

    Parameters
    ----------
    BatchID : int
        The batch.
    JobIndex : int | Sequence[int]
        The job, or several.
    Fields : Mapping | None
        The new values; None: ``{'state': 'init'}``, so that it is submitted again. A ``workdir`` that is relative is
        meant from the current folder.
    Unless : Mapping | None
        Jobs that have one of these values are left alone; None: ``{'state': ['complete', 'collected']}``. ``{}``: none.

    Returns
    -------
    int
        How many jobs were changed.

    Raises
    ------
    NotFoundError
        If there is no such job; nothing is changed then.

    Examples
    --------
    >>> set_job_field(20260101000000, [3, 4])  # doctest: +SKIP
    2
    """
    batch_id = checks.number_of(BatchID)
    return _set({batch_id: checks.numbers_of(JobIndex)}, Fields, Unless, "set")


def set_batch_field(
    BatchID: Batches,
    Fields: Mapping[str, Any] | None = None,
    Unless: Mapping[str, Iterable[Any]] | None = None,
) -> int:
    """Set fields of all jobs of batches.

    Parameters
    ----------
    BatchID : int | Iterable[int] | Mapping
        The batch, several, or what ``get_queue(Verbose=False)`` returned: then only the jobs in it.
    Fields, Unless
        As for ``set_job_field``.

    Returns
    -------
    int
        How many jobs were changed.

    Examples
    --------
    >>> set_batch_field(get_queue(Filter='name LIKE "%yeast%"', Verbose=False))  # doctest: +SKIP
    12
    """
    return _set(_wanted(BatchID), Fields, Unless, "set")


def hold_back(config: Config, wanted: Mapping[int, list[int] | None]) -> int:
    """Hold back those jobs of an index that have not started."""
    return _set(wanted, {"state": "held"}, {}, "qdel", only=("init", "submit"), config=config)


def reset(config: Config, wanted: Mapping[int, list[int] | None]) -> int:
    """Set jobs of an index back to ``init``, as ``set_job_field`` does."""
    return _set(wanted, None, None, "set", config=config)


def _wanted(given: Batches) -> dict[int, list[int] | None]:
    if isinstance(given, Mapping):
        return {
            checks.number_of(batch_id): checks.numbers_of([one["JobIndex"] for one in group])
            for batch_id, group in given.items()
        }
    return dict.fromkeys(checks.numbers_of(given))


def _set(
    wanted: Mapping[int, list[int] | None],
    Fields: Mapping[str, Any] | None,
    Unless: Mapping[str, Iterable[Any]] | None,
    why: str,
    only: Sequence[str] | None = None,
    config: Config | None = None,
) -> int:
    fields = {"state": "init"} if Fields is None else dict(Fields)
    unless = (
        {"state": _FINISHED} if Unless is None else {key: _several(value) for key, value in Unless.items()}
    )
    _check(fields)
    if fields.get("workdir"):
        fields["workdir"] = absolute(fields["workdir"])
    config = config or load_config()
    with Store.of(config) as store:
        folding.fold(store, config)
        _refuse_unknown(store, wanted)
        count, taken = store.change(
            wanted, fields, unless, who=identity(), now=time.time(), why=why, only=only
        )
        _delete(store, config, taken)
    return count


def _several(value: Any) -> Iterable[Any]:
    return [value] if isinstance(value, (str, int, float)) or value is None else value


def _check(fields: Mapping[str, Any]) -> None:
    fixed = [field for field in fields if field in {"BatchID", "JobIndex", *jobs.RUNTIME}]
    if fixed:
        raise JobError(f"The field {fixed[0]!r} of a job cannot be set. Nothing was changed.")
    checks.check_change(fields)
    needs_of(fields.get("resources"))
    if fields.get("state") in jobs.SUBMITTED:
        raise JobError(
            f"A job cannot be set to state {fields['state']!r}; submit_jobs submits it. Nothing was changed."
        )


def _refuse_unknown(store: Store, wanted: Mapping[int, Sequence[int] | None]) -> None:
    with store.reading() as connection:
        for batch_id, indices in wanted.items():
            if not views.existing(connection, batch_id):
                raise NotFoundError(f"There is no batch {batch_id} in the index. Nothing was changed.")
            if indices is not None:
                unknown = set(indices) - set(views.indices_of(connection, batch_id, indices))
                if unknown:
                    raise NotFoundError(
                        f"There is no job {batch_id}:{min(unknown)} in the index. Nothing was changed."
                    )


def _delete(store: Store, config: Config, taken: list[Running]) -> None:
    """Delete attempts from their executors, and fold the end of those of which it is certain."""
    taken.sort(key=lambda one: (one.executor, one.token))
    for name, mine in groupby(taken, key=lambda one: one.executor):
        groups = [list(group) for _, group in groupby(mine, key=lambda one: one.token)]
        wanted = [
            (folding.bare(store, group[0].token, group[0].cluster_id), [one.task for one in group])
            for group in groups
        ]
        for group, gone in zip(groups, executor_of(name, config).delete_all(wanted), strict=True):
            ended = [one for one in group if one.task in gone]
            if not ended:
                continue
            now = time.time()
            with store.writing() as (_, db):
                for one in shown(ended, "deleting"):
                    key = Key(one.batch_id, one.job_index, one.n)
                    end_attempt(db, key, Ended(one.started, now, None, None), "cancelled", complete=False)


def qdel_batch(BatchID: Batches, state: str = "held") -> int:
    """Delete the jobs of batches from the executor's queue, running ones too.

    Parameters
    ----------
    BatchID : int | Iterable[int] | Mapping
        The batch, several, or what ``get_queue(Verbose=False)`` returned.
    state : str
        What becomes of them: ``held``, so that nothing sends them again by itself, or ``init``.

    Returns
    -------
    int
        How many jobs were deleted or held back.

    Examples
    --------
    >>> qdel_batch(20260101000000)  # doctest: +SKIP
    4
    """
    _check_deleted(state)
    wanted = _wanted(BatchID)
    config = load_config()
    if not isinstance(BatchID, Mapping):
        _delete_closers(config, list(wanted))
    return delete(config, wanted, state)


def delete(config: Config, wanted: Mapping[int, list[int] | None], state: str = "held") -> int:
    """Delete jobs from their executor, and hold back those that it does not have."""
    only = ("init", "submit", "run", "spawn")
    return _set(wanted, {"state": state}, {}, "qdel", only=only, config=config)


def _delete_closers(config: Config, batch_ids: Sequence[int]) -> None:
    """Delete what would go on with batches when their jobs are deleted."""
    with Store.of(config) as store, store.reading() as connection:
        closers = unsettled.closers_of(connection, batch_ids)
    for name, mine in closers.items():
        executor = executor_of(name, config)
        if isinstance(executor, ClusterJobExecutor):
            executor.delete_closers(mine)


def _check_deleted(state: str) -> None:
    if state not in {"held", "init"}:
        raise JobError(f"A deleted job becomes 'held' or 'init', not {state!r}. Nothing was deleted.")


def qdel_job(BatchID: int, JobIndex: int | Sequence[int], state: str = "held") -> int:
    """Delete one job of a batch, or several, from the executor's queue; as ``qdel_batch`` does.

    Parameters
    ----------
    BatchID : int
        The batch.
    JobIndex : int | Sequence[int]
        The job, or several.
    state : str
        What becomes of them: ``held`` or ``init``.

    Returns
    -------
    int
        How many jobs were deleted or held back.

    Raises
    ------
    NotFoundError
        If there is no such job; nothing is deleted then.

    Examples
    --------
    >>> qdel_job(20260101000000, 3)  # doctest: +SKIP
    1
    """
    _check_deleted(state)
    return delete(load_config(), {checks.number_of(BatchID): checks.numbers_of(JobIndex)}, state)


def boost_batch_priority(BatchID: Batches, by: float) -> int:
    """Add to the priority of all jobs of batches; above 100 they go before all others.

    Parameters
    ----------
    BatchID : int | Iterable[int] | Mapping
        The batch, several, or what ``get_queue(Verbose=False)`` returned.
    by : float
        What is added; a negative number lowers the priority.

    Returns
    -------
    int
        How many jobs were changed.

    Examples
    --------
    >>> boost_batch_priority(20260101000000, 100)  # doctest: +SKIP
    16
    """
    if not checks.is_number(by):
        raise JobError(f"The priority cannot be raised by {by!r}; it is a number. Nothing was changed.")
    wanted = _wanted(BatchID)
    with Store.of(load_config()) as store:
        _refuse_unknown(store, dict.fromkeys(wanted))
        return store.boost(list(wanted), checks.plain_number(by), who=identity(), now=time.time())


def remove_batch(BatchID: Batches) -> int:
    """Remove batches for good: their jobs, their history, and the folder with their scripts, data and logs.

    What still runs is deleted from its executor first.

    Parameters
    ----------
    BatchID : int | Iterable[int] | Mapping
        The batch, several, or what ``get_queue(Verbose=False)`` returned.

    Returns
    -------
    int
        How many batches were removed.

    Raises
    ------
    NotFoundError
        If there is no such batch; nothing is removed then.
    ExecutorError
        If a job did not end although it was deleted; its batch is held, and not removed.

    Examples
    --------
    >>> remove_batch(20260101000000)  # doctest: +SKIP
    1
    """
    wanted = list(_wanted(BatchID))
    remove(load_config(), wanted)
    return len(wanted)


def remove(config: Config, wanted: list[int]) -> None:
    """Remove batches from an index, as ``remove_batch`` does."""
    with Store.of(config) as store:
        _refuse_unknown(store, dict.fromkeys(wanted))
        delete(config, dict.fromkeys(wanted))
        _delete(store, config, store.take_back(wanted, time.time()))
        _await_end(store, config, wanted)
        for batch_id in shown(wanted, "removing", "batch", many=10):
            store.remove(batch_id, who=identity(), now=time.time())
            shutil.rmtree(Paths(store.index).batch(batch_id), ignore_errors=True)


def _await_end(store: Store, config: Config, batch_ids: list[int]) -> None:
    deadline = time.monotonic() + REMOVE_WAIT
    while True:
        with store.reading() as connection:
            left = unsettled.running_in(connection, batch_ids)
        if not left:
            return
        if time.monotonic() > deadline:
            one = left[0]
            raise ExecutorError(
                f"Job {one.batch_id}:{one.job_index} was deleted from {one.executor} and has not ended yet, so nothing was "
                f"removed; the batch is held. Try again when get_queue() no longer shows it online."
            )
        time.sleep(0.05)
        folding.fold(store, config, thorough=True)


def remove_batch_by_state(state: str) -> int:
    """Remove all batches whose jobs are all in one state, such as ``collected``.

    Returns
    -------
    int
        How many batches were removed.

    Examples
    --------
    >>> remove_batch_by_state("collected")  # doctest: +SKIP
    2
    """
    with Store.of(load_config()) as store, store.reading() as connection:
        states: dict[int, set[str]] = {}
        for batch_id, found, _, _ in views.islands(connection):
            states.setdefault(batch_id, set()).add(found)
    wanted = [batch_id for batch_id, those in states.items() if those == {state}]
    return remove_batch(wanted) if wanted else 0
