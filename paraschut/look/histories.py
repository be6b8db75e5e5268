"""What happened to a job: its attempts, and what people and rules did to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from paraschut import fold as folding
from paraschut.config import load_config
from paraschut.errors import NotFoundError, StoreError
from paraschut.look.render import render_table
from paraschut.look.render_html import table_html
from paraschut.resources import format_size
from paraschut.store import views
from paraschut.store.runtime import cluster_id
from paraschut.store.store import Store

_ATTEMPT = ("n", "executor", "host", "submitted", "started", "cancelled", "ended")
_END = ("code", "signal", "reason", "max_rss", "cpu")
_EVENT = ("at", "kind", "JobIndex", "host", "pid", "detail")


class History(dict[str, Any]):
    """The attempts of a job and what was done to it, as a dict that is shown as two tables."""

    def __repr__(self) -> str:
        attempts, events = _rows(self)
        where = f"{self['BatchID']}:{self['JobIndex']}"
        return "\n\n".join(
            render_table(rows, list(rows[0])) if rows else nothing
            for rows, nothing in (
                (attempts, f"Job {where} was not submitted yet."),
                (events, "Nobody changed it."),
            )
        )

    def _repr_html_(self) -> str:
        attempts, events = _rows(self)
        title = f"Job {self['BatchID']}:{self['JobIndex']}"
        return table_html(
            title, [("attempts", attempts, "not submitted yet"), ("changes", events, "nobody changed it")]
        )


def history(BatchID: int, JobIndex: int) -> History:
    """Return the attempts of a job, and what people and rules did to it: resets, edits, deletions.

    Parameters
    ----------
    BatchID, JobIndex : int
        The job.

    Returns
    -------
    History
        A dict, shown as two tables. ``attempts`` is a list of dicts with n (from 1), executor, host, submitted,
        started, cancelled, ended, code, signal, reason, max_rss, cpu and ClusterID; ``events`` one of dicts with at,
        kind, JobIndex (None where several jobs were changed at once), host, pid and detail. Times are UTC epoch
        seconds, durations seconds, sizes bytes; what is not known is None.

    Raises
    ------
    NotFoundError
        If there is no such job.

    Examples
    --------
    >>> history(20260101000000, 7)["attempts"][-1]["reason"]  # doctest: +SKIP
    'out of memory'
    """
    config = load_config()
    with Store.of(config) as store:
        # An index that cannot be written is shown as it is.
        with contextlib.suppress(StoreError):
            folding.fold(store, config, thorough=True)
        with store.reading() as connection:
            if not views.indices_of(connection, BatchID, [JobIndex]):
                raise NotFoundError(
                    f"There is no job {BatchID}:{JobIndex} in the index. get_queue() shows what there is."
                )
            attempts = views.attempts_of(connection, BatchID, JobIndex)
            events = views.events_of(connection, BatchID, JobIndex)
    return History(
        BatchID=BatchID,
        JobIndex=JobIndex,
        attempts=[
            {
                **{key: one[key] for key in _ATTEMPT + _END},
                "ClusterID": cluster_id(one["token"], one["cluster_id"], one["task"]),
            }
            for one in attempts
        ],
        events=[{key: one[key] for key in _EVENT} for one in events],
    )


def _rows(found: Mapping[str, Any]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    attempts: list[dict[str, object]] = [
        {
            "attempt": one["n"],
            "executor": one["executor"],
            "id": one["ClusterID"],
            "host": one["host"],
            **{key: _when(one[key]) for key in ("submitted", "started", "ended")},
            "how": _how(one),
            "memory": None if one["max_rss"] is None else format_size(one["max_rss"]),
            "cpu s": one["cpu"],
        }
        for one in found["attempts"]
    ]
    events: list[dict[str, object]] = [
        {
            "at": _when(one["at"]),
            "what": one["kind"] + (" (several jobs)" if one["JobIndex"] is None else ""),
            "by": f"process {one['pid']} on {one['host']}",
            "detail": one["detail"],
        }
        for one in found["events"]
    ]
    return attempts, events


def _when(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _how(attempt: Mapping[str, Any]) -> str:
    if attempt["reason"]:
        return str(attempt["reason"])
    if attempt["ended"] is None:
        return "" if attempt["started"] is None else "running"
    if attempt["signal"]:
        return f"signal {attempt['signal']}"
    return "ended" if attempt["code"] is None else f"exit code {attempt['code']}"
