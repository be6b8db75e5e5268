"""The dashboard as HTML: what it says, that it does no harm, and that it stays small and fast."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

from paraschut.look.render_html import job_html, queue_html
from paraschut.look.summary import BatchRow, MissingRow, Span, StateRow, Totals, estimate_left

EVIL = "<script>alert(1)</script>\" onload=alert(2) '&amp;\u202e\x00"
TOTALS = Totals(6, 3, 1, 50, 59)


class Page(HTMLParser):
    """What a browser makes of it: the elements with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def states(**counts):
    """Return rows of states, with indices one after the other."""
    rows, first = [], 0
    for state, count in counts.items():
        rows.append(StateRow(state, count, (Span(first, first + count - 1),)))
        first += count
    return tuple(rows)


def batch(number=0, name="yeast/map", rows=None, **more):
    return BatchRow(20260101000000 + number, name, "reads", rows or states(init=2, complete=3), **more)


def test_a_batch_says_who_it_is_and_where_it_stands():
    row = BatchRow(
        20260101000007,
        "yeast/map",
        "reads",
        (StateRow("run", 4, (Span(9, 12),), (Span(10, 12),)), *states(complete=9)),
        (MissingRow(9, "out of memory", 2),),
        ((10, 0.29, "fold 3 of 5"),),
        elapsed=100,
        left=130,
    )
    page = Page(queue_html([row], TOTALS, now=0))
    for words in (
        *("yeast/map", "(reads)", "20260101000007", "69%", "1 min 40 s", "about 2 min 10 s left"),
        *("out of memory", "attempt 2", "10-12*", "29%", "fold 3 of 5"),
        *("on queue: 6", "online: 3", "missing: 1", "complete: 50/59", "1970-01-01 00:00:00 UTC"),
    ):
        assert words in page.text
    bar = [attrs for attrs in page.all("span") if attrs.get("role") == "img"]
    assert bar[0]["aria-label"] == "9 complete, 3 run, 1 missing"
    assert [attrs["title"] for attrs in page.all("i") if "title" in attrs] == [
        "9 complete",
        "3 run",
        "1 missing",
    ]


def test_nothing_of_a_user_becomes_markup():
    rows = (StateRow(EVIL, 1, (Span(0, 0),)), StateRow("run", 1, (Span(1, 1),)))
    row = BatchRow(1, EVIL, EVIL, rows, (MissingRow(1, EVIL, 1),), ((1, 0.5, EVIL),))
    calm = BatchRow(1, "x", "x", rows[1:], (MissingRow(1, "x", 1),), ((1, 0.5, "x"),))
    found, expected = (Page(queue_html([one], Totals(0, 0, 0, 0, 0, (EVIL,)))) for one in (row, calm))
    assert {tag for tag, _ in found.elements} == {tag for tag, _ in expected.elements}
    assert found.text.count("<script>alert(1)</script>") >= 5
    assert "\u202e" not in found.text
    assert "\x00" not in found.text
    for _, attrs in found.elements:
        assert not [name for name in attrs if name.startswith("on")]
    page = Page(
        job_html({"BatchID": EVIL, "JobIndex": EVIL, "state": EVIL, "name": EVIL, EVIL: EVIL, "n": [EVIL]})
    )
    assert {"script", "img"} & {tag for tag, _ in page.elements} == set()


def test_it_loads_nothing_and_runs_nothing():
    text = queue_html([batch()], TOTALS)
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|src=|href=", text)


def test_what_is_done_is_folded_and_what_is_not_is_open():
    page = Page(queue_html([batch(0, rows=states(complete=3)), batch(1)], TOTALS))
    assert [("open" in attrs) for attrs in page.all("details")] == [False, True]
    lost = batch(2, rows=states(complete=3), missing=(MissingRow(0, "vanished", 1),))
    assert "open" in Page(queue_html([lost], TOTALS)).all("details")[0]


def test_many_batches_that_are_done_take_one_line():
    done = [batch(n, rows=states(complete=3)) for n in range(30)]
    page = Page(queue_html([*done, batch(30)], TOTALS))
    assert "30 batches are complete" in page.text
    assert len(page.all("details")) == 2
    assert page.text.count("yeast/map") == 31


