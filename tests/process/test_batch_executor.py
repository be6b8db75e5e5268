"""What the standard library's tests ask of an executor, asked of ours; and the libraries that take one.

Left out, with their reasons:

- idle workers are reused, as many processes as are needed, ``max_workers`` of 0 or a string, ``mp_context``, an
  initializer that fails, ``max_tasks_per_child``, threads of the executor and their names: the workers belong to
  the machine's agent (or the cluster), not to the executor, and these arguments do not exist.
- ``BrokenExecutor`` after a worker died: ours goes on, and only that call fails (tested below).
- deadlocks of the pipe to the workers by objects that crash when they are pickled or loaded *in a worker*: there is
  no such pipe; that they fail as the future's exception is tested below.
- a lock that is held while a process forks: workers are never forked from the user's process.
- ``sys.exit`` in a call gives SystemExit to who waits in the standard library; here it is a JobFailed, because it
  would otherwise end the session that only asked for a result.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from concurrent import futures

import numpy as np
import pytest
from helpers import until

import paraschut as psu

pytestmark = pytest.mark.process


@pytest.fixture
def executor(world):
    with psu.BatchExecutor() as made:
        yield made


def fail(*args):
    raise ValueError(*args)


def until_gone(path):
    while os.path.exists(path):
        time.sleep(0.01)
    return path


@pytest.fixture
def gate(world):
    """A file that keeps calls of ``until_gone`` from returning."""
    path = world.home / "gate"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def busy(executor, gate):
    """Calls that keep all processors busy, as long as there is a gate."""
    calls = [executor.submit(until_gone, str(gate)) for _ in range(os.cpu_count())]
    until(lambda: all(call.running() for call in calls))
    return calls


# --- submit


def test_submit(executor):
    assert executor.submit(pow, 2, 8).result(60) == 256
    assert executor.submit(dict, [("self", 1)], fn=2).result(60) == {"self": 1, "fn": 2}
    with pytest.raises(TypeError):
        executor.submit()


def test_submit_from_many_threads_at_once(executor):
    with futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda x: executor.submit(abs, -x).result(60), range(100)))
    assert found == list(range(100))


def test_what_was_submitted_is_as_it_was_then(executor):
    argument = [1]
    first = executor.submit(len, argument)
    argument.append(2)
    assert (first.result(60), executor.submit(len, argument).result(60)) == (1, 2)
    scale = 1

    def scaled(x):
        return scale * x

    before = executor.submit(scaled, 1)
    scale = 2
    assert (before.result(60), executor.submit(scaled, 1).result(60)) == (1, 2)


# --- results and exceptions


def test_an_exception_is_the_futures_with_the_workers_traceback_as_its_cause(executor):
    future = executor.submit(fail, "wrong")
    with pytest.raises(ValueError, match="wrong") as caught:
        future.result(60)
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value
    assert executor.submit(abs, 1).exception(60) is None


def test_what_cannot_be_pickled_is_the_futures_exception(executor):
    for future, error in (
        (executor.submit(id, sys.stdout), psu.JobError),
        (executor.submit(lambda: sys.stdout.fileno, 1), psu.JobError),
        (executor.submit(Unloadable), RuntimeError),
        (executor.submit(id, Unloadable()), RuntimeError),
        (executor.submit(eval, "(x for x in ())"), TypeError),
    ):
        with pytest.raises((error, TypeError, ZeroDivisionError)):
            future.result(60)
    assert executor.submit(abs, -1).result(60) == 1


class Unloadable:
    def __reduce__(self):
        return eval, ("1/0",)


@pytest.mark.parametrize(("do", "reason"), [(os.abort, "signal 6"), (sys.exit, "sys.exit()")])
def test_a_call_that_ends_its_process_fails_alone(executor, do, reason):
    bad = executor.submit(do)
    good = [executor.submit(abs, -x) for x in range(10)]
    assert [future.result(60) for future in good] == list(range(10))
    with pytest.raises(psu.JobFailed, match=reason.replace("(", r"\(").replace(")", r"\)")):
        bad.result(60)


def test_result_and_exception_wait_no_longer_than_asked(executor, gate):
    future = executor.submit(until_gone, str(gate))
    for wait in (future.result, future.exception):
        with pytest.raises(futures.TimeoutError):
            wait(timeout=0.05)
    gate.unlink()
    assert future.result(60) == str(gate)


def test_large_arrays(executor):
    array = np.random.default_rng(1).random((300, 300))
    assert np.allclose(executor.submit(np.linalg.inv, array).result(60) @ array, np.eye(300))


# --- map


def test_map(executor):
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(40), range(50), chunksize=6)) == list(map(pow, range(40), range(40)))
    assert list(executor.map(abs, [])) == []


def test_map_raises_where_the_exception_is(executor):
    found = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert (next(found), next(found)) == ((0, 1), (0, 1))
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.mark.parametrize("chunksize", [0, -1])
def test_map_refuses_a_chunksize_that_makes_no_sense(executor, chunksize):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(abs, [1], chunksize=chunksize)


def test_map_gives_up_when_its_time_is_over(executor, gate):
    found = []
    executor.submit(until_gone, "nothing").result(timeout=60)  # the machinery is there
    with pytest.raises(futures.TimeoutError):
        found.extend(executor.map(until_gone, ["nothing", str(gate)], timeout=2))
    assert found == ["nothing"]
    gate.unlink()


def test_map_submits_at_once_and_cancels_what_nobody_will_see(executor, busy, world, gate):
    found = executor.map(abs, range(20))
    until(
        lambda: sum(state == "submit" for state in world.states(executor._feed.maker.batch_id).values()) == 20
    )
    del found
    gc.collect()
    never = executor.map(fail, range(3))
    gate.unlink()
    with pytest.raises(ValueError, match="0"):
        next(never)


# --- waiting for several


def test_as_completed_and_wait_know_our_futures(executor, gate):
    quick, slow = executor.submit(abs, -1), executor.submit(until_gone, str(gate))
    assert next(futures.as_completed([slow, quick], timeout=60)) is quick
    done, left = futures.wait([slow, quick], return_when=futures.FIRST_COMPLETED, timeout=60)
    assert (done, left) == ({quick}, {slow})
    failed = executor.submit(fail)
    done, _ = futures.wait([slow, failed], return_when=futures.FIRST_EXCEPTION, timeout=60)
    assert done == {failed}
    with pytest.raises(futures.TimeoutError):
        list(futures.as_completed([slow], timeout=0.05))
    assert futures.wait([slow], timeout=0.05).not_done == {slow}
    gate.unlink()
    assert futures.wait([slow, quick, failed], timeout=60).not_done == set()


def test_a_future_that_is_waited_for_twice_and_one_of_nothing(executor):
    future = executor.submit(abs, -1)
    assert list(futures.as_completed([future, future], timeout=60)) == [future]
    assert list(futures.as_completed([])) == []


# --- cancel


def test_what_waits_can_be_cancelled_and_what_runs_cannot(executor, busy, gate):
    waiting = executor.submit(abs, -1)
    until(lambda: executor._feed._added)
    time.sleep(0.2)
    assert not waiting.running()
    assert waiting.cancel()
    assert waiting.cancel()
    assert (waiting.cancelled(), waiting.done()) == (True, True)
    for wait in (waiting.result, waiting.exception):
        with pytest.raises(futures.CancelledError):
            wait(timeout=1)
    assert not busy[0].cancel()
    assert (busy[0].cancelled(), busy[0].running(), busy[0].done()) == (False, True, False)
    assert waiting in futures.wait([waiting, busy[0]], timeout=0.05).done
    assert next(futures.as_completed([waiting, busy[0]], timeout=1)) is waiting
    gate.unlink()
    assert busy[0].result(60) == str(gate)
    assert not busy[0].cancel()
    assert not busy[0].running()


def test_whoever_wins_a_race_a_call_is_cancelled_or_made_and_not_both(executor, world):
    folder = world.home / "made"
    folder.mkdir()

    def make(number):
        (folder / str(number)).touch(exist_ok=False)
        return number

    calls = [executor.submit(make, number) for number in range(300)]
    cancelled = {number for number, call in enumerate(calls) if number % 3 == 0 and call.cancel()}
    for number, call in enumerate(calls):
        assert number in cancelled or call.result(60) == number
    assert set(map(int, os.listdir(folder))) == set(range(300)) - cancelled


# --- callbacks


def test_callbacks_are_called_when_it_is_done_also_with_exceptions_and_when_it_is_late(executor, caplog):
    seen = []
    done = threading.Event()
    future = executor.submit(abs, -1)
    future.add_done_callback(lambda one: seen.append(("first", one.result())))
    future.add_done_callback(lambda _: fail("in a callback"))
    future.add_done_callback(lambda one: (seen.append(("third", one.result())), done.set()))
    assert done.wait(60)
    future.add_done_callback(lambda one: seen.append(("late", one.result())))
    assert seen == [("first", 1), ("third", 1), ("late", 1)]
    assert "in a callback" in caplog.text
    failed = executor.submit(fail)
    failed.add_done_callback(lambda one: seen.append(type(one.exception())))
    until(lambda: seen[-1] is ValueError)


def test_callbacks_of_a_cancelled_call_and_calls_from_callbacks(executor, busy, gate):
    seen = []
    waiting = executor.submit(abs, -1)
    waiting.add_done_callback(lambda one: seen.append(one.cancelled()))
    assert waiting.cancel()
    assert seen == [True]
    busy[0].add_done_callback(lambda _: seen.append(executor.submit(abs, -2)))
    gate.unlink()
    until(lambda: len(seen) == 2)
    assert seen[1].result(60) == 2


# --- shutdown


def test_after_shutdown_nothing_is_taken(world):
    executor = psu.BatchExecutor()
    future = executor.submit(abs, -1)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, -1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [-1])
    executor.shutdown()
    psu.BatchExecutor().shutdown()


def test_with_waits_and_leaves_nothing_behind(world):
    with psu.BatchExecutor() as executor:
        calls = [executor.submit(abs, -x) for x in range(5)]
        batch = executor._feed.maker.batch_id
    assert [call.done() for call in calls] == [True] * 5
    assert world.states(batch) == {}
    assert world.query("SELECT 1 FROM payload UNION SELECT 1 FROM result") == []


def test_shutdown_without_waiting_lets_what_was_submitted_go_on(world, gate):
    executor = psu.BatchExecutor()
    future = executor.submit(until_gone, str(gate))
    executor.shutdown(wait=False)
    assert not future.done()
    gate.unlink()
    assert future.result(60) == str(gate)


def test_shutdown_may_cancel_what_has_not_started(world, gate):
    executor = psu.BatchExecutor()
    calls = [executor.submit(until_gone, str(gate)) for _ in range(os.cpu_count() + 10)]
    until(lambda: sum(call.running() for call in calls) == os.cpu_count())
    executor.shutdown(wait=False, cancel_futures=True)
    gate.unlink()
    executor.shutdown()
    assert sum(call.cancelled() for call in calls) == 10
    assert all(call.cancelled() or call.result() == str(gate) for call in calls)


def test_an_executor_that_nobody_has_any_more_ends_by_itself(world):
    executor = psu.BatchExecutor()
    future = executor.submit(abs, -1)
    thread = executor._feed._thread
    del executor
    gc.collect()
    assert future.result(60) == 1
    thread.join(60)
    assert not thread.is_alive()


def test_an_interpreter_that_ends_waits_for_what_was_submitted(world):
    text = (
        "import paraschut as psu, time\n"
        "def late(x):\n    time.sleep(1)\n    return x\n"
        "psu.BatchExecutor().submit(late, 'apple').add_done_callback(lambda f: print(f.result(), flush=True))\n"
    )
    with world.python(text, stdout=-1, stderr=-1) as session:
        out, err = session.communicate(timeout=120)
        assert (out, err, session.returncode) == (b"apple\n", b"", 0)


def test_ctrl_c_ends_a_session_that_waits(world):
    text = (
        "import paraschut as psu, time\n"
        "executor = psu.BatchExecutor()\n"
        "future = executor.submit(time.sleep, 2)\n"
        "print('waits', flush=True)\n"
        "future.result()\n"
    )
    with world.python(text, stdout=-1, stderr=-1) as session:
        session.stdout.readline()
        session.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in session.communicate(timeout=120)[1]


def test_a_process_that_was_forked_is_told_to_make_its_own(executor):
    assert executor.submit(abs, -1).result(60) == 1
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(abs, -1)
        except RuntimeError as error:
            os._exit(3 if "forked" in str(error) else 4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert executor.submit(abs, -2).result(60) == 2


# --- what is more than the standard library's


def test_calls_of_a_named_executor_outlive_kill_9_of_their_session(world):
    text = (
        "import os, paraschut as psu, signal, time\n"
        "def late(x):\n    time.sleep(0.3)\n    return 10 * x\n"
        "executor = psu.BatchExecutor(name='kept')\n"
        "calls = [executor.submit(late, x) for x in range(6)]\n"
        "calls[0].result()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with world.python(text) as session:
        assert session.wait(60) == -signal.SIGKILL
    assert psu.readmgr("kept").results(timeout=60) == [10 * x for x in range(6)]


def test_more_calls_than_may_be_queued_at_once(world):
    with open(world.home / "config.toml", "a") as settings:
        settings.write("max_jobs = 7\n")
    with psu.BatchExecutor() as executor:
        assert list(executor.map(abs, range(50))) == list(range(50))


def test_an_executor_that_writes_its_jobs_into_a_file_works_as_well(world):
    """Nothing in a function job is for the local machine only."""
    file = psu.FileJobExecutor("jobs.sh")
    with psu.BatchExecutor(file) as executor:
        calls = [executor.submit(pow, 2, x) for x in range(3)]
        batch = executor._feed.maker.batch_id
        until(lambda: os.path.exists(world.index) and list(world.states(batch).values()) == ["submit"] * 3)
        assert os.system("sh ./jobs.sh > /dev/null 2>&1") == 0
        assert [call.result(60) for call in calls] == [1, 2, 4]


# --- libraries that take an executor


def sphere(x):
    return float(np.sum((x - 1) ** 2))


def test_scipy_differential_evolution(executor):
    optimize = pytest.importorskip("scipy.optimize")
    found = optimize.differential_evolution(
        sphere, [(-3, 3)] * 2, workers=executor.map, updating="deferred", maxiter=20, rng=1, polish=False
    )
    assert np.allclose(found.x, 1, atol=0.1)


def test_asyncio(executor):
    async def both():
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(executor, pow, 2, 5)
        second = asyncio.wrap_future(executor.submit(fail, "async"))
        return await asyncio.gather(first, second, return_exceptions=True)

    value, error = asyncio.run(both())
    assert value == 32
    assert isinstance(error, ValueError)


def test_asyncio_cancels_what_waits(executor, busy, gate):
    async def main():
        waiting = asyncio.get_running_loop().run_in_executor(executor, abs, -1)
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    gate.unlink()


def test_dask(executor):
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask.multiprocessing")
    total = dask.delayed(sum)([dask.delayed(abs)(-x) for x in range(5)])
    assert total.compute(scheduler="threads", pool=executor) == 10
