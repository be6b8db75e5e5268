"""Bells: who waits for the jobs of a batch is woken, and by nobody else's."""

from __future__ import annotations

import os

import pytest
from stories import BATCH

from paraschut.store import bell
from paraschut.store.engine import local_folder


@pytest.fixture
def bells(index):
    """Return a function that puts up the bell of a batch, and takes it down at the end."""
    up = []

    def make(batch):
        up.append(bell.Bell(index, batch))
        return up[-1]

    yield make
    for one in up:
        one.close()


def hung(index):
    return [name for name in os.listdir(local_folder(index)) if name.startswith("news.")]


def test_all_who_wait_for_a_batch_are_woken_and_nobody_else(index, bells):
    mine, too, other = bells(BATCH), bells(BATCH), bells(BATCH + 1)
    bell.ring(index, BATCH)
    assert [one.listen(0) for one in (mine, too, other)] == [True, True, False]
    assert not mine.listen(0), "it was heard"
    bell.ring(index)
    assert all(one.listen(0) for one in (mine, too, other))


def test_a_bell_that_nobody_hears_may_be_rung_for_ever(index, bells):
    mine = bells(BATCH)
    for _ in range(100_000):
        mine.ring()
    bell.ring(index, BATCH)
    assert mine.listen(0)


def test_a_bell_is_taken_down_at_the_end_and_may_be_rung_then(index, bells):
    mine = bells(BATCH)
    assert len(hung(index)) == 1
    mine.close()
    mine.ring()
    assert hung(index) == []


def test_the_bell_of_one_that_was_killed_is_taken_down_by_who_rings(index, bells):
    bells(BATCH)
    os.mkfifo(os.path.join(local_folder(index), f"news.{BATCH}.1.0"), 0o600)
    bell.ring(index, BATCH)
    assert hung(index) == [f"news.{BATCH}.{os.getpid()}.{name.rpartition('.')[2]}" for name in hung(index)]
    assert len(hung(index)) == 1


def test_where_there_is_no_folder_one_can_wake_itself(index, bells, monkeypatch):
    monkeypatch.setattr(bell, "local_folder", lambda _: None)
    mine = bells(BATCH)
    bell.ring(index, BATCH)
    assert not mine.listen(0)
    mine.ring()
    assert mine.listen(0)
