from __future__ import annotations

import doctest
import os
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut.errors import SubmitError
from paraschut.executors import script, traces
from paraschut.executors.base import Exit, Submission, Task
from paraschut.executors.script import command_line, exports, script_text, task_block
from paraschut.executors.traces import Holder, gather, parse_exit, parse_mark, take_mark

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def make_task(number=0, command=("/bin/true",), env=None, **other):
    given = {"workdir": "/w", "stdout": "/l/o", "stderr": "/l/e", "resources": {}, **other}
    return Task(number, 20260101000000, number, 1, tuple(command), env or {}, **given)


def make_submission(*tasks, env=None):
    return Submission("abc", "/x/index.db", "/x/submissions/abc", env or {}, tasks)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z_0-9]{3,8}", fullmatch=True), texts, min_size=1))
def test_exports_quote_any_value(env):
    env = {f"X{name}": value for name, value in env.items()}
    assert shlex.split(exports(env)) == ["export", *(f"{name}={value}" for name, value in env.items())]


def test_no_line_of_a_value_is_taken_for_one_to_grid_engine():
    evil = "a\n#$ -l no=1\n#$ -h"
    assert shlex.split(exports({"EVIL": evil})) == ["export", f"EVIL={evil}"]
    assert (
        "\n#"
        not in script_text(make_submission(make_task(), env={"EVIL": evil}), "")
        .decode()
        .partition("paraschut_host=")[0]
    )


def test_no_variables_make_no_mistake_of_syntax():
    assert exports({}) == ":"


@pytest.mark.parametrize(
    "name", ["a.b", "1A", "BASH_FUNC_f%%", "UID", "PPID", "OPTIND", "IFS", "BASHPID", "é", "_"]
)
def test_a_name_that_shells_cannot_set_is_left_to_env(name):
    assert exports({name: "x y"}) == ":"
    line = command_line(["prog", "a b"], {name: "x y"})
    assert shlex.split(line) == ["exec", "${paraschut_plain:-/usr/bin/env}", f"{name}=x y", "prog", "a b"]


@pytest.mark.parametrize("name", ["A", "_A", "UIDS", "PATH", "lower", "MY_UID"])
def test_a_name_that_shells_can_set_is_exported(name):
    assert exports({name: "1"}) == f"export {name}=1"
    assert command_line(["prog"], {name: "1"}) == "exec $paraschut_plain prog"


def test_a_program_with_an_equals_sign_is_not_taken_for_a_variable():
    words = shlex.split(command_line(["/a=b/prog", "x"], {}))
    assert words == ["exec", "$paraschut_plain", "/bin/sh", "-c", 'exec "$0" "$@"', "/a=b/prog", "x"]


def test_a_block_says_all_of_a_task():
    block = task_block(make_task(7, ["/bin/echo", "it's"], {"A": "1"}, workdir="/w x"), {})
    assert block == (
        "paraschut_job() {\n"
        "export A=1\n"
        "exec $paraschut_plain /bin/echo 'it'\"'\"'s'\n"
        "}\n"
        "paraschut_task 7 20260101000000:7 '/w x' /l/o /l/e\n"
    )


def test_the_variables_of_a_submission_are_written_once():
    tasks = [make_task(number) for number in range(5)]
    text = script_text(make_submission(*tasks, env={"LANG": "C.UTF-8", "a.b": "x"}), "")
    assert text.count(b"LANG=C.UTF-8") == 1
    assert text.count(b"a.b=x") == 5  # those that no shell can set go to each program


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_name_that_no_process_can_have_is_refused_with_the_job(name):
    with pytest.raises(SubmitError, match="Job 20260101000000:3 has a variable named"):
        script_text(make_submission(make_task(3, env={name: "1"})), "")


def test_a_task_without_a_command_is_refused():
    with pytest.raises(SubmitError, match="Job 20260101000000:3 has no command"):
        task_block(make_task(3, []), {})


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_process_can_be_given_is_refused_with_the_job(text):
    tasks = [make_task(0), make_task(1, ["echo", text]), make_task(2)]
    with pytest.raises(
        SubmitError, match=r"of job 20260101000000:1 has a null character or half of a surrogate"
    ):
        script_text(make_submission(*tasks), "")
    with pytest.raises(SubmitError, match="of this submission has"):
        script_text(make_submission(make_task(0), env={"A": text}), "")


def test_names_that_are_no_utf8_are_kept():
    name = os.fsdecode(b"/w/\xff\xfe")
    assert b"/w/\xff\xfe" in script_text(make_submission(make_task(0, workdir=name)), "")


