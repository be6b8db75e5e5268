from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from stories import BATCH, dump
from verbs import add, states

from paraschut.errors import (
    StoreBusyError,
    StoreError,
)
from paraschut.store import journal, line, schema, views
from paraschut.store.runtime import Statements
from paraschut.store.store import Store

OTHER = BATCH + 1


# --- the journal


def mode_of(index):
    with closing(sqlite3.connect(index)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def on(monkeypatch, kind):
    monkeypatch.setattr(journal, "file_system", lambda _: kind)
    monkeypatch.setattr(journal, "_kept", {})


def test_on_a_disk_of_this_machine_the_journal_is_a_log(tmp_path, monkeypatch):
    on(monkeypatch, "ext4")
    with Store(tmp_path / "index.db", create=True) as store:
        assert mode_of(store.index) == "wal"
        with store.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").fetchone() == (1,)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "", "9p"])
def test_on_a_file_system_that_may_be_shared_the_journal_is_rolled_back(tmp_path, monkeypatch, kind):
    on(monkeypatch, kind)
    with Store(tmp_path / "index.db", create=True) as store:
        assert mode_of(store.index) == "delete"
        with store.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").fetchone() == (2,)


def test_a_log_seen_through_a_network_is_refused_with_the_remedy(tmp_path, monkeypatch, make_jobs):
    with Store(tmp_path / "index.db", create=True, journal_mode="wal") as store:
        add(store, make_jobs(1))
    on(monkeypatch, "nfs4")
    with pytest.raises(
        StoreError, match=r"only works on the machine whose disk it is on.*journal_mode = \"delete\""
    ):
        Store(tmp_path / "index.db")
    for descriptor in journal._kept.values():
        os.close(descriptor)


def test_the_configuration_and_other_hosts_decide_before_the_disk(tmp_path, monkeypatch):
    on(monkeypatch, "ext4")
    with Store(tmp_path / "a.db", create=True, journal_mode="delete"):
        assert mode_of(tmp_path / "a.db") == "delete"
    with Store(tmp_path / "b.db", create=True, other_hosts=True):
        assert mode_of(tmp_path / "b.db") == "delete"
    on(monkeypatch, "nfs")
    assert journal.mode_for(str(tmp_path), "wal", other_hosts=True) == "wal"


def test_the_journal_can_be_switched_both_ways_and_keeps_all(tmp_path, make_jobs):
    path = tmp_path / "index.db"
    with Store(path, create=True, journal_mode="wal") as store:
        add(store, make_jobs(3))
        before = dump(path)
        store.keep_journal("delete")
        assert (mode_of(path), dump(path)) == ("delete", before)
        add(store, make_jobs(1, batch=OTHER))
        store.keep_journal("wal")
        assert (mode_of(path), len(states(path))) == ("wal", 4)
    with Store(path, journal_mode="delete"):
        assert mode_of(path) == "delete"
    with Store(path):
        assert mode_of(path) == "delete"


def test_a_switch_that_others_prevent_says_who_they_are(tmp_path, make_jobs):
    path = str(tmp_path / "index.db")
    program = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('BEGIN'); c.execute('SELECT 1 FROM job').fetchall()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with Store(path, create=True, journal_mode="wal", lock_timeout=0.2) as store:
        add(store, make_jobs(1))
        with subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout.readline() == "open\n"
            with pytest.raises(
                StoreBusyError, match=rf"cannot be switched to 'delete'.*process {other.pid} \("
            ):
                store.keep_journal("delete")
            other.stdin.close()
            other.wait(30)
        store.keep_journal("delete")
        assert mode_of(path) == "delete"


# --- transactions


def test_a_transaction_that_fails_leaves_nothing(store, make_jobs):
    before = dump(store.index)
    with pytest.raises(ZeroDivisionError), store.writing() as (_, db):
        (
            1
            / db.run(
                "add_event", now=1.0, host="h", pid=1, batch_id=1, job_index=1, kind="", detail=""
            ).rowcount
            - 1 / 0
        )
    assert dump(store.index) == before


def test_one_look_sees_one_moment(store, index, make_jobs):
    add(store, make_jobs(1))
    store.keep_journal("wal")
    with store.reading() as connection:
        assert views.highest_index(connection, BATCH) == 0
        with Store(index) as other:
            add(other, make_jobs(1, start=1), new=False)
        assert views.highest_index(connection, BATCH) == 0
    with store.reading() as connection:
        assert views.highest_index(connection, BATCH) == 1


def test_statements_give_rows_by_name(store, make_jobs):
    add(store, make_jobs(1))
    with store.reading() as connection:
        db = store.statements(connection)
        assert isinstance(db, Statements)
        assert db.row("read_job", batch_id=BATCH, job_index=9) is None
        assert db.rows("heads", now=1.0)[0]["top"] == 1


def test_the_pauses_of_writers_on_other_hosts_shrink_with_their_age():
    ages = [line.pause(age / 10, 500) for age in range(60)]
    assert ages == sorted(ages, reverse=True)
    assert all(0 < line.pause(age, noise) < 0.1 for age in (0, 1, math.inf) for noise in (0, 1 << 62))


def test_all_finished_and_active_states_are_known():
    assert not set(schema.FINISHED) & set(schema.ACTIVE)
