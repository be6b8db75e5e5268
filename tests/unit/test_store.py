from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import count

import pytest
from stories import BATCH, ROOT, dump
from verbs import add, ask, claim, decide, end, filtered, no_needs, read, start, states, submission

from paraschut.errors import (
    BatchExistsError,
    JobError,
    NotFoundError,
)
from paraschut.store import views
from paraschut.store.filters import compile_filter
from paraschut.store.runtime import Key
from paraschut.store.store import Store

OTHER = BATCH + 1


# --- adding


def test_jobs_are_there_as_they_were_given(store, make_jobs):
    given_jobs = make_jobs(3, start=5, name=["a", "b"], odd={1, 2}, priority=0.5)
    add(store, given_jobs)
    for job in given_jobs:
        assert dict(read(store, BATCH, job["JobIndex"])) == job


def test_many_jobs_go_in_together_whatever_their_order(store, make_jobs):
    add(store, make_jobs(2500)[::-1])
    assert len(states(store.index)) == 2500


@pytest.mark.parametrize("name", ['it\'s "so"\nand; so -- $x', "", "\0", ["a", "b/c"], "caf\udce9"])
def test_names_may_be_anything(store, make_jobs, name):
    # Was: UnicodeEncodeError for a name made of a file name that is not UTF-8.
    add(store, [*make_jobs(1, name="first"), *make_jobs(1, start=1, name=name)])
    assert read(store, BATCH, 1)["name"] == name


def test_a_job_that_is_there_twice_is_named_and_none_is_added(store, make_jobs, unchanged):
    with unchanged(
        JobError, rf"Job {BATCH}:2 is in the index already\. Nothing was added\. .*set_index=True"
    ):
        add(store, [*make_jobs(4), *make_jobs(1, start=2)])


@pytest.mark.parametrize("count", [99, 100, 101, 200, 250])
def test_of_many_jobs_each_gets_its_row_or_none_does(store, make_jobs, unchanged, count):
    with unchanged(JobError, f"Job {BATCH}:{count - 1} is in the index already"):
        add(store, [*make_jobs(count), *make_jobs(1, start=count - 1)])
    add(store, make_jobs(count, mine=lambda index: f"m{index}"))
    assert [read(store, BATCH, number)["mine"] for number in range(count)] == [f"m{n}" for n in range(count)]


def test_a_job_that_is_in_the_index_already_is_named_and_none_is_added(store, make_jobs, unchanged):
    add(store, make_jobs(3))
    with unchanged(JobError, f"Job {BATCH}:2 is in the index already"):
        add(store, make_jobs(5, start=2), new=False)


def test_a_batch_that_exists_is_not_added_again(store, make_jobs, unchanged):
    add(store, make_jobs(1))
    with unchanged(BatchExistsError, rf"Batch {BATCH} is in the index already.*SetID=True.*add_job_to_queue"):
        add(store, make_jobs(1, start=1))


def test_of_several_batches_all_or_none_are_added(store, make_jobs, unchanged):
    add(store, make_jobs(1, batch=OTHER))
    with unchanged(JobError, f"Job {OTHER}:0"):
        add(store, [*make_jobs(2), *make_jobs(1, batch=OTHER)], new=False)


def test_a_value_that_cannot_be_pickled_adds_nothing(store, make_jobs, unchanged):
    bad = make_jobs(3, mine=lambda index: threading.Lock() if index == 1 else index)
    with unchanged(JobError, rf"job {BATCH}:1: The field 'mine' cannot be kept: .* Nothing was added"):
        add(store, bad)


def test_jobs_that_are_added_to_a_batch_keep_their_own_name(store, make_jobs):
    # Was: a name is left out where it is that of the first job *added together*, which is not the batch's.
    add(store, make_jobs(1, name="old"))
    add(store, make_jobs(2, start=1, name="new"), new=False)
    assert filtered(store, 'name == "new"') == {BATCH: [1, 2]}
    assert filtered(store, 'name == "old"') == {BATCH: [0]}


def test_jobs_that_are_added_to_a_batch_from_elsewhere_run_where_they_were_added(store, make_jobs):
    # Was: only the batch has a workdir, that of its first jobs.
    add(store, make_jobs(1), workdir="/first")
    add(store, make_jobs(1, start=1), new=False, workdir="/second")
    taken = store.claim(submission("t"), decide(), no_needs).jobs
    assert [one.fields.get("workdir") or one.workdir for one in taken] == ["/first", "/second"]


