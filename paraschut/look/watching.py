"""Looks again and again: the dashboard, kept up to date in place."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from paraschut.config import Config, load_config
from paraschut.errors import JobError
from paraschut.executors.base import JobExecutor
from paraschut.look.dashboard import bring_up_to_date, condition_of, summarise
from paraschut.look.render import render_queue
from paraschut.look.render_html import queue_html
from paraschut.look.screen import coloured, publish, width
from paraschut.look.summary import BatchRow, Totals, open_jobs
from paraschut.look.texts import duration
from paraschut.process import notebook
from paraschut.store.store import Store

#: Looking more often tells nothing new.
_LEAST_INTERVAL = 0.1
#: Seconds without a job that runs, after which nobody waits for those that were never submitted.
_PATIENCE = 60.0


class Watch:
    """A dashboard that is kept up to date in the background; ``stop()`` ends that."""

    def __init__(self) -> None:
        #: Set when it is to stop.
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: The error that ended it, if one did.
        self.error: Exception | None = None

    def start(self, work: Callable[[], None]) -> Watch:
        """Go on in the background with some work."""
        # A daemon: a session that ends does not wait for it.
        self._thread = threading.Thread(target=work, name="paraschut watch", daemon=True)
        self._thread.start()
        return self

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stop, and leave what is shown as it is."""
        self.stopping.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.running

    def __repr__(self) -> str:
        return f"<Watch, {'running; stop() ends it' if self.running else 'ended'}>"


def watch(
    interval: float = 5.0,
    Filter: str = "",
    block: bool = True,
    Display: Collection[str] | None = None,
    Executor: JobExecutor | str | None = None,
) -> Watch | None:
    """Show where every batch stands, and keep that up to date in place until all is done.

    A notebook shows one output that changes. A terminal shows a screen of its own, which ``q`` or Ctrl-C leaves; arrow
    keys scroll. Elsewhere, as in a file, text is printed whenever something has changed. It ends by itself when no job
    is left that runs or waits; outside of a terminal also when none has run for a minute, as those that wait were not
    submitted, or wait for one that is missing. However often it looks, the scheduler is asked no more often than
    all sessions together may ask it. Notebooks in other programs than JupyterLab understand the same messages, but
    were not tried.

    Parameters
    ----------
    interval : float
        Seconds between two looks.
    Filter : str
        Only jobs that meet a condition, as for ``get_queue``.
    block : bool
        Whether to return only at the end. False, in a notebook: the cell ends, and its output goes on changing.
    Display : Collection[str] | None
        Only these states (and ``'missing'``); None: all.
    Executor : JobExecutor | str | None
        Only judge jobs of this executor; None: of all.

    Returns
    -------
    Watch | None
        With ``block=False``: its ``stop()`` ends it.

    Raises
    ------
    JobError
        If the interval is no time, or ``block=False`` is asked for outside of a notebook.
    FilterError
        If the Filter is not a condition.

    Examples
    --------
    >>> watch(2, 'name LIKE "%yeast%"', block=False)  # doctest: +SKIP
    """
    if not isinstance(interval, int | float) or not interval >= _LEAST_INTERVAL:
        raise JobError(
            f"interval is {interval!r}; it must be a number of seconds, at least {_LEAST_INTERVAL}."
        )
    states = [Display] if isinstance(Display, str) else Display
    looker = _Looker(load_config(), Filter, states, Executor)
    in_notebook = notebook() is not None
    if not block and not in_notebook:
        raise JobError("block=False needs a notebook, whose output can change; leave it out in a terminal.")
    if not in_notebook:
        if sys.stdout.isatty():
            _in_terminal(looker, interval)
        else:
            _as_text(looker, interval)
        return None
    watched = Watch()
    update = publish(*looker.look().as_text_and_html())
    if block:
        try:
            _in_notebook(looker, interval, watched, update)
        except KeyboardInterrupt:
            update(*looker.told(f"stopped looking after {duration(looker.spent)}"))
        return None
    return watched.start(lambda: _in_background(looker, interval, watched, update))


