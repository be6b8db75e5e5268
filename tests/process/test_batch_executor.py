"""What the standard library's tests ask of an executor, asked of ours; and the libraries that take one.

The cases of ``Lib/test/test_concurrent_futures`` of Python 3.13 were gone through by name, and of 3.14 what is
new (``buffersize``, ``terminate_workers``, ``kill_workers``); what is asked at the end of an executor, and of what
takes its worker with it, is in ``test_batch_executor_ends.py``. Left out, with their reasons:

- of workers: ``max_workers`` that is too small or too large, the default, saturation, idle workers that are reused,
  ``mp_context``, ``max_tasks_per_child``, ``kill_workers`` and ``terminate_workers``, threads of the executor, their
  number and names, that threads and processes end with it: the workers belong to the machine's agent (or the
  cluster), not to the executor, and these arguments do not exist. That calls share workers, that more calls wait than
  there are workers, and that the one thread ends, is tested.
- an initializer, also one that fails: there is none; what a call needs, its module imports.
- ``BrokenExecutor`` after a worker died, was killed or left: ours goes on, and only that call fails (tested).
- threads that cannot be started while the interpreter ends: nothing is taken any more then (tested).
- a pipe to the workers that is full, is closed, or breaks while much is written, and pickling that fails after
  ``shutdown``: there is no such pipe, and what is submitted is pickled then and there.
- a lock that is held while a process forks, and submitting from a worker to the executor itself: workers are never
  forked from the user's process, and an executor cannot be pickled.
- ``sys.exit`` in a call gives SystemExit to who waits in the standard library; here it is a JobFailed, because it
  would otherwise end the session that only asked for a result (tested).
- futures without an executor (``Future()``, ``set_result`` twice, ``InvalidStateError``, ``repr``): ours are the
  standard library's, but for ``cancel`` and ``running``.
- a test of the message of a timeout of ``as_completed``, and of references in it: it is the standard library's.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from helpers import until, until_gone

import paraschut as psu

pytestmark = pytest.mark.process


def fail(*args):
    raise ValueError(*args)


def capture(*args, **kwargs):
    return args, kwargs


# --- submit


def test_submit(executor):
    assert executor.submit(pow, 2, 8).result(60) == 256
    assert executor.submit(pow, 2, mod=5, exp=8).result(60) == 1
    assert executor.submit(capture, 1, self=2, fn=3).result(60) == ((1,), {"self": 2, "fn": 3})
    for wrong in ({}, {"fn": capture, "arg": 1}, {"arg": 1}):
        with pytest.raises(TypeError):
            executor.submit(**wrong)


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


class Thing:
    """Says in a file that it is gone."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __del__(self):
        with open(f"{self.folder}/gone.{os.getpid()}", "w"):
            pass


def whose(thing):
    return os.getpid()


def test_nothing_is_held_that_was_submitted_or_given_neither_here_nor_in_the_worker(executor, world):
    thing = Thing(world.home)
    here = weakref.ref(thing)
    future = executor.submit(whose, thing)
    del thing
    assert here() is None
    assert os.path.exists(f"{world.home}/gone.{os.getpid()}")
    worker = future.result(60)
    until(lambda: os.path.exists(f"{world.home}/gone.{worker}"))


@pytest.mark.parametrize("chunksize", [1, 3])
def test_the_results_of_a_map_are_not_held_when_they_were_given(executor, chunksize):
    for thing in executor.map(set, [[1]] * 7, chunksize=chunksize):
        given = weakref.ref(thing)
        del thing
        until(lambda given=given: given() is None)


# --- results and exceptions


def test_an_exception_is_the_futures_with_the_workers_traceback_as_its_cause(executor):
    future = executor.submit(fail, "wrong")
    with pytest.raises(ValueError, match="wrong") as caught:
        future.result(60)
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value
    assert executor.submit(abs, 1).exception(60) is None


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


def test_who_runs_out_of_time_cancels_also_what_it_waited_for(executor, busy, world, gate):
    made = world.home / "made"
    never = executor.map(Path.touch, [made, made], timeout=0)
    with pytest.raises(futures.TimeoutError):
        next(never)
    gate.unlink()
    executor.shutdown()
    assert not made.exists()


