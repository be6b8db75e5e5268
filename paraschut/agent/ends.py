"""The files that wrappers append the ends of local jobs to, and what they mean for the index.

A line is written once, by the wrapper that saw the end; it is folded by the agent, or by whoever holds the
agent's lock when there is no agent. Folding a line again changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from paraschut.agent.series import Claim, left_by, stop
from paraschut.process import boot_id, start_ticks
from paraschut.reconcile import Found, Kind, judge
from paraschut.store import calls
from paraschut.store.ending import end_attempt
from paraschut.store.runtime import Ended, Key, Statements


class Folded(NamedTuple):
    """What a line said."""

    process: str
    key: Key | None


def files(folder: str) -> list[str]:
    """Return the files of ends in an agent's folder."""
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("ends."))
    except FileNotFoundError:
        return []


def read(path: str, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines of a file from an offset on, and where they end."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole, newline, _ = data.rpartition(b"\n")
    lines = [line for line in map(_parsed, whole.splitlines()) if line is not None]
    return lines, offset + len(whole) + len(newline)


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # empty, or cut off by a full disk: its wrapper has written it again
        return None
    if not isinstance(line, dict) or not isinstance(line.get("process"), str):
        return None
    return line if line.get("not_started") or line.keys() >= _LEFT or line.keys() >= _WHOLE else None


#: What a line has that tells of calls that a worker leaves to others.
_LEFT = {"process", "done", "not_begun"}
#: What a line has that tells of an end.
_WHOLE = {"process", "key", "token", "code", "signal", "started", "ended", "max_rss", "cpu"}


def fold(db: Statements, host: str, lines: Iterable[dict[str, Any]]) -> list[Folded]:
    """Fold lines inside the caller's transaction."""
    folded = []
    for line in lines:
        if line.get("not_started"):
            _give_back(db, line["process"], host)
            folded.append(Folded(line["process"], None))
            continue
        if "done" in line:  # it runs on
            fold_left(db, line["process"], line["done"], line["not_begun"])
            continue
        key = Key(*line["key"])
        ended = Ended(
            line["started"], line["ended"], line["code"], line["signal"], line["max_rss"], line["cpu"]
        )
        fold_end(db, key, line["token"], ended)
        folded.append(Folded(line["process"], key))
    return folded


def fold_left(db: Statements, process: str, done: Iterable[dict[str, Any]], not_begun: Iterable[Any]) -> None:
    """Fold what a worker has left to others: what came of calls, and calls that it had taken and not begun."""
    for one in done:
        key = Key(*one["key"])
        row = db.row("read_attempt", **key._asdict())
        if row is not None and row["token"] == one["token"]:
            calls.settle(db, key, calls.from_json(one["outcome"]), Ended(*one["ended"]))
    for given in not_begun:
        claim = Claim(*given)
        calls.give_back(db, Key(*claim.key), f"{process}:{boot_id()}", claim.started)


def fold_end(db: Statements, key: Key, token: str, ended: Ended) -> None:
    """Fold one end, with its verdict."""
    row = db.row("job_and_reason", **key._asdict())
    if row is None or row["token"] != token:  # the batch was removed, and perhaps another has its number
        return
    found = Found(ended.started, ended.ended, ended.code, ended.signal, cause=row["reason"])
    current = row["attempt"] == key.n
    verdict = judge(
        row["state"] if current else "", found, 0, 0, complete_on_exit=bool(row["complete_on_exit"])
    )
    end_attempt(db, key, ended, verdict.reason, complete=verdict.complete)


def _give_back(db: Statements, process: str, host: str) -> None:
    # The agent had committed the start and died before it told the wrapper: back into the queue.
    for row in db.rows("started_in", host=host, process=f"{process}:{boot_id()}"):
        key = Key(row["BatchID"], row["JobIndex"], row["n"])
        if row["cancelled"] is not None:  # deleted meanwhile: it has ended without having begun
            end_attempt(db, key, Ended(None, row["cancelled"], None, None), "cancelled", complete=False)
        elif db.changed("attempt_not_started", **key._asdict(), process=f"{process}:{boot_id()}"):
            db.run("job_not_started", **key._asdict())


def is_at(db: Statements, folder: str, process: str, key: Key) -> bool:
    """Return whether the process is at a job that is to end; one that it has taken and not begun is given back.

    Its worker begins no other call from then on, so that what ends this one does not hit the next.
    """
    name = process.rpartition(":")[0]
    is_at_it, not_begun = stop(folder, name, key)
    fold_left(db, name, (), not_begun)
    return is_at_it


def is_alive(process: str) -> bool:
    """Return whether the wrapper of that name still runs on this machine."""
    pid, ticks, boot = process.split(":")
    return boot == boot_id() and start_ticks(int(pid)) == int(ticks)


def dead(db: Statements, host: str) -> set[str]:
    """Return the wrappers of running attempts that are gone; to be asked before the lines are read."""
    return {row["process"] for row in db.rows("running", host=host) if not is_alive(row["process"])}


def fold_dead(
    db: Statements, host: str, folder: str, gone: Iterable[str], now: float, grace: float
) -> list[str]:
    """Judge the attempts whose wrapper is gone without a line; return the ids of those found missing.

    ``gone`` was found before the lines were read: a wrapper writes its line before it goes. One that is killed
    takes its word with it; and so does a reboot. What its worker had made or not begun is told by its file, in the
    agent's ``folder``.
    """
    missing = []
    for process in gone:
        name, _, boot = process.rpartition(":")
        if boot == boot_id():
            fold_left(db, name, *left_by(folder, name))
    for row in db.rows("running", host=host):
        if row["process"] not in gone:
            continue
        key = Key(row["BatchID"], row["JobIndex"], row["n"])
        rebooted = not row["process"].endswith(f":{boot_id()}")
        cause = row["reason"] or ("node failure (the machine was restarted)" if rebooted else None)
        found = Found(row["started"], alive=False, absent_since=row["absent_since"], cause=cause)
        verdict = judge("run", found, now, 0 if rebooted else grace, complete_on_exit=False)
        if verdict.kind is Kind.MISSING:
            end_attempt(db, key, Ended(row["started"], now, None, None), verdict.reason, complete=False)
            missing.append(f"{row['token']}.{row['task']}")
        else:
            db.run("job_absent", batch_id=key.batch_id, job_index=key.job_index, since=verdict.absent_since)
    return missing
