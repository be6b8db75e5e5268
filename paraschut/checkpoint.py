"""What a job can do before its time is over: save, and ask to be started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from paraschut.desk import my_desk, own_key
from paraschut.errors import JobError, NotFoundError, NotInJobError, StoreError
from paraschut.retry import REQUEUED
from paraschut.store import runtime
from paraschut.store.runtime import Statements

#: What a job is told before its time limit; who does not listen is not harmed by it.
WARNING = signal.SIGURG


def on_warning(fn: Callable[[], Any]) -> None:
    """Have a function called some seconds before the job's time limit, or when it is told to end.

    It is called once at most, in the main thread, between two steps of the program. It may save what was reached, and
    ask for another start with ``requeue()``. How many seconds is the setting ``warning``. A shell script gets the signal
    URG instead: ``trap 'save; paraschut job requeue; exit' URG``.

    Parameters
    ----------
    fn : Callable[[], Any]
        The function; called without arguments. One that is given later takes its place.

    Raises
    ------
    JobError
        If it is called in another thread than the main one.

    Examples
    --------
    >>> def save():
    ...     model.write("checkpoint")
    ...     requeue()
    >>> on_warning(save)  # doctest: +SKIP
    """
    called: list[int] = []

    def heed(number: int, _: Any) -> None:
        if not called:
            called.append(number)
            fn()
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        for number in (WARNING, signal.SIGTERM):
            signal.signal(number, heed)
    except ValueError as error:
        raise JobError(
            f"on_warning() must be called in the main thread of the program ({error}). Nothing was done."
        ) from error


def requeue() -> NoReturn:
    """End this job, and have it started again by the next pass: it is no failure, and costs no retry.

    What it goes on from is its own affair: save it before. The passes are those that go on by themselves, too: on
    this machine at once; on a cluster if the job has ``retries`` or is ``complete_on_exit``.

    Raises
    ------
    SystemExit
        Always: the program ends, with exit code 0.
    NotInJobError
        If this is no job.
    StaleJobError
        If this attempt no longer counts, because the job was reset or submitted again.

    Examples
    --------
    >>> requeue()  # doctest: +SKIP
    """
    say_requeue()
    raise SystemExit(0)


def say_requeue() -> None:
    """Write down that the end of this attempt, which is to come, is no failure."""
    key = own_key()
    if key is None:
        raise NotInJobError(
            "requeue() works inside a job, and this process is none (PARASCHUT_BATCHID is not set)."
        )
    desk = my_desk()

    def say(db: Statements) -> None:
        runtime.check_current(db, key)
        db.run("attempt_reason", **key._asdict(), reason=REQUEUED)

    try:
        desk.write(say, key)
    except NotFoundError:
        raise
    except StoreError:
        desk.keep(key, {"kind": "requeue", "at": time.time()})