@pytest.mark.parametrize(
    ("text", "holder"),
    [
        ("abc.0 node 12 34.b00t", Holder("abc.0", "node", 12, "34.b00t")),
        ("1234[5] nonce", Holder("1234[5]", None, None, "nonce")),
        ("reset node 12 ff", Holder("reset", "node", 12, "ff")),
    ],
)
def test_a_mark_says_who_holds_it(text, holder):
    assert parse_mark(text) == holder


@pytest.mark.parametrize(
    "text", ["", "word", "a b c", "a node -1 x", "a node \u0661 x", "a node 1.5 x", "a b c d e"]
)
def test_a_mark_that_says_something_else_has_no_known_holder(text):
    assert parse_mark(text) is None


@pytest.mark.parametrize(
    ("text", "code", "signal"),
    [
        ("0 10 20 node\n", 0, None),
        ("3 10 20 node\n", 3, None),
        ("128 10 20 node\n", 128, None),
        ("137 10 20 node\n", None, 9),
        ("143 10 20 node\n", None, 15),
        ("255 10 20 node\n", 255, None),  # what exit(-1) gives; there is no signal 127
    ],
)
def test_an_exit_file_tells_a_code_or_a_signal(text, code, signal):
    assert parse_exit(text, 7) == Exit(7, code, signal, 10.0, 20.0, "node")


def test_an_exit_file_may_tell_the_peak_memory():
    assert parse_exit("0 10 20 node 4096\n", 7) == Exit(7, 0, None, 10.0, 20.0, "node", 4096)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "0", "0 10 20 node", "0 10 20\n", "x 10 20 n\n", "-1 1 2 n\n", "256 1 2 n\n", "0 1 2 n x\n"],
)
def test_half_an_exit_file_is_none(text):
    assert parse_exit(text, 7) is None


@given(texts)
def test_no_text_breaks_the_parsers(text):
    parse_mark(text)
    parse_exit(text, 0)


def test_a_reset_takes_the_right_to_start(tmp_path):
    folder = tmp_path / "not made yet"
    assert take_mark(str(folder), 0, traces.reset_holder())
    assert os.listdir(folder) == ["0.run.0"]
    assert gather(str(folder)).marks == {}


def test_a_reset_after_the_start_says_so_and_takes_the_next(tmp_path):
    os.symlink("abc.0 node 1 x", tmp_path / "0.run.0")
    os.symlink("abc.0 node 2 y", tmp_path / "0.run.1")
    assert not take_mark(str(tmp_path), 0, "reset here 1 x")
    assert os.readlink(tmp_path / "0.run.2") == "reset here 1 x"
    assert gather(str(tmp_path)).marks[0][0] == "abc.0 node 2 y"


def test_a_second_reset_changes_nothing(tmp_path):
    os.symlink("abc.0 node 1 x", tmp_path / "0.run.0")
    assert [take_mark(str(tmp_path), 0, traces.reset_holder()) for _ in range(3)] == [False] * 3
    assert [take_mark(str(tmp_path), 1, traces.reset_holder()) for _ in range(3)] == [True] * 3
    assert sorted(os.listdir(tmp_path)) == ["0.run.0", "0.run.1", "1.run.0"]


def test_gathering_survives_what_does_not_belong_there(tmp_path):
    os.symlink("one word", tmp_path / "1.run.0")
    (tmp_path / "2.run.0").write_text("a file, no link")
    (tmp_path / "3.run.0").mkdir()
    (tmp_path / "4.exit").write_text("0 10 20")
    (tmp_path / "5.exit").write_bytes(b"\xff\xfe\n")
    (tmp_path / "6.exit").mkdir()
    (tmp_path / "7.exit").write_text("0 10 20 node\n")
    for name in (
        "08.exit",
        "x.exit",
        ".8.exit",
        "8.exit~",
        "8.run.x",
        "8.run",
        "²" + ".exit",
        "9" * 200 + ".exit",
    ):
        (tmp_path / name).write_text("0 10 20 node\n")
    found = gather(str(tmp_path))
    assert {task: text for task, (text, _) in found.marks.items()} == {1: "one word", 2: "", 3: ""}
    assert found.exits == {7: Exit(7, 0, None, 10.0, 20.0, "node")}


def test_a_folder_that_is_not_there_tells_nothing(tmp_path):
    assert gather(str(tmp_path / "gone")) == ({}, {}, {})


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        gather(str(tmp_path / "file"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "name"
    script.write_beside(str(path), b"old", 0o700)
    assert path.stat().st_mode & 0o777 == 0o700

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        script.write_beside(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["name"]


def test_the_examples_are_true():
    assert [doctest.testmod(one).failed for one in (script, traces)] == [0, 0]
