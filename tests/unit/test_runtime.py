"""What a job does inside of itself, with nothing but its environment to go by."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from stories import BATCH, dump, held
from verbs import ME, add, ask, change, claim, end, read, states

import paraschut as psu
from paraschut import desk, fold
from paraschut.errors import (
    JobError,
    NotFoundError,
    NotInJobError,
    StaleJobError,
    StoreBusyError,
)
from paraschut.paths import Paths
from paraschut.process import host_name
from paraschut.store import migrate, schema
from paraschut.store.runtime import Key
from paraschut.store.store import Store


def events(store):
    try:
        return sorted(name for name in os.listdir(Paths(store.index).events) if name.endswith(".json"))
    except FileNotFoundError:
        return []


# --- who am I


def test_a_job_finds_itself_and_all_that_it_was_given(store, in_job):
    job = psu.get_job_info()
    assert (job["BatchID"], job["JobIndex"], job["state"], job["odd"]) == (BATCH, 0, "submit", (1, 2))
    assert type(job["array"]) is np.ndarray
    assert (job["ClusterID"], job["hostname"]) == (["t.0"], [host_name()])
    assert job["stdout"] == [Paths(store.index).log(BATCH, 0, 1, "stdout")]
    assert psu.ClusterID == "t.0"


def test_looking_changes_nothing(store, in_job):
    before = dump(store.index)
    psu.get_job_info()
    psu.get_job_info(BATCH, 1)
    assert dump(store.index) == before


def test_a_job_says_that_it_runs_as_often_as_it_likes(store, in_job):
    assert psu.get_job_info(SetID=True)["state"] == "run"
    once = dump(store.index)
    assert psu.get_job_info(SetID=True)["state"] == "run"
    assert psu.get_job_info(BATCH, 0, SetID=True)["state"] == "run"
    assert dump(store.index) == once
    ((started, host),) = ask(store.index, 'SELECT started, host FROM attempt WHERE "JobIndex" = 0')
    assert started > 0
    assert host == host_name()


def test_a_job_that_is_complete_does_not_run_again_because_it_says_so(store, in_job):
    psu.get_job_info(SetID=True)
    psu.set_complete()
    assert psu.get_job_info(SetID=True)["state"] == "complete"


def test_each_attempt_leaves_its_logs_and_hosts(store, in_job, become):
    psu.get_job_info(SetID=True)
    change(store, {"state": "init"}, batch=BATCH, indices=[0])
    end(store, in_job, signal=15, code=None)
    (again,) = claim(store, "t2", host=host_name())
    become(again, "t2")
    job = psu.get_job_info(SetID=True)
    assert job["ClusterID"] == ["t.0", "t2.0"]
    assert [path.rpartition("/")[2] for path in job["stderr"]] == ["0.1.err", "0.2.err"]


def test_outside_of_a_job_the_numbers_must_be_given(outside):
    for call in (psu.get_job_info, psu.set_complete):
        with pytest.raises(NotInJobError, match=r"outside of a job, so BatchID and JobIndex must be given"):
            call()
    with pytest.raises(NotInJobError, match=r"set_progress\(BatchID, JobIndex\)"):
        psu.set_progress(0.5)
    with pytest.raises(NotInJobError, match="ClusterID must be given"):
        psu.get_qstat()
    assert psu.get_job_info(BATCH, 1)["JobIndex"] == 1
    assert psu.ClusterID is None


def test_only_the_job_itself_can_say_that_it_runs(store, in_job, unchanged):
    with unchanged(NotInJobError, rf"says that job {BATCH}:1 runs, and this process is not that job"):
        psu.get_job_info(BATCH, 1, SetID=True)


def test_a_broken_environment_is_that_of_no_job(outside, monkeypatch):
    monkeypatch.setenv("PARASCHUT_BATCHID", "many")
    with pytest.raises(NotInJobError):
        psu.get_job_info()


def test_a_job_that_is_not_there_is_said(outside, unchanged):
    for call in (psu.get_job_info, psu.set_complete):
        with unchanged(NotFoundError, rf"There is no job {BATCH}:9 in the index.*get_queue\(\)"):
            call(BATCH, 9)
    with unchanged(NotFoundError, f"There is no job {BATCH}:9"):
        psu.set_progress(0.5, "", BATCH, 9)
    with unchanged(NotFoundError, f"There is no job {BATCH}:9"):
        psu.update_job({"BatchID": BATCH, "JobIndex": 9, "x": 1})
    with unchanged(NotFoundError, "No job with the ClusterID 'x.0'"):
        psu.get_qstat("x.0")


# --- an attempt that no longer counts


@pytest.mark.parametrize(
    "call",
    [lambda: psu.get_job_info(SetID=True), psu.set_complete, lambda: psu.set_complete(Submit=True)],
    ids=["run", "complete", "complete and submit"],
)
def test_a_job_that_was_reset_hears_who_did_it_and_changes_nothing(store, in_job, unchanged, call):
    psu.get_job_info(SetID=True)
    change(store, {"state": "init"}, batch=BATCH, indices=[0], why="qdel")
    words = rf"Attempt 1 of job {BATCH}:0 no longer counts.*process {ME.pid} on {ME.host} \(qdel\)"
    with unchanged(StaleJobError, words):
        call()


def test_a_job_that_was_submitted_again_meanwhile_is_told_so(store, in_job, unchanged):
    change(store, {"state": "init"}, batch=BATCH, indices=[0])
    assert claim(store, "t2", host=host_name()) == [Key(BATCH, 0, 2)]
    with unchanged(StaleJobError, "Attempt 1 of job"):
        psu.get_job_info(SetID=True)


# --- complete


def test_a_job_that_is_complete_says_so_with_its_fields(store, in_job):
    job = psu.get_job_info(SetID=True)
    job["result"], job["state"] = 0.5, "whatever"
    psu.set_complete(JobInfo=job)
    found = read(store, BATCH, 0)
    assert (found["state"], found["result"]) == ("complete", 0.5)


def test_a_job_that_never_said_that_it_runs_can_be_complete(store, in_job):
    psu.set_complete()
    assert states(store.index) == {(BATCH, 0): "complete", (BATCH, 1): "submit"}
    assert ask(store.index, 'SELECT started > 0 FROM attempt WHERE "JobIndex" = 0') == [(1,)]


def test_at_the_end_the_later_word_wins_and_nothing_is_stale(store, in_job):
    job = psu.get_job_info(SetID=True)
    change(store, {"note": "theirs", "other": 1}, batch=BATCH, indices=[0])
    job["note"] = "ours"
    psu.set_complete(JobInfo=job)
    found = read(store, BATCH, 0)
    assert (found["state"], found["note"], found["other"]) == ("complete", "ours", 1)


def test_a_job_can_be_completed_from_outside_by_its_numbers_or_its_dict(store, outside):
    psu.set_complete(BATCH, 0)
    psu.set_complete(JobInfo=psu.get_job_info(BATCH, 1))
    assert set(states(store.index).values()) == {"complete"}


def test_a_missing_job_that_completes_is_no_longer_missing(store, in_job):
    end(store, in_job, code=0, reason="exited 0 without saying complete")
    psu.set_complete()
    assert ask(store.index, 'SELECT state, failure FROM job WHERE "JobIndex" = 0') == [("complete", None)]


def test_the_next_group_is_submitted_only_if_there_is_one(store, make_jobs, in_job, monkeypatch):
    passes = []
    import paraschut.submitting

    monkeypatch.setattr(
        paraschut.submitting,
        "submit_jobs",
        lambda **given: passes.append(given) or paraschut.dispatch.Submitted(),
    )
    add(store, make_jobs(1, start=2, priority=0.5), new=False)
    psu.set_complete(Submit=True)
    assert passes == []
    psu.set_complete(BATCH, 1)
    assert passes == []
    psu.set_complete(BATCH, 1, Submit=True)
    assert passes == [{"Verbose": False}]


# --- progress


@pytest.mark.parametrize("fraction", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_progress_is_between_0_and_1(store, in_job, fraction):
    psu.set_progress(fraction, "epoch 1\nof 2")
    found = read(store, BATCH, 0)
    assert (found["progress"], found["progress_message"]) == (float(fraction), "epoch 1\nof 2")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, "half", None, float("nan"), True])
def test_progress_that_is_no_fraction_is_refused(in_job, unchanged, fraction):
    with unchanged(JobError, "must be a number between 0 and 1"):
        psu.set_progress(fraction)


def test_a_new_attempt_begins_at_nothing(store, in_job):
    psu.get_job_info(SetID=True)
    psu.set_progress(0.5, "half")
    change(store, {"state": "init"}, batch=BATCH, indices=[0])
    end(store, in_job, signal=9, code=None)
    claim(store, "t2")
    assert "progress" not in read(store, BATCH, 0)


# --- when the index cannot be written


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_a_job_says_while_the_index_is_held_is_not_lost(store, in_job, hurried, mode):
    store.keep_journal(mode)
    with held(store.index):
        job = psu.get_job_info(SetID=True)
        job["note"] = "said in vain?"
        psu.update_job(job)
        psu.set_progress(0.75, "nearly")
        job["result"] = (1, 2)
        psu.set_complete(JobInfo=job)
        assert len(events(store)) == 4
    assert states(store.index)[BATCH, 0] == "submit"
    fold.fold_events(store)
    found = read(store, BATCH, 0)
    assert (found["state"], found["note"], found["result"]) == ("complete", "said in vain?", (1, 2))
    assert (found["progress"], found["progress_message"]) == (0.75, "nearly")
    assert events(store) == []


def test_the_next_word_of_a_job_folds_its_own_first(store, in_job, hurried, become):
    with held(store.index):
        psu.get_job_info(SetID=True)
        psu.set_progress(0.25)
    become(Key(BATCH, 1, 1))
    psu.set_progress(0.9)
    assert len(events(store)) == 2
    become(Key(BATCH, 0, 1))
    psu.set_progress(0.5)
    assert events(store) == []
    assert read(store, BATCH, 0)["progress"] == 0.5
    assert states(store.index)[BATCH, 0] == "run"


def test_who_is_no_job_is_told_that_the_index_is_held(store, outside, hurried, monkeypatch, unchanged):
    monkeypatch.setenv("PARASCHUT_INDEX", store.index)
    job = psu.get_job_info(BATCH, 0)
    job["note"] = "new"
    calls = (
        lambda: psu.update_job(job),
        lambda: psu.set_complete(BATCH, 0),
        lambda: psu.set_progress(0.5, "", BATCH, 0),
    )
    for call in calls:
        with unchanged(StoreBusyError, "held the index"), held(store.index):
            call()
    assert events(store) == []


def test_another_job_than_ours_is_not_written_beside_the_index(store, in_job, hurried):
    with held(store.index), pytest.raises(StoreBusyError):
        psu.set_complete(BATCH, 1)
    assert events(store) == []


# --- the connection


def test_two_indexes_are_two_desks(store, in_job, tmp_path, make_jobs, monkeypatch):
    with Store(tmp_path / "other.db", create=True) as other:
        add(other, make_jobs(1, note="other"))
        psu.get_job_info()
        monkeypatch.setenv("PARASCHUT_INDEX", other.index)
        assert psu.get_job_info(BATCH, 0)["note"] == "other"
    assert set(desk._desks) == {store.index, str(tmp_path / "other.db")}


def test_no_connection_goes_through_a_fork(in_job, python):
    program = (
        "import os, paraschut as psu; from paraschut import desk\n"
        "psu.get_job_info(); psu.get_job_info()\n"
        "child = os.fork()\n"
        "open_ones = any(one._connection for one in desk._desks.values())\n"
        "os.write(1, f\"{open_ones} {psu.get_job_info()['note']}\\n\".encode())\n"
        "if child: os.waitpid(child, 0)\n"
    )
    said = python("import warnings; warnings.simplefilter('ignore')\n" + program).stdout
    assert said == "False old\n" * 2


def test_a_job_that_computes_after_its_calls_is_not_in_the_way_of_another_journal(store, in_job):
    # Was: after two quick calls the connection stayed open until the next one, for hours.
    program = (
        "import sys, paraschut as psu\n"
        "for step in range(5):\n"
        "    psu.set_progress(step / 10)\n"
        "print('computes', flush=True)\n"
        "sys.stdin.read()\n"
        "psu.set_progress(1)\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "computes\n"
    store.keep_journal("delete")
    job.communicate("")
    assert job.returncode == 0
    assert ask(store.index, "PRAGMA journal_mode") == [("delete",)]
    assert read(store, BATCH, 0)["progress"] == 1


def test_calls_that_follow_one_another_share_a_connection(in_job):
    psu.set_progress(0.1)
    (mine,) = desk._desks.values()
    assert mine._connection is None
    psu.set_progress(0.2)
    shared = mine._connection
    psu.get_job_info()
    assert mine._connection is shared is not None


def test_threads_of_a_job_may_all_tell(store, in_job):
    # Was: the statements of one thread ran inside the transaction of another.
    threads = [threading.Thread(target=lambda: [psu.get_job_info() for _ in range(50)]) for _ in range(4)]
    threads += [threading.Thread(target=lambda: [psu.set_progress(0.5) for _ in range(50)])]
    failures = []
    hook, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert failures == []


def test_a_child_that_is_forked_in_the_middle_of_many_calls_makes_its_own(in_job, python):
    done = python(
        "import os, paraschut as psu\n"
        "for step in range(3):\n"
        "    psu.set_progress(step / 10)\n"
        "child = os.fork()\n"
        "psu.set_progress(0.5)\n"
        "psu.set_progress(0.5)\n"
        "if child:\n"
        "    print(os.waitpid(child, 0)[1], flush=True)\n"
        "else:\n"
        "    os._exit(0)\n"
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def made_old(index):
    """Turn an index into one of version 1, as far as that knows what is in it."""
    old = f"{index}.old"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript((Path(__file__).parent / "data" / "version_1.sql").read_text("utf-8"))
        connection.execute("ATTACH ? AS new", (index,))
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(
                f'"{row[1]}"' for row in connection.execute(f"PRAGMA main.table_info('{table}')")
            )
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
        connection.commit()
        connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version=1")
    os.replace(old, index)
    for journal in ("-wal", "-shm"):
        Path(index + journal).unlink(missing_ok=True)


def test_a_job_brings_an_index_of_an_older_version_to_this_one(in_job, index, python):
    # A job may be the first to meet it after paraschut was upgraded.
    made_old(index)
    python("import paraschut as psu; psu.set_complete(Submit=True)")
    assert states(index)[BATCH, 0] == "complete"
    assert os.path.exists(migrate.copy_path(index, 1))


def test_a_job_whose_odd_fields_are_as_they_were_does_not_load_what_pickles_them(
    store, make_jobs, become, python
):
    # Was: 30 ms and dozens of files, to find that nothing had changed.
    add(store, make_jobs(1, odd=(1, 2), array=np.arange(3), nothing=float("nan"), some={1, "a"}))
    become(claim(store, "t")[0])
    done = python(
        "import sys, paraschut as psu\n"
        "job = psu.get_job_info(SetID=True)\n"
        "job['note'] = 'done'\n"
        "psu.set_complete(JobInfo=job)\n"
        "print('cloudpickle' in sys.modules)\n"
    )
    assert done.stdout == "False\n"
    job = read(store, BATCH, 0)
    assert (job["state"], job["note"], job["odd"]) == ("complete", "done", (1, 2))
