from __future__ import annotations

import doctest
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut import command
from paraschut.command import command_of, handed_on, job_variables, without_job

names = st.sampled_from(
    ["PATH", "CONDA_PREFIX", "CONDA", "CONDOR", "SECRET", "PARASCHUT_INDEX", "PARASCHUT_X", "LC_ALL"]
)
environments = st.dictionaries(names, st.text(max_size=3), max_size=6)


def put(folder, name, text, mode=0o600):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def run(script, workdir):
    return subprocess.run(command_of(script, str(workdir)), capture_output=True, text=True, timeout=30).stdout


# --- what is run


@pytest.mark.parametrize(
    "script", ["echo hello", "true", "python -c 'print(1)'", "a\nb", "", "~/no such file", "x" * 300, "|"]
)
def test_a_command_line_is_for_the_shell(script, home):
    assert command_of(script, str(home)) == ("/bin/sh", "-c", script)


def test_a_file_that_may_be_executed_is_executed(home):
    path = put(home, "job.sh", "#!/bin/sh\necho $0\n", 0o700)
    assert command_of("job.sh", str(home)) == (path,)
    assert run("job.sh", home).strip() == path


def test_a_file_that_may_not_be_executed_is_run_by_the_interpreter_of_its_first_line(home):
    # Was: the end of the line is taken for a part of the argument, so env looks for "python3\n".
    path = put(home, "my job.py", "#!/usr/bin/env -S cat -u\nhello\n")
    assert command_of("my job.py", str(home)) == ("/usr/bin/env", "-S cat -u", path)
    assert run("my job.py", home) == "#!/usr/bin/env -S cat -u\nhello\n"


def test_a_file_without_a_first_line_is_for_the_shell(home):
    path = put(home, "job.sh", "echo from here\n", 0o700)
    assert command_of(path, "/") == ("/bin/sh", path)
    assert run(path, "/") == "from here\n"


def test_the_first_line_may_have_spaces_and_odd_bytes(home):
    # Was: as above.
    put(home, "job", b"#! /bin/cat  -u \nx")
    assert command_of("job", str(home))[:-1] == ("/bin/cat", "-u")
    put(home, "other", b"#!/caf\xe9\n")
    assert command_of("other", str(home))[0] == "/caf\udce9"
    put(home, "bare", b"#!\n")
    assert command_of("bare", str(home))[0] == "/bin/sh"


def test_a_file_is_looked_for_from_the_folder_of_the_job(home, tmp_path):
    put(home, "job.sh", "true")
    assert command_of("job.sh", str(tmp_path)) == ("/bin/sh", "-c", "job.sh")
    assert command_of("job.sh", str(home))[-1] == str(home / "job.sh")


def test_a_file_may_begin_at_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    path = put(home, "job.sh", "true")
    assert command_of("~/job.sh", "/")[-1] == path


def test_a_folder_is_no_script(home):
    (home / "thing").mkdir()
    assert command_of("thing", str(home)) == ("/bin/sh", "-c", "thing")


# --- what a job finds in its environment


def test_a_job_finds_itself():
    assert job_variables("/i.db", 20260101000000, 7, 2, "ab", 5, "123.5") == {
        "PARASCHUT_INDEX": "/i.db",
        "PARASCHUT_BATCHID": "20260101000000",
        "PARASCHUT_JOBINDEX": "7",
        "PARASCHUT_ATTEMPT": "2",
        "PARASCHUT_TOKEN": "ab",
        "PARASCHUT_TASK": "5",
        "PARASCHUT_CLUSTERID": "123.5",
    }


@given(environments, st.lists(st.one_of(names, names.map(lambda name: name[:4] + "*")), max_size=4))
def test_only_what_is_listed_is_handed_on_and_never_who_somebody_else_is(environ, listed):
    handed = handed_on(environ, tuple(listed))
    assert handed.items() <= environ.items()
    for name in environ:
        fits = any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in listed)
        assert (name in handed) == (fits and not name.startswith("PARASCHUT_"))


def test_a_star_alone_hands_on_everything_but_who_the_submitter_is():
    assert handed_on({"A": "1", "PARASCHUT_TOKEN": "x"}, ("*",)) == {"A": "1"}


@given(environments)
def test_an_environment_without_the_job_has_everything_else(environ):
    left = without_job(environ)
    assert {**environ, **left} == environ
    assert set(environ) - set(left) == {name for name in environ if name.startswith("PARASCHUT_")}


def test_this_process_can_be_handed_on():
    assert handed_on(os.environ, ("PATH",)) == {"PATH": os.environ["PATH"]}


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(command).failed == 0