class _Looker:
    """What is looked at, and what was seen last."""

    def __init__(
        self, config: Config, text: str, states: Collection[str] | None, executor: JobExecutor | str | None
    ) -> None:
        self.config, self.states, self.executor = config, states, executor
        self.text, self.condition = text, condition_of(text)
        self.rows: Sequence[BatchRow] = ()
        self.totals = Totals(0, 0, 0, 0, 0)
        self.began = self.last_active = time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    def look(self) -> _Looker:
        if os.path.exists(self.config.index):
            with Store.of(self.config) as store:
                notes = bring_up_to_date(store, self.config, self.executor)
                self.rows, self.totals = summarise(store, self.condition, notes, self.text)
        active, _ = open_jobs(self.rows)
        if active:
            self.last_active = time.monotonic()
        return self

    def verdict(self, *, patient: bool) -> str:
        """Return why there is nothing left to wait for, in a sentence; empty while there is."""
        active, waiting = open_jobs(self.rows)
        if active:
            return ""
        if not waiting:
            return "nothing runs or waits any more"
        if not patient and time.monotonic() - self.last_active > _PATIENCE:
            return f"{waiting:,} jobs wait, and none runs: they were not submitted, or wait for others"
        return ""

    @property
    def filtered(self) -> bool:
        return bool(self.text.strip())

    def as_text(self, columns: int, *, colour: bool = False) -> str:
        return render_queue(
            self.rows,
            self.totals,
            display=self.states,
            width=columns,
            filtered=self.filtered,
            colour=colour,
        )

    def as_text_and_html(self) -> tuple[str, str]:
        shown = queue_html(
            self.rows, self.totals, display=self.states, filtered=self.filtered, now=time.time()
        )
        return self.as_text(100), shown

    def told(self, words: str) -> tuple[str, str]:
        """Return what was seen last, with a note."""
        self.totals = Totals(
            self.totals.queued,
            self.totals.online,
            self.totals.missing,
            self.totals.complete,
            self.totals.jobs,
            (*self.totals.notes, f"watch: {words}."),
        )
        return self.as_text_and_html()


def _in_notebook(looker: _Looker, interval: float, watched: Watch, update: Any) -> None:
    while not watched.stopping.is_set():
        why = looker.verdict(patient=False)
        if why:
            update(*looker.told(why))
            return
        watched.stopping.wait(interval)
        update(*looker.look().as_text_and_html())


def _in_background(looker: _Looker, interval: float, watched: Watch, update: Any) -> None:
    try:
        _in_notebook(looker, interval, watched, update)
    except Exception as error:  # noqa: BLE001 - told where the user looks, and kept
        watched.error = error
        update(*looker.told(f"ended by an error: {error}"))


def _as_text(looker: _Looker, interval: float) -> None:
    before = ""
    while True:
        text = looker.look().as_text(width())
        if text != before:
            print(f"{text}\n", flush=True)
            before = text
        why = looker.verdict(patient=False)
        if why:
            print(f"watch: {why}.")
            return
        time.sleep(interval)


def _in_terminal(looker: _Looker, interval: float) -> None:
    from paraschut.look.terminal import Screen

    why = ""
    try:
        with Screen() as screen:
            while not why:
                looker.look()
                why = looker.verdict(patient=True)
                due = time.monotonic() + interval
                key = ""
                while not why and key != "time":
                    columns, _ = screen.size
                    foot = f"{time.strftime('%H:%M:%S')} · every {interval:g} s · q quits"
                    screen.draw(looker.as_text(columns, colour=coloured()), foot)
                    key = screen.wait(due)
                    if key == "quit":
                        why = "stopped"
                    screen.scroll(key)
    except KeyboardInterrupt:
        why = "stopped"
    # What was seen last stays, on the screen that was there before.
    print(looker.as_text(width(), colour=coloured()))
    print(f"watch: {why}.")
