"""Event files: what a job could not write into the index is not lost.

A file is written beside and renamed: ``events/<BatchID>.<JobIndex>.<attempt>.<number>.json``. The next writer
folds them in order, each once: the number of the last one folded is kept with the attempt, so a file that
outlives its folding (its folder died in between) does nothing. Part of the road of a job: imports little.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any, NamedTuple

from paraschut import job as jobs
from paraschut.errors import NotFoundError, StaleJobError
from paraschut.paths import Paths
from paraschut.store import calls, runtime
from paraschut.store.runtime import Key, Statements
from paraschut.store.trust import check_trusted


def spool(paths: Paths, key: Key, what: dict[str, Any]) -> str:
    """Write an event of an attempt; return the file.

    ``what`` has ``kind`` (``run``, ``progress``, ``fields`` or ``result``), ``at``, and what the kind needs.
    """
    os.makedirs(paths.events, mode=0o700, exist_ok=True)
    beside = os.path.join(paths.events, f".{os.getpid()}.{time.time_ns()}")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(what, file)
        file.flush()
        os.fsync(file.fileno())
    number = 1 + max((number for number, _ in pending(paths, key)), default=_last_number())
    while True:
        path = os.path.join(paths.events, f"{key.batch_id}.{key.job_index}.{key.n}.{number}.json")
        try:
            # A link, not a rename: another process of the job may take the same number at the same moment.
            os.link(beside, path)
        except FileExistsError:
            number += 1
        else:
            os.unlink(beside)
            return path


def _last_number() -> int:
    # Numbers only have to grow within an attempt, also when earlier files were folded and removed.
    return time.time_ns()


def pending(paths: Paths, key: Key | None = None) -> list[tuple[int, str]]:
    """Return the event files (of one attempt, or of all), as number and path, in the order of folding."""
    start = "" if key is None else f"{key.batch_id}.{key.job_index}.{key.n}."
    try:
        names = [name for name in os.listdir(paths.events) if name.startswith(start)]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        *numbers, suffix = name.split(".")
        if suffix == "json" and len(numbers) == len(Key._fields) + 1 and all(map(str.isdigit, numbers)):
            found.append((int(numbers[-1]), os.path.join(paths.events, name)))
    return sorted(found)


def describe_result(outcome: calls.Outcome, at: float) -> dict[str, Any]:
    """Return an event of kind ``result``."""
    data = None if outcome.data is None else b64encode(outcome.data).decode("ascii")
    return {"kind": "result", "at": at, "outcome": {**outcome._asdict(), "data": data}}


def describe(job: jobs.Job | None, **what: Any) -> dict[str, Any]:
    """Return an event of kind ``fields``, with what was changed in a job's dict."""
    changed = {} if job is None else jobs.changes(job)
    metadata, extras = jobs.pack(
        {field: value for field, value in jobs.own_fields(changed).items() if value is not jobs.REMOVED}
    )
    return {
        **what,
        "metadata": metadata,
        "extras": None if extras is None else b64encode(extras).decode("ascii"),
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
                what = json.load(file)
        except FileNotFoundError:
            continue
        batch_id, job_index, n = map(int, os.path.basename(path).split(".")[:3])
        events.append(Event(Key(batch_id, job_index, n), number, path, what))
    return events


def fold(db: Statements, index: str, events: Iterable[Event], trusted: tuple[str, ...]) -> None:
    """Fold events inside the caller's transaction; their files are to be unlinked after its commit."""
    for event in events:
        attempt = db.row("read_attempt", **event.key._asdict())
        if attempt is not None and attempt["folded"] < event.number:
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
    elif what["kind"] == "progress":
        db.run(
            "job_progress",
            batch_id=key.batch_id,
            job_index=key.job_index,
            progress=what["progress"],
            progress_message=what["message"],
        )
    elif what["kind"] == "result":
        data = what["outcome"].pop("data")
        outcome = calls.Outcome(**what["outcome"], data=None if data is None else b64decode(data))
        calls.finish(db, key, outcome, what["at"])
    else:
        if what["extras"] is not None:
            check_trusted(index, trusted)
        extras = None if what["extras"] is None else b64decode(what["extras"])
        changed = {
            **jobs.unpack(what["metadata"], extras),
            **dict.fromkeys(what["removed"], jobs.REMOVED),
            **what["columns"],
        }
        if row["state"] in {"complete", "collected"}:
            changed.pop("state", None)
        runtime.write_fields(db, row, changed)


def unlink(events: Iterable[Event]) -> None:
    """Remove the files of folded events."""
    for event in events:
        try:
            os.unlink(event.path)
        except FileNotFoundError:
            continue
