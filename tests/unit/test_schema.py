"""The tables and their SQL: what old SQLite understands, what the indexes are for, what the text file says."""

from __future__ import annotations

import ast
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from stories import BATCH, jobs_of
from verbs import ME, add, change, claim, end, no_needs, start, submission

import paraschut
from paraschut.store import ending, engine, runtime, schema, spool, statements, unsettled, views
from paraschut.store.filters import compile_filter
from paraschut.store.runtime import Key
from paraschut.store.store import Store

PACKAGE = Path(paraschut.__file__).parent
DIALECT = sqlite.dialect()

#: What SQLite 3.26, which clusters still have, does not know (https://sqlite.org/changes.html).
BANNED = {
    "RETURNING": r"\bRETURNING\b",  # 3.35
    "STRICT tables": r"\)\s*(WITHOUT\s+ROWID\s*,\s*)?STRICT\b",  # 3.37
    "-> and ->>": r"->>?",  # 3.38
    "UPDATE FROM": r"^\s*(WITH\b.*\)\s*)?UPDATE\s(?:(?!\bWHERE\b|\bSELECT\b).)*\bFROM\b",  # 3.33
    "iif": r"\bIIF\s*\(",  # 3.32
    "DROP COLUMN": r"\bDROP\s+COLUMN\b",  # 3.35
    "generated columns": r"\bGENERATED\s+ALWAYS\b|\bAS\s*\([^)]*\)\s*(STORED|VIRTUAL)\b",  # 3.31
    "MATERIALIZED": r"\bMATERIALIZED\b",  # 3.35
    "NULLS FIRST or LAST": r"\bNULLS\s+(FIRST|LAST)\b",  # 3.30
    "FILTER of an aggregate": r"\)\s*FILTER\s*\(",  # 3.30
    "VACUUM INTO": r"\bVACUUM\s+INTO\b",  # 3.27
    "RIGHT or FULL JOIN": r"\b(RIGHT|FULL)\s+(OUTER\s+)?JOIN\b",  # 3.39
    "IS DISTINCT FROM": r"\bIS\s+(NOT\s+)?DISTINCT\s+FROM\b",  # 3.39
    "new functions": r"\b(unixepoch|format|concat|concat_ws|string_agg|unhex|octet_length|ceil|floor|sqrt|pow|ln)\s*\(",
}


def offences(sql):
    return [what for what, pattern in BANNED.items() if re.search(pattern, sql, re.IGNORECASE | re.DOTALL)]


def ddl():
    tables = [str(CreateTable(table).compile(dialect=DIALECT)) for table in schema.metadata.sorted_tables]
    indexes = [
        str(CreateIndex(index).compile(dialect=DIALECT))
        for table in schema.metadata.sorted_tables
        for index in table.indexes
    ]
    return tables + indexes