# --- reserving


def test_a_reserved_number_is_nobody_elses_and_not_yet_a_batch(store, make_jobs):
    taken = [store.reserve(5, lambda number: number + 1, 1.0) for _ in range(3)]
    assert taken == [5, 6, 7]
    with store.reading() as connection:
        assert not views.existing(connection, 5)
    add(store, make_jobs(1, batch=5))
    assert store.reserve(5, lambda number: number + 1, 1.0) == 8


# --- claiming


def test_a_claim_takes_the_next_group_and_only_once(store, make_jobs):
    add(store, make_jobs(6, priority=lambda index: 2 if index < 3 else 1))
    assert claim(store, "t1") == [Key(BATCH, index, 1) for index in range(3)]
    assert claim(store, "t2") == []
    assert ask(store.index, "SELECT token FROM submission") == [("t1",)]
    assert [states(store.index)[BATCH, index] for index in (0, 3)] == ["submit", "init"]


def test_what_a_claim_gives_is_what_is_needed_to_run_it(store, make_jobs):
    add(store, make_jobs(2, script="echo", vars={"A": "b"}), workdir="/there")
    first, second = store.claim(
        submission("t", now=7.0), decide(), lambda job: {"cpus": job["JobIndex"]}
    ).jobs
    assert (first.task, second.task, second.n, second.workdir) == (0, 1, 1, "/there")
    assert (second.fields["script"], second.fields["vars"]) == ("echo", {"A": "b"})
    assert ask(store.index, "SELECT n, token, task, asked, submitted, host FROM attempt") == [
        (1, "t", 0, '{"cpus": 0}', 7.0, None),
        (1, "t", 1, '{"cpus": 1}', 7.0, None),
    ]


def test_a_job_that_the_executor_would_refuse_is_left_and_said(store, make_jobs):
    def vet(job):
        if job["JobIndex"] == 1:
            raise JobError("it asks for the moon.")
        return {}

    add(store, make_jobs(3))
    taken = store.claim(submission("t"), decide(), vet)
    assert [one.job_index for one in taken.jobs] == [0, 2]
    assert taken.refused == [(BATCH, 1, "it asks for the moon.")]
    assert states(store.index)[BATCH, 1] == "init"


def test_the_room_is_counted_over_all_that_is_active(store, make_jobs):
    add(store, make_jobs(5))
    assert len(claim(store, "t1", max_jobs=2)) == 2
    assert claim(store, "t2", max_jobs=2) == []
    assert len(claim(store, "t3", max_jobs=4)) == 2


def test_a_missing_job_takes_no_room(store, make_jobs):
    add(store, make_jobs(3))
    (key,) = claim(store, "t1", max_jobs=1)
    end(store, key, code=3, reason="exit code 3")
    assert len(claim(store, "t2", max_jobs=1)) == 1


def test_a_filter_restricts_what_goes_and_never_what_blocks(store, make_jobs):
    add(store, make_jobs(4, priority=lambda index: 2 if index < 2 else 1, kind=lambda index: "ab"[index % 2]))
    low = compile_filter('kind == "a" AND priority == 1')
    assert claim(store, "t1", condition=low) == []
    assert claim(store, "t2", condition=compile_filter('kind == "a"')) == [Key(BATCH, 0, 1)]


def test_nothing_claimed_leaves_no_trace(store, make_jobs):
    add(store, make_jobs(1, state="held"))
    before = dump(store.index)
    assert claim(store, "t") == []
    assert dump(store.index) == before


@pytest.mark.parametrize("state", ["held", "complete", "collected", "waiting for Anna"])
def test_only_init_is_eligible(store, make_jobs, state):
    add(store, make_jobs(1, state=state))
    assert claim(store, "t") == []


def test_two_stores_that_claim_at_once_never_share_a_job(index, make_jobs):
    with Store(index) as store:
        add(store, make_jobs(60, priority=lambda index: index % 3))
    taken = []
    begin = threading.Barrier(2)

    def work(name):
        with Store(index) as mine:
            begin.wait()
            # Until all are taken: whoever has the last turn may not be the one who opens a group.
            for number in count():
                keys = claim(mine, f"{name}{number}", max_jobs=1000)
                for key in keys:
                    start(mine, key)
                    end(mine, key, complete=True)
                taken.extend(keys)
                if len(taken) >= 60:
                    return

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(Key(BATCH, number, 1) for number in range(60))


