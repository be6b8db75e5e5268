"""What is kept of function jobs: what they call, and what came of it. On the standard library's driver."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

from paraschut.errors import StaleJobError
from paraschut.store.ending import end_attempt, will_try_again
from paraschut.store.runtime import (
    Ended,
    Key,
    Statements,
    check_current,
    mark_complete,
)

#: The number of the payload of a batch's function, where its jobs share one.
SHARED = -1


class Payload(NamedTuple):
    """What a job, or several, are to call."""

    batch_id: int
    number: int
    data: bytes | None
    shared: int | None = None
    warm: bool = False
    about: str | None = None


class Outcome(NamedTuple):
    """What came of a call.

    Attributes
    ----------
    kind : str
        ``value`` or ``error``.
    summary, traceback : str | None
        Of an error: what it says, and the traceback of the job.
    data : bytes | None
        A pickle of the value or the exception; None: it is in its file if ``in_file``, or there is none.
    """

    kind: str
    summary: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    data: bytes | None = None
    in_file: bool = False


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as it is written down where there is no index.

    Examples
    --------
    >>> from_json(as_json(Outcome("value", data=b"7"))).data
    b'7'
    """
    data = None if outcome.data is None else b64encode(outcome.data).decode("ascii")
    return {**outcome._asdict(), "data": data}


def from_json(told: Mapping[str, Any]) -> Outcome:
    """Return an outcome that was written down so."""
    data = told["data"]
    return Outcome(**{**told, "data": None if data is None else b64decode(data)})


class Answer(NamedTuple):
    """The outcome of one job of a batch."""

    job_index: int
    n: int
    outcome: Outcome


class Standing(NamedTuple):
    """Where a job stands."""

    job_index: int
    state: str
    failure: str | None
    attempt: int


def add_payload(db: Statements, payload: Payload) -> None:
    """Keep what a job calls, inside the transaction that adds it."""
    db.run("add_payload", **payload._asdict())


def add_name(db: Statements, name: str, batch_id: int, kind: str, now: float, about: str | None) -> bool:
    """Name a batch, inside the transaction that adds it; return False if the name is taken."""
    return db.changed("add_name", name=name, batch_id=batch_id, kind=kind, now=now, about=about)


def tell_name(db: Statements, name: str, about: str | None) -> None:
    """Keep something else about a name."""
    db.run("tell_name", name=name, about=about)


def read_payloads(
    db: Statements, batch_id: int, number: int, known: Mapping[int, Payload] | None = None
) -> list[Payload]:
    """Return the payload of a job, and after it the one that it shares with others.

    ``known`` has those of the same batch that were read before.
    """
    found: list[Payload] = []
    wanted: int | None = number
    while wanted is not None:
        if known and wanted in known:
            found.append(known[wanted])
            break
        row = db.row("payload", batch_id=batch_id, number=wanted)
        if row is None:
            break
        found.append(Payload(batch_id, wanted, row["data"], row["shared"], about=row["about"]))
        wanted = row["shared"]
    return found


def add_result(db: Statements, key: Key, outcome: Outcome) -> None:
    """Keep an outcome; that of an earlier attempt gives way."""
    db.run("add_result", **key._asdict(), **outcome._asdict())


def finish(db: Statements, key: Key, outcome: Outcome, now: float) -> None:
    """Keep an outcome and what it means for its job, unless this attempt no longer counts."""
    check_current(db, key)
    if outcome.kind == "value":
        mark_complete(db, key, None, (key.batch_id, key.job_index), now)
    else:
        # Why it is missing, as soon as its end is folded.
        db.run("attempt_reason", **key._asdict(), reason=outcome.summary)
        if will_try_again(db, key, outcome.summary or ""):
            return  # only the last error is what came of it
    add_result(db, key, outcome)


def finish_and_end(db: Statements, key: Key, outcome: Outcome, ended: Ended) -> bool:
    """Keep an outcome, what it means for its job, and that its attempt has ended: few statements, for short calls.

    Returns False, and does nothing, if anything is not as it mostly is; ``finish`` is for that.
    """
    row = db.row("call_state", **key._asdict())
    if row is None or row != {
        "state": "run",
        "attempt": key.n,
        "ending": None,
        "cancelled": None,
        "ended": None,
        "reason": None,
    }:
        return False
    db.run("attempt_ends", **key._asdict(), reason=outcome.summary, **ended._asdict())
    if outcome.kind == "value":
        db.run("job_state", batch_id=key.batch_id, job_index=key.job_index, state="complete")
    else:
        db.run("job_missing", **key._asdict(), reason=outcome.summary)
    add_result(db, key, outcome)
    return True


def settle(db: Statements, key: Key, outcome: Outcome, ended: Ended) -> bool:
    """Keep an outcome and that its attempt has ended, whatever was done to the job meanwhile; twice is as good as once.

    Returns whether everything was as it mostly is.
    """
    if outcome.kind == "value" and finish_and_end(db, key, outcome, ended):
        return True
    row = db.row("call_state", **key._asdict())
    if row is None or row["ended"] is not None:
        return False
    try:
        finish(db, key, outcome, ended.ended)
    except StaleJobError:  # reset or deleted meanwhile: only its end counts
        end_attempt(db, key, ended, row["reason"], complete=False)
    else:
        end_attempt(db, key, ended, row["reason"] or outcome.summary, complete=False)
    return False


def give_back(db: Statements, key: Key, process: str, started: float) -> None:
    """Set a call to waiting again that a worker had taken at a time, and has not begun."""
    row = db.row("call_taken", **key._asdict(), process=process, now=started)
    if row is None:
        return
    if row["cancelled"] is not None:
        end_attempt(db, key, Ended(None, row["cancelled"], None, None), "cancelled", complete=False)
    elif db.changed("attempt_not_started", **key._asdict(), process=process):
        db.run("job_not_started", **key._asdict())


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        row["kind"], row["summary"], row["traceback"], row["seconds"], row["data"], bool(row["in_file"])
    )


def read_result(db: Statements, batch_id: int, job_index: int) -> Answer | None:
    """Return the last result of a job; it may be of an earlier attempt."""
    row = db.row("result", batch_id=batch_id, job_index=job_index)
    return None if row is None else Answer(row["JobIndex"], row["n"], _outcome(row))


def results_since(db: Statements, batch_id: int, since: int) -> tuple[list[Answer], int]:
    """Return the results of current attempts that came after a serial number, and the last number."""
    answers = []
    for row in db.rows("results_since", batch_id=batch_id, since=since):
        answers.append(Answer(row["JobIndex"], row["n"], _outcome(row)))
        since = row["serial"]
    return answers, since


def stopped(db: Statements, batch_id: int) -> list[Standing]:
    """Return the jobs of a batch that will not go on by themselves and have no value: missing, held, or odd."""
    return sorted(_standings(db.rows("stopped", batch_id=batch_id)))


def standings(db: Statements, batch_id: int) -> list[Standing]:
    """Return where all jobs of a batch stand."""
    return _standings(db.rows("standing", batch_id=batch_id))


def _standings(rows: list[dict[str, Any]]) -> list[Standing]:
    return [Standing(row["JobIndex"], row["state"], row["failure"], row["attempt"]) for row in rows]
