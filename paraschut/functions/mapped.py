"""What is told of the calls of a map: how many have ended, and what came of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from paraschut.functions.awaiting import Ending
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


def is_light(ending: Ending) -> bool:
    """Return whether an ending has left its result behind."""
    return ending.answer is not None and ending.answer.outcome.data is None


def alone(job: int, ending: Ending, outcome: Outcome) -> Ending:
    """Return how one call of a job ended that makes several."""
    assert ending.answer is not None
    return Ending(job, Answer(job, ending.answer.n, outcome))