def test_many_batches_that_are_open_fold_too():
    page = Page(queue_html([batch(n) for n in range(100)], TOTALS))
    assert "60 more batches" in page.text
    assert sum("open" in attrs for attrs in page.all("details")) == 12


def test_many_ranges_fold_and_very_many_are_cut():
    ragged = StateRow("init", 5000, tuple(Span(n, n) for n in range(0, 10_000, 2)))
    page = Page(queue_html([batch(rows=(ragged,))], TOTALS))
    assert "4,988 ranges more" in page.text
    assert "and 4,000 ranges more" in page.text
    assert len(page.text) < 10_000


def test_many_jobs_that_tell_their_progress_fold():
    told = tuple((n, 0.5, "half") for n in range(500))
    page = Page(queue_html([batch(rows=states(run=500), progress=told)], TOTALS))
    assert "193 more" in page.text
    assert "and 300 more jobs" in page.text


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([], {}, "The queue is empty"),
        ([], {"filtered": True}, "No job matches the Filter"),
        ([batch()], {"display": {"run"}}, "No job is in these states ('run')"),
    ],
)
def test_an_empty_dashboard_says_why(rows, options, words):
    assert words in Page(queue_html(rows, TOTALS, **options)).text


def test_only_the_states_that_are_asked_for():
    page = Page(queue_html([batch()], TOTALS, display={"init"}))
    assert "init" in page.text
    assert "0-1" in page.text
    assert "2-4" not in page.text


def test_a_scheduler_that_cannot_be_asked_is_said():
    page = Page(queue_html([batch()], Totals(None, 0, 0, 0, 5, ("squeue timed out",))))
    assert "on queue: unknown" in page.text
    assert "squeue timed out" in page.text


def test_a_thousand_batches_are_a_second_or_two_of_typing_not_of_waiting():
    rows = [batch(n, rows=states(init=500, run=20, complete=500, held=3)) for n in range(1000)]
    began = time.process_time()
    text = queue_html(rows, TOTALS)
    spent = time.process_time() - began
    assert len(text) < 1_500_000
    assert spent < 5, "the promise is half a second; only ten times that is a fault of the code"


def _luminance(colour):
    whole = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(whole[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["_LIGHT", "_DARK"])
def test_texts_and_bars_can_be_seen(theme):
    """WCAG 2.1: 4.5 for texts, 3 for what is drawn."""
    from paraschut.look import render_html

    colours = dict(re.findall(r"--psu-(\w+):#(\w+)", getattr(render_html, theme)))
    card = colours.pop("card")
    for name in ("ink", "soft", "bad", "run"):
        assert _contrast(colours[name], card) >= 4.5, name
    for name in set(colours) - {"ink", "soft", "bad", "line", "lane"}:
        assert _contrast(colours[name], card) >= 3, name


def test_a_job_shows_its_fields():
    page = Page(job_html({"BatchID": 1, "JobIndex": 7, "state": "run", "name": ["a", "b"], "mem": {"x": 1}}))
    for words in ("1:7", "a/b", "run, 5 fields", "{'x': 1}"):
        assert words in page.text


@pytest.mark.parametrize(
    ("running", "waiting", "mean", "left"),
    [
        ([], 5, 10.0, None),
        ([(1.0, None)], 5, None, None),
        ([(30.0, None)], 0, 10.0, 0.0),
        ([(4.0, None)], 3, 10.0, 36.0),
        ([(4.0, None), (4.0, None)], 4, 10.0, 26.0),
        ([(30.0, 0.75)], 1, None, 50.0),
        ([(30.0, 0.001)], 1, None, None),
        ([(90.0, 0.1), (1.0, 1.0)], 0, None, 810.0),
    ],
)
def test_how_long_it_will_still_take(running, waiting, mean, left):
    """As far as anything says it."""
    found = estimate_left(running, waiting, mean)
    assert found is None if left is None else found == pytest.approx(left)
