"""Which jobs that ended badly are tried again, with what, and what the index remembers of it."""

from __future__ import annotations

import doctest
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import BATCH
from verbs import ask, change, decide, end, read, start, states, submission

import paraschut as psu
from paraschut import retry
from paraschut.errors import JobError
from paraschut.executors.local import LocalJobExecutor
from paraschut.executors.slurm import SlurmJobExecutor
from paraschut.resources import parse_time
from paraschut.retry import Again, Policy, begin_after, kept_policy, next_try, policy_of, scaled
from paraschut.store import views
from paraschut.store.runtime import Key

REASONS = [
    *("exit code 1", "signal 9 (SIGKILL)", "out of memory", "time limit", "vanished", "never started"),
    *("exited 0 without saying complete", "ValueError: no", "cancelled", "preempted", "node failure"),
    "node failure (the machine was restarted)",
]
sizes = st.integers(1, 1 << 50)
times = st.floats(1, 1e7)
asked = st.fixed_dictionaries(
    {"cpus": st.integers(1, 8)},
    optional={
        "mem": sizes,
        "walltime": times,
        "pmem": st.sampled_from(["1gb", "512M", 100]),
        "h_rt": st.sampled_from(["04:00:00", 3600]),
        "mem-per-cpu": st.integers(1, 10**6),
        "nodes": st.integers(1, 4),
    },
)
policies = st.builds(
    Policy,
    retries=st.integers(0, 3),
    mem_factor=st.floats(1, 4),
    mem_limit=st.just(0) | sizes,
    walltime_factor=st.floats(1, 4),
    walltime_limit=st.just(0.0) | times,
    pause=st.floats(0, 3600),
)


# --- the decision


@given(st.sampled_from(REASONS), asked, st.integers(0, 4), st.integers(0, 6), policies)
def test_the_cause_decides_what_changes(reason, given_, allowed, done, policy):
    again = next_try(reason, given_, allowed, done, policy)
    blameless = reason.startswith(("node failure", "preempted"))
    if again is None:
        assert allowed == 0 or reason == "cancelled" or (done >= allowed and not blameless)
        return
    assert allowed > 0
    assert again.counts == (not blameless)
    memory, time = {"mem", "pmem", "mem-per-cpu"}, {"walltime", "h_rt"}
    may_change = {"out of memory": memory, "time limit": time}.get(reason, set())
    assert again.raised.keys() <= may_change & given_.keys()


@given(asked, policies)
def test_more_is_never_less_and_stays_within_the_limits(given_, policy):
    mem = next_try("out of memory", given_, 1, 0, policy).raised.get("mem", given_.get("mem"))
    wall = next_try("time limit", given_, 1, 0, policy).raised.get("walltime", given_.get("walltime"))
    for more, key, factor, limit in (
        (mem, "mem", policy.mem_factor, policy.mem_limit),
        (wall, "walltime", policy.walltime_factor, policy.walltime_limit),
    ):
        if key in given_:
            before = given_[key]
            assert before <= more <= before * factor + 1
            assert not limit or more <= max(before, limit)


@given(st.lists(st.sampled_from(REASONS), max_size=30), st.integers(0, 4))
def test_however_it_ends_a_job_is_tried_again_no_more_often_than_it_may(reasons, allowed):
    done, tries = 0, []
    for reason in reasons:
        again = next_try(reason, {}, allowed, done, Policy())
        if again is None:
            break
        done += again.counts
        tries.append(reason)
    counted = [one for one in tries if not one.startswith(("node failure", "preempted"))]
    assert done == len(counted) <= allowed
    assert "cancelled" not in tries


@given(st.floats(1, 10), st.integers(1, 10**6), st.sampled_from(["", "b", "kb", "M", "gb", "G"]))
def test_a_size_keeps_its_unit(factor, number, unit):
    more = scaled(f"{number}{unit}", factor)
    assert more.endswith(unit)
    assert number * factor <= int(more.removesuffix(unit)) <= number * factor + 1


