"""Writers wait in a line, and nothing that is wrong with the line keeps them from writing."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing

import pytest

from paraschut.errors import StoreBusyError, StoreError
from paraschut.store import engine, line
from paraschut.store.line import Line


@pytest.fixture
def connection(index):
    with closing(engine.connect(index, 5)) as opened:
        yield opened


@pytest.fixture
def board(index):
    """Return a function that writes the board of the index; without arguments, one that reads it."""
    path = f"{engine.local_folder(index)}/line"

    def write(*told):
        with open(path, "ab+") as file:
            if told:
                file.truncate(0)
                file.write(told[0] if isinstance(told[0], bytes) else line._BOARD.pack(*told))
                file.flush()
            return line._read(file.fileno())[:2]

    yield write
    if os.path.exists(path):
        os.unlink(path)


def write(mine, connection, value=1):
    with mine.writing(connection) as db:
        db.execute(f"PRAGMA user_version={value}")


def one_that_had_its_slice(index):
    """Return the line of one that wrote just now, and for long enough to give way to any that wait."""
    mine, now = Line(index, 5), time.monotonic()
    mine._last_write, mine._slice_started = now, now - 1
    return mine


def test_who_finds_the_lock_free_draws_no_number(index, connection, board):
    board(0, 0, 0.0)
    write(Line(index, 5), connection)
    assert board() == (0, 0)


@pytest.mark.parametrize(("drawn", "heard"), [(7, b"."), (5, None)])
def test_the_end_of_a_transaction_wakes_the_one_that_is_called(index, connection, board, drawn, heard):
    board(5, drawn, time.monotonic())
    waiting = Line(index, 5)
    waiting._board()
    bell = waiting._bell(5)
    try:
        write(Line(index, 5), connection)
        if heard:
            assert os.read(bell, 9) == heard
        else:
            with pytest.raises(BlockingIOError):
                os.read(bell, 9)
    finally:
        os.close(bell)


def test_a_child_opens_the_board_anew(index, connection, board):
    mine = Line(index, 5)
    write(mine, connection)
    opened = mine._opened
    mine._opened = (opened[0], opened[1] + 1, opened[2])  # as a process that was forked finds it
    write(mine, connection, 7)
    assert mine._opened[1] == os.getpid()


@pytest.mark.parametrize("since", [0.0, 1e12])
def test_numbers_of_processes_that_are_gone_are_passed_over(index, connection, board, since):
    board(3, 5, since)
    write(one_that_had_its_slice(index), connection, 7)
    assert connection.execute("PRAGMA user_version").fetchone() == (7,)
    assert board() == (6, 6)


@pytest.mark.parametrize("told", [b"", b"not a board", b"\xff" * 24, b"\xff" * 100])
def test_a_board_that_makes_no_sense_keeps_nobody_from_writing(index, connection, board, told):
    board(told)
    write(one_that_had_its_slice(index), connection, 7)
    assert connection.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_board_that_another_holds_for_ever_keeps_nobody_from_writing(index, connection, board, drawn):
    board(0, 2, 0.0)
    with open(f"{engine.local_folder(index)}/line", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        mine = one_that_had_its_slice(index)
        if drawn:
            mine._wait_for(1, mine._board(), connection, time.monotonic())
            connection.execute("ROLLBACK")
        else:
            write(mine, connection, 7)
    assert board() == (0, 2)


@pytest.mark.parametrize("folder", [None, "/dev/null"])
def test_where_there_is_no_line_writers_pause(index, connection, monkeypatch, folder):
    monkeypatch.setattr(line, "local_folder", lambda _: folder)
    with closing(sqlite3.connect(index, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="for too long"):
            write(Line(index, 0.01), connection)
        holder.execute("ROLLBACK")
        write(Line(index, 5), connection, 7)
    assert connection.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize("told", [line._BOARD.pack(0, 0, 0.0), b"?", b"\xff" * 24, b"\0" * 14 + b"\xff" * 10])
def test_who_waited_in_vain_leaves_the_line(index, connection, board, told):
    board(told)
    with closing(sqlite3.connect(index, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="for too long"):
            write(Line(index, 0.01), connection)
        assert board() == (1, 1)
        holder.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [("INSERT INTO nowhere VALUES (1)", StoreError, "no such table"), ("", ZeroDivisionError, "mine")],
)
def test_what_fails_is_rolled_back_and_said(index, connection, statement, error, words):
    before = connection.execute("PRAGMA user_version").fetchone()

    def fail():
        with Line(index, 5).writing(connection) as db:
            db.execute("PRAGMA user_version=9")
            db.execute(statement)
            raise ZeroDivisionError("mine")

    with pytest.raises(error, match=words):
        fail()
    assert not connection.in_transaction
    assert connection.execute("PRAGMA user_version").fetchone() == before
