"""The last answer of each scheduler's queue, which all processes of a user share."""

from __future__ import annotations

import os

from sqlalchemy import insert, select, update

from paraschut.store.index import Index
from paraschut.store.schema import snapshot


def ask(store: Index, executor: str, age: float, patience: float, now: float) -> tuple[str | None, float]:
    """Return the last answer of a scheduler's queue as it was kept, and when it is from; None: ask now.

    Only one of those who come at the same time is told to ask; the others get what there is.

    Parameters
    ----------
    age : float
        Seconds for which an answer is shared.
    patience : float
        Seconds after which who is asking counts as dead.
    """
    mine = (snapshot.c.executor == executor) & (snapshot.c.uid == os.getuid())
    with store.reading() as connection:
        row = connection.execute(select(snapshot).where(mine)).first()
    if row is not None:
        asked_lately = row.asking <= now < row.asking + patience
        if (row.at is not None and row.at <= now < row.at + age) or (asked_lately and row.at != row.asking):
            return row.answer or "", row.at or 0.0
    with store.writing() as (connection, _):
        again = connection.execute(select(snapshot).where(mine)).first()
        if again != row:  # somebody else asks
            return (again.answer or "", again.at or 0.0) if again else ("", 0.0)
        if row is None:
            connection.execute(insert(snapshot).values(executor=executor, uid=os.getuid(), asking=now))
        else:
            connection.execute(update(snapshot).where(mine).values(asking=now))
    return None, now


def answers(store: Index) -> list[tuple[str, str]]:
    """Return the last answer of each scheduler's queue, by executor."""
    query = select(snapshot.c.executor, snapshot.c.answer).where(
        snapshot.c.uid == os.getuid(), snapshot.c.answer.is_not(None)
    )
    with store.reading() as connection:
        return [(row.executor, row.answer) for row in connection.execute(query.order_by(snapshot.c.executor))]


def keep(store: Index, executor: str, answer: str, at: float) -> None:
    """Keep the answer of a scheduler's queue for others."""
    mine = (snapshot.c.executor == executor) & (snapshot.c.uid == os.getuid())
    with store.writing() as (connection, _):
        connection.execute(update(snapshot).where(mine, snapshot.c.asking == at).values(at=at, answer=answer))
