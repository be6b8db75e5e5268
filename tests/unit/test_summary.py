"""What is shown of a queue, and ranges of job indices as text and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut.errors import JobError
from paraschut.look.summary import (
    BatchRow,
    MissingGroup,
    MissingRow,
    Span,
    StateRow,
    bar_counts,
    format_spans,
    group_missing,
    parse_spans,
    percent_complete,
    spans_of,
    visible,
)


def row(state, indices, online=(), copies=()):
    indices = set(indices)
    return StateRow(state, len(indices), spans_of(indices), spans_of(online), tuple(copies))


def batch(*states, name="map/2009", data_type="ribo", missing=(), progress=()):
    return BatchRow(20240101120000, name, data_type, states, tuple(missing), tuple(progress))


def test_visible_puts_states_in_order_and_keeps_everything_else():
    seen = visible(batch(row("run", [1]), row("init", [0]), progress=[(1, 0.1, "")]), None)
    assert seen == batch(row("init", [0]), row("run", [1]), progress=[(1, 0.1, "")])
    assert visible(batch(row("run", [1])), {"init"}) is None


def test_missing_jobs_count_as_missing_in_the_bar_and_not_as_their_state():
    shown = batch(
        row("run", [0, 1, 5]),
        row("submit", [2]),
        missing=[MissingRow(5, "", 1), MissingRow(2, "", 1), MissingRow(9, "of another batch", 1)],
    )
    assert bar_counts(shown) == {"run": 2, "submit": 0, "missing": 2}


def test_missing_are_grouped_by_reason_the_most_frequent_first():
    rows = [MissingRow(4, "a", 1), MissingRow(9, "b", 2), MissingRow(8, "b", 1), MissingRow(2, "c", 1)]
    assert group_missing(rows) == (
        MissingGroup("b", 2, (Span(8, 9),), Span(1, 2)),
        MissingGroup("c", 1, (Span(2, 2),), Span(1, 1)),
        MissingGroup("a", 1, (Span(4, 4),), Span(1, 1)),
    )


def test_only_all_is_a_hundred_percent():
    assert percent_complete({"complete": 500, "collected": 499, "init": 1}) == 99
    assert percent_complete({"complete": 1}) == 100
    assert percent_complete({}) == 0


# Ranges of job indices


@pytest.mark.parametrize(
    ("spans", "online", "copies", "expected"),
    [
        ([], [], (), ""),
        ([0, 1, 2, 3, 4, 6, 8, 9], [], (), "0-4, 6, 8-9"),
        ([0, 1, 2, 3, 4, 5, 6], [3, 4, 5], (), "0-2, 3-5*, 6"),
        ([3, 4, 5, 7], [3, 4, 5, 7], (), "3-5*, 7*"),
        ([0, 1, 5, 6], range(20), (), "0-1*, 5-6*"),
        ([0, 1, 2, 3], [0, 3], (), "0*, 1-2, 3*"),
        ([1, 2, 3, 4], [1, 2, 3, 4], ((2, 3), (3, 3), (4, 12)), "1*, 2-3***, 4*x12"),
    ],
)
def test_format_spans(spans, online, copies, expected):
    assert format_spans(spans_of(spans), spans_of(online), copies) == expected


@given(st.sets(st.integers(0, 10**6), min_size=1), st.sets(st.integers(0, 10**6)))
def test_what_format_spans_writes_parse_spans_reads(jobs, active):
    assert parse_spans(format_spans(spans_of(jobs), spans_of(active))) == tuple(sorted(jobs))


@given(st.sets(st.integers(0, 40), min_size=1), st.sets(st.integers(0, 40)), st.integers(0, 9))
def test_asterisks_are_on_the_jobs_that_are_online_and_on_no_others(jobs, active, several):
    copies = tuple((index, several) for index in sorted(active) if index % 3 == 0)
    text = format_spans(spans_of(jobs), spans_of(active), copies)
    starred = [part for part in text.split(", ") if "*" in part]
    assert set(parse_spans(", ".join(starred)) if starred else ()) == jobs & active


@given(st.sets(st.integers(0, 200)))
def test_spans_are_sorted_and_do_not_touch(jobs):
    spans = spans_of(jobs)
    assert {index for span in spans for index in range(span.first, span.last + 1)} == jobs
    assert all(left.last + 1 < right.first for left, right in pairwise(spans))


def test_parse_spans_takes_what_people_type():
    assert parse_spans("1,3-8") == (1, 3, 4, 5, 6, 7, 8)
    assert parse_spans(" 7, 3 - 4,\n 3 ") == (3, 4, 7)


@pytest.mark.parametrize(
    "text", ["", " ", "1,,2", "1,", "a", "-1", "1--2", "1.5", "3-", "0, … (3 ranges), 9", "٣"]
)
def test_parse_spans_quotes_what_it_does_not_understand(text):
    with pytest.raises(JobError, match="between commas: 1,3-8"):
        parse_spans(text)


def test_parse_spans_turns_a_backward_range_round_in_its_message():
    with pytest.raises(JobError, match="write it as 3-8"):
        parse_spans("8-3")


@pytest.mark.parametrize("text", ["0-10000000", "0-5, 0-999999999999999999"])
def test_parse_spans_does_not_fill_the_memory(text):
    with pytest.raises(JobError, match="more than 10,000,000 jobs"):
        parse_spans(text)
