"""What ``get_queue(Verbose=False)`` returns: the jobs by batch, as a dict that can also be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from paraschut import job as jobs
from paraschut.errors import ParaschutError
from paraschut.look.summary import BatchRow, MissingRow, StateRow, Totals, spans_of, state_rank
from paraschut.look.texts import clean, plural

if TYPE_CHECKING:
    import pandas as pd

_ACTIVE = ("submit", "run", "spawn")


class Queue(dict[int, list[jobs.Job]]):
    """The jobs of a queue by BatchID: an ordinary dict, shown in a notebook as the dashboard.

    Attributes
    ----------
    online : Mapping
        The jobs whose processes were seen to be alive, as (BatchID, JobIndex).
    copies : Mapping
        How many copies of a job are, for jobs in ``spawn``.
    times : Mapping
        The seconds since a batch began, and those that it will still take (or None), by BatchID.
    at : float | None
        When it was read, in epoch seconds.
    """

    def __init__(
        self,
        found: Mapping[int, list[jobs.Job]] | None = None,
        *,
        online: Iterable[tuple[int, int]] = (),
        copies: Mapping[tuple[int, int], int] | None = None,
        times: Mapping[int, tuple[float, float | None]] | None = None,
        at: float | None = None,
    ) -> None:
        super().__init__(found or {})
        self.online = frozenset(online)
        self.copies = dict(copies or {})
        self.times = dict(times or {})
        self.at = at

    def __repr__(self) -> str:
        states = Counter(str(job.get("state")) for group in self.values() for job in group)
        told = ", ".join(f"{states[state]} {clean(state)}" for state in sorted(states, key=state_rank))
        held = f"{plural(len(self), 'batch')}, {plural(states.total(), 'job')}"
        return f"<Queue of {held}{': ' if told else ''}{told}>"

    def _repr_html_(self) -> str:
        from paraschut.look.render_html import queue_html

        rows, totals = self.summary()
        return queue_html(rows, totals, now=self.at)

    def summary(self) -> tuple[list[BatchRow], Totals]:
        """Return the rows and totals of the dashboard, for the jobs that are in this dict."""
        rows = [self._row(batch_id, group) for batch_id, group in sorted(self.items()) if group]
        done = sum(row.count for one in rows for row in one.states if row.state in {"complete", "collected"})
        every = sum(row.count for one in rows for row in one.states)
        lit = sum(last - first + 1 for one in rows for row in one.states for first, last in row.online)
        lost = sum(len(one.missing) for one in rows)
        still = sum((one.batch_id, row.job_index) in self.copies for one in rows for row in one.missing)
        active = sum(row.count for one in rows for row in one.states if row.state in _ACTIVE) - lost + still
        return rows, Totals(active, lit, lost, done, every)

    def _row(self, batch_id: int, group: list[jobs.Job]) -> BatchRow:
        missing = [
            MissingRow(job["JobIndex"], str(job["failure"]), max(len(job.get("ClusterID") or ()), 1))
            for job in group
            if job.get("failure") and job["state"] in _ACTIVE
        ]
        lost = {row.job_index for row in missing}
        by_state: dict[str, list[int]] = {}
        for job in group:
            by_state.setdefault(str(job["state"]), []).append(job["JobIndex"])
        states = tuple(
            StateRow(
                state,
                len(indices),
                spans_of(indices),
                spans_of(
                    i
                    for i in indices
                    if state in _ACTIVE
                    and (batch_id, i) in self.online
                    and (i not in lost or (batch_id, i) in self.copies)
                ),
                tuple(
                    (i, self.copies[batch_id, i])
                    for i in indices
                    if state == "spawn" and (batch_id, i) in self.copies
                ),
            )
            for state, indices in by_state.items()
        )
        progress = tuple(
            (job["JobIndex"], job["progress"], str(job.get("progress_message") or ""))
            for job in group
            if job["state"] in _ACTIVE and job["JobIndex"] not in lost and job.get("progress") is not None
        )
        name, kind = jobs.joined_name(group[0].get("name")), str(group[0].get("data_type") or "")
        elapsed, left = self.times.get(batch_id, (None, None))
        return BatchRow(batch_id, name, kind, states, tuple(missing), progress, elapsed, left)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each job and a column for each field that any of them has.

        Raises
        ------
        ParaschutError
            If pandas is not installed.

        Examples
        --------
        >>> get_queue(Verbose=False).to_pandas().groupby("state").size()  # doctest: +SKIP
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ParaschutError(
                "to_pandas() needs pandas, which is not installed here: pip install pandas"
            ) from error
        rows: list[dict[str, Any]] = [dict(job) for group in self.values() for job in group]
        return pd.DataFrame(rows)
