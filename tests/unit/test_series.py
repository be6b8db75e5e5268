"""What a worker leaves behind in its file, and who may begin which call."""

from __future__ import annotations

import pytest

from paraschut.agent.series import Claim, Series, left_by, path_of, stop, writes_of

CLAIMS = [Claim((7, number, 1), "f00", number, 100.0 + number) for number in range(4)]
PROCESS = "1:2"


@pytest.fixture
def zygote(tmp_path):
    """The file as the zygote has it, when the worker was told its first call."""
    series = Series(path_of(str(tmp_path), PROCESS), make=True)
    series.begin(CLAIMS[0])
    yield series
    series.close()


@pytest.fixture
def worker(zygote):
    """The same as the worker has it, which has made its first call and taken three."""
    series = Series(zygote.path)
    series.follow()
    assert series.starts()
    series.ended()
    series.adopt(series.propose(CLAIMS[1:]), 3)
    yield series
    series.close()


def made(worker, number):
    assert worker.starts()
    worker.record({"key": number})
    worker.ended()


def test_what_is_not_in_the_index_yet_and_what_has_not_begun_is_left(zygote, worker):
    made(worker, 1)
    assert worker.starts()
    assert zygote.last() == CLAIMS[2]
    left = zygote.take(longer=0)
    assert (left.done, left.not_begun) == ([{"key": 1}], [CLAIMS[3]])
    assert zygote.take(longer=0) == ([], [])
    worker.ended()
    assert not worker.starts()


def test_who_is_in_no_call_or_in_a_short_one_keeps_its_calls(zygote, worker):
    assert zygote.take(longer=0) == ([], [])
    assert worker.starts()
    assert zygote.take(longer=3600) == ([], [])
    worker.ended()
    assert worker.starts()


def test_what_stands_in_the_index_is_not_left(zygote, worker):
    made(worker, 1)
    worker.settled()
    made(worker, 2)
    assert zygote.take() == ([{"key": 2}], [CLAIMS[3]])


def test_of_one_that_was_killed_all_is_left_even_what_it_was_about_to_take(tmp_path, worker):
    made(worker, 1)
    worker.settled()
    more = Claim((7, 9, 1), "f00", 9, 200.0)
    worker.propose([more])
    assert left_by(str(tmp_path), PROCESS) == ([{"key": 1}], [CLAIMS[2], CLAIMS[3], more])
    assert not worker.starts()


def test_a_line_that_was_cut_off_is_no_line(zygote, worker):
    made(worker, 1)
    with open(zygote.path, "ab") as file:
        file.write(b'{"key": 2, "outco')
    assert zygote.take().done == [{"key": 1}]


def test_of_one_that_has_no_file_nothing_is_left(tmp_path):
    assert left_by(str(tmp_path), "3:4") == ([], [])
    assert stop(str(tmp_path), "3:4", (7, 0, 1)) == (True, [])


@pytest.mark.parametrize(("number", "is_at_it", "not_begun"), [(1, True, [2, 3]), (2, False, [2, 3])])
def test_who_is_to_end_a_job_begins_no_other(tmp_path, worker, number, is_at_it, not_begun):
    assert worker.starts()
    assert stop(str(tmp_path), PROCESS, CLAIMS[number].key) == (is_at_it, [CLAIMS[one] for one in not_begun])
    worker.ended()
    assert not worker.starts()


def test_a_job_that_is_not_the_workers_any_more_stops_nobody(tmp_path, worker):
    assert stop(str(tmp_path), PROCESS, CLAIMS[0].key) == (False, [])
    assert worker.starts()


def test_a_job_that_was_told_and_has_not_begun_is_the_workers(tmp_path, zygote):
    assert stop(str(tmp_path), PROCESS, CLAIMS[0].key) == (True, [])
    assert not zygote.starts()


def test_logs_that_have_the_name_of_a_call_serve_no_other(zygote, worker):
    named = []
    assert not zygote.name(0, named.append)
    assert worker.starts()
    assert not zygote.name(3600, named.append)
    assert zygote.name(0, named.append)
    assert named == [CLAIMS[1]]
    worker.ended()
    assert not worker.starts()


def test_a_log_without_a_name_is_that_of_the_call_that_has_begun_last(tmp_path, zygote):
    def written():
        return [writes_of(str(tmp_path / f"log.{PROCESS}.1"), claim.key) for claim in CLAIMS]

    assert writes_of(str(tmp_path / "log.3:4.1"), CLAIMS[3].key)  # what has no such file has but one job
    assert written() == [True, False, False, False]
    assert zygote.starts()
    zygote.ended()
    zygote.adopt(zygote.propose(CLAIMS[1:]), 3)
    for begun in range(1, 4):
        assert zygote.starts()
        assert written() == [number == begun for number in range(4)]