@given(st.floats(1, 10), st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_time_stays_one(factor, hours, minutes, seconds):
    text = f"{hours}:{minutes:02}:{seconds:02}"
    before = parse_time(text)
    assert before * factor <= parse_time(scaled(text, factor)) < before * factor + 1


@pytest.mark.parametrize("odd", ["infinity", "", "1-2", None, True, [1], "INFINITY", "12 parsecs"])
def test_what_is_neither_is_left(odd):
    assert scaled(odd, 2.0) is None


def test_all_bounds_of_memory_grow_as_the_main_one_may():
    given_ = {"mem": 4 << 30, "pmem": "2gb", "vmem": "12gb", "cput": "01:00:00", "walltime": 60.0}
    assert next_try("out of memory", given_, 1, 0, Policy(mem_limit=6 << 30)) == Again(
        True, {"mem": 6 << 30, "pmem": "3gb", "vmem": "18gb"}
    )
    assert next_try("time limit", given_, 1, 0, Policy(walltime_factor=1.5)) == Again(
        True, {"walltime": 90.0, "cput": "1:30:00"}
    )


@given(st.integers(0, 3), st.integers(0, 5), policies)
def test_what_asks_for_it_is_started_again_whatever_it_may(allowed, done, policy):
    assert next_try("requeued", {"mem": 8}, allowed, done, policy) == Again(False, {}, 0.0)


def test_at_the_limit_it_is_tried_again_as_it_is():
    assert next_try("out of memory", {"mem": 8, "pmem": "1gb"}, 1, 0, Policy(mem_limit=8)) == Again(True, {})


@given(st.lists(st.booleans(), max_size=80), st.floats(0, 1e5))
def test_each_pause_is_twice_as_long_up_to_an_hour(blameless, first):
    done = spared = 0
    before = 0.0
    for place, one in enumerate(blameless):
        reason = "preempted" if one else "exit code 1"
        again = next_try(reason, {}, 100, done, Policy(pause=first), spared=spared)
        assert again.pause == min(first * 2**place, 3600.0)
        assert again.pause >= before
        done, spared, before = done + again.counts, spared + (not again.counts), again.pause


@given(policies)
def test_a_policy_comes_back_as_it_was(policy):
    assert policy_of(kept_policy(policy)) == policy
    assert policy_of(None) == Policy()


def test_the_examples_are_true():
    assert doctest.testmod(retry).failed == 0


# --- what the index makes of it


def taken(store, token, *, asked=None, policy=None, now=4.0, **limits):
    new = submission(token, now=now)
    if policy is not None:
        from dataclasses import replace

        new = replace(new, retry=kept_policy(policy))
    return store.claim(new, decide(**limits), lambda job: {**(job["resources"] or {}), **(asked or {})}).jobs


def key_of(one):
    return Key(one.batch_id, one.job_index, one.n)


def fails(store, token, reason, *, now=4.0, **options):
    """Let the next attempt of the only job end badly; return what it was started with."""
    (one,) = taken(store, token, now=now, **options)
    start(store, key_of(one), now)
    end(store, key_of(one), code=1, reason=reason, started=now, now=now)
    return one


def of_job(store):
    ((state, failure, retried, resumed, raised),) = ask(
        store.index, "SELECT state, failure, retried, resumed, raised FROM job"
    )
    return state, failure, retried, resumed, raised and json.loads(raised)


def told(store):
    with store.reading() as connection:
        return [(row["kind"], json.loads(row["detail"])) for row in views.events_of(connection, BATCH, 0)]


def test_a_job_goes_back_to_init_as_often_as_it_may_and_is_missing_then(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=2))
    fails(store, "a", "exit code 1")
    assert of_job(store) == ("init", None, 1, 0, None)
    fails(store, "b", "signal 9 (SIGKILL)")
    fails(store, "c", "exit code 1")
    assert of_job(store) == ("run", "exit code 1", 2, 0, None)
    assert told(store) == [
        ("retry", {"reason": "exit code 1", "retried": 1, "of": 2}),
        ("retry", {"reason": "signal 9 (SIGKILL)", "retried": 2, "of": 2}),
    ]
    reasons = ask(store.index, "SELECT n, token, reason FROM attempt ORDER BY n")
    assert reasons == [(1, "a", "exit code 1"), (2, "b", "signal 9 (SIGKILL)"), (3, "c", "exit code 1")]


def test_without_retries_nothing_is_tried_again(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1))
    fails(store, "a", "exit code 1")
    assert of_job(store)[:2] == ("run", "exit code 1")


