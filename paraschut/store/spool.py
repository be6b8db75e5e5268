"""Event files: what a job could not write into the index is not lost.

A file is written beside and linked: ``events/<BatchID>.<JobIndex>.<attempt>.<number>.json``. The next writer
folds them in order, each once: the number of the last one folded is kept with the attempt, so a file that
outlives its folding (its folder died in between) does nothing. Of what was folded the last name stays, ending in
``done``: whoever writes next may not be able to ask the index where to go on, nor trust its clock. Part of the
road of a job: imports little.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from paraschut import job as jobs
from paraschut.errors import NotFoundError, StaleJobError, StoreError
from paraschut.paths import NO_LINKS, Paths, make_folder
from paraschut.store import runtime
from paraschut.store.runtime import Key, Statements
from paraschut.store.trust import check_trusted

if TYPE_CHECKING:
    from paraschut.store.calls import Outcome

#: Seconds for which the last name of an attempt that has ended stays: longer than any writer takes to fold.
_DONE_STAYS = 3600.0


def spool(paths: Paths, key: Key, what: dict[str, Any]) -> str:
    """Write an event of an attempt; return the file.

    ``what`` has ``kind`` (``run``, ``progress``, ``fields``, ``requeue`` or ``result``), ``at``, the ``token`` of the attempt, and
    what the kind needs.

    Raises
    ------
    StoreError
        If it cannot be written there either.
    """
    beside = os.path.join(paths.events, f".{os.getpid()}.{time.time_ns()}")
    try:
        make_folder(paths.events)
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(what, file)
            file.flush()
            os.fsync(file.fileno())
        return _numbered(paths, key, beside)
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)
        raise StoreError(
            f"What job {key.batch_id}:{key.job_index} said could be written neither into the index {paths.index} nor "
            f"beside it ({error.strerror}: {paths.events}). It is lost unless it is said again: is the disk full or "
            f"gone, or the folder somebody else's?"
        ) from error


def _numbered(paths: Paths, key: Key, beside: str) -> str:
    """Give a file the next name of its attempt, which no other process of the job may have taken meanwhile."""
    number = 1 + max((number for number, _ in _names(paths, key, "json", "done")), default=0)
    while True:
        path = os.path.join(paths.events, f"{key.batch_id}.{key.job_index}.{key.n}.{number}.json")
        try:
            os.link(beside, path)
        except FileExistsError:
            number += 1
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with suppress(FileExistsError):
                # Empty as long as it only holds the name: who reads it then passes it over.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                os.rename(beside, path)
                return path
            number += 1
        else:
            os.unlink(beside)
            return path


def pending(paths: Paths, key: Key | None = None) -> list[tuple[int, str]]:
    """Return the event files (of one attempt, or of all), as number and path, in the order of folding."""
    return _names(paths, key, "json")


def _names(paths: Paths, key: Key | None, *suffixes: str) -> list[tuple[int, str]]:
    start = "" if key is None else f"{key.batch_id}.{key.job_index}.{key.n}."
    try:
        names = [name for name in os.listdir(paths.events) if name.startswith(start)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        *numbers, suffix = name.split(".")
        if suffix in suffixes and len(numbers) == len(Key._fields) + 1 and all(map(str.isdigit, numbers)):
            found.append((int(numbers[-1]), os.path.join(paths.events, name)))
    return sorted(found)


def _text_of(data: bytes | None) -> str | None:
    from base64 import b64encode

    return None if data is None else b64encode(data).decode("ascii")


def _bytes_of(text: str | None) -> bytes | None:
    from base64 import b64decode

    return None if text is None else b64decode(text)


def describe_result(outcome: Outcome, at: float) -> dict[str, Any]:
    """Return an event of kind ``result``."""
    from paraschut.store import calls

    return {"kind": "result", "at": at, "outcome": calls.as_json(outcome)}


def describe(job: jobs.Job | None, **what: Any) -> dict[str, Any]:
    """Return an event of kind ``fields``, with what was changed in a job's dict."""
    changed = {} if job is None else jobs.changes(job)
    metadata, extras = jobs.pack(
        {field: value for field, value in jobs.own_fields(changed).items() if value is not jobs.REMOVED}
    )
    return {
        **what,
        "metadata": metadata,
        "extras": _text_of(extras),
        "removed": [field for field, value in changed.items() if value is jobs.REMOVED],
        "columns": {field: changed[field] for field in ("state", "priority") if field in changed},
    }


