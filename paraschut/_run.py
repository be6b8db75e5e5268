"""What a function job runs: load, call, save, complete. A program, on every executor: ``python _run.py``.

It finds its job in the environment. The local agent does not start it for each call: its workers
(``agent.zygote``) do the same through the functions below.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

if __name__ == "__main__":
    # Run by its path, so that it is found wherever the package lies; last, so that it hides nothing of the user's.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from paraschut.desk import Desk, my_desk, own_key
from paraschut.errors import NotFoundError, ParaschutError, StaleJobError, StoreError
from paraschut.process import host_name
from paraschut.runtime import submit_next
from paraschut.store import bell, calls, pickles, spool
from paraschut.store.calls import Outcome, Payload
from paraschut.store.runtime import Key, Statements, mark_run

#: Characters that the reason of a failure has at most.
_SUMMARY = 300
_HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    """Run the job that this process is; return its exit code."""
    key = own_key()
    if key is None:
        sys.stderr.write("paraschut: this program runs a function job, and PARASCHUT_* names none.\n")
        return 2
    import faulthandler

    faulthandler.enable()
    desk = my_desk()
    try:
        payloads = begin(desk, key)
        outcome = call(desk, key, payloads)
        finish(desk, key, outcome)
    except (StaleJobError, NotFoundError) as error:
        sys.stderr.write(f"paraschut: {error}\n")
        return 3
    if outcome.kind == "value" and about_of(payloads).get("submit"):
        submit_next(desk)
    return 0 if outcome.kind == "value" else 1


def begin(desk: Desk, key: Key) -> list[Payload]:
    """Say that the job runs, and return what it is to call."""
    now = time.time()

    def run_and_read(db: Statements) -> list[Payload]:
        mark_run(db, key, now)
        return read(db)

    def read(db: Statements) -> list[Payload]:
        return calls.read_payloads(db, key.batch_id, key.job_index)

    try:
        return desk.write(run_and_read, key)
    except NotFoundError:
        raise
    except StoreError:  # as get_job_info does: what cannot be written now is kept beside the index
        spool.spool(desk.paths, key, {"kind": "run", "at": now, "host": host_name()})
        return desk.read(read)


def finish(desk: Desk, key: Key, outcome: Outcome) -> None:
    """Keep the outcome, in the index or else beside it."""
    now = time.time()
    try:
        desk.write(lambda db: calls.finish(db, key, outcome, now), key)
        bell.ring(desk.index, key.batch_id)
    except NotFoundError:
        raise
    except StoreError:
        spool.spool(desk.paths, key, spool.describe_result(outcome, now))


#: Keeps a value or an exception (``kind`` says which): the pickle, or whether it went into its file.
Keep = Callable[[object, str], tuple[bytes | None, bool]]


def call(
    desk: Desk,
    key: Key,
    payloads: list[Payload],
    known: dict[int, tuple[str, Any]] | None = None,
    loaded: Callable[[], None] | None = None,
    small: int | None = None,
) -> Outcome:
    """Load what a job calls, call it, and pickle what came of it; whatever goes wrong is an outcome, too.

    ``known`` keeps the functions that a worker has loaded, by number, and what is known of them; ``loaded`` is called when all is loaded.
    ``small`` is the size of pickles that go into the index; None: to be looked up.
    """
    most = desk.small() if small is None else small

    def keep(value: object, kind: str) -> tuple[bytes | None, bool]:
        data = pickles.dump_plain(value, desk.paths.result(*key, kind), most)
        return data, data is None

    try:
        work = _loaded(desk, key, payloads, known)
        if loaded is not None:
            loaded()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - unpickling runs code of the user's
        return _failure(_cannot_load(error, about_of(payloads)), keep, time.monotonic())
    return outcome_of(work, keep)


def outcome_of(work: Callable[[], Any], keep: Keep) -> Outcome:
    """Call something, and keep what came of it."""
    started = time.monotonic()
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001 - also sys.exit and Ctrl-C
        return _failure(error, keep, started)
    finally:
        _flush()
    seconds = time.monotonic() - started
    try:
        data, in_file = keep(value, "value")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - pickling runs code of the user's
        told = TypeError(f"the result cannot be pickled: {summary(error)}")
        told.__cause__ = error
        return _failure(told, keep, started)
    return Outcome("value", None, None, seconds, data, in_file)


def _loaded(
    desk: Desk, key: Key, payloads: list[Payload], known: dict[int, tuple[str, Any]] | None
) -> Callable[[], Any]:
    if not payloads:
        raise NotFoundError(f"Job {key.batch_id}:{key.job_index} is no function job: it has no payload.")
    about = about_of(payloads)
    _find_modules(about.get("path", ()))
    loaded = []
    for payload in reversed(payloads):  # the function comes first: its module may set up what arguments need
        if known is not None and known.get(payload.number, (None, None))[0] == (payload.about or ""):
            loaded.append(known[payload.number][1])
            continue
        path = desk.paths.payload(key.batch_id, payload.number)
        loaded.append(pickles.load(payload.data, path, desk.index, desk.trusted))
        if payload.about is not None:
            _warn_of_drift(about)
        if known is not None and payload.number < 0:
            known[payload.number] = (payload.about or "", loaded[-1])
    if len(loaded) == 1:
        function, args, kwargs = loaded[0]
    else:
        function, (args, kwargs) = loaded
    return lambda: function(*args, **kwargs)


def about_of(payloads: list[Payload]) -> dict[str, Any]:
    """Return what is known of the session that the function comes from."""
    told: dict[str, Any] = json.loads(payloads[-1].about or "{}") if payloads else {}
    return told


def _find_modules(path: list[str]) -> None:
    """Look for modules where the session looked that made the job, in that order."""
    if sys.path[: len(path)] != path:
        sys.path[:] = [*path, *(place for place in sys.path if place not in path)]


@cache
def versions() -> dict[str, str]:
    """Return the versions that decide whether a pickle can be read."""
    from importlib.metadata import version

    return {
        "Python": ".".join(map(str, sys.version_info[:3])),
        "paraschut": sys.modules["paraschut"].__version__,
        "cloudpickle": version("cloudpickle"),
    }


def module_hash(name: str | None) -> str | None:
    """Return a hash of the file of an imported module; None where there is none."""
    path = getattr(sys.modules.get(name or ""), "__file__", None)
    if name in {None, "__main__"} or path is None or not path.endswith(".py"):
        return None
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return None


def _drift(about: dict[str, Any]) -> str:
    """Return which versions are not those of the session that made the job."""
    then, now = about.get("versions", {}), versions()
    return ", ".join(f"{name} {then[name]}, here {now[name]}" for name in then if then[name] != now.get(name))


def _warn_of_drift(about: dict[str, Any]) -> None:
    told = _drift(about)
    if told:
        sys.stderr.write(f"paraschut: this job was made with other versions: {told}.\n")
    name, then = about.get("module"), about.get("hash")
    if then is not None and module_hash(name) not in {None, then}:
        sys.stderr.write(
            f"paraschut: module {name} was edited after this job was made; what runs is what is there now.\n"
        )


def because_of_drift(about: dict[str, Any]) -> str:
    """Return a sentence on why a pickle may be one that cannot be loaded; empty if nobody knows."""
    told = _drift(about)
    return f" It was made with other versions: {told}." if told else ""


def _cannot_load(error: BaseException, about: dict[str, Any]) -> Exception:
    if isinstance(error, ParaschutError):
        return error
    made = RuntimeError(
        f"the function or its arguments cannot be loaded: {summary(error)}.{because_of_drift(about)}"
    )
    made.__cause__ = error
    return made


def _failure(error: BaseException, keep: Keep, started: float) -> Outcome:
    from traceback import format_exception

    seconds = time.monotonic() - started
    # Without our own frames, which come first.
    frames = error.__traceback__
    while frames is not None and os.path.dirname(frames.tb_frame.f_code.co_filename) == _HERE:
        frames = frames.tb_next
    text = "".join(format_exception(type(error), error, frames))
    sys.stderr.write(text)
    _flush()
    data: bytes | None = None
    in_file = False
    if isinstance(error, Exception):
        try:
            data, in_file = keep(error, "error")
        except Exception:  # noqa: BLE001 - its text says enough
            data = None
    return Outcome("error", summary(error), text, seconds, data, in_file)


def summary(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, SystemExit):
        return f"sys.exit({'' if error.code is None else repr(error.code)})"
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception of the user's may not even be printable
        words = ""
    text = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return text if len(text) <= _SUMMARY else text[: _SUMMARY - 1] + "…"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed by the function, or the disk is full
            continue


if __name__ == "__main__":
    sys.exit(main())