def test_the_configured_number_holds_where_the_job_says_nothing(store, make_jobs):
    psu.add_job_to_queue(make_jobs(2, retries=lambda index: [None, 0][index]))
    for one in taken(store, "a", policy=Policy(retries=1)):
        start(store, key_of(one))
        end(store, key_of(one), code=1, reason="exit code 1")
    assert states(store.index) == {(BATCH, 0): "init", (BATCH, 1): "run"}


def test_more_memory_is_asked_for_and_the_users_own_words_stay(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3, resources={"mem": 100, "walltime": 60}))
    assert fails(store, "a", "out of memory").fields["resources"] == {"mem": 100, "walltime": 60}
    assert fails(store, "b", "time limit").fields["resources"] == {"mem": 200, "walltime": 60}
    assert fails(store, "c", "exit code 1").fields["resources"] == {"mem": 200, "walltime": 120}
    assert of_job(store) == ("init", None, 3, 0, {"mem": 200, "walltime": 120})
    assert read(store, BATCH, 0)["resources"] == {"mem": 100, "walltime": 60}
    used = [json.loads(one) for (one,) in ask(store.index, "SELECT asked FROM attempt ORDER BY n")]
    assert [(one["mem"], one["walltime"]) for one in used] == [(100, 60), (200, 60), (200, 120)]
    assert [detail.get("raised") for _, detail in told(store)] == [{"mem": 200}, {"walltime": 120}, None]


def test_what_the_submission_was_configured_with_holds(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3, resources={"mem": 100}))
    fails(store, "a", "out of memory", policy=Policy(mem_factor=5.0, mem_limit=300))
    assert of_job(store)[-1] == {"mem": 300}


@pytest.mark.parametrize("reason", ["preempted", "node failure"])
def test_what_is_no_fault_of_the_job_does_not_count(store, make_jobs, reason):
    psu.add_job_to_queue(make_jobs(1, retries=1, resources={"mem": 100}))
    for token in "abc":
        fails(store, token, reason)
    assert of_job(store) == ("init", None, 0, 3, None)
    fails(store, "d", "exit code 1")
    assert of_job(store)[:4] == ("init", None, 1, 3)


def test_what_was_cancelled_stays_so(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3))
    fails(store, "a", "cancelled")
    assert of_job(store)[:2] == ("run", "cancelled")


def test_a_reset_by_hand_begins_anew_and_keeps_what_was_learnt(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=1, resources={"mem": 100}))
    fails(store, "a", "out of memory")
    fails(store, "b", "exit code 1")
    assert of_job(store) == ("run", "exit code 1", 1, 0, {"mem": 200})
    psu.set_job_field(BATCH, 0)
    assert of_job(store) == ("init", None, 0, 0, {"mem": 200})
    assert fails(store, "c", "exit code 1").fields["resources"] == {"mem": 200}
    assert of_job(store)[:3] == ("init", None, 1)


def test_who_says_what_a_job_asks_for_has_the_last_word(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=1, resources={"mem": 100}))
    fails(store, "a", "out of memory")
    psu.set_job_field(BATCH, 0, {"resources": {"mem": 150}})
    assert of_job(store)[-1] is None
    assert fails(store, "b", "exit code 1").fields["resources"] == {"mem": 150}


def test_the_pauses_are_waited_out(store, make_jobs):
    psu.add_job_to_queue(make_jobs(2, retries=3, priority=lambda index: 2 - index))
    patient = Policy(pause=10.0)
    fails(store, "a", "exit code 1", now=100.0, policy=patient)
    assert [head[0] for head in store.ready(now=109.9).heads] == []
    assert taken(store, "early", now=109.9) == []
    fails(store, "b", "exit code 1", now=110.0, policy=patient)
    assert taken(store, "early", now=129.9) == []
    (one,) = taken(store, "c", now=130.0)
    assert one.job_index == 0
    assert ask(store.index, "SELECT max(not_before) FROM job") == [(0.0,)]


def test_who_asks_for_this_very_job_does_not_wait(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3))
    fails(store, "a", "exit code 1", now=100.0, policy=Policy(pause=1000.0))
    assert taken(store, "early", now=101.0) == []
    (one,) = store.claim_jobs(submission("b", now=101.0), [(BATCH, 0)], lambda _: {}).jobs
    assert one.n == 2