def test_a_map_that_nobody_looks_at_is_made_all_the_same(executor, world):
    paths = [world.home / f"made {number}" for number in range(10)]
    executor.map(Path.touch, paths)
    executor.shutdown(wait=True)
    assert all(path.exists() for path in paths)


def test_a_map_submits_no_more_than_its_buffer_holds(executor):
    numbers, letters = itertools.count(), itertools.cycle("ab")
    found = executor.map(capture, numbers, letters, buffersize=4)
    assert next(numbers) == 4
    assert [next(found)[0] for _ in range(3)] == [(0, "a"), (1, "b"), (2, "a")]
    assert next(numbers) == 8  # a number was taken by the line before the last
    assert list(executor.map(abs, range(10), buffersize=2)) == list(range(10))
    assert list(executor.map(abs, range(10), chunksize=3, buffersize=1)) == list(range(10))
    assert list(executor.map(abs, [], buffersize=3)) == []
    assert list(executor.map(abs, buffersize=3)) == []


@pytest.mark.parametrize(("size", "error"), [("4", TypeError), (4.0, TypeError), (0, ValueError)])
def test_a_buffer_of_no_size_is_refused(executor, size, error):
    with pytest.raises(error, match="buffersize must be"):
        executor.map(abs, [1], buffersize=size)


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
    assert list(futures.as_completed(itertools.repeat(future, 3), timeout=60)) == [future]
    late = executor.submit(abs, -1)
    assert futures.wait([late, late], timeout=60) == ({late}, set())
    assert list(futures.as_completed([])) == []


def test_what_is_done_already_counts_for_who_waits(executor, busy, gate):
    good, bad, waiting = Future(), Future(), executor.submit(abs, -1)
    good.set_result(1)
    bad.set_exception(OSError())
    waiting.cancel()
    for names, done in (("FIRST_COMPLETED", {good, waiting}), ("FIRST_EXCEPTION", {bad, waiting})):
        found = futures.wait([*done, busy[0]], timeout=60, return_when=names)
        assert found == (done, {busy[0]})
    seen = []
    with pytest.raises(futures.TimeoutError, match=r"1 \(of 4\) futures unfinished"):
        seen.extend(futures.as_completed([good, bad, waiting, busy[0]], timeout=0))
    gate.unlink()
    everything = {good, bad, waiting, *busy}
    assert set(futures.as_completed(everything, timeout=60)) == everything


def test_many_that_end_at_once_are_all_seen_by_who_waits(executor):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        calls = {executor.submit(abs, -1) for _ in range(100)}
        assert futures.wait(calls, timeout=60).done == calls
    finally:
        sys.setswitchinterval(before)


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


def test_who_waits_for_what_is_cancelled_is_told(executor, busy):
    waiting = executor.submit(abs, -1)
    with futures.ThreadPoolExecutor(2) as threads:
        told = [threads.submit(wait, 60) for wait in (waiting.result, waiting.exception)]
        until(lambda: all(one.running() for one in told))
        assert waiting.cancel()
        assert [type(one.exception(60)) for one in told] == [futures.CancelledError] * 2


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
    future.add_done_callback(lambda _: fail("in a late callback"))
    assert "in a late callback" in caplog.text
    failed = executor.submit(fail)
    failed.add_done_callback(lambda one: seen.append(type(one.exception())))
    until(lambda: seen[-1] is ValueError)


def test_callbacks_of_a_cancelled_call_and_calls_from_callbacks(executor, busy, gate):
    seen = []
    waiting = executor.submit(abs, -1)
    waiting.add_done_callback(lambda one: seen.append(one.cancelled()))
    assert waiting.cancel()
    waiting.add_done_callback(lambda one: seen.append(one.cancelled()))
    assert seen == [True, True]
    busy[0].add_done_callback(lambda _: seen.append(executor.submit(abs, -2)))
    gate.unlink()
    until(lambda: len(seen) == 3)
    assert seen[2].result(60) == 2


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
        # Jobs are claimed before the file has them, perhaps in several submissions.
        until(lambda: not world.query("SELECT token FROM submission WHERE recorded IS NULL"))
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
