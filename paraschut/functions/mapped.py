"""What is told of the calls of a map: how many have ended, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from paraschut.functions.awaiting import Ending, Watch
from paraschut.functions.calling import PartlyFailedError, load_answer
from paraschut.store import calls
from paraschut.store.calls import Answer, Outcome


class Progress(NamedTuple):
    """How far a map is: numbers of calls; those of a job that makes several are counted when it ends."""

    total: int
    done: int
    failed: int
    running: int


class MappedCall:
    """One call of a map that has ended.

    Attributes
    ----------
    index : int
        Which of the items it was for.
    """

    def __init__(self, index: int, value: Callable[[], Any]) -> None:
        self.index = index
        self._value = value

    def __repr__(self) -> str:
        return f"<call {self.index} of a map, ended>"

    def result(self) -> Any:
        """Return what the function returned; raise what it raised, or JobFailed."""
        return self._value()

    def exception(self) -> Exception | None:
        """Return what ``result`` raises, or None."""
        try:
            self._value()
        except Exception as error:  # noqa: BLE001 - whatever the function raised
            return error
        return None


def light(ending: Ending) -> Ending:
    """Return an ending without its result."""
    if ending.answer is None or ending.answer.outcome.data is None:
        return ending
    outcome = ending.answer.outcome._replace(data=None, traceback=None)
    return Ending(ending.job_index, Answer(ending.job_index, ending.answer.n, outcome))


class Answers:
    """What came of the calls of a map, from how its jobs ended.

    Parameters
    ----------
    watch : Watch
        Reads results again that were left behind.
    name : str
        The name of the map.
    chunked : bool
        Whether jobs make several calls, and so have an outcome for each of them.
    """

    def __init__(self, watch: Watch, name: str, chunked: bool) -> None:
        self._watch = watch
        self._name = name
        self._chunked = chunked

    def full(self, ending: Ending) -> Ending:
        """Return an ending with its result, read again if it was left behind."""
        if ending.answer is None or ending.answer.outcome.data is not None:
            return ending
        answer = self._watch.read(lambda db: calls.read_result(db, self._watch.batch_id, ending.job_index))
        self._watch.close()
        return ending if answer is None else Ending(ending.job_index, answer)

    def failed(self, ending: Ending, count: int) -> int:
        """Return how many of the calls failed of a job that made ``count``."""
        if ending.good:
            return 0
        outcomes = self._outcomes(self.full(ending))
        return count if outcomes is None else sum(one.kind != "value" for one in outcomes)

    def values(self, job: int, items: Iterable[int], ending: Ending) -> list[tuple[int, Callable[[], Any]]]:
        """Return for each call of a job what gives its value, or raises."""
        ending = self.full(ending)
        outcomes = self._outcomes(ending)
        ends = [ending for _ in items] if outcomes is None else [_alone(job, ending, one) for one in outcomes]
        label = f"of {self._name!r} (job {self._watch.batch_id}:{job})"
        return [
            (item, partial(self._watch.value, end, f"Call {item} {label}"))
            for item, end in zip(items, ends, strict=True)
        ]

    def _outcomes(self, ending: Ending) -> list[Outcome] | None:
        """Return what came of each call of a job that makes several; None if the job failed as a whole."""
        if not self._chunked or ending.answer is None:
            return None
        outcome = ending.answer.outcome
        if outcome.data is None and not outcome.in_file:
            return None
        try:
            loaded = load_answer(self._watch.desk, self._watch.batch_id, ending.answer)
        except FileNotFoundError:  # its file was removed, which each value says
            return None
        if isinstance(loaded, PartlyFailedError):
            return loaded.outcomes
        return loaded if ending.good else None


def _alone(job: int, ending: Ending, outcome: Outcome) -> Ending:
    """Return how one call of a job ended that makes several."""
    assert ending.answer is not None
    return Ending(job, Answer(job, ending.answer.n, outcome))
