"""Whoever waits for the index and is stopped or killed does not keep the others from it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from helpers import kill, until

from paraschut.store import engine, line
from paraschut.store.schema import SCHEMA_VERSION
from paraschut.store.store import Store

pytestmark = pytest.mark.process

#: Adds one to a number in the index, again and again.
WRITER = """
import sys
from paraschut.store import engine
from paraschut.store.schema import SCHEMA_VERSION
from paraschut.store.line import Line
index, times = sys.argv[1], int(sys.argv[2])
mine = Line(index, 60)
connection = engine.connect(index, 60)
print("ready", flush=True)
for _ in range(times):
    with mine.writing(connection) as db:
        (value,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version={value + 1}")
"""


@pytest.fixture(params=["wal", "delete"])
def index(request, tmp_path):
    path = str(tmp_path / "index.db")
    with Store(path, create=True, journal_mode=request.param):
        return path


@pytest.fixture
def writer(index):
    """Return a function that starts a writer."""
    started = []

    def start(times=1):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WRITER, index, str(times)], stdout=subprocess.PIPE, text=True
            )
        )
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        kill(process.pid)
        process.wait()
        process.stdout.close()


def written(index):
    with closing(sqlite3.connect(index)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0] - SCHEMA_VERSION


def in_line(index):
    """Return how many numbers were drawn and not called."""
    try:
        with open(f"{engine.local_folder(index)}/line", "rb") as board:
            called, drawn, _ = line._read(board.fileno())
    except FileNotFoundError:
        return 0
    return drawn - called


def test_all_get_their_turn_and_nothing_is_lost(index, writer):
    writers = [writer(100) for _ in range(8)]
    assert [one.wait(60) for one in writers] == [0] * 8
    assert written(index) == 800


def stop_outside_of_sqlite(processes, end, index):
    """Stop processes, though not in the moment in which one looks at SQLite's lock: that would keep all others out."""
    for process in processes:
        kill(process.pid, end)
    while end == signal.SIGSTOP and any(locks_of(process.pid, index) for process in processes):
        for process in processes:
            kill(process.pid, signal.SIGCONT)
            kill(process.pid, signal.SIGSTOP)


def locks_of(pid, index):
    """Return the locks of a process that keep others out: on the board, and on an index with a rollback journal."""
    paths = [f"{engine.local_folder(index)}/line", *([] if os.path.exists(index + "-wal") else [index])]
    inodes = {os.stat(path).st_ino for path in paths}
    with open("/proc/locks", encoding="ascii") as file:
        fields = [line.split() for line in file]
    return [one for one in fields if one[4:5] == [str(pid)] and int(one[5].rpartition(":")[2]) in inodes]


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_who_is_stopped_or_killed_while_it_waits_is_passed_over(index, writer, end):
    with closing(sqlite3.connect(index, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        gone = []
        for count in (1, 2):
            gone.append(writer())
            until(lambda count=count: in_line(index) == count)
        stop_outside_of_sqlite(gone, end, index)
        others = [writer(), writer()]
        until(lambda: in_line(index) >= 2)
        holder.execute("ROLLBACK")
    assert [one.wait(60) for one in others] == [0, 0]
    assert written(index) == 2
    for one in gone:
        kill(one.pid, signal.SIGCONT)
    if end == signal.SIGSTOP:
        assert [one.wait(60) for one in gone] == [0, 0]
        assert written(index) == 4
