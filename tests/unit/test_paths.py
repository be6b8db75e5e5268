from __future__ import annotations

import builtins
import doctest
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraschut import paths
from paraschut.paths import Paths

numbers = st.integers(0, 2**63 - 1)


def everything(of):
    return [
        *(of.batch(1), of.scripts(1), of.data(1), of.logs(1), of.log(1, 2, 3, "stdout")),
        *(of.log(1, 2, 3, "stderr"), of.events, of.submissions, of.submission("ab"), of.agent("node")),
        *(of.agent_lock("node"), of.submitter_lock()),
    ]


@pytest.mark.parametrize("folder", ["/data/jobs", "/we ird'; $x/\n", "/caf\udce9"])
def test_everything_of_an_index_lies_in_its_folder_so_that_both_can_be_moved(folder):
    for path in everything(Paths(f"{folder}/index.db")):
        assert path.startswith(folder + "/")
        assert ".." not in path


def test_all_names_differ():
    names = everything(Paths("/data/index.db"))
    assert len(set(names)) == len(names)


@given(numbers, numbers, st.integers(1, 99), numbers, numbers, st.integers(1, 99))
def test_every_stream_of_every_attempt_has_its_own_log(batch, index, n, batch2, index2, n2):
    of = Paths("/data/index.db")
    logs = {of.log(batch, index, n, key) for key in ("stdout", "stderr")}
    others = {of.log(batch2, index2, n2, key) for key in ("stdout", "stderr")}
    assert len(logs) == 2
    assert logs == others if (batch, index, n) == (batch2, index2, n2) else logs.isdisjoint(others)


def test_a_relative_index_is_meant_from_here_and_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of = Paths("jobs/index.db")
    monkeypatch.chdir("/")
    assert of.index == str(tmp_path / "jobs/index.db")
    assert of.folder == str(tmp_path / "jobs")


def test_asking_for_a_name_opens_and_makes_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a name was asked for, and a file touched")

    for module, name in ((builtins, "open"), (os, "open"), (os, "mkdir"), (os, "makedirs"), (os, "stat")):
        monkeypatch.setattr(module, name, refuse)
    everything(Paths(tmp_path / "index.db"))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_this_host_is_the_same_by_every_path_that_leads_to_the_index(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "index.db").touch()
    (tmp_path / "other").symlink_to("jobs")
    straight, around = Paths(tmp_path / "jobs/index.db"), Paths(tmp_path / "other/index.db")
    assert straight.local() == around.local()
    assert str(os.getuid()) in straight.local()
    (tmp_path / "second.db").touch()
    assert Paths(tmp_path / "second.db").local() != straight.local()


def test_the_folder_of_this_host_does_not_depend_on_what_a_cluster_sets(tmp_path, monkeypatch):
    (tmp_path / "index.db").touch()
    before = Paths(tmp_path / "index.db").local()
    for name in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert Paths(tmp_path / "index.db").local() == before


def test_there_are_two_streams():
    with pytest.raises(KeyError):
        Paths("/data/index.db").log(1, 2, 3, "stdin")


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(paths).failed == 0


def test_folders_are_private_whatever_is_above_them(tmp_path):
    before = os.umask(0o022)
    try:
        paths.make_folder(str(tmp_path / "a" / "b" / "c"))
        paths.make_folder(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == [0o700] * 3
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        paths.make_folder(str(tmp_path / "file"))
