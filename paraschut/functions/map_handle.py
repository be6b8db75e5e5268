"""The handle of a function that is called for many items: how far it is, its results, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from paraschut import change
from paraschut.config import Config
from paraschut.dispatch import submit_batch
from paraschut.errors import ExecutorError, JobFailed, NotFoundError
from paraschut.executors.base import JobExecutor
from paraschut.functions.awaiting import Ending, Watch, deadline_of
from paraschut.functions.calling import layout_of
from paraschut.functions.handle import kill_here
from paraschut.functions.mapped import Answers, MappedCall, Progress, light
from paraschut.progress import bar
from paraschut.store import calls
from paraschut.store.store import Store

#: Seconds between two looks for results at least, so that many come at once.
_LEAST = 0.01

_RAISE: Any = object()


class FunctionMap:
    """The handle of a function that is called for many items; made by ``persist_map`` and ``readmgr``.

    Attributes
    ----------
    name : str
        As it was given to ``persist_map``.
    batch_id : int
        The batch in the index, for ``get_queue`` and ``print_log``.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        batch_id: int,
        about: Mapping[str, Any],
        executor: JobExecutor | None = None,
    ) -> None:
        self.name = name
        self.batch_id = batch_id
        self._reduces: bool = about["reduce"]
        self._config = config
        self.layout = layout_of(dict(about))
        self._watch = Watch(config, batch_id, executor)
        self._answers = Answers(self._watch, name, about["chunked"])
        #: How the jobs ended that were seen to; without the results, which may be large.
        self._seen: dict[int, Ending] = {}

    def __len__(self) -> int:
        return self.layout.total

    def __repr__(self) -> str:
        try:
            told = self.progress()
        except LookupError:
            return f"<function map {self.name!r}: removed>"
        return f"<function map {self.name!r}: {told.done} of {told.total} done, {told.failed} failed>"

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self, *, thorough: bool = False) -> dict[int, Ending]:
        """Take in what ended, and return what is new."""
        found = {}
        for ending in self._watch.news(thorough=thorough):
            found[ending.job_index] = ending
            self._seen[ending.job_index] = light(ending)
        return found

    def _fresh(self) -> None:
        """Take in everything anew: jobs may have been reset."""
        self._watch.begin()
        self._seen.clear()
        self._look(thorough=True)

    def _call_jobs(self) -> list[int]:
        return list(range(self.layout.jobs))

    def progress(self) -> Progress:
        """Return how many calls there are, are done, have failed, are running."""
        try:
            self._fresh()
            standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        finally:
            self._watch.close()
        if not standing:
            raise _removed(self.name)
        done = failed = 0
        for job, ending in self._seen.items():
            if job < self.layout.jobs:
                made = len(self.layout.items_of(job))
                bad = self._answers.failed(ending, made)
                failed += bad
                done += made - bad
        running = sum(
            len(self.layout.items_of(one.job_index))
            for one in standing
            if one.state == "run" and one.job_index < self.layout.jobs and one.job_index not in self._seen
        )
        return Progress(self.layout.total, done, failed, running)

    def status(self) -> str:
        """Return ``'empty'``, ``'queued'``, ``'running'``, ``'done'`` (all well) or ``'failed'`` (all that could run has ended)."""
        try:
            self._fresh()
            standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        finally:
            self._watch.close()
        if not standing:
            raise _removed(self.name)
        failed = any(not ending.good for ending in self._seen.values())
        if self._all_ended():
            return "failed" if failed else "done"
        states = {one.state for one in standing if one.job_index not in self._seen}
        if self._seen or "run" in states:
            return "running"
        return "queued" if "submit" in states else "empty"

    def _all_ended(self) -> bool:
        """Return whether nothing more can end: also the reduction, which waits for all and for ever if one failed."""
        if any(job not in self._seen for job in self._call_jobs()) or not self.layout.chunk:
            return False
        failed = any(not self._seen[job].good for job in self._call_jobs())
        return failed or not self._reduces or self.layout.total in self._seen

    def isready(self) -> bool:
        """Return whether all has ended, well or not."""
        try:
            self._fresh()
            return self._all_ended()
        finally:
            self._watch.close()

    def wait(self, timeout: float | None = None, progress: bool | None = None) -> bool:
        """Wait until all has ended, ``timeout`` seconds at most; return whether it has.

        Parameters
        ----------
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.
        """
        left = deadline_of(timeout)
        for _ in self._endings(left, progress):
            pass
        self._fresh()
        return self._watch.until(lambda: self._all_ended_now() or None, left()) is not None

    def _all_ended_now(self) -> bool:
        self._look()
        return self._all_ended()

    def wait_for_pilots(self, timeout: float) -> None:
        """Wait for the jobs by which "auto" measures."""

        def ended() -> bool | None:
            self._look()
            return all(job in self._seen for job in range(self.layout.pilots)) or None

        self._watch.until(ended, timeout)

    def seconds(self) -> list[float]:
        """Return how long the jobs took that ended with an answer."""
        return [one.answer.outcome.seconds for one in self._seen.values() if one.answer is not None]

    # -- results ------------------------------------------------------------------------------------------------

    def _endings(
        self, left: Callable[[], float | None], progress: bool | None
    ) -> Iterator[tuple[int, Ending]]:
        """Give each job of calls as it ends, with its result if that just came; stop when the time is over."""
        if not self.layout.chunk:
            raise JobFailed(
                f"{self.name!r} was interrupted before all its calls were added. Call persist_map again with the same "
                f"name, function and items.",
                "interrupted",
            )
        self._watch.begin()
        self._seen.clear()
        waiting = set(self._call_jobs())
        with bar(self.layout.total, self.name, "call", wanted=progress, stays=True) as show:
            try:
                while waiting:
                    found = self._watch.until(lambda: self._look() or None, left(), _LEAST, hold=True)
                    if found is None:
                        return
                    for job in sorted(found.keys() & waiting):
                        waiting.discard(job)
                        show(len(self.layout.items_of(job)))
                        yield job, found[job]
            finally:
                self._watch.close()

    def as_completed(
        self, timeout: float | None = None, progress: bool | None = None
    ) -> Iterator[MappedCall]:
        """Give each call when it has ended, in the order in which they end.

        Parameters
        ----------
        timeout : float | None
            Seconds for all of them; None: as long as it takes.
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.

        Raises
        ------
        TimeoutError
            If some have not ended by then; they go on.
        """
        count = 0
        for job, ending in self._endings(deadline_of(timeout), progress):
            count += 1
            for item, value in self._answers.values(job, self.layout.items_of(job), ending):
                yield MappedCall(item, value)
        if count < self.layout.jobs:
            raise self._too_late(timeout)

    def _too_late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"The map {self.name!r} has not ended within {timeout} s; it goes on.")

    def results(
        self, timeout: float | None = None, default: Any = _RAISE, progress: bool | None = None
    ) -> list[Any]:
        """Wait for all calls, and return their results in the order of the items.

        Parameters
        ----------
        timeout : float | None
            Seconds to wait at most; None: until all have ended.
        default : Any
            What stands for the result of a call that failed; if it is not given, the first failure is raised.
        progress : bool | None
            Whether to show a bar; None: in a terminal or a notebook.

        Raises
        ------
        TimeoutError
            If some have not ended by then; they go on.
        Exception
            What the first call that failed raised, or JobFailed; ``failures()`` gives all.
        """
        found: dict[int, Any] = {}
        failed: dict[int, Exception] = {}
        for call in self.as_completed(timeout, progress):
            try:
                found[call.index] = call.result()
            except Exception as error:  # noqa: BLE001 - whatever the function raised
                failed[call.index] = error
                found[call.index] = default
        if failed and default is _RAISE:
            raise failed[min(failed)]
        return [found[item] for item in range(self.layout.total)]

    def failures(self) -> dict[int, Exception]:
        """Return what the calls raised that have failed so far, by the index of their item."""
        try:
            self._fresh()
            found: dict[int, Exception] = {}
            for job, ending in sorted(self._seen.items()):
                if ending.good or job >= self.layout.jobs:
                    continue
                for item, value in self._answers.values(job, self.layout.items_of(job), ending):
                    error = MappedCall(item, value).exception()
                    if error is not None:
                        found[item] = error
            return found
        finally:
            self._watch.close()

    def fetch(self, timeout: float | None = None) -> Any:
        """Wait for the result of the reduction, or for all results if there is none.

        Parameters
        ----------
        timeout : float | None
            Seconds to wait at most; None: until it is there.

        Raises
        ------
        TimeoutError
            If it is not there by then; the map goes on.
        Exception
            What the first call that failed raised, or the reduction; or JobFailed.
        """
        if not self._reduces:
            return self.results(timeout)
        if not self.wait(timeout):
            raise self._too_late(timeout)
        for job in self._call_jobs():
            if not self._seen[job].good:
                for _, value in self._answers.values(job, self.layout.items_of(job), self._seen[job]):
                    value()
        reduced = self._answers.full(self._seen[self.layout.total])
        return self._watch.value(reduced, f"The reduction of {self.name!r}")

    # -- changing -----------------------------------------------------------------------------------------------

    def again(self) -> None:
        """Call again what failed or was cancelled, and go on with what was not called yet."""
        self._fresh()
        bad = [job for job, ending in self._seen.items() if not ending.good]
        if bad:
            change.reset(self._config, {self.batch_id: bad})
        with Store.of(self._config) as store:
            submit_batch(store, self._config, self.batch_id, self._watch.executor)
        self._watch.close()

    def cancel(self, force: bool = False) -> bool:
        """Ask all to end that has not; return whether there was anything to end.

        Parameters
        ----------
        force : bool
            Kill at once what runs on this machine; else it has a few seconds to heed SIGTERM.
        """
        self._fresh()
        standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        left = [one.job_index for one in standing if one.job_index not in self._seen]
        self._watch.close()
        done = change.delete(self._config, {self.batch_id: left}) if left else 0
        if force:
            for job in left:
                kill_here(self._watch, job)
        return done > 0

    def cleanup(self) -> None:
        """Delete all of it: the jobs, their results, their output, the name.

        Raises
        ------
        ExecutorError
            If some of it is queued or runs; ``cancel()`` ends it. Nothing is deleted then.
        """
        self._fresh()
        standing = self._watch.read(lambda db: calls.standings(db, self.batch_id))
        self._watch.close()
        busy = [
            one.job_index
            for one in standing
            if one.state in {"submit", "run", "spawn"} and one.job_index not in self._seen
        ]
        if busy:
            raise ExecutorError(
                f"{len(busy)} jobs of {self.name!r} are queued or running, so nothing was deleted. cancel() it, or wait() "
                f"for it."
            )
        change.remove(self._config, [self.batch_id])

    def getstdout(self, index: int) -> str:
        """Return what a call wrote to its standard output; those that are one job share it."""
        return self._watch.log(self.layout.job_of(index), "stdout")

    def getstderr(self, index: int) -> str:
        """Return what a call wrote to its standard error; those that are one job share it."""
        return self._watch.log(self.layout.job_of(index), "stderr")


def _removed(name: str) -> Exception:
    return NotFoundError(f"The map {name!r} is no longer in the index: it was removed, with its results.")
