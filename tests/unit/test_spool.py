from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import BATCH, dump
from values import alike, values
from verbs import add, ask, change, claim, end, fold_events, read, start, states

from paraschut import fold as evidence
from paraschut import job as jobs
from paraschut.errors import StoreError, TrustError
from paraschut.job import REMOVED, Job, Origin
from paraschut.paths import Paths
from paraschut.store import spool
from paraschut.store.runtime import Key


@pytest.fixture
def key(store, make_jobs):
    """An attempt that was claimed."""
    add(store, make_jobs(1))
    (taken,) = claim(store, "t")
    return taken


@pytest.fixture
def paths(index):
    return Paths(index)


def runs(at=3.0):
    return {"kind": "run", "at": at, "host": "node7"}


def tells(progress, message=""):
    return {"kind": "progress", "at": 4.0, "progress": progress, "message": message}


def fields(state=None, **own):
    event = spool.describe(Job(own), kind="fields", at=5.0, host="node7")
    if state is not None:
        event["columns"]["state"] = state
    return event


def in_index(store):
    return {
        name: value
        for name, value in read(store, BATCH, 0).items()
        if name in {"x", "y", "progress", "state"}
    }


# --- writing


def test_an_event_is_one_whole_file_that_only_its_owner_can_reach(paths, key):
    path = spool.spool(paths, key, runs())
    assert os.listdir(paths.events) == [os.path.basename(path)]
    assert os.path.basename(path).startswith(f"{BATCH}.0.1.")
    assert os.stat(paths.events).st_mode & 0o077 == 0
    with open(path, encoding="utf-8") as file:
        assert json.load(file) == runs()


def test_events_are_numbered_within_their_attempt_also_after_some_were_folded(store, paths, key):
    # Was: the number was the time, and what was said after the clock was set back was never folded.
    for number in range(1, 4):
        assert spool.spool(paths, key, tells(number / 10)).endswith(f"{BATCH}.0.1.{number}.json")
    fold_events(store)
    assert spool.spool(paths, key, tells(0.4)).endswith(".4.json")
    fold_events(store)
    assert in_index(store)["progress"] == 0.4
    assert os.listdir(paths.events) == [f"{BATCH}.0.1.4.done"]


def test_the_last_name_goes_when_the_attempt_has_ended_long_ago(store, paths, key):
    for progress in (0.1, 0.2):
        spool.spool(paths, key, tells(progress))
    fold_events(store)
    (name,) = os.listdir(paths.events)
    os.utime(os.path.join(paths.events, name), (0, 0))
    evidence.fold_events(store)
    assert os.listdir(paths.events) == [name]
    start(store, key)
    end(store, key)
    evidence.fold_events(store)
    assert os.listdir(paths.events) == []
    spool.spool(paths, key, fields(state="complete"))
    evidence.fold_events(store)
    assert states(store.index) == {(BATCH, 0): "complete"}


