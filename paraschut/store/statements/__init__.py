"""The statements that jobs and the agent run without SQLAlchemy, written with it.

``python -m paraschut.store.statements`` writes them to ``statements.sql``, which ``runtime.py`` reads;
a test compares the two. So the tables stay the one place where a column is named.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import ClauseElement
from sqlalchemy.dialects import sqlite

from paraschut.store.statements import attempts, calls, claims, copies, jobs, machines, passes

FILE = Path(__file__).parent.with_name("statements.sql")


def statements() -> dict[str, ClauseElement]:
    """Return all statements by name."""
    themes = (jobs, attempts, claims, passes, machines, copies, calls)
    return {title: statement for theme in themes for title, statement in theme.statements().items()}


def rendered() -> str:
    """Return the text of ``statements.sql``."""
    dialect = sqlite.dialect(paramstyle="named")
    blocks = []
    for title, statement in statements().items():
        sql = " ".join(str(statement.compile(dialect=dialect)).split())
        blocks.append(f"-- {title}\n{sql};\n")
    return "".join(blocks)
