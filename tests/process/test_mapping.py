"""A function called for many items: results, failures, going on after an interruption, and the workers that make the calls."""

from __future__ import annotations

import operator
import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest
from helpers import kill, until

import paraschut as psu

pytestmark = pytest.mark.process


def odd_fails(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return 10 * x


def noted(x):
    """Write down that this call was made; fail as long as there is a file that says so."""
    with open(os.environ["LINES"], "a", encoding="utf-8") as lines:
        lines.write(f"{x}\n")
    if x in {3, 5} and os.path.exists("broken"):
        raise RuntimeError("broken")
    return x


# --- results


@pytest.mark.parametrize("chunk", [1, 4, "auto"])
def test_results_come_in_the_order_of_the_items(world, chunk):
    found = psu.persist_map(operator.add, range(30), np.arange(30) * 2, name="sums", chunk=chunk)
    assert found.results(timeout=60) == [3 * x for x in range(30)]
    assert (len(found), found.status(), found.isready(), found.wait()) == (30, "done", True, True)
    assert found.progress() == (30, 30, 0, 0)
    assert psu.readmgr("sums").fetch(timeout=1) == [3 * x for x in range(30)]
    assert repr(found) == "<function map 'sums': 30 of 30 done, 0 failed>"
    found.cleanup()
    assert repr(found) == "<function map 'sums': removed>"


def test_chunks_make_fewer_jobs_and_auto_chooses_by_what_it_measured(world):
    assert psu.persist_map(abs, range(10), name="chunks", chunk=4).results(timeout=60) == list(range(10))
    (row,) = world.query("SELECT count(*) AS n FROM job")
    assert row["n"] == 3
    quick = psu.persist_map(abs, range(400), name="quick", chunk="auto")
    assert quick.results(timeout=60) == list(range(400))
    assert quick.layout.jobs < 100
    slow = psu.persist_map(time.sleep, [0.3] * 6, name="slow", chunk="auto")
    assert slow.results(timeout=60) == [None] * 6
    assert slow.layout.chunk == 1


def test_calls_come_as_they_are_completed(world):
    calls = psu.persist_map(time.sleep, [1.5, 0.05], name="sleepers", resources={"cpus": 1})
    assert list(map(repr, calls.as_completed(timeout=60))) == [
        "<call 1 of a map, ended>",
        "<call 0 of a map, ended>",
    ]
    assert sorted(call.index for call in psu.readmgr("sleepers").as_completed(timeout=1)) == [0, 1]


@pytest.mark.parametrize("chunk", [1, 3])
def test_failures_are_told_with_their_index_and_keep_nobody_from_the_rest(world, chunk):
    found = psu.persist_map(odd_fails, range(7), name="some", chunk=chunk)
    with pytest.raises(ValueError, match="1 is odd") as caught:
        found.results(timeout=60)
    assert isinstance(caught.value.__cause__, psu.JobFailed)
    assert found.results(timeout=60, default=None) == [0, None, 20, None, 40, None, 60]
    assert {index: str(error) for index, error in found.failures().items()} == {
        x: f"{x} is odd" for x in (1, 3, 5)
    }
    assert found.progress() == (7, 4, 3, 0)
    assert found.status() == "failed"
    errors = [call.exception() for call in found.as_completed()]
    assert sum(error is None for error in errors) == 4


def test_all_results_are_reduced_by_a_job_of_lower_priority(world):
    total = psu.persist_map(abs, range(-9, 1), name="total", chunk=3, reduce=sum)
    assert total.fetch(timeout=60) == 45
    assert total.results() == list(range(9, -1, -1))
    assert psu.readmgr("total").fetch() == 45


def test_what_failed_keeps_the_reduction_from_running_and_nobody_waiting(world):
    total = psu.persist_map(odd_fails, range(4), name="total", reduce=sum)
    with pytest.raises(ValueError, match="1 is odd"):
        total.fetch(timeout=60)
    assert total.status() == "failed"


def test_a_reduction_that_fails_says_so(world):
    total = psu.persist_map(abs, range(4), name="total", reduce=operator.neg)
    with pytest.raises(TypeError):
        total.fetch(timeout=60)


def test_a_bar_shows_how_far_it_is(world, capsys):
    psu.persist_map(abs, range(20), name="shown").results(timeout=60, progress=True)
    assert "20/20" in capsys.readouterr().err
    psu.readmgr("shown").results()
    assert capsys.readouterr().err == ""


def test_what_makes_no_map_is_not_started(world):
    for arguments, words in (
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": "many"}, "chunk is 'many'"),
        ({"reduce": 3}, "needs functions, and got 3"),
    ):
        with pytest.raises(psu.JobError, match=words):
            psu.persist_map(abs, [1], name="wrong", **arguments)
    with pytest.raises(psu.JobError, match="no items"):
        psu.persist_map(abs, [], name="wrong")
    with pytest.raises(psu.JobError, match="at least one iterable"):
        psu.persist_map(abs, name="wrong")
    with pytest.raises(psu.JobError, match="cannot be pickled"):
        psu.persist_map(abs, [sys.stdout], name="wrong")
    assert psu.persist_map(abs, [1], name="wrong").results(timeout=60) == [1]


# --- going on


def test_called_again_it_goes_on_with_what_failed_and_nothing_else(world):
    (world.home / "broken").touch()
    first = psu.persist_map(noted, range(8), name="again", chunk=2)
    assert sorted(first.failures() if first.wait(60) else ()) == [3, 5]
    (world.home / "broken").unlink()
    assert psu.persist_map(noted, range(8), name="again", chunk=2).results(timeout=60) == list(range(8))
    assert sorted(map(int, world.lines())) == sorted([*range(8), 3, 5])


def test_another_function_or_other_items_do_not_take_over_a_name(world):
    psu.persist_map(odd_fails, [0, 2], name="mine").wait(60)
    psu.persist(abs, "single", args=(1,))
    with pytest.raises(psu.NameTakenError, match="of other items"):
        psu.persist_map(odd_fails, [0, 4], name="mine")
    with pytest.raises(psu.NameTakenError, match="of other functions"):
        psu.persist_map(noted, [0, 2], name="mine")
    with pytest.raises(psu.NameTakenError, match="a function job named 'single'"):
        psu.persist_map(noted, [0, 2], name="single")


SESSION = """
import os, paraschut as psu, signal, sys, time
def noted(x):
    time.sleep(0.05)
    with open(os.environ["LINES"], "a") as lines:
        lines.write(f"{{x}}\\n")
    return x
calls = psu.persist_map(noted, range(40), name="killed", chunk={chunk!r})
if sys.argv[1:]:
    os.kill(os.getpid(), signal.SIGKILL)
print(sum(calls.results(timeout=60)))
"""


@pytest.mark.parametrize("chunk", [1, 7])
def test_it_survives_kill_9_and_a_new_session_has_nothing_to_call_again(world, chunk):
    with world.python(SESSION.format(chunk=chunk), "die") as session:
        assert session.wait(60) == -signal.SIGKILL
    with world.python(SESSION.format(chunk=chunk), stdout=-1) as session:
        assert session.communicate(timeout=120)[0] == b"780\n"
    assert psu.readmgr("killed").results(timeout=1) == list(range(40))
    assert sorted(map(int, world.lines())) == list(range(40))


def test_an_auto_map_that_was_interrupted_is_gone_on_with(world):
    made = psu.persist_map(abs, range(50), name="auto", chunk="auto")
    made.wait(60)
    world.change('UPDATE name SET about = replace(about, \'"chunk": \', \'"chunk": 0, "was": \')')
    world.change('DELETE FROM result WHERE "JobIndex" >= ?', made.layout.pilots)
    for table, column in (("payload", "number"), ("attempt", '"JobIndex"'), ("job", '"JobIndex"')):
        world.change(f"DELETE FROM {table} WHERE {column} >= ?", made.layout.pilots)
    with pytest.raises(psu.JobFailed, match="interrupted before all its calls were added"):
        psu.readmgr("auto").results()
    assert psu.persist_map(abs, range(50), name="auto", chunk="auto").results(timeout=60) == list(range(50))


# --- cancelling


def test_a_map_is_cancelled_as_a_whole(world):
    calls = psu.persist_map(time.sleep, [0] + [60] * 20, name="long")
    until(lambda: calls.progress().done == 1 and calls.progress().running)
    with pytest.raises(psu.ExecutorError, match="queued or running, so nothing was deleted"):
        calls.cleanup()
    assert calls.cancel()
    assert calls.wait(60)
    assert {error.reason for error in calls.failures().values()} == {"cancelled"}
    assert calls.progress() == (21, 1, 20, 0)
    assert not calls.cancel()
    calls.cleanup()


def test_cancelling_some_of_many_short_calls_ends_just_these(world):
    """Workers take one call after the other by themselves: whoever is told to end must be the one that was meant."""
    calls = psu.persist_map(slowly, range(300), name="short")
    until(lambda: len(world.lines()) > 20)
    meant = list(range(100, 300, 7))
    psu.qdel_job(calls.batch_id, meant)
    found = calls.results(timeout=60, default=None)
    failed = {index for index, error in calls.failures().items() if error.reason == "cancelled"}
    assert failed <= set(meant)
    assert [x for x in range(300) if found[x] is None] == sorted(failed)
    assert len(failed) > 10


def slowly(x):
    time.sleep(0.005)
    return noted(x)


# --- workers


def test_the_calls_of_a_map_share_workers_and_those_of_persist_do_not(world):
    pids = psu.persist_map(pid_of, range(50), name="pids").results(timeout=60)
    assert len(set(pids)) <= 2 * (os.cpu_count() or 1)
    alone = [psu.persist(os.getpid, f"alone {x}").fetch(timeout=60) for x in range(3)]
    assert len({*alone, *pids}) == 3 + len(set(pids))


def pid_of(x):
    return os.getpid()


def test_each_call_finds_itself_and_its_folder(world):
    def who(x):
        job = psu.get_job_info()
        os.chdir("/")
        return job["JobIndex"], os.environ["PARASCHUT_JOBINDEX"], os.path.exists("config.toml")

    found = psu.persist_map(who, range(20), name="who").results(timeout=60)
    assert found == [(x, str(x), False) for x in range(20)]


def test_each_call_has_its_own_log_also_while_it_runs(world):
    def talks(x):
        if x % 3 == 0:
            print("out", x, flush=True)
            print("err", x, file=sys.stderr)
        while x == 7 and not os.path.exists("gate"):
            print("waits", flush=True)
            time.sleep(0.2)

    calls = psu.persist_map(talks, range(12), name="talk")
    until(lambda: "waits" in calls.getstdout(7))
    until(lambda: os.path.exists(world.paths.log(calls.batch_id, 7, 1, "stdout")))
    (world.home / "gate").touch()
    assert calls.results(timeout=60) == [None] * 12
    for x in range(12):
        out, err = (f"out {x}\n", f"err {x}\n") if x % 3 == 0 else ("", "")
        assert calls.getstdout(x).replace("waits\n", "") == out
        assert calls.getstderr(x) == err
    world.until(lambda: not world.attempts(calls.batch_id, ended=None))
    assert len(os.listdir(world.paths.logs(calls.batch_id))) == 9  # 4 and 4, and that of 7


def test_print_log_shows_what_a_warm_call_wrote_while_it_runs_and_after(world, capsys):
    def talks(x):
        print("said", x, flush=True)
        (world_home / f"said {x}").touch()
        while not (world_home / f"heard {x}").exists():
            time.sleep(0.001)

    world_home = world.home
    calls = psu.persist_map(talks, range(3), name="talk")
    for x in range(3):
        until((world_home / f"said {x}").exists)
        psu.print_log(calls.batch_id, x)  # before it has a log of that name
        (world_home / f"heard {x}").touch()
    assert calls.results(timeout=60) == [None] * 3
    psu.print_log(calls.batch_id, 1)
    assert capsys.readouterr().out == "said 0\nsaid 1\nsaid 2\nsaid 1\n"


def test_calls_that_a_worker_has_taken_and_not_begun_have_written_nothing(world, capsys):
    def talks(x):
        if x == 100:
            # What would name the log, and give back what has not begun, does nothing for now.
            os.kill(os.getppid(), signal.SIGSTOP)
            print("said", x, flush=True)
            (world_home / "zygote").write_text(str(os.getppid()))
            while not (world_home / "gate").exists():
                time.sleep(0.01)

    world_home = world.home
    calls = psu.persist_map(talks, range(200), name="talk", Executor=psu.LocalJobExecutor(max_workers=1))
    until(lambda: "said" in calls.getstdout(100))
    assert {x for x in range(200) if calls.getstdout(x)} == {100}
    for x in (row["JobIndex"] for row in world.attempts(calls.batch_id, ended=None) if row["started"]):
        psu.print_log(calls.batch_id, x)
    (world.home / "gate").touch()
    os.kill(int((world.home / "zygote").read_text()), signal.SIGCONT)
    assert calls.results(timeout=60) == [None] * 200
    assert capsys.readouterr().out.count("said 100") == 1


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_call_that_takes_its_worker_with_it_is_the_only_one_that_fails(world, number):
    def dies(x):
        if x in {10, 30}:
            os.kill(os.getpid(), number)
        return x

    calls = psu.persist_map(dies, range(60), name="deadly")
    found = calls.results(timeout=60, default=None)
    assert [x for x in range(60) if found[x] is None] == [10, 30]
    assert {error.reason.split()[1] for error in calls.failures().values()} == {str(int(number))}


def test_the_agent_is_killed_again_and_again_and_every_call_is_made_once(world):
    calls = psu.persist_map(slowly, range(600), name="many")
    for _ in range(8):
        until(world.agent)
        time.sleep(0.15)
        world.kill_agent()
    assert calls.results(timeout=60) == list(range(600))
    assert sorted(map(int, world.lines())) == list(range(600))
    assert {row["n"] for row in world.attempts(calls.batch_id)} == {1}


@pytest.mark.parametrize("which", ["zygote", "worker"])
def test_what_makes_the_calls_is_killed_and_every_call_is_made_at_most_once(world, which):
    calls = psu.persist_map(slowly, range(400), name="many")
    for _ in range(5):
        until(lambda: len(world.attempts(calls.batch_id, ended=None)) > 0)
        time.sleep(0.1)
        for process in zygotes(world):
            victims = [process] if which == "zygote" else process.children()
            for victim in victims:
                kill(victim.pid)
    found = calls.results(timeout=60, default=None)
    lost = {x for x in range(400) if found[x] is None}
    assert len(lost) <= 5 * 2 * (os.cpu_count() or 1)
    made = sorted(map(int, world.lines()))
    assert len(made) == len(set(made))
    assert set(range(400)) - set(made) <= lost
    reasons = {error.reason for error in calls.failures().values()}
    assert reasons <= {"vanished", "signal 9 (SIGKILL)"}
    assert psu.persist_map(slowly, range(400), name="many").results(timeout=60) == list(range(400))


def test_a_worker_that_dies_among_short_calls_takes_no_result_with_it_and_one_call_at_most(world):
    """It has taken many at once: what it had made is told by its file, and what it had not begun is made by others."""
    calls = psu.persist_map(noted, range(1500), name="short")
    killed = 0
    for number in range(4):
        until(lambda least=number * 300: len(world.lines()) > least)
        for process in zygotes(world)[:1]:
            for victim in process.children():
                kill(victim.pid)
                killed += 1
    found = calls.results(timeout=60, default=None)
    lost = {x for x in range(1500) if found[x] is None}
    made = sorted(map(int, world.lines()))
    assert len(made) == len(set(made))
    assert set(range(1500)) - set(made) <= lost
    assert killed > 0
    assert len(lost) <= killed
    assert {error.reason for error in calls.failures().values()} <= {"signal 9 (SIGKILL)"}


def test_a_long_call_keeps_neither_the_results_before_it_nor_the_calls_behind_it(world):
    def one_is_long(x):
        while x == 150 and not os.path.exists("gate"):
            time.sleep(0.01)
        return x

    calls = psu.persist_map(one_is_long, range(300), name="long")
    until(lambda: calls.progress().done == 299, what=calls.progress)
    assert calls.progress() == (300, 299, 0, 1)
    (world.home / "gate").touch()
    assert calls.results(timeout=60) == list(range(300))
    assert {row["n"] for row in world.attempts(calls.batch_id)} == {1}


def zygotes(world):
    agent = world.agent()
    below = psutil.Process(agent).children(recursive=True) if agent else []
    return [process for process in below if "zygote" in " ".join(process.cmdline()) and process.children()]


def test_edited_code_is_what_runs(world, monkeypatch):
    """A module is edited while the workers that have imported it wait for more calls of the same map."""
    module = world.home / "edited.py"
    module.write_text("VALUE = 1\ndef value(x):\n    return VALUE\n")
    monkeypatch.syspath_prepend(str(world.home))
    import edited

    with psu.BatchExecutor() as executor:
        for number in range(2, 8):
            assert {future.result(60) for future in [executor.submit(edited.value, x) for x in range(4)]} == {
                number - 1
            }
            module.write_text(f"VALUE = {number}\ndef value(x):\n    return VALUE\n")
    sys.modules.pop("edited")


def test_a_call_may_start_processes_and_threads(world):
    def busy(x):
        import multiprocessing
        import threading

        found = []
        threads = [threading.Thread(target=found.append, args=(x,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.map(abs, found)

    assert psu.persist_map(busy, range(6), name="busy").results(timeout=60) == [[x] * 3 for x in range(6)]


def test_a_batch_that_has_the_number_of_one_that_was_removed_calls_its_own_function(world):
    """Workers keep what they have loaded, and BatchIDs of removed batches may come again within a second."""
    numbers = set()
    for power in range(1, 12):
        calls = psu.persist_map(lambda x, power=power: x**power, range(4), name="same")
        numbers.add(calls.batch_id)
        assert calls.results(timeout=60) == [x**power for x in range(4)]
        calls.cleanup()
    assert len(numbers) < 11
