"""An index of an older version is brought to the present one, all of it or nothing, and a copy is kept."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from stories import BATCH, dump
from verbs import ask, claim, states

from paraschut.errors import StoreError
from paraschut.store import migrate, schema
from paraschut.store.store import Store

#: The tables of version 1, as the paraschut of that time made them.
VERSION_1 = (Path(__file__).parent / "data" / "version_1.sql").read_text("utf-8")
#: A job that is next, and one that is complete, as that paraschut wrote them.
CONTENT = f"""
INSERT INTO batch VALUES ({BATCH}, 'old', 'toy', 1.0, 'file', 'd', '/work here');
INSERT INTO environment VALUES ('d', '{{"PATH": "/bin"}}');
INSERT INTO job ("BatchID", "JobIndex", state, priority, metadata)
    VALUES ({BATCH}, 0, 'complete', 1, '{{"script": "true"}}'), ({BATCH}, 1, 'init', 0.5, '{{"script": "true"}}');
INSERT INTO submission VALUES ('t', 'file', 'h', 1, 'b', 2, 1.0, 1.0, 't', 2.0, NULL, 'd');
INSERT INTO attempt ("BatchID", "JobIndex", n, token, task, submitted, ended, code) VALUES ({BATCH}, 0, 1, 't', 0, 1.0, 2.0, 0);
"""


@pytest.fixture(params=["wal", "delete"])
def old(request, tmp_path):
    """Return the path of an index of version 1, with a journal of either kind."""
    path = tmp_path / "index.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={request.param}")
        connection.executescript(VERSION_1 + CONTENT)
        connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version=1")
    return path


def version(path):
    return ask(path, "PRAGMA user_version")[0][0]


def shape(path):
    """Return what an index is made of: columns, keys, indexes; the order of columns does not count."""
    found = {}
    for (table,) in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        found[table] = {row[1:] for row in ask(path, f"PRAGMA table_info('{table}')")}
        found[table, "keys"] = {row[2:] for row in ask(path, f"PRAGMA foreign_key_list('{table}')")}
    texts = ask(path, "SELECT name, sql FROM sqlite_master WHERE type IN ('index', 'view', 'trigger')")
    return {**found, **{name: sql and " ".join(sql.split()) for name, sql in texts}}


def test_an_older_index_becomes_one_of_this_version(old, tmp_path):
    with Store(tmp_path / "fresh.db", create=True):
        pass
    assert shape(old) != shape(tmp_path / "fresh.db")
    with Store(old):
        pass
    assert version(old) == schema.SCHEMA_VERSION
    assert shape(old) == shape(tmp_path / "fresh.db")


def test_all_that_was_in_it_is_there_and_goes_on(old):
    with Store(old) as store:
        assert store.ready().heads == [(BATCH, "file", 0.5)]
        (key,) = claim(store, "t2")
        assert key == (BATCH, 1, 1)
    assert states(old) == {(BATCH, 0): "complete", (BATCH, 1): "submit"}
    assert ask(old, "SELECT token, code FROM attempt ORDER BY 1") == [("t", 0), ("t2", None)]


def test_the_old_index_is_kept_beside_and_is_private(old):
    before = dump(old)
    with Store(old):
        pass
    copy = Path(migrate.copy_path(str(old), 1))
    assert dump(copy) == before
    assert version(copy) == 1
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {one.name for one in old.parent.iterdir()} <= {
        "index.db",
        copy.name,
        "index.db-wal",
        "index.db-shm",
    }


def test_a_step_that_fails_changes_nothing(old, monkeypatch):
    before = dump(old)
    monkeypatch.setitem(
        migrate.STEPS,
        schema.SCHEMA_VERSION,
        (*migrate.STEPS[schema.SCHEMA_VERSION], "ALTER TABLE none ADD x"),
    )
    with pytest.raises(StoreError):
        Store(old)
    assert (dump(old), version(old)) == (before, 1)
    monkeypatch.undo()
    with Store(old) as store:
        assert len(store.ready().heads) == 1


def test_without_a_copy_nothing_is_changed(old, monkeypatch):
    before = dump(old)
    monkeypatch.setattr(migrate, "copy_path", lambda index, _: f"{index}.no folder/copy")
    with pytest.raises(
        StoreError, match=r"older version and must be copied .*Nothing was changed. Make room"
    ):
        Store(old)
    assert (dump(old), version(old)) == (before, 1)


def test_many_may_open_an_older_index_at_once(old):
    program = "import sys; from paraschut.store.store import Store\nwith Store(sys.argv[1]) as s: print(len(s.ready().heads))"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, old], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [out for out, _ in said] == ["1\n"] * 4, said
    assert version(migrate.copy_path(str(old), 1)) == 1


def test_each_version_has_its_step():
    assert sorted(migrate.STEPS) == list(range(2, schema.SCHEMA_VERSION + 1))
