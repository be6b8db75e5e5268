"""What the queue looks like, line by line, and what no name or reason may ever do to a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut.job import STATES
from paraschut.look.render import bar, render_queue, render_table
from paraschut.look.summary import (
    BatchRow,
    MissingRow,
    StateRow,
    Totals,
    bar_cells,
    spans_of,
)
from paraschut.look.texts import clean

NOTHING = Totals(queued=0, online=0, missing=0, complete=0, jobs=0)


def row(state, indices, online=(), copies=()):
    indices = set(indices)
    return StateRow(state, len(indices), spans_of(indices), spans_of(online), tuple(copies))


def batch(*states, name="map/2009", data_type="ribo", missing=(), progress=()):
    return BatchRow(20240101120000, name, data_type, states, tuple(missing), tuple(progress))


def lines_of(text):
    return text.split("\n")


def cells_of(text):
    """Count as the narrowest and the widest terminals do: marks take nothing, East Asian letters two."""
    wide = {"W", "F"}
    return sum(
        0 if unicodedata.category(char) in {"Mn", "Me"} else 1 + (unicodedata.east_asian_width(char) in wide)
        for char in text
    )


indices = st.sets(st.integers(0, 60), max_size=40)
nasty = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.text(
        st.sampled_from("ab\x1b[]31m;\x07\x9b\x00\n\r\t\u202e\u2066\u200d\u0301\ufe0f日🎉א'\"\\"), max_size=60
    ),
)
states = st.one_of(st.sampled_from(STATES), nasty)
state_rows = st.builds(
    row,
    states,
    st.one_of(indices, st.sets(st.integers(0, 10**18), max_size=40)),
    indices,
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=5),
)
batches = st.lists(
    st.builds(
        BatchRow,
        st.integers(0, 2**63 - 1),
        nasty,
        nasty,
        st.lists(state_rows, max_size=5).map(tuple),
        st.lists(st.builds(MissingRow, st.integers(0, 60), nasty, st.integers(0, 9)), max_size=12).map(tuple),
        st.lists(st.tuples(st.integers(0, 60), st.floats(), nasty), max_size=12).map(tuple),
    ),
    max_size=4,
)
totals = st.builds(
    Totals,
    st.none() | st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
    st.lists(nasty, max_size=2).map(tuple),
)


# The whole queue


def test_a_batch_has_a_title_a_table_its_missing_its_progress_and_the_totals():
    shown = batch(
        row("complete", range(57)),
        row("init", [68, *range(70, 74)]),
        row("run", range(57, 66), online=[58, 59, 63]),
        missing=[
            MissingRow(57, "exit code 3", 1),
            MissingRow(61, "out of memory", 2),
            MissingRow(60, "exit code 3", 3),
        ],
        progress=[(58, 0.29, "fold 3 of 10"), (63, 1.0, "")],
    )
    text = render_queue([shown], Totals(queued=12, online=3, missing=3, complete=57, jobs=71), width=80)
    assert lines_of(text) == [
        "20240101120000  ████████████████▒▒!·   80%  map/2009 (ribo)",
        "  state     jobs  indices",
        "  init         5  68, 70-73",
        "  run          9  57, 58-59*, 60-62, 63*, 64-65",
        "  complete    57  0-56",
        "  missing:  exit code 3: 57, 60 (attempts 1-3)",
        "            out of memory: 61 (attempt 2)",
        "  progress: 58: 29%  fold 3 of 10",
        "            63: 100%",
        "",
        "on queue: 12 · online: 3 · missing: 3 · complete: 57/71",
    ]


def test_batches_share_their_columns_and_the_heads_are_said_once():
    small = BatchRow(7, "", "", (row("waiting for data", [0]),))
    text = render_queue([small, batch(row("collected", range(4)))], NOTHING, width=60, ascii_only=True)
    assert lines_of(text) == [
        "             7  ~~~~~~~~~~~~~~~    0%",
        "  state         jobs  indices",
        "  waiting f...     1  0",
        "",
        "20240101120000  ###############  100%  map/2009 (ribo)",
        "  collected        4  0-3",
        "",
        "on queue: 0 | online: 0 | missing: 0 | complete: 0/0",
    ]


def test_states_come_in_the_order_of_a_job_s_life_then_the_user_s_own():
    rows = [row(state, [number]) for number, state in enumerate(["zeta", "alpha", *reversed(STATES)])]
    text = render_queue([batch(*rows)], NOTHING)
    assert [line.split()[0] for line in lines_of(text)[2:-2]] == [*STATES, "alpha", "zeta"]


def test_long_lists_are_wrapped_and_longer_ones_lose_their_middle():
    wrapped = row("init", range(0, 40, 2))
    shortened = row("submit", range(100, 1000, 2))
    text = render_queue([batch(wrapped, shortened)], NOTHING, width=60)
    assert lines_of(text)[1:-2] == [
        "  state   jobs  indices",
        "  init      20  0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,",
        "                24, 26, 28, 30, 32, 34, 36, 38",
        "  submit   450  100, 102, 104, 106, … (444 ranges), 996, 998",
    ]


def test_a_batch_without_jobs_has_an_empty_bar():
    assert lines_of(render_queue([batch()], NOTHING))[0] == f"20240101120000  {'':25}    0%  map/2009 (ribo)"


def test_a_scheduler_that_could_not_be_asked_is_unknown_and_not_zero():
    note = "squeue said nothing for 30 s: the asterisks are\nthose of 14:05."
    text = render_queue([], Totals(None, 1, 0, 2, 3, (note,)))
    assert lines_of(text)[-2:] == [
        "on queue: unknown · online: 1 · missing: 0 · complete: 2/3",
        "squeue said nothing for 30 s: the asterisks are those of 14:05.",
    ]


def test_an_empty_queue_says_so_and_what_to_do():
    assert render_queue([], NOTHING) == (
        "The queue is empty: add jobs with add_batch_to_queue, and start them with submit_jobs."
    )


def test_a_filter_that_nothing_matches_is_named():
    assert render_queue([], NOTHING, filtered=True) == (
        "No job matches the Filter: leave it out to see the whole queue."
    )


def test_display_leaves_out_states_and_batches_but_not_totals():
    other = BatchRow(2, "other", "", (row("init", [0]),))
    shown = batch(
        row("run", [0, 1]),
        row("init", [2, 3]),
        missing=[MissingRow(0, "vanished", 1)],
        progress=[(1, 0.5, "half")],
    )
    text = render_queue([other, shown], Totals(1, 1, 1, 0, 5), display={"run"}, width=60)
    assert lines_of(text) == [
        "20240101120000  ▒▒▒▒!!!!·······    0%  map/2009 (ribo)",
        "  state  jobs  indices",
        "  run       2  0-1",
        "  missing:  vanished: 0",
        "  progress: 1: 50%  half",
        "",
        "on queue: 1 · online: 1 · missing: 1 · complete: 0/5",
    ]
    assert render_queue([other, shown], Totals(1, 1, 1, 0, 5), display="run", width=60) == text


def test_display_of_a_state_that_nobody_is_in_says_which():
    text = render_queue([batch(row("init", [0]))], Totals(0, 0, 0, 0, 1), display=["held", "run"])
    assert lines_of(text) == [
        "No job is in these states ('run', 'held'): ask for none to see all of them.",
        "on queue: 0 · online: 0 · missing: 0 · complete: 0/1",
    ]


def test_display_of_missing_shows_just_them():
    shown = batch(row("run", [0, 1]), missing=[MissingRow(0, "vanished", 1)], progress=[(1, 0.5, "half")])
    text = render_queue([shown, batch(row("run", [5]))], NOTHING, display={"missing"})
    assert lines_of(text)[1:-2] == ["  missing:  vanished: 0"]


def test_a_long_reason_has_a_line_of_its_own_and_many_reasons_are_counted():
    long = batch(row("run", range(4)), missing=[MissingRow(2, "word " * 20, 1)])
    assert lines_of(render_queue([long], NOTHING, width=60))[3:5] == [
        "  missing:  word word word word word word word word word w…:",
        "              2",
    ]
    many = batch(row("run", range(30)), missing=[MissingRow(n, f"exit code {n}", 1) for n in range(9)])
    assert lines_of(render_queue([many], NOTHING))[-3] == "            and 1 more reason (1 job)"


def test_many_messages_of_progress_are_counted():
    text = render_queue([batch(row("run", range(30)), progress=[(n, 0.0, "") for n in range(12)])], NOTHING)
    assert lines_of(text)[-3] == "            and 2 more jobs"


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(-1.0, "0%"), (2.0, "100%"), (float("nan"), "?%"), (float("inf"), "100%"), (0.999, "99%")],
)
def test_a_fraction_that_is_none_does_no_harm(fraction, shown):
    text = render_queue([batch(row("run", [3]), progress=[(3, fraction, "")])], NOTHING)
    assert f"  progress: 3: {shown}" in lines_of(text)


def test_colour_adds_colours_and_nothing_else():
    shown = batch(row("run", [0, 1]), row("mine", [2]), missing=[MissingRow(0, "vanished", 1)])
    text = render_queue([shown], NOTHING, colour=True)
    assert "\x1b[36mrun\x1b[0m" in text
    for code in ("36", "35", "31", "0"):
        text = text.replace(f"\x1b[{code}m", "")
    assert text == render_queue([shown], NOTHING)


def test_ascii_output_keeps_the_letters_below_accents():
    text = render_queue([batch(row("init", [0]), name="café 日本", data_type="")], NOTHING, ascii_only=True)
    assert text.isascii()
    assert lines_of(text)[0].endswith("  cafe ??")


@given(batches, totals, st.booleans(), st.none() | st.sets(states, max_size=3), st.integers(-5, 130))
def test_nothing_that_users_write_reaches_the_terminal_or_leaves_the_width(
    many, sums, ascii_only, display, width
):
    text = render_queue(many, sums, display=display, width=width, ascii_only=ascii_only)
    for line in lines_of(text):
        assert not {unicodedata.category(char) for char in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert cells_of(line) <= max(width, 40)
    assert text.isascii() or not ascii_only
    coloured = render_queue(many, sums, display=display, width=width, ascii_only=ascii_only, colour=True)
    assert re.sub(r"\x1b\[[0-9]+m", "", coloured) == text


# Its parts


def test_clean_removes_escapes_controls_and_changes_of_direction():
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07and\nnew\tline") == "red and new line"
    assert clean("a\u202eb\u200dc\x9bd\x00e") == "abc d e"
    assert clean('it\'s "quoted" \\ \ud800') == 'it\'s "quoted" \\ \ufffd'


def test_clean_keeps_other_scripts_and_emojis():
    assert clean("שלום 日本 🎉 é") == "שלום 日本 🎉 é"


@pytest.mark.parametrize(
    ("counts", "width", "ascii_only", "expected"),
    [
        ({"init": 2, "submit": 2, "run": 2, "complete": 2}, 8, False, "██▒▒░░··"),
        ({"init": 2, "submit": 2, "run": 2, "complete": 2}, 8, True, "##==--.."),
        ({"complete": 9999, "init": 1}, 6, False, "█████·"),
        ({"complete": 1, "init": 9999}, 6, False, "█·····"),
        ({"held": 1, "mine": 1, "missing": 1}, 3, False, "~!_"),
        ({"init": 50, "complete": 90, "run": 20, "missing": 1}, 2, False, "█!"),
        ({"init": 0}, 3, False, "   "),
        ({"init": 1}, 0, False, ""),
    ],
)
def test_bar(counts, width, ascii_only, expected):
    assert bar(counts, width, ascii_only=ascii_only) == expected


@given(st.dictionaries(states, st.integers(-3, 10**9)), st.integers(-3, 120), st.booleans())
def test_a_bar_is_as_wide_as_asked_and_forgets_no_state(counts, width, ascii_only):
    assert len(bar(counts, width, ascii_only=ascii_only)) == max(width, 0)
    present = {state for state, count in counts.items() if count > 0}
    cells = dict(bar_cells(counts, width))
    assert all(many >= 1 for many in cells.values())
    if len(present) <= width:
        assert set(cells) == present


# Tables


def test_a_table_has_its_columns_numbers_to_the_right_and_numbers_in_text_as_they_are():
    rows = [
        {"when": "12:00", "exit": 3, "used": 1.23456, "id": "007"},
        {"when": "14:00\n\x1b[2J", "exit": None, "used": 12, "ok": True, "id": "1e5"},
    ]
    assert lines_of(render_table(rows, ["when", "exit", "used", "id", "ok"])) == [
        "when   exit   used  id   ok",
        "12:00     3  1.235  007",
        "14:00           12  1e5  True",
    ]


def test_a_table_without_rows_has_heads():
    assert render_table([], ["state", "when"]) == "state  when"
    assert render_table([{"a": 1}], []) == ""


@given(
    st.lists(st.dictionaries(nasty, nasty | st.floats() | st.booleans() | st.none(), max_size=4), max_size=4)
)
def test_a_table_is_safe_to_print(rows):
    columns = sorted({column for each in rows for column in each})
    lines = lines_of(render_table(rows, columns))
    assert not {unicodedata.category(char) for line in lines for char in line} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }
    assert len(lines) == (len(rows) + 1 if columns else 1)