def test_a_file_system_without_hard_links_holds_events_too(store, paths, key, monkeypatch):
    def link(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    names = [spool.spool(paths, key, tells(progress)) for progress in (0.1, 0.2)]
    assert [path for _, path in spool.pending(paths)] == names
    fold_events(store)
    assert in_index(store)["progress"] == 0.2


def test_a_name_that_is_only_taken_yet_is_passed_over(store, paths, key):
    path = spool.spool(paths, key, tells(0.1))
    with open(path, "w"):
        pass
    assert fold_events(store) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_left(paths, key):
    os.mkdir(paths.events, 0o500)
    with pytest.raises(
        StoreError, match=rf"What job {BATCH}:0 said could be written neither into .* nor beside it"
    ):
        spool.spool(paths, key, runs())


def test_what_cannot_be_kept_is_said(paths, key):
    # Was: a raw OSError.
    with open(paths.events, "w"):
        pass
    with pytest.raises(
        StoreError, match=rf"What job {BATCH}:0 said could be written neither into .* nor beside it"
    ):
        spool.spool(paths, key, runs())


def test_what_another_attempt_with_the_same_numbers_said_is_not_taken(store, paths, key):
    # A batch may be removed, and its numbers used again.
    spool.spool(paths, key, {**fields(state="complete", x=1), "token": "another"})
    fold_events(store)
    assert in_index(store) == {"state": "submit"}
    spool.spool(paths, key, {**fields(x=2), "token": "t"})
    fold_events(store)
    assert in_index(store) == {"state": "submit", "x": 2}


def test_two_processes_of_a_job_that_write_at_once_both_count(paths, key, monkeypatch):
    # Was: both take the same number, and the rename of the second replaces the file of the first.
    monkeypatch.setattr(spool, "_names", lambda *_: [])
    spool.spool(paths, key, fields(x=1))
    spool.spool(paths, key, fields(y=2))
    assert len(os.listdir(paths.events)) == 2


def test_the_events_of_one_attempt_are_its_own(paths):
    keys = [Key(1, 2, 3), Key(1, 2, 33), Key(1, 22, 3), Key(11, 2, 3)]
    for one in keys:
        spool.spool(paths, one, runs())
    for one in keys:
        ((_, path),) = spool.pending(paths, one)
        assert os.path.basename(path).split(".")[:3] == list(map(str, one))
    assert len(spool.pending(paths)) == 4


def test_where_nothing_was_ever_written_nothing_is_pending(paths):
    assert spool.pending(paths) == []


def test_what_is_no_event_is_left_alone(paths, key):
    # Was: IndexError, and with it every pass fails.
    path = spool.spool(paths, key, runs())
    for name in (".half.123", "notes.txt", "1.2.3.x.json", "copy.json", f"{os.path.basename(path)}~"):
        with open(os.path.join(paths.events, name), "w") as file:
            file.write("{")
    assert [one for _, one in spool.pending(paths)] == [path]


@given(
    st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    st.dictionaries(st.sampled_from("abc"), values, max_size=3),
)
@settings(max_examples=50)
def test_what_is_described_is_what_was_changed(before, after):
    text, extras = jobs.pack(before)
    job = Job({"BatchID": 1, "JobIndex": 0, **after}, origin=Origin(1, 0, "run", 1, text, extras))
    event = json.loads(json.dumps(spool.describe(job, kind="fields")))
    changed = {key: value for key, value in jobs.changes(job).items() if value is not REMOVED}
    from base64 import b64decode

    told = jobs.unpack(event["metadata"], event["extras"] and b64decode(event["extras"]))
    assert alike(told, changed)
    assert set(event["removed"]) == set(before) - set(after)


# --- folding


def test_what_was_told_first_is_folded_first(store, paths, key):
    for number in range(12):
        spool.spool(paths, key, fields(x=number))
    spool.spool(paths, key, tells(0.25))
    spool.spool(paths, key, tells(0.5))
    assert len(fold_events(store)) == 14
    assert in_index(store) == {"x": 11, "progress": 0.5, "state": "submit"}
    assert spool.pending(paths) == []


def test_a_job_that_ran_and_completed_unseen_has_run_and_completed(store, paths, key):
    spool.spool(paths, key, runs(at=3.5))
    spool.spool(paths, key, fields(state="complete", x=(1, 2)))
    fold_events(store)
    assert in_index(store) == {"x": (1, 2), "state": "complete"}
    assert ask(store.index, "SELECT started, host FROM attempt") == [(3.5, "node7")]


def test_an_event_is_folded_once_even_if_its_file_cannot_be_removed(store, paths, key):
    spool.spool(paths, key, fields(x=1))
    files = spool.pending(paths)
    fold_events(store, files, unlink=False)
    change(store, {"x": 2}, batch=BATCH)
    before = dump(store.index)
    assert fold_events(store) == [path for _, path in files]
    assert dump(store.index) == before
    assert in_index(store)["x"] == 2


def test_a_file_that_another_folded_meanwhile_is_no_error(store, paths, key):
    spool.spool(paths, key, fields(x=1))
    files = spool.pending(paths)
    fold_events(store)
    before = dump(store.index)
    assert fold_events(store, files) == []
    assert dump(store.index) == before


def test_what_comes_after_a_file_that_was_folded_late_still_counts(store, paths, key):
    spool.spool(paths, key, fields(x=1))
    fold_events(store)
    spool.spool(paths, key, fields(x=2))
    fold_events(store)
    assert in_index(store)["x"] == 2


@pytest.mark.parametrize("state", ["complete", "collected"])
@pytest.mark.parametrize(
    "late", [runs(), fields(state="run"), fields(state="complete"), fields(state="init")]
)
def test_folding_never_moves_a_finished_job_back(store, paths, key, state, late):
    start(store, key)
    with store.writing() as (_, db):
        db.run("job_state", batch_id=BATCH, job_index=0, state=state)
    spool.spool(paths, key, late)
    fold_events(store)
    assert states(store.index) == {(BATCH, 0): state}


def test_fields_of_a_finished_job_still_arrive(store, paths, key):
    with store.writing() as (_, db):
        db.run("job_state", batch_id=BATCH, job_index=0, state="complete")
    spool.spool(paths, key, fields(state="complete", x=1))
    fold_events(store)
    assert in_index(store) == {"x": 1, "state": "complete"}


def test_a_word_that_comes_after_the_end_was_folded_saves_the_job(store, paths, key):
    start(store, key)
    spool.spool(paths, key, fields(state="complete"))
    end(store, key, reason="exited 0 without saying complete")
    fold_events(store)
    assert ask(store.index, "SELECT state, failure FROM job") == [("complete", None)]


@pytest.mark.parametrize("event", [runs(), tells(0.5), fields(x=1), fields(state="complete")], ids=str)
def test_what_a_reset_attempt_says_no_longer_counts(store, paths, key, event):
    start(store, key)
    change(store, {"state": "init"}, batch=BATCH)
    spool.spool(paths, key, event)
    before = in_index(store)
    assert len(fold_events(store)) == 1
    assert in_index(store) == before
    assert states(store.index) == {(BATCH, 0): "init"}


def test_what_a_former_attempt_says_does_not_touch_the_current_one(store, paths, key):
    start(store, key)
    change(store, {"state": "init"}, batch=BATCH)
    end(store, key, signal=15, code=None)
    assert claim(store, "t2") == [Key(BATCH, 0, 2)]
    spool.spool(paths, key, fields(state="complete", x=1))
    fold_events(store)
    assert in_index(store) == {"state": "submit"}


def test_what_is_told_of_a_removed_job_is_thrown_away(store, paths, key):
    spool.spool(paths, key, runs())
    spool.spool(paths, Key(1, 2, 3), fields(x=1))
    from verbs import ME

    store.remove(BATCH, who=ME, now=9.0)
    assert len(fold_events(store)) == 2
    assert spool.pending(paths) == []


def test_fields_that_were_removed_are_removed(store, paths, key):
    change(store, {"x": 1, "y": 2}, batch=BATCH)
    job = read(store, BATCH, 0)
    del job["x"]
    spool.spool(paths, key, spool.describe(job, kind="fields", at=5.0, host="h"))
    fold_events(store)
    assert in_index(store) == {"y": 2, "state": "submit"}


def test_what_others_could_have_written_is_not_unpickled(store, paths, key):
    spool.spool(paths, key, fields(x=(1, 2)))
    os.chmod(paths.folder, 0o777)
    before = dump(store.index)
    with pytest.raises(TrustError):
        fold_events(store)
    assert dump(store.index) == before


def test_if_the_fold_does_not_commit_the_files_are_still_there(store, paths, key):
    spool.spool(paths, key, fields(x=1))

    with pytest.raises(ZeroDivisionError):
        fold_events(store, also=lambda _: 1 / 0)
    assert "x" not in in_index(store)
    fold_events(store)
    assert in_index(store)["x"] == 1


@settings(max_examples=30)
@given(st.data())
def test_whenever_folding_happens_the_last_word_wins_and_nothing_is_lost(tmp_path_factory, data):
    from stories import jobs_of

    from paraschut.store.store import Store

    told = data.draw(
        st.lists(
            st.one_of(st.integers(0, 9), st.just("fold"), st.just("complete"), st.just("run")), max_size=12
        )
    )
    with Store(tmp_path_factory.mktemp("spool") / "index.db", create=True) as store:
        paths = Paths(store.index)
        add(store, jobs_of(BATCH))
        (key,) = claim(store, "t")
        expected, state = {}, "submit"
        for one in [*told, "fold"]:
            if one == "fold":
                fold_events(store)
                assert in_index(store) == {**expected, "state": state}
            elif one == "complete":
                spool.spool(paths, key, fields(state="complete"))
                state = "complete"
            elif one == "run":
                spool.spool(paths, key, runs())
                state = "run" if state == "submit" else state
            else:
                spool.spool(paths, key, fields(x=one))
                expected["x"] = one