def test_processes_that_claim_at_once_never_share_a_job_and_open_no_group_early(index, make_jobs, tmp_path):
    with Store(index) as store:
        add(store, make_jobs(48, priority=lambda index: index // 16))
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from verbs import claim, start, end, ask\n"
        "from paraschut.store.store import Store\n"
        "with Store(sys.argv[1]) as store:\n"
        "    number = 0\n"
        "    while ask(store.index, \"SELECT 1 FROM job WHERE state != 'complete'\"):\n"
        "        for key in claim(store, f'{id(store)}.{__import__(\"os\").getpid()}.{number}', max_jobs=3):\n"
        "            start(store, key); print(key.job_index, flush=True); end(store, key, complete=True)\n"
        "        number += 1\n"
    )
    here = os.path.dirname(__file__)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, index, here, str(ROOT)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    lines = [int(line) for worker in workers for line in worker.communicate(timeout=120)[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(lines) == list(range(48))
    started = ask(index, 'SELECT "JobIndex" / 16, started, ended FROM attempt')
    assert len(started) == 48
    # No attempt of a lower group was claimed before the last of the higher one was complete.
    rows = ask(index, 'SELECT "JobIndex" / 16 FROM attempt ORDER BY rowid')
    assert [group for (group,) in rows] == sorted((group for (group,) in rows), reverse=True)


# --- these very jobs


def test_what_is_written_of_a_claim_is_what_it_got_whatever_has_gaps_or_differs(store, make_jobs, index):
    """Neighbours are written at once: those between them, of another kind or with other needs, are left alone."""
    add(store, [*make_jobs(40), *make_jobs(3, batch=OTHER)])
    store.claim_jobs(submission("early"), [(BATCH, 5), (BATCH, 6)], no_needs)
    store.release("early", "no room", 3.0)
    new = replace(
        submission("t"), shape=lambda _, job, asked: (job["JobIndex"] % 3, id(asked)), most=4, first_task=1
    )
    needs = [{"cpus": 1}, {"cpus": 2}]
    condition = compile_filter("JobIndex != 11 AND JobIndex != 12 AND JobIndex < 39")
    taken = store.claim(new, decide(), lambda job: needs[job["JobIndex"] > 20], condition).jobs
    assert len(taken) == 40
    assert {one.n for one in taken if one.job_index in {5, 6} and one.batch_id == BATCH} == {2}
    sql = 'SELECT "BatchID", "JobIndex", n, token, task, asked FROM attempt WHERE ended IS NULL'
    wanted = [
        (one.batch_id, one.job_index, one.n, one.token, one.task, json.dumps(needs[one.job_index > 20]))
        for one in taken
    ]
    assert sorted(ask(index, sql)) == sorted(wanted)
    in_submit = ask(index, 'SELECT "BatchID", "JobIndex", attempt FROM job WHERE state=\'submit\'')
    assert sorted(in_submit) == sorted(one[:3] for one in wanted)
    assert {index for (_, index), state in states(index).items() if state == "init"} == {11, 12, 39}


def test_these_very_jobs_are_taken_whatever_their_priority(store, make_jobs):
    add(store, make_jobs(4, priority=lambda index: index))
    taken = store.claim_jobs(submission("t"), [(BATCH, 0), (BATCH, 2)], no_needs)
    assert [one.job_index for one in taken.jobs] == [0, 2]


def test_if_one_of_these_cannot_go_none_does(store, make_jobs, unchanged):
    add(store, make_jobs(3))
    claim(store, "t1", max_jobs=1)
    with unchanged(
        JobError, rf"Job {BATCH}:0 is in state 'submit'; only jobs in 'init'.*set_job_field.*Nothing"
    ):
        store.claim_jobs(submission("t2"), [(BATCH, 1), (BATCH, 0)], no_needs)
    with unchanged(NotFoundError, f"There is no job {BATCH}:9"):
        store.claim_jobs(submission("t2"), [(BATCH, 1), (BATCH, 9)], no_needs)


def test_a_job_that_is_named_twice_is_taken_once(store, make_jobs):
    # Was: UNIQUE constraint failed (as a StoreError, or an IntegrityError of SQLAlchemy).
    add(store, make_jobs(2))
    taken = store.claim_jobs(submission("t"), [(BATCH, 1), (BATCH, 1)], no_needs)
    assert [one.job_index for one in taken.jobs] == [1]
