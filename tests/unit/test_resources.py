from __future__ import annotations

import contextlib
import copy
import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut import resources
from paraschut.errors import JobError
from paraschut.resources import (
    Needs,
    format_size,
    format_time,
    needs_of,
    other_keys,
    parse_size,
    parse_time,
)

KB, MB, GB = 1024, 1024**2, 1024**3


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("4gb", 4 * GB),
        ("512M", 512 * MB),
        ("1.5GiB", 1536 * MB),
        ("100", 100),
        ("100b", 100),
        (" 2 Kb ", 2 * KB),
        ("1k", KB),
        ("1kib", KB),
        ("1T", 1024 * GB),
        ("0", 0),
        (0, 0),
        (123, 123),
        (np.int32(7), 7),
        ("0.1k", 103),  # rounded up
    ],
)
def test_a_size_is_read_in_bytes(value, size):
    assert parse_size(value) == size
    assert type(parse_size(value)) is int


@pytest.mark.parametrize(
    "value",
    ["", "gb", "4x", "4w", "4ib", "-1gb", "1e9", "4 g b", "1_000", "٤gb", "nan", "9" * 5000, "9999999p"],
)
def test_what_is_not_a_size_is_refused_with_the_valid_forms(value):
    with pytest.raises(JobError, match=r"is not a size: write it like 4gb, 512M or 1\.5GiB"):
        parse_size(value)


@pytest.mark.parametrize("value", [True, np.True_, None, 1.5, -1, 2**63, [1], {}])
def test_a_size_of_another_type_is_refused(value):
    with pytest.raises(JobError, match="is not a size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("02:30:00", 9000),
        ("1-12:00:00", 129600),
        ("2d 03:04:05", 183845),
        ("15:00", 900),
        ("0:0:5", 5),
        ("00:90", 90),  # as PBS and SGE read them
        ("100:00:00", 360000),
        ("90m", 5400),
        ("2h", 7200),
        ("1.5H", 5400),
        ("1d", 86400),
        ("45s", 45),
        ("4.2 s", 4.2),
        ("3600", 3600),
        (5, 5),
        (0.5, 0.5),
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
    ],
)
def test_a_time_is_read_in_seconds(value, seconds):
    assert parse_time(value) == pytest.approx(seconds)
    assert type(parse_time(value)) is float


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "1:2:3:4",
        "1-2",
        "-5",
        "5w",
        "1h30",
        "1e3",
        "inf",
        "9" * 5000,
        True,
        None,
        -1,
        math.inf,
        math.nan,
        10**400,
        [5],
    ],
)
def test_what_is_not_a_time_is_refused_with_the_valid_forms(value):
    with pytest.raises(JobError, match="is not a time: write it like 02:30:00, 1-12:00:00"):
        parse_time(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (MB - 1, "1 MiB"),
        (16 * GB, "16 GiB"),
        (5000 * 1024**5, "5000 PiB"),
        (-KB, "-1 KiB"),
    ],
)
def test_a_size_is_shown_shortly(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4.2, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "00:01:00"),
        (11045, "03:04:05"),
        (86399.7, "1d 00:00:00"),
        (183845, "2d 03:04:05"),
        (-4.2, "-4.2 s"),
    ],
)
def test_a_time_is_shown_shortly(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_time_that_is_not_finite_cannot_be_shown(seconds):
    with pytest.raises(JobError, match="finite"):
        format_time(seconds)


@given(st.integers(0, 2**63 - 1))
def test_any_number_of_bytes_is_read_back_exactly(n):
    assert parse_size(n) == parse_size(str(n)) == parse_size(f"{n}b") == n


@given(st.integers(0, 2**62))
def test_a_size_that_is_shown_is_read_back_as_nearly_that_size(n):
    assert parse_size(format_size(n)) == pytest.approx(n, rel=0.05)


@given(st.floats(0, 1e9))
def test_a_time_that_is_shown_is_read_back_to_the_second(seconds):
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, abs=0.51)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_the_two_ways_to_write_days_agree(days, hours, minutes, seconds):
    clock = f"{hours:02}:{minutes:02}:{seconds:02}"
    expected = days * 86400 + hours * 3600 + minutes * 60 + seconds
    assert parse_time(f"{days}-{clock}") == parse_time(f"{days}d {clock}") == expected


@given(st.text(max_size=12))
def test_no_text_makes_the_parsers_fail_in_another_way(text):
    for parse in (parse_size, parse_time):
        with contextlib.suppress(JobError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    "resources", [None, {}, {"pmem": "1gb"}, {"cpus": None, "mem": None, "walltime": None}]
)
def test_a_job_that_asks_for_nothing_needs_one_processor(resources):
    assert needs_of(resources) == Needs(cpus=1, mem=None, walltime=None, gpus=0, nodes=1)


def test_the_generic_keys_are_read_and_the_dict_is_left_alone():
    asked = {"cpus": np.int64(4), "mem": "2gb", "walltime": "01:00:00", "gpus": 1, "nodes": 2, "pmem": "1gb"}
    before = copy.deepcopy(asked)
    needs = needs_of(asked)
    assert needs == Needs(cpus=4, mem=2 * GB, walltime=3600.0, gpus=1, nodes=2)
    assert type(needs.cpus) is int
    assert asked == before
    assert list(asked) == list(before)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("cpus", value) for value in (0, -1, True, 1.5, "4", [2], 2**63)],
        *[("nodes", value) for value in (0, "two")],
        *[("gpus", value) for value in (-1, False)],
        *[("mem", value) for value in (0, "0gb", "4x", 1.5, True)],
        *[("walltime", value) for value in (0, "soon", "00:00:00", -5, True)],
    ],
)
def test_a_wrong_value_of_a_generic_key_is_refused_by_name(key, value):
    with pytest.raises(JobError, match=f"resources has {key} = .*; it must be a "):
        needs_of({key: value})


@pytest.mark.parametrize("function", [needs_of, other_keys])
@pytest.mark.parametrize("wrong", ["-l mem=1gb", 5, [("mem", 1)]])
def test_resources_that_are_not_a_dict_are_refused(function, wrong):
    with pytest.raises(JobError, match=r"must be a dict such as \{'cpus': 2"):
        function(wrong)


def test_keys_that_are_not_strings_are_refused():
    with pytest.raises(JobError, match="has the key 5"):
        other_keys({5: 1})


def test_other_keys_are_those_that_are_not_generic_in_their_order():
    assert other_keys({"pvmem": 1, "mem": 1, "cput": 1, "cpus": 1}) == ("pvmem", "cput")
    assert other_keys(None) == ()


def test_a_long_value_is_not_poured_into_the_message():
    with pytest.raises(JobError) as caught:
        needs_of({"cpus": "x" * 10_000})
    assert len(str(caught.value)) < 200


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(resources).failed == 0
