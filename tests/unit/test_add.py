"""Adding jobs to the queue: all of them, or none and a sentence."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from stories import BATCH
from verbs import add, ask, claim, filtered, read, states

import paraschut as psu
from paraschut.errors import BatchExistsError, JobError, NotFoundError, ScriptError
from paraschut.store.store import Store

OTHER = BATCH + 1


def job(**fields):
    return {**psu.get_job_template(), "script": "true", "resources": {}, **fields}


# --- what goes well


def test_a_batch_is_numbered_and_the_dicts_are_left_as_they_were(index, store):
    mine = job(script="echo {JobIndex}")
    before = {**mine}
    psu.add_batch_to_queue(BATCH, [mine] * 3, set_index=True, build_script=True)
    assert mine == before
    assert [read(store, BATCH, number)["script"] for number in range(3)] == ["echo 0", "echo 1", "echo 2"]


def test_a_batch_may_be_added_without_an_index_being_there(home):
    psu.add_batch_to_queue(BATCH, [job()], set_index=True)
    assert states(home / "jobs" / "index.db") == {(BATCH, 0): "init"}
    assert (home / "jobs").stat().st_mode & 0o077 == 0


def test_a_reserved_number_is_not_an_existing_batch(store):
    batch = psu.get_job_template(SetID=True)["BatchID"]
    psu.add_batch_to_queue(batch, [job(BatchID=batch, JobIndex=5)])
    assert states(store.index) == {(batch, 5): "init"}


def test_jobs_are_numbered_on_from_the_highest(store):
    assert psu.add_job_to_queue(job(BatchID=BATCH), set_index=True) == [0]
    assert psu.add_job_to_queue(job(BatchID=BATCH, JobIndex=10)) == [10]
    more = [job(BatchID=BATCH), job(BatchID=OTHER), job(BatchID=BATCH)]
    assert psu.add_job_to_queue(more, set_index=True) == [11, 0, 12]
    assert len(states(store.index)) == 5


def test_jobs_that_are_numbered_at_once_by_two_all_get_a_number(index, monkeypatch):
    # Was: the highest number is read in a transaction of its own; the loser hears that its JobIndex is taken, and
    # is told to use set_index=True, which it did.
    taken = Store.add

    def overtaken(self, *arguments, **options):
        monkeypatch.setattr(Store, "add", taken)
        psu.add_job_to_queue(job(BatchID=BATCH), set_index=True)
        return taken(self, *arguments, **options)

    monkeypatch.setattr(Store, "add", overtaken)
    assert psu.add_job_to_queue(job(BatchID=BATCH), set_index=True) == [1]


@pytest.mark.parametrize("name", ['it\'s "so"\nand; so -- $x {y} %s', ["a'", 'b"', "c\n"], ""])
def test_a_name_may_hold_quotes_and_newlines(store, name):
    psu.add_batch_to_queue(BATCH, [job(name=name, mine=name)], set_index=True)
    found = read(store, BATCH, 0)
    assert (found["name"], found["mine"]) == (name, name)
    assert claim(store, "t") == [(BATCH, 0, 1)]


def test_a_job_may_be_prepared_step_by_step(store, home):
    (home / "t.sh").write_text("cat {data}")
    one = psu.get_job_template(SetID=True)
    one["JobIndex"] = 0
    psu.generate_data(one, [1, 2])
    psu.generate_script(one, "t.sh")
    psu.add_job_to_queue(one)
    found = read(store, one["BatchID"], 0)
    assert Path(found["script"]).read_text() == f"cat {one['data']}"
    assert psu.load_data(found) == [1, 2]


def test_numbers_of_numpy_are_numbers(store):
    # Was: only JobIndex is made plain; the BatchID reaches the driver as it is.
    psu.add_batch_to_queue(np.int64(BATCH), [job(JobIndex=np.int64(3), priority=np.float64(2))])
    assert states(store.index) == {(BATCH, 3): "init"}


def test_a_script_may_be_a_path(store, home):
    (home / "t.sh").write_text("true")
    psu.add_batch_to_queue(BATCH, [job(script=home / "t.sh")], set_index=True)
    assert read(store, BATCH, 0)["script"] == home / "t.sh"


def test_a_copy_of_a_job_that_ran_is_a_fresh_one(store):
    psu.add_batch_to_queue(BATCH, [job()], set_index=True)
    claim(store, "t")
    again = {**psu.get_job_info(BATCH, 0), "BatchID": OTHER, "state": "init"}
    psu.add_batch_to_queue(OTHER, [again])
    assert "ClusterID" not in read(store, OTHER, 0)


# --- what does not, and leaves no trace


def two(second):
    return [job(JobIndex=0), {**job(JobIndex=1), **second}]


@pytest.mark.parametrize(
    ("second", "error", "words"),
    [
        (
            {"mine": threading.Lock()},
            JobError,
            rf"job {BATCH}:1: The field 'mine' cannot be kept.*Nothing was added",
        ),
        ({"JobIndex": 0}, JobError, rf"Job {BATCH}:0 is in the index already. Nothing was added"),
        ({"JobIndex": None}, JobError, f"job {BATCH}:None has JobIndex None.*set_index=True"),
        ({"BatchID": OTHER}, JobError, rf"job {OTHER}:1 is not of batch {BATCH}\. Nothing was added"),
        ({"script": "missing.sh"}, ScriptError, r"'missing\.sh' does not exist in"),
        ({"script": ""}, JobError, "has script ''"),
        ({"state": "run"}, JobError, f"job {BATCH}:1 has state 'run'"),
        ({"resources": {"mem": "lots"}}, JobError, rf"job {BATCH}:1: .*lots.*Nothing was added"),
        ({"resources": {"cpus": -1}}, JobError, rf"job {BATCH}:1: .*Nothing was added"),
        ({"vars": {"A": 1}}, JobError, r"the variable A = 1"),
        ({"name": 5}, JobError, "has name 5"),
        ({3: 4}, JobError, "names of fields are strings"),
    ],
    ids=str,
)
def test_one_bad_job_keeps_all_others_out(unchanged, second, error, words):
    with unchanged(error, words):
        psu.add_batch_to_queue(BATCH, two(second))


def test_a_batch_that_is_there_keeps_the_new_one_out(index, unchanged):
    psu.add_batch_to_queue(BATCH, [job()], set_index=True)
    with unchanged(BatchExistsError, f"Batch {BATCH} is in the index already"):
        psu.add_batch_to_queue(BATCH, [job(JobIndex=5)])


def test_a_template_that_names_an_unknown_field_adds_nothing(unchanged):
    with unchanged(ScriptError, rf"The script of job {BATCH}:1 .* names the field 'subject'"):
        psu.add_batch_to_queue(BATCH, two({"script": "echo {subject}"}), build_script=True)


def test_a_refused_batch_leaves_no_scripts(home, unchanged):
    # Was: the scripts of the jobs before the bad one stay.
    (home / "t.sh").write_text("echo {JobIndex}")
    with unchanged(ScriptError, "names the field 'subject'"):
        psu.add_batch_to_queue(
            BATCH, [job(script="t.sh"), job(script="{subject}")], set_index=True, build_script=True
        )
    assert not (home / "jobs" / str(BATCH)).exists()


def test_the_scripts_of_a_batch_that_is_there_survive_another_of_its_number(home, store, unchanged):
    # Was: scripts are written before it is known whether the jobs can be added, over those of the jobs that are there.
    (home / "t.sh").write_text("echo {mine}")
    psu.add_batch_to_queue(BATCH, [job(script="t.sh", mine="old")], set_index=True, build_script=True)
    script = Path(read(store, BATCH, 0)["script"])
    with unchanged(BatchExistsError, "already"):
        psu.add_batch_to_queue(BATCH, [job(script="t.sh", mine="new")], set_index=True, build_script=True)
    with unchanged(JobError, "already"):
        psu.add_job_to_queue(job(BatchID=BATCH, JobIndex=0, script="t.sh", mine="new"), build_script=True)
    assert script.read_text() == "echo old"


@pytest.mark.parametrize("given", [[], (), {}])
def test_an_empty_list_is_said(unchanged, given):
    with unchanged(JobError, "The list of jobs is empty|A list of job dicts is needed"):
        psu.add_batch_to_queue(BATCH, given)


@pytest.mark.parametrize("given", [{"a": 1}, "jobs", [["a"]], [None]], ids=str)
def test_what_is_no_list_of_dicts_is_said(unchanged, given):
    with unchanged(
        JobError, r"A list of job dicts is needed; get_job_template\(\) makes one. Nothing was added"
    ):
        psu.add_batch_to_queue(BATCH, given)


def test_jobs_that_come_one_by_one_are_added_or_refused_and_not_lost(store):
    # Was: a generator is used up by the check, and then nothing is added, without a word.
    try:
        psu.add_batch_to_queue(BATCH, (job() for _ in range(3)), set_index=True)
    except JobError:
        return
    assert len(states(store.index)) == 3


def test_a_job_without_a_batch_is_said(unchanged):
    # Was (the first): KeyError.
    lacking = job()
    del lacking["BatchID"]
    for bad in (lacking, job(), job(BatchID="x")):
        with unchanged(JobError, "BatchID"):
            psu.add_job_to_queue(bad, set_index=True)


def test_the_example_of_the_issue_is_refused_while_the_folder_is_not_ours(home, tmp_path):
    (home / "jobs").symlink_to(tmp_path / "nowhere" / "deep")
    with pytest.raises(psu.StoreError, match="cannot be made"):
        psu.add_batch_to_queue(BATCH, [job()], set_index=True)


def test_a_folder_whose_name_is_not_utf8_is_a_folder(tmp_path, monkeypatch, home):
    # Was: UnicodeEncodeError when the folder is written into the index.
    odd = os.fsencode(home) + b"/caf\xe9"
    os.mkdir(odd)
    monkeypatch.chdir(os.fsdecode(odd))
    psu.add_batch_to_queue(BATCH, [job()], set_index=True)
    assert states(home / "jobs" / "index.db") == {(BATCH, 0): "init"}


# --- after that


def test_what_was_added_can_be_found_by_all_it_has(store, make_jobs):
    add(store, make_jobs(4, name=["yeast", "map"], size=lambda number: number))
    assert filtered(store, 'name == "yeast/map" AND size >= 2') == {BATCH: [2, 3]}
    assert ask(store.index, "SELECT count(*) FROM job WHERE name IS NOT NULL") == [(0,)]


def test_what_was_never_added_is_not_found(index):
    with pytest.raises(NotFoundError):
        psu.get_job_info(BATCH, 0)
