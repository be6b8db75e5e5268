"""Many jobs one after the other are checked and packed as each alone would be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import texts, values

from paraschut import job as jobs
from paraschut.bulk import Checker, Packer
from paraschut.errors import JobError

GOOD = {
    "BatchID": 1,
    "JobIndex": 0,
    "priority": 1,
    "name": ["a", "b"],
    "data_type": "x",
    "data": None,
    "script": "true",
    "queue": None,
    "resources": {"mem": "1gb"},
    "state": "init",
}


def told(call, *arguments):
    """Return what a call gives, or the words of what it raises."""
    try:
        return call(*arguments)
    except JobError as error:
        return str(error)


@given(st.lists(texts, max_size=4, unique=True), st.lists(values, min_size=1, max_size=4), st.data())
def test_packed_in_a_row_is_packed_alone(names, shared, data):
    packer = Packer()
    for _ in range(4):
        fields = {name: data.draw(st.sampled_from(shared)) for name in names}
        assert told(packer.pack, fields) == told(jobs.pack, fields)


@pytest.mark.parametrize(
    "fields",
    [
        {1: "a"},
        {"x": float("nan")},
        {"x": True},
        {"x": [1, (2,)]},
        {"x": "\ud83d\ude00"},
        {"x": "é"},
        {"%s": "%"},
        {"x": 10**5000},
    ],
)
def test_one_odd_job_among_others_is_packed_as_it_would_be_alone(fields):
    packer = Packer()
    for one in ({"x": 1}, fields, {"x": 1}, {"x": 1.0}, fields):
        assert told(packer.pack, one) == told(jobs.pack, one)


def test_equal_is_not_the_same():
    # 1 == True == 1.0, and each has a text of its own.
    packer = Packer()
    assert [packer.pack({"x": value})[0] for value in (1, True, 1.0)] == [
        '{"x":1}',
        '{"x":true}',
        '{"x":1.0}',
    ]


def test_jobs_that_share_what_is_checked_are_checked_once():
    checker = Checker()
    assert [checker.seen({**GOOD, "JobIndex": number, "mine": number}) for number in range(3)] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"JobIndex": -1}, "JobIndex -1"),
        ({"JobIndex": None}, "JobIndex None"),
        ({"priority": True}, "priority True"),
        ({"state": "run"}, "state 'run'"),
        ({"name": 5}, "name 5"),
        ({"script": " "}, "script ' '"),
        ({"resources": []}, r"resources \[\]"),
        ({"vars": {"a b": "1"}}, "variable named 'a b'"),
    ],
)
def test_a_wrong_job_among_good_ones_is_sent_back(worse, words):
    checker = Checker()
    checker.seen(GOOD)
    with pytest.raises(JobError, match=words):
        checker.seen({**GOOD, **worse})


@pytest.mark.parametrize("field", jobs.REQUIRED)
def test_a_job_that_lacks_a_field_is_sent_back_twice(field):
    checker = Checker()
    checker.seen(GOOD)
    for _ in range(2):
        with pytest.raises(JobError, match=f"lacks the field '{field}'"):
            checker.seen({name: value for name, value in GOOD.items() if name != field})


def test_very_many_kinds_of_jobs_are_all_checked():
    checker = Checker()
    assert not any(checker.seen({**GOOD, "script": f"run {number}"}) for number in range(2500))
    assert not checker.seen({**GOOD, "script": f"run {0}"})
