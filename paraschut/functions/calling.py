"""What function jobs of a batch call when one function serves many of them: chunks of calls, and the reduction.

Pickled with the job and loaded where it runs, so it imports little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from paraschut import _run
from paraschut.desk import Desk, my_desk, own_key
from paraschut.errors import NotInJobError
from paraschut.store import calls, pickles
from paraschut.store.calls import Outcome
from paraschut.store.runtime import Key


class Layout(NamedTuple):
    """Which job makes which of the calls of a map.

    Attributes
    ----------
    total : int
        How many calls there are.
    pilots : int
        So many jobs at the beginning make one call each.
    chunk : int
        So many calls each of the others makes; 0: these were not added yet.
    """

    total: int
    pilots: int
    chunk: int

    @property
    def jobs(self) -> int:
        """How many jobs there are.

        Examples
        --------
        >>> Layout(10, 2, 3).jobs
        5
        """
        if not self.chunk:
            return self.pilots
        return self.pilots + -(-(self.total - self.pilots) // self.chunk)

    def items_of(self, job: int) -> range:
        """Return the calls that a job makes.

        Examples
        --------
        >>> Layout(10, 2, 3).items_of(4)
        range(8, 10)
        """
        if job < self.pilots:
            return range(job, job + 1)
        start = self.pilots + (job - self.pilots) * self.chunk
        return range(start, min(start + self.chunk, self.total))

    def job_of(self, item: int) -> int:
        """Return the job that makes a call.

        Examples
        --------
        >>> [Layout(10, 2, 3).job_of(item) for item in (0, 1, 2, 4, 5, 9)]
        [0, 1, 2, 2, 3, 4]
        """
        return item if item < self.pilots else self.pilots + (item - self.pilots) // self.chunk


class PartlyFailedError(Exception):
    """Some calls of a chunk failed; carries what came of all of them."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        failed = [outcome for outcome in outcomes if outcome.kind != "value"]
        super().__init__(f"{len(failed)} of {len(outcomes)} calls failed, the first with {failed[0].summary}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcomes,)


class Chunk:
    """Calls a function several times, as one job; a failure of one does not keep the others from being made."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, items: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Return what came of each; raise PartlyFailedError unless all went well."""
        key, desk = own_key(), my_desk()
        if key is None:
            raise NotInJobError("A chunk of calls can only be made by a job.")
        before = _outcomes_before(desk, key)
        outcomes = []
        for number, item in enumerate(items):
            if number < len(before) and before[number].kind == "value":
                outcomes.append(before[number])
                continue
            outcomes.append(_run.outcome_of(partial(self.function, *item), _in_memory))
        if any(outcome.kind != "value" for outcome in outcomes):
            raise PartlyFailedError(outcomes)
        return outcomes


def _in_memory(value: object, kind: str) -> tuple[bytes | None, bool]:
    del kind
    return pickles.dump_plain(value, "", 1 << 62), False


def _outcomes_before(desk: Desk, key: Key) -> list[Outcome]:
    """Return what came of the calls of this chunk in an attempt before this one."""
    answer = desk.read(lambda db: calls.read_result(db, key.batch_id, key.job_index))
    if answer is None:
        return []
    try:
        loaded = load_answer(desk, key.batch_id, answer)
    except Exception:  # noqa: BLE001 - whatever it was: the calls are made again
        return []
    outcomes: list[Outcome] = loaded.outcomes if isinstance(loaded, PartlyFailedError) else []
    return outcomes


def load_answer(desk: Desk, batch_id: int, answer: calls.Answer) -> Any:
    """Return the value of an answer, or its exception."""
    path = desk.paths.result(batch_id, answer.job_index, answer.n, answer.outcome.kind)
    return pickles.load(answer.outcome.data, path, desk.index, desk.trusted)


class Reduce:
    """Calls a function with the list of all values of a map."""

    def __init__(self, function: Callable[[list[Any]], Any], chunked: bool) -> None:
        self.function = function
        self.chunked = chunked

    def __call__(self, name: str) -> Any:
        """Return what the function makes of the values."""
        key, desk = own_key(), my_desk()
        if key is None:
            raise NotInJobError("The values of a map can only be gathered by its job.")
        row = desk.read(lambda db: db.row("name", name=name))
        layout = layout_of(json.loads(row["about"] if row else "{}"))
        values: list[Any] = []
        for job in range(layout.jobs):
            answer = desk.read(lambda db, job=job: calls.read_result(db, key.batch_id, job))  # type: ignore[misc]
            assert answer is not None, "its group comes after that of the calls"
            value = load_answer(desk, key.batch_id, answer)
            values.extend([pickles.loads(one.data) for one in value] if self.chunked else [value])
        return self.function(values)


def layout_of(about: dict[str, Any]) -> Layout:
    """Return the layout of a map from what is kept with its name."""
    return Layout(about["total"], about["pilots"], about["chunk"])