class Event(NamedTuple):
    """An event file that was read."""

    key: Key
    number: int
    path: str
    what: dict[str, Any]


def load(files: Iterable[tuple[int, str]]) -> list[Event]:
    """Read event files; one that another process folded meanwhile is left out."""
    events = []
    for number, path in files:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            continue
        if text:
            events.append(Event(_key_of(path), number, path, json.loads(text)))
    return events


def _key_of(path: str) -> Key:
    batch_id, job_index, n = map(int, os.path.basename(path).split(".")[:3])
    return Key(batch_id, job_index, n)


def fold(db: Statements, index: str, events: Iterable[Event], trusted: tuple[str, ...]) -> None:
    """Fold events inside the caller's transaction; their files are to be unlinked after its commit."""
    for event in events:
        attempt = db.row("read_attempt", **event.key._asdict())
        # A batch may have been removed, and its numbers used again.
        if attempt is None or (event.what.get("token") or attempt["token"]) != attempt["token"]:
            continue
        if attempt["folded"] < event.number:
            _apply(db, index, event.key, event.what, trusted)
            db.run("attempt_folded", **event.key._asdict(), folded=event.number)


def _apply(db: Statements, index: str, key: Key, what: dict[str, Any], trusted: tuple[str, ...]) -> None:
    try:
        row = runtime.check_current(db, key)
    except (StaleJobError, NotFoundError):
        return  # reset or removed meanwhile: what it said no longer counts
    if what["kind"] == "run":
        if db.changed("attempt_runs", **key._asdict(), now=what["at"], host=what["host"]):
            db.run("job_runs", **key._asdict())
    elif what["kind"] == "requeue":
        from paraschut.retry import REQUEUED

        db.run("attempt_reason", **key._asdict(), reason=REQUEUED)
    elif what["kind"] == "progress":
        db.run(
            "job_progress",
            batch_id=key.batch_id,
            job_index=key.job_index,
            progress=what["progress"],
            progress_message=what["message"],
        )
    elif what["kind"] == "result":
        from paraschut.store import calls

        calls.finish(db, key, calls.from_json(what["outcome"]), what["at"])
    else:
        if what["extras"] is not None:
            check_trusted(index, trusted)
        extras = _bytes_of(what["extras"])
        changed = {
            **jobs.unpack(what["metadata"], extras),
            **dict.fromkeys(what["removed"], jobs.REMOVED),
            **what["columns"],
        }
        # What is over stays so; and of several copies, none completes the job alone.
        if row["state"] in {"complete", "collected", "spawn"}:
            changed.pop("state", None)
        runtime.write_fields(db, row, changed)


def unlink(paths: Paths, events: Iterable[Event]) -> None:
    """Remove the files of folded events, but for the last name of each attempt; what stays is not folded again."""
    last: dict[Key, int] = {}
    for event in sorted(events, key=lambda event: -event.number):
        with suppress(OSError):
            if last.setdefault(event.key, event.number) == event.number:
                os.rename(event.path, event.path.removesuffix("json") + "done")
            else:
                os.unlink(event.path)
    for key, number in last.items():
        for before, path in _names(paths, key, "done"):
            if before < number:
                with suppress(OSError):
                    os.unlink(path)


def over(db: Statements, paths: Paths, now: float) -> list[str]:
    """Return the last names of attempts that have ended long ago, or are not in the index any more."""
    found = []
    waiting = {_key_of(path) for _, path in pending(paths)}
    for _, path in _names(paths, None, "done"):
        key = _key_of(path)
        with suppress(FileNotFoundError):
            if key not in waiting and os.stat(path).st_mtime < now - _DONE_STAYS:
                attempt = db.row("read_attempt", **key._asdict())
                if attempt is None or attempt["ended"] is not None:
                    found.append(path)
    return found


def forget(db: Statements, names: Iterable[str]) -> None:
    """Remove the last names of attempts inside the caller's transaction: who speaks after that begins with 1."""
    for path in names:
        db.run("attempt_folded", **_key_of(path)._asdict(), folded=0)
        with suppress(OSError):
            os.unlink(path)
