"""What jobs wrote: heads, tails, lines, patterns; very large, not text, not there, and still growing."""

from __future__ import annotations

import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import BATCH
from verbs import add, claim, end, start

import paraschut as psu
from paraschut.look import lines
from paraschut.look.lines import lines_of
from paraschut.look.logs import Log, follow, grep
from paraschut.paths import Paths
from paraschut.process import host_name


@pytest.fixture
def log(tmp_path):
    """Return a function that writes a log."""

    def write(data):
        path = tmp_path / "1.1.out"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return write


TEN = "".join(f"line {n}\n" for n in range(10))


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (None, range(10)),
        (3, (7, 8, 9)),
        (99, range(10)),
        (0, ()),
        (-1, ()),
        (range(2), (0, 1)),
        ([1, 5, 99], (1, 5)),
        ([], ()),
    ],
)
def test_which_lines(log, chosen, numbers):
    assert list(lines_of(log(TEN), chosen)) == [f"line {n}" for n in numbers]
    assert list(lines_of(log(TEN.rstrip("\n")), chosen)) == [f"line {n}" for n in numbers]


def test_only_lines_that_match(log):
    assert list(lines_of(log(TEN), None, re.compile("[37]$"))) == ["line 3", "line 7"]
    assert list(lines_of(log(TEN), 3, re.compile("[37]$"))) == ["line 7"]


def test_an_empty_log_has_no_lines(log):
    assert list(lines_of(log(""), 5)) == list(lines_of(log(""))) == []
    assert list(lines_of(log("\n"), 5)) == list(lines_of(log("\n"))) == [""]


@given(
    text=st.lists(st.text("aé\t", max_size=5), max_size=30).map("\n".join),
    count=st.integers(1, 40),
    longest=st.sampled_from([64, 1 << 16]),
)
def test_the_tail_is_the_end_of_the_whole(tmp_path_factory, text, count, longest):
    path = tmp_path_factory.getbasetemp() / "any.out"
    path.write_bytes(text.encode())
    before = lines.LONGEST
    lines.LONGEST = longest  # a smaller step meets more borders
    try:
        whole = list(lines_of(str(path)))
        assert whole == (text.removesuffix("\n").split("\n") if text else [])
        assert list(lines_of(str(path), count)) == whole[-count:]
    finally:
        lines.LONGEST = before


def test_a_very_long_line_is_cut(log):
    path = log(b"first\n" + b"x" * 200_000 + b"\nlast\n")
    first, long, last = lines_of(path)
    assert (first, last) == ("first", "last")
    assert len(long) < 66_000
    assert long.endswith("x … (134,464 bytes more in this line)")
    assert list(lines_of(path, 1)) == ["last"]
    *_, last = lines_of(path, 2)
    assert last == "last"


def test_bytes_that_are_no_text_do_a_terminal_no_harm(log):
    """Colours stay; what moves the cursor, rings or renames the window does not."""
    path = log(b"\x00\x01\x02\xff\n\x1b[31mred\x1b[0m\n\x1b]0;title\x07\x1b[2Jgone\ta\rb\n")
    assert list(lines_of(path)) == [
        "\ufffd\ufffd",
        "\x1b[31mred\x1b[0m",
        "\ufffd]0;title\ufffd\ufffd[2Jgone\ta\rb",
    ]