def test_a_reset_by_hand_ends_the_pause(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3))
    fails(store, "a", "exit code 1", now=100.0, policy=Policy(pause=1000.0))
    psu.set_job_field(BATCH, 0)
    assert len(taken(store, "b", now=101.0)) == 1


def test_those_whose_pause_is_over_do_not_wait_for_the_others(store, make_jobs):
    psu.add_job_to_queue(make_jobs(3, retries=3))
    first, second, third = taken(store, "a", now=1.0, policy=Policy(pause=10.0))
    for one, now in ((first, 100.0), (second, 50.0)):
        start(store, key_of(one))
        end(store, key_of(one), code=1, reason="exit code 1", now=now)
    assert [one.job_index for one in taken(store, "b", now=70.0)] == [1]
    assert third.n == 1


def test_only_the_current_attempt_is_tried_again(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=3))
    (one,) = taken(store, "a")
    start(store, key_of(one))
    change(store, {"state": "init"}, batch=BATCH)
    end(store, key_of(one), code=1, reason="exit code 1")
    assert of_job(store) == ("init", None, 0, 0, None)
    (later,) = taken(store, "b")
    assert later.n == 2
    assert [kind for kind, _ in told(store)] == ["set"]


def test_one_that_completes_although_it_was_given_up_is_complete(store, make_jobs, become):
    psu.add_job_to_queue(make_jobs(1, retries=3))
    one = fails(store, "a", "vanished")
    become(key_of(one), "a")
    psu.set_complete()
    assert of_job(store)[0] == "complete"


def test_a_job_of_a_claim_that_was_given_back_has_lost_none(store, make_jobs):
    psu.add_job_to_queue(make_jobs(1, retries=1))
    taken(store, "a")
    store.release("a", "no such partition", 9.0)
    fails(store, "b", "exit code 1")
    assert of_job(store)[:3] == ("init", None, 1)


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True])
def test_a_number_of_retries_is_one(index, make_jobs, unchanged, wrong):
    with unchanged(JobError, match=r"has retries .*whole number of 0 or more"):
        psu.add_job_to_queue(make_jobs(2, retries=lambda index: [1, wrong][index]))
    psu.add_job_to_queue(make_jobs(1))
    with unchanged(JobError, match="retries cannot be"):
        psu.set_job_field(BATCH, 0, {"retries": wrong})


# --- executors


def test_no_more_memory_than_this_machine_has_is_asked_for(configure, store):
    from paraschut.config import load_config
    from paraschut.handover import new_submission

    configure(retries=2, retry_mem_limit="64gb", retry_walltime_limit="1d")
    policies_ = [
        policy_of(new_submission(store, load_config(), one, None, None).retry)
        for one in (LocalJobExecutor(mem=1 << 30), SlurmJobExecutor())
    ]
    assert [one.mem_limit for one in policies_] == [1 << 30, 64 << 30]
    assert [(one.retries, one.walltime_limit) for one in policies_] == [(2, 86400.0)] * 2


def test_what_a_scheduler_was_told_in_its_own_words_is_remembered():
    slurm = SlurmJobExecutor(resources={"mem-per-cpu": "2G"})
    asked = slurm.asked({"BatchID": 1, "JobIndex": 0, "resources": {"time": "01:00:00"}})
    assert (asked["mem-per-cpu"], asked["time"]) == ("2G", "01:00:00")


def test_jobs_that_may_be_tried_again_are_carried_on(configure):
    from paraschut.config import load_config

    slurm = SlurmJobExecutor()
    assert not slurm.carries({})
    assert slurm.carries({"retries": 1})
    configure(retries=2)
    slurm.heed(load_config())
    assert slurm.carries({})
    assert not slurm.carries({"retries": 0})


@given(st.floats(0, 4e9), st.floats(0, 7200))
def test_what_a_scheduler_is_told_is_never_before_the_end_of_the_pause(now, pause):
    begin = begin_after(now + pause, now)
    left = now + pause - now
    assert (begin is None) == (left <= 0)
    assert begin is None or now + pause <= begin < now + pause + max(1, left / 5) + 1e-3


def test_jobs_that_ended_at_about_the_same_time_are_told_the_same():
    """Of a hundred that ended within a second, most."""
    told = Counter(begin_after(1003.5 + place / 100 + 60, 1003.5) for place in range(100))
    assert max(told.values()) >= 50
