from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing

import pytest
import sqlalchemy as sa
from stories import BATCH, ROOT, dump
from verbs import add, claim, read, states

from paraschut.errors import (
    SchemaError,
    StoreBusyError,
    StoreError,
    TrustError,
)
from paraschut.store import engine, journal, views
from paraschut.store.schema import SCHEMA_VERSION
from paraschut.store.store import Store

OTHER = BATCH + 1


# --- opening


def test_there_is_no_index_before_the_first_batch(tmp_path):
    with pytest.raises(StoreError, match=r"There is no index at .*no batch was added yet"):
        Store(tmp_path / "index.db")
    assert list(tmp_path.iterdir()) == []


def test_a_text_file_is_no_index_and_is_left_as_it_is(tmp_path):
    path = tmp_path / "index.db"
    path.write_text("my notes\n" * 200)
    for create in (False, True):
        with pytest.raises(SchemaError, match=r"is not an index that can be read .*set job_dir") as caught:
            Store(path, create=create)
        assert str(path) in str(caught.value)
    assert path.read_text() == "my notes\n" * 200
    assert [one.name for one in tmp_path.iterdir()] == ["index.db"]


def test_the_database_of_another_program_is_no_index_and_is_left_as_it_is(tmp_path):
    path = tmp_path / "index.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE job (x)")
    before = dump(path)
    for create in (False, True):
        with pytest.raises(SchemaError, match=r"is a database, but not an index of paraschut. Set job_dir"):
            Store(path, create=create)
    assert dump(path) == before


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_an_index_of_a_newer_version_is_refused_with_a_way_out(store, index, version):
    with closing(sqlite3.connect(index)) as connection:
        connection.execute(f"PRAGMA user_version={version}")
    with pytest.raises(
        SchemaError, match=rf"has version {version} of the format.*pip install --upgrade paraschut"
    ):
        Store(index)


def test_an_empty_file_becomes_an_index(tmp_path, make_jobs):
    path = tmp_path / "index.db"
    path.touch()
    with Store(path, create=True) as store:
        add(store, make_jobs(1))
    assert states(path) == {(BATCH, 0): "init"}


def test_a_folder_is_no_index(tmp_path):
    with pytest.raises(StoreError):
        Store(tmp_path, create=True)


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "jobs").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made: .*Set job_dir in the configuration"):
        Store(tmp_path / "jobs" / "index.db", create=True)


def test_who_comes_while_another_makes_the_index_finds_it_or_makes_it(tmp_path, monkeypatch):
    # Was: SchemaError "is a database, but not an index" between the making of the file and of its tables.
    path, switch = tmp_path / "index.db", journal.switch

    def switch_and_be_overtaken(*arguments):
        switch(*arguments)
        monkeypatch.setattr(journal, "switch", switch)
        with Store(path, create=True) as other:
            assert other.ready().heads == []

    monkeypatch.setattr(journal, "switch", switch_and_be_overtaken)
    with Store(path, create=True) as store:
        assert store.ready().heads == []


def test_who_dies_while_making_the_index_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    # Was: as above, for ever.
    path, switch = tmp_path / "index.db", journal.switch

    def switch_and_die(*arguments):
        switch(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "switch", switch_and_die)
    with pytest.raises(KeyboardInterrupt):
        Store(path, create=True)
    monkeypatch.undo()
    with Store(path, create=True) as store:
        assert store.ready().heads == []


def test_many_processes_may_make_the_index_at_once(tmp_path):
    # Was: as above, now and then.
    program = "import sys; from paraschut.store.store import Store\nwith Store(sys.argv[1], create=True) as s: print(s.ready().heads)"
    path = tmp_path / "new" / "index.db"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [out for out, _ in said] == ["[]\n"] * 6, said


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_only_its_owner_can_read_an_index(tmp_path, make_jobs, mask):
    before = os.umask(mask)
    try:
        with Store(tmp_path / "new" / "jobs" / "index.db", create=True, journal_mode="wal") as store:
            add(store, make_jobs(1))
            with store.reading() as connection:
                views.batches(connection)
                modes = {
                    path.name: stat.S_IMODE(path.stat().st_mode)
                    for path in (tmp_path / "new" / "jobs").iterdir()
                }
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "jobs").stat().st_mode) & 0o077 == 0
    assert modes["index.db"] & 0o177 == 0
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes


def as_somebody(program, folder, *arguments):
    """Run a program as a user to whom permissions mean something."""
    drop = (
        "import os, sys, cloudpickle, psutil, paraschut.store.store, paraschut.store.views, paraschut.errors\n"
        "import sqlalchemy.dialects.sqlite, encodings.ascii\n"
        "if os.getuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from paraschut.store.store import Store\nfrom paraschut.errors import *\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", drop + program, str(folder), *arguments],
        capture_output=True, text=True, timeout=60, cwd="/", env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def others_folder(tmp_path_factory):
    """A folder that a user without rights can reach, and owns."""
    folder = tempfile.mkdtemp(prefix="paraschut test ", dir="/tmp")
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    yield folder
    os.chmod(folder, 0o700)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_made(others_folder):
    os.chmod(others_folder, 0o500)
    program = (
        "try:\n    Store(sys.argv[1] + '/index.db', create=True)\n"
        "except StoreError as error: print(type(error).__name__, error)\n"
    )
    said = as_somebody(program, others_folder)
    assert "StoreError The index" in said
    assert "cannot be made: Permission denied" in said
    assert "Set job_dir in the configuration to a folder of yours" in said
    assert os.listdir(others_folder) == []


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_index_in_a_folder_that_became_read_only_is_not_changed_and_the_error_says_why(
    others_folder, make_jobs, mode
):
    index = os.path.join(others_folder, "index.db")
    with Store(index, create=True, journal_mode=mode) as store:
        add(store, make_jobs(1))
    before = dump(index)
    if os.getuid() == 0:
        os.chown(index, 65534, 65534)
    # Was (delete): an OperationalError of SQLAlchemy, as for the full disk below.
    os.chmod(index, 0o400)
    os.chmod(others_folder, 0o500)
    program = (
        "try:\n"
        "    with Store(sys.argv[1] + '/index.db', lock_timeout=1) as store:\n"
        "        store.boost([int(sys.argv[2])], 5, who=__import__('paraschut.process').process.identity(), now=1.0)\n"
        "        print('changed')\n"
        "except StoreError as error: print(type(error).__name__, error)\n"
    )
    said = as_somebody(program, others_folder, str(BATCH))
    assert said.startswith("StoreError The index"), said
    assert "Its folder must be yours and writable" in said
    os.chmod(others_folder, 0o700)
    os.chmod(index, 0o600)
    assert dump(index) == before


def test_what_others_pickled_is_not_loaded(store, make_jobs):
    add(store, make_jobs(2, odd=lambda index: {1} if index else 1))
    os.chmod(os.path.dirname(store.index), 0o777)
    assert read(store, BATCH, 0)["odd"] == 1
    with pytest.raises(TrustError, match="can be written by others"):
        read(store, BATCH, 1)


# --- waiting, full disks


def test_who_waits_too_long_is_told_so_and_nothing_changed(index, make_jobs, unchanged):
    with (
        closing(sqlite3.connect(index, isolation_level=None)) as holder,
        Store(index, lock_timeout=0.05) as store,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with unchanged(StoreBusyError, r"Other processes held the index .*for too long.*lock_timeout"):
            add(store, make_jobs(1))
        holder.execute("ROLLBACK")
        add(store, make_jobs(1))


def test_a_full_disk_is_said_and_nothing_changed(store, make_jobs, unchanged, monkeypatch):
    connect = engine.connect

    def tight(index, limit):
        connection = connect(index, limit)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
        return connection

    monkeypatch.setattr(engine, "connect", tight)
    # Was: what SQLAlchemy raises is not turned into an error of the package (engine.speaking knows sqlite3.Error only).
    with unchanged(StoreError, r"The disk of the index .* is full; nothing was changed. Make room"):
        add(store, make_jobs(500, text="x" * 1000))
    monkeypatch.undo()
    add(store, make_jobs(500, text="x" * 1000))


def test_a_tiny_file_system_that_is_full_is_said_and_nothing_changed(tmp_path, make_jobs):
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", place]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can only be mounted by root, where that is allowed")
    try:
        for mode in ("delete", "wal"):
            with Store(place / mode / "index.db", create=True, journal_mode=mode) as store:
                add(store, make_jobs(3))
                before = dump(store.index)
                with pytest.raises(StoreError, match=r"full"):
                    add(store, make_jobs(900, batch=OTHER, text="x" * 1000))
                assert dump(store.index) == before
                assert len(claim(store, "t")) == 3
            for path in (place / mode).iterdir():
                path.unlink()
    finally:
        subprocess.run(["umount", "-l", place])


def held_open(index):
    """Return how often this process has an index open."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link) == os.path.realpath(index) for link in links)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not tell what is open")
def test_a_connection_is_kept_within_the_block_and_not_beyond(index):
    with Store(index) as opened:
        opened.ready()
        assert held_open(index) == 1
        opened.ready()
        assert held_open(index) == 1
        opened.rest()
        assert held_open(index) == 0
        with pytest.raises(RuntimeError), opened.writing():
            raise RuntimeError
        assert held_open(index) == 0, "what went wrong is not used again"
        opened.ready()
    assert held_open(index) == 0
    opened.ready()
    assert held_open(index) == 0


@pytest.mark.parametrize("deed", ["reading", "writing"])
def test_ctrl_c_in_the_middle_of_a_statement_is_no_error_of_the_index(store, make_jobs, deed):
    add(store, make_jobs(3))

    def press(*_):
        raise KeyboardInterrupt

    sa.event.listen(store._engine, "after_cursor_execute", press)
    try:
        with pytest.raises(KeyboardInterrupt), getattr(store, deed)() as given:
            views.islands(given if deed == "reading" else given[0])
    finally:
        sa.event.remove(store._engine, "after_cursor_execute", press)
    assert len(states(store.index)) == 3
