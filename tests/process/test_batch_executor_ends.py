"""What the standard library's tests ask of an executor at its end, and when something ends that should not."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

import pytest
from helpers import until, until_gone

import paraschut as psu

pytestmark = pytest.mark.process


class EndOfTheWorld(BaseException):
    pass


def end_of_the_world():
    raise EndOfTheWorld("of all")


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


def test_shutdown_does_not_wait_for_what_was_cancelled_just_before(world):
    executor = psu.BatchExecutor()
    executor.submit(int).result(60)
    cancelled = executor.submit(int)
    cancelled.cancel()
    ends = threading.Thread(target=executor.shutdown, daemon=True)
    ends.start()
    ends.join(60)
    assert not ends.is_alive()
    assert cancelled.done()


def test_an_executor_that_nobody_has_any_more_ends_by_itself(world):
    executor = psu.BatchExecutor()
    future = executor.submit(abs, -1)
    thread = executor._feed._thread
    del executor
    gc.collect()
    assert future.result(60) == 1
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("then", ["", "executor.shutdown(wait=False)\n"])
def test_an_interpreter_that_ends_waits_for_what_was_submitted(world, then):
    text = (
        "import paraschut as psu, time\n"
        "def late(x):\n    time.sleep(1)\n    return x\n"
        "executor = psu.BatchExecutor()\n"
        "executor.submit(late, 'apple').add_done_callback(lambda f: print(f.result(), flush=True))\n"
    )
    with world.python(text + then, stdout=-1, stderr=-1) as session:
        out, err = session.communicate(timeout=120)
        assert (out, err, session.returncode) == (b"apple\n", b"", 0)


def test_an_interpreter_that_ends_does_not_wait_for_what_was_cancelled(world, gate):
    text = (
        f"import os, paraschut as psu, time\n"
        f"def until_gone(path):\n    while os.path.exists(path):\n        time.sleep(0.01)\n"
        f"executor = psu.BatchExecutor()\n"
        f"calls = [executor.submit(until_gone, {str(gate)!r}) for _ in range(os.cpu_count() + 5)]\n"
        f"while sum(call.running() for call in calls) < os.cpu_count():\n    time.sleep(0.01)\n"
        f"executor.shutdown(wait=False, cancel_futures=True)\n"
        f"print(sum(call.cancelled() for call in calls))\n"
        f"os.unlink({str(gate)!r})\n"
    )
    with world.python(text, stdout=-1, stderr=-1) as session:
        assert session.communicate(timeout=120) == (b"5\n", b"")


@pytest.mark.parametrize("before", ["", "executor.submit(id, 1).result()\n"])
def test_nothing_is_taken_when_the_interpreter_ends(world, before):
    text = (
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n    executor.submit(id, None)\n"
        "import paraschut as psu\n"
        "executor = psu.BatchExecutor()\n"
    )
    with world.python(text + before, stdout=-1, stderr=-1) as session:
        _, err = session.communicate(timeout=120)
        assert b"RuntimeError: cannot schedule new futures after" in err


def test_a_child_that_was_forked_at_any_moment_ends_as_usual(world):
    text = (
        "import os, paraschut as psu, sys, threading\n"
        "executor = psu.BatchExecutor()\n"
        "executor.submit(id, 1).result()\n"
        "held, forked = threading.Event(), threading.Event()\n"
        "def at_work():\n    with executor._feed._changed:\n        held.set()\n        forked.wait()\n"
        "threading.Thread(target=at_work).start()\n"
        "held.wait()\n"
        "child = os.fork()\n"
        "if not child:\n    sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "forked.set()\n"
    )
    with world.python(text, stdout=-1, stderr=-1) as session:
        assert session.communicate(timeout=60) == (b"3\n", b"")


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


# --- what takes a worker with it, or is no pickle


def odd_when_pickled(do, *args):
    """Return an object whose pickling calls something."""

    class Odd:
        def __reduce__(self):
            return do(*args)

    return Odd()


def odd_when_loaded(do, *args):
    """Return an object that calls something when it is loaded."""
    return odd_when_pickled(lambda: (do, args))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ((id, sys.stdout), "An argument cannot be pickled"),
        ((lambda held=sys.stdout: held,), "The function cannot be pickled"),
        ((id, odd_when_pickled(divmod, 1, 0)), "An argument cannot be pickled: ZeroDivisionError"),
        ((id, odd_when_loaded(divmod, 1, 0)), "arguments cannot be loaded: ZeroDivisionError"),
        ((id, odd_when_loaded(sys.exit, 3)), r"arguments cannot be loaded: sys.exit\(3\)"),
        ((id, odd_when_loaded(os.abort)), "signal 6"),
        ((id, odd_when_loaded(os._exit, 0)), "without"),
        ((eval, "(x for x in ())"), "result cannot be pickled: TypeError"),
        ((odd_when_pickled, divmod, 1, 0), "result cannot be pickled: ZeroDivisionError"),
        ((odd_when_pickled, sys.exit, 3), r"result cannot be pickled: sys.exit\(3\)"),
        ((odd_when_pickled, os.abort), "signal 6"),
        ((odd_when_loaded, divmod, 1, 0), "is done, but its result cannot be loaded: ZeroDivisionError"),
        ((odd_when_loaded, sys.exit, 3), r"is done, but its result cannot be loaded: sys.exit\(3\)"),
        ((odd_when_loaded, end_of_the_world), "of all"),
        ((os.abort,), "signal 6"),
        ((sys.exit,), r"sys.exit\(\)"),
        ((os._exit, 3), "3"),
    ],
)
def test_what_ends_badly_fails_alone_and_says_why(executor, what, reason):
    bad = executor.submit(*what)
    good = [executor.submit(abs, -x) for x in range(10)]
    assert [future.result(60) for future in good] == list(range(10))
    with pytest.raises((psu.ParaschutError, RuntimeError, TypeError, EndOfTheWorld), match=reason):
        bad.result(60)
    assert executor.submit(abs, -1).result(60) == 1


def test_a_session_that_fetches_is_not_ended_by_what_it_fetches(world):
    job = psu.persist(odd_when_loaded, "odd", args=(sys.exit, 3))
    with pytest.raises(
        psu.JobFailed, match=r"'odd' .* is done, but its result cannot be loaded: sys.exit\(3\)"
    ):
        job.fetch(60)
    assert job.status() == "done"


def test_a_call_that_crashes_after_shutdown_does_not_keep_it_waiting(world, gate):
    executor = psu.BatchExecutor()
    late = executor.submit(lambda: (until_gone(str(gate)), os.abort()))
    executor.shutdown(wait=False)
    gate.unlink()
    executor.shutdown(wait=True)
    with pytest.raises(psu.JobFailed, match="signal 6"):
        late.result(0)