def texts_of(path):
    """Every string of a module that could be SQL; those of f-strings piece by piece, docstrings left out."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("INSERT INTO t VALUES (1) RETURNING x", "RETURNING"),
        ("CREATE TABLE t (x) STRICT", "STRICT tables"),
        ("SELECT metadata ->> '$.x' FROM job", "-> and ->>"),
        ("UPDATE a SET x = b.x FROM b WHERE a.y = b.y", "UPDATE FROM"),
        ("SELECT iif(a, 1, 2)", "iif"),
        ("ALTER TABLE t DROP COLUMN x", "DROP COLUMN"),
        ("CREATE TABLE t (x, y AS (x + 1) STORED)", "generated columns"),
        ("CREATE TABLE t (x, y GENERATED ALWAYS AS (x))", "generated columns"),
        ("SELECT count(*) FILTER (WHERE x) FROM t", "FILTER of an aggregate"),
    ],
)
def test_what_is_banned_would_be_found(sql, what):
    assert what in offences(sql)


def test_what_is_allowed_is_not_taken_for_banned():
    assert offences("UPDATE a SET x = (SELECT y FROM b) WHERE z IN (SELECT z FROM c)") == []
    assert offences("DELETE FROM job WHERE x = 1") == []


def test_the_tables_use_only_what_old_sqlite_knows():
    for sql in ddl():
        assert offences(sql) == [], sql


def test_the_statements_use_only_what_old_sqlite_knows():
    for name, sql in runtime.read_statements().items():
        assert offences(sql) == [], name


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_module_writes_what_old_sqlite_does_not_know(path):
    verbs = re.compile(
        r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|WITH|VACUUM|BEGIN|REPLACE)\s[\w\"(]"
    )
    for text in texts_of(path):
        if verbs.match(text):
            assert offences(text) == [], text


# --- the text file


def test_the_file_of_statements_is_what_the_tables_say():
    written = statements.FILE.read_text("utf-8")
    assert written == statements.rendered(), "run: python -m paraschut.store.statements"
    assert runtime.read_statements().keys() == statements.statements().keys()


def test_a_statement_never_carries_a_value_in_its_text():
    for name, sql in runtime.read_statements().items():
        for quoted in re.findall(r"'([^']*)'", sql):
            assert quoted in jobs_states(), name


def jobs_states():
    return {*schema.ACTIVE, *schema.FINISHED, "init", "$"}


# --- the index that stories happen in


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """An index with some thousand jobs, and all SQL that the store sends while a whole life is lived in it."""
    sent = []
    connect = engine.connect

    def listen(index, limit):
        connection = connect(index, limit)
        connection.set_trace_callback(sent.append)
        return connection

    with (
        Store(tmp_path_factory.mktemp("schema") / "index.db", create=True) as store,
        pytest.MonkeyPatch.context() as patch,
    ):
        add(store, jobs_of(BATCH, 2000, priority=lambda index: 1 + index % 2, state="complete"))
        for number in range(1, 60):
            add(store, jobs_of(BATCH + number, 20, priority=lambda index: index % 3))
        patch.setattr(engine, "connect", listen)
        store.rest()
        live(store)
        yield Told(store.index, sent)


class Told(NamedTuple):
    index: str
    sql: list[str]

    def changes_and_questions(self):
        return {sql for sql in self.sql if re.match(r"SELECT|UPDATE|DELETE", sql)}


def live(store):
    batch = BATCH + 100
    store.reserve(batch, lambda stamp: stamp + 1, 1.0)
    add(store, jobs_of(batch, 6, priority=150, odd={1, 2}, name=lambda index: f"n{index}"))
    keys = claim(store, "files", max_jobs=3, condition=compile_filter('name LIKE "n%" AND state == "init"'))
    store.record({"files": "files"}, 2.5)
    start(store, keys[0])
    end(store, keys[0], complete=True)
    end(store, keys[1], code=3, reason="exit code 3")
    change(store, {"state": "init", "note": "again"}, batch=batch, unless={"state": ["complete"]})
    claim(store, "local", host="here", only=[batch])
    store.claim_jobs(submission("one"), [(BATCH + 1, 2)], no_needs)
    store.release("one", "no", 6.0)
    change(store, {"state": "held"}, batch=batch, indices=[0, 5], only=["submit"])
    store.boost([batch], 5, who=ME, now=7.0)
    with store.writing() as (connection, db):
        unsettled.set_seen(connection, "files", 3)
        spool.fold(db, store.index, [], ())
        ending.settle(db, "files", 8.0)
        runtime.add_event(db, 8.0, batch, 1, "edit", None)
    with store.reading() as connection:
        look(store, connection, batch)
    store.remove(BATCH + 3, who=ME, now=9.0)


def look(store, connection, batch):
    condition = compile_filter("size > 3 OR data_type == 'x'")
    views.islands(connection)
    views.islands(connection, condition)
    views.batches(connection)
    views.online(connection)
    views.missing(connection)
    views.progress(connection)
    views.active_jobs(connection)
    views.job_dicts(store, connection, condition, ["init"])
    views.get_job(store, connection, batch, 0)
    views.indices_of(connection, batch, [0, 1, 99])
    views.existing(connection, batch)
    views.highest_index(connection, batch)
    unsettled.open_submissions(connection)
    unsettled.open_submissions(connection, ["t"])
    unsettled.open_folders(connection)
    unsettled.open_attempts(connection, "files")
    unsettled.running_in(connection, [batch])
    views.events_of(connection, batch, 0)
    views.attempts_of(connection, batch, 0)


def test_nothing_that_is_sent_is_beyond_old_sqlite(told):
    assert len(told.sql) > 100
    for sql in told.sql:
        assert offences(re.sub(r"'(?:[^']|'')*'", "''", sql)) == [], sql


def plan_of(index, sql, values=()):
    with closing(sqlite3.connect(index)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def test_nothing_that_a_verb_sends_scans_all_jobs_or_attempts(told):
    looking = re.compile(
        r"row_number\(\)|json_extract|metadata.*FROM job JOIN batch|FROM attempt JOIN submission .*ORDER BY"
    )
    for sql in told.changes_and_questions():
        if looking.search(sql):  # the dashboard and a Filter read all that they show
            continue
        for step in plan_of(told.index, sql):
            assert not re.match(r"SCAN (TABLE )?(job|attempt)\b(?!.*INDEX (job|attempt)_)", step), (sql, step)


VALUES = {
    **dict.fromkeys(("batch_id",), BATCH + 5),
    **dict.fromkeys(("job_index", "n", "most", "number", "folded", "pid", "task"), 1),
    **dict.fromkeys(("host", "process", "token", "state", "reason", "digest"), "x"),
}


def plan_of_statement(index, name):
    sql = runtime.read_statements()[name]
    wanted = set(re.findall(r":(\w+)", sql))
    return plan_of(index, sql, {key: VALUES.get(key, 1) for key in wanted})


@pytest.mark.parametrize(
    ("name", "indexes"),
    [
        (
            "heads",
            {
                "COVERING INDEX job_unfinished (BatchID=?)",
                "job_unfinished (BatchID=? AND priority=? AND state=?",
            },
        ),
        ("global_top", {"job_global"}),
        ("active_count", {"job_active"}),
        ("ready_count", {"COVERING INDEX job_unfinished (BatchID=? AND priority=? AND state=?"}),
        ("waiting", {"attempt_waiting (host=?)"}),
        ("any_waiting", {"attempt_waiting"}),
        ("running", {"attempt_running (host=? AND process>?)"}),
        ("any_running", {"attempt_running"}),
        ("started_in", {"attempt_running"}),
        ("cancelled", {"attempt_cancelled"}),
        ("submission_left", {"attempt_of_token"}),
        ("last_edit", {"event_of_job"}),
    ],
)
def test_what_is_asked_all_the_time_is_answered_from_an_index_made_for_it(told, name, indexes):
    steps = plan_of_statement(told.index, name)
    for index in indexes:
        assert any(index in step for step in steps), steps


@pytest.mark.parametrize("name", list(runtime.read_statements()))
def test_no_statement_of_a_job_or_the_agent_scans(told, name):
    for step in plan_of_statement(told.index, name):
        allowed = (
            step.startswith(("SCAN head", "SCAN anon", "SCAN batch", "SCAN CONSTANT ROW"))
            or "INDEX job_active" in step
        )
        # One look for one job by hand (get_qstat) may read the list of submissions.
        allowed |= name == "submission_of"
        # Whether there is anything at all in it.
        allowed |= name in {"any_need", "any_spawn"}
        assert allowed or not step.startswith("SCAN"), step


def test_the_plans_hold_when_somebody_has_analysed_the_index(told, tmp_path):
    copy = str(tmp_path / "copy.db")
    with closing(sqlite3.connect(told.index)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("ANALYZE")
    for name in ("heads", "global_top", "ready_count", "waiting", "running", "cancelled"):
        for step in plan_of_statement(copy, name):
            assert not re.match(r"SCAN (job|attempt)\b(?!.*INDEX (job|attempt)_)", step), (name, step)


def test_every_index_is_of_use(told):
    used = set()
    for sql in told.changes_and_questions():
        used.update(re.findall(r"INDEX (\w+)", " ".join(plan_of(told.index, sql))))
    for name in runtime.read_statements():
        used.update(re.findall(r"INDEX (\w+)", " ".join(plan_of_statement(told.index, name))))
    made = {index.name for table in schema.metadata.sorted_tables for index in table.indexes}
    assert made <= used


def test_numbers_stay_what_they_are(store, make_jobs):
    add(store, make_jobs(3, priority=lambda index: (1, 0.5, 150.0)[index]))
    with store.reading() as connection:
        found = [views.get_job(store, connection, BATCH, index)["priority"] for index in range(3)]
    assert list(map(repr, found)) == ["1", "0.5", "150.0"]


def test_the_key_of_an_attempt_is_three_numbers():
    assert Key._fields == ("batch_id", "job_index", "n")
