"""A batch of plain commands in one line, and the doctor."""

from __future__ import annotations

import json
import os

import pytest

import paraschut as psu
from paraschut.look import doctor

pytest_plugins = ("cli_fixtures",)


def scripts(batch_id):
    return {job["JobIndex"]: job["script"] for job in psu.get_queue(Verbose=False)[batch_id]}


@pytest.fixture
def added(done, index):
    """Return a function that adds a batch and returns what it is told as data."""
    return lambda *words: json.loads(done("run", "--no-submit", "--json", *words))


def test_one_command(added):
    told = added("--cpus", 2, "--mem", "1gb", "--retries", 1, "--", "echo", "a b", "$x;'")
    assert (told["jobs"], told["submitted"]) == ([0], 0)
    assert scripts(told["BatchID"]) == {0: "echo 'a b' '$x;'\"'\"''"}
    job = psu.get_job_info(told["BatchID"], 0)
    assert (job["name"], job["complete_on_exit"], job["retries"]) == ("echo", True, 1)
    assert (job["resources"]["cpus"], job["resources"]["mem"]) == (2, "1gb")


def test_a_command_asks_for_what_somebody_said_and_for_nothing_of_the_example(added, home):
    asked = ("queue", "resources", "data_type")
    job = psu.get_job_info(added("true")["BatchID"], 0)
    assert [job[key] for key in asked] == ["", {}, ""]
    (home / "config.toml").write_text(
        '[paraschut]\n[paraschut.template]\nqueue = "long"\nresources = { cpus = 2 }\n'
    )
    job = psu.get_job_info(added("--mem", "1gb", "true")["BatchID"], 0)
    assert [job[key] for key in asked] == ["long", {"cpus": 2, "mem": "1gb"}, ""]


def test_options_of_the_command_are_its_own(added):
    told = added("make", "-j4", "--name", "all")
    assert scripts(told["BatchID"]) == {0: "make -j4 --name all"}


def test_one_word_with_blanks_is_a_line_for_the_shell(added, home):
    (home / "two lines").write_text("a\n$(rm -rf x)\n")
    assert scripts(added("--", "sort w | uniq > c")["BatchID"]) == {0: "sort w | uniq > c"}
    told = added("--each-line", home / "two lines", "--", "grep {} | wc -l")
    assert scripts(told["BatchID"]) == {0: "grep a | wc -l", 1: "grep '$(rm -rf x)' | wc -l"}


def test_a_job_for_each_line(added, home):
    (home / "samples").write_text("one.bam\n\ntwo words.bam\r\n")
    told = added("--each-line", home / "samples", "--", "./align.sh", "{}", "--out={}.txt")
    assert scripts(told["BatchID"]) == {
        0: "./align.sh one.bam --out=one.bam.txt",
        1: "./align.sh 'two words.bam' '--out=two words.bam.txt'",
    }
    assert psu.get_job_info(told["BatchID"], 1)["item"] == "two words.bam"


def test_a_job_for_each_index(added):
    told = added("--array", "3,7-8", "--name", "seeds", "--", "simulate", "--seed", "{}")
    assert scripts(told["BatchID"]) == {n: f"simulate --seed {n}" for n in (3, 7, 8)}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--array", "1-", "--", "true"],
        ["--array", "0-3", "--each-line", "-", "--", "true", "{}"],
        ["--each-line", "-", "--", "true"],
        ["--each-line", "-", "--", "true", "{}"],
    ],
)
def test_what_makes_no_sense_is_refused(call, index, words):
    assert call("run", *words).status == 2
    assert psu.get_queue(Verbose=False) == {}


def test_braces_that_the_command_has_stay_as_they_are(added):
    assert scripts(added("--", "awk", "{print $1}")["BatchID"]) == {0: "awk '{print $1}'"}


# -- doctor


def test_the_doctor_finds_nothing_wrong(done, index):
    told = done("doctor")
    assert "WRONG" not in told
    for name in (
        "configuration",
        "folder",
        "room",
        "locks",
        "renaming",
        "clock",
        "SQLite",
        "index",
        "executor",
    ):
        assert f"fine   {name}" in told
    found = {one["name"]: one for one in json.loads(done("doctor", "--json"))}
    assert found["agent"]["fine"] is None
    assert os.listdir(os.path.dirname(index)) == ["index.db"], "it leaves nothing behind"


def test_the_doctor_before_there_is_an_index(done, home):
    assert "-      index          " in done("doctor")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda home: (home / "config.toml").write_text("[paraschut]\nmax_jbos = 3\n"), "configuration"),
        (lambda home: (home / "jobs").chmod(0o777), "folder"),
        (lambda home: (home / "jobs" / "index.db").write_bytes(b"no index" * 1000), "index"),
        (
            lambda home: (home / "config.toml").write_text(
                '[paraschut]\njob_dir = "jobs"\nexecutor = "sge"\n'
            ),
            "executor",
        ),
    ],
)
def test_the_doctor_says_what_is_wrong(call, index, home, spoil, name, monkeypatch):
    monkeypatch.setenv("PATH", "")
    spoil(home)
    told = call("doctor")
    assert told.status == 1
    assert f"WRONG  {name}" in told.out


def test_the_doctor_notices_a_file_system_without_locks(index, monkeypatch):
    """A stand-in: the other process never finds the lock."""
    monkeypatch.setattr(doctor, "_LOCKER", "")
    (found,) = [one for one in doctor.examine() if one.name == "locks"]
    assert found.fine is False
    assert "break the index" in found.words