def test_ten_gigabytes_are_no_more_than_a_few(tmp_path, python):
    """A file with nothing in it but its length; the reader may only have so much memory."""
    path = tmp_path / "huge.out"
    with open(path, "wb") as file:
        file.write(b"begin\n")
        file.truncate(10 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nend\n")
    program = (
        "import resource, sys, re\n"
        "from paraschut.look.lines import lines_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(next(iter(lines_of(sys.argv[1]))))\n"
        "print(*lines_of(sys.argv[1], range(1)))\n"
        "print(*map(len, lines_of(sys.argv[1], 2)))\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000\n"
    )
    # The long line is shown as one sign for all that is no text, after the dots that stand for its beginning.
    assert python(program, path).stdout.split() == ["begin", "begin", "3", "3"]
    path.unlink()


def test_a_gigabyte_in_one_line_is_searched_in_little_memory(tmp_path, python):
    path = tmp_path / "huge.out"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nneedle\n")
    program = (
        "import resource, sys, re\n"
        "from paraschut.look.lines import lines_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(*lines_of(sys.argv[1], None, re.compile('needle')))\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000\n"
    )
    assert python(program, path).stdout == "needle\n"


# -- of jobs


def write_log(store, index, n, text, key="stdout"):
    path = Paths(store.index).log(BATCH, index, n, key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


@pytest.fixture
def three(store, make_jobs):
    """Three jobs that ran; the third left nothing behind."""
    add(store, make_jobs(4))
    keys = claim(store, "t", host=host_name())
    for key in keys[:3]:
        start(store, key)
        end(store, key, code=0 if key.job_index < 2 else 137, complete=key.job_index < 2)
    write_log(store, 0, 1, "hello\nloss: nan\n")
    write_log(store, 1, 1, "loss: 0.5\n")
    return store


def test_one_and_several_jobs(three, capsys):
    psu.print_log(BATCH, 0)
    assert capsys.readouterr().out == "hello\nloss: nan\n"
    psu.print_log(BATCH, [0, 1], RegEx="loss")
    assert capsys.readouterr().out == (
        f"--- {BATCH}:0, attempt 1, stdout\nloss: nan\n--- {BATCH}:1, attempt 1, stdout\nloss: 0.5\n"
    )


@pytest.mark.parametrize("made", [False, True])
def test_a_log_that_was_left_empty_says_so_beside_the_output(three, capsys, made):
    if made:
        write_log(three, 2, 1, "")
    psu.print_log(BATCH, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert "exit code 137" in told.err
    assert Paths(three.index).log(BATCH, 2, 1, "stdout") in told.err


def test_a_job_that_has_not_started_says_where_its_log_will_be(three):
    with pytest.raises(psu.NotFoundError, match=rf"{BATCH}:3 has not started yet.*3\.1\.out"):
        psu.print_log(BATCH, 3)


def test_many_logs_are_searched(three):
    found = list(grep(three, {BATCH: [0, 1, 2, 3]}, "stdout", re.compile("nan|0.5")))
    assert [(log.job_index, number, line) for log, number, line in found] == [
        (0, 2, "loss: nan"),
        (1, 1, "loss: 0.5"),
    ]


# -- as it comes


def a_log(path, index=0):
    return Log(BATCH, index, 1, "stdout", str(path))


def followed(logs, steps, lines=None):
    """Follow logs; each pause does the next step, and the last one ends all."""
    over = set()
    steps = iter(steps)

    def pause():
        step = next(steps, None)
        if step is None:
            over.update(logs)
        else:
            step()

    return [(log.job_index, line) for log, line in follow(logs, lines, lambda: set(over), pause)]


def appended(path, text):
    def append():
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)

    return append


def test_a_log_is_followed_until_its_job_has_ended(tmp_path):
    path = tmp_path / "a"
    steps = [appended(path, "one\ntw"), appended(path, "o\n"), appended(path, "the end")]
    assert followed([a_log(path)], steps) == [(0, "one"), (0, "two"), (0, "the end")]


def test_several_logs_are_followed_at_once(tmp_path):
    logs = [a_log(tmp_path / "a"), a_log(tmp_path / "b", 1)]
    steps = [appended(logs[1].path, "b1\n"), appended(logs[0].path, "a1\n"), appended(logs[1].path, "b2\n")]
    assert followed(logs, steps) == [(1, "b1"), (0, "a1"), (1, "b2")]


def test_following_may_begin_with_the_last_lines(log):
    path = log(TEN)
    assert followed([a_log(path)], [appended(path, "new\n")], lines=2) == [
        (0, "line 8"),
        (0, "line 9"),
        (0, "new"),
    ]


def test_following_what_has_ended_prints_it_and_ends(three, capsys):
    psu.print_log(BATCH, [0, 1], Follow=True)
    assert capsys.readouterr().out.splitlines()[1:3] == ["hello", "loss: nan"]


def test_a_line_that_never_ends_is_followed_in_pieces(tmp_path):
    path = tmp_path / "a"
    found = followed([a_log(path)], [appended(path, "x" * 100_000), appended(path, "y\n")])
    assert [line[:1] for _, line in found] == ["x", "y"]
    assert sys.maxsize > len(found[0][1]) > 60_000
