"""Functions as jobs, in processes of their own: what they take and give, how they fail, what they survive."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers import until

import paraschut as psu

pytestmark = pytest.mark.process


def started(fn, *args, name="story", **options):
    return psu.persist(fn, name, args=args, **options)


class Counter:
    def __init__(self, start):
        self.start = start

    def plus(self, number):
        return self.start + number


# --- what goes there and back


def test_a_function_is_called_with_what_it_was_given_and_its_value_comes_back(world):
    job = psu.persist(dict, "six", args=([("a", 1)],), kwargs={"b": 2})
    assert job.fetch(timeout=60) == {"a": 1, "b": 2}
    assert job.fetch() == {"a": 1, "b": 2}
    assert (job.status(), job.isready(), job.wait()) == ("done", True, True)


def test_closures_lambdas_and_methods_of_objects_are_functions_too(world):
    factor = 3
    jobs = [
        psu.persist(lambda x: factor * x, "lambda", args=(14,)),
        psu.persist(Counter(40).plus, "method", args=(2,)),
    ]
    assert [job.fetch(timeout=60) for job in jobs] == [42, 42]


def test_a_large_array_goes_there_and_back_through_files_and_not_the_index(world):
    array = np.arange(13_000_000, dtype=float)
    job = started(lambda given: given[::-1].copy(), array)
    back = job.fetch(timeout=120)
    assert np.array_equal(back, array[::-1])
    assert back.flags.writeable
    assert os.path.getsize(world.index) < 1_000_000
    files = sorted(Path(world.paths.data(job.batch_id)).iterdir())
    assert [path.name for path in files] == ["call.0.pkl", "value.0.1.pkl"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    job.cleanup()
    assert not os.path.exists(world.paths.batch(job.batch_id))


def test_functions_of_a_script_and_of_modules_beside_it(world):
    project = world.home / "project"
    project.mkdir()
    (project / "beside.py").write_text("class Odd(Exception): pass\ndef double(x): return 2 * x\n")
    (project / "script.py").write_text(
        textwrap.dedent("""
            import beside, paraschut as psu
            SCALE = 10
            class Point:
                def __init__(self, x): self.x = x
            def scaled(x):
                return Point(SCALE * beside.double(x))
            def odd():
                raise beside.Odd("so odd")
            if __name__ == "__main__":
                point = psu.persist(scaled, "scaled", args=(2,)).fetch(timeout=60)
                assert type(point) is Point and point.x == 40
                assert psu.persist(beside.double, "double", args=(21,)).fetch(timeout=60) == 42
                try:
                    psu.persist(odd, "odd").fetch(timeout=60)
                except beside.Odd as error:
                    print(error, type(error.__cause__).__name__)
        """)
    )
    with world.python(
        "import runpy, sys; sys.path.insert(0, 'project'); runpy.run_path('project/script.py', run_name='__main__')",
        stdout=-1,
    ) as script:
        assert script.communicate(timeout=120)[0] == b"so odd JobFailed\n"
        assert script.returncode == 0


def test_functions_of_a_notebook(world):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cells = [
        "import paraschut as psu\nbase = 40\ndef plus(x):\n    print('in a job')\n    return base + x",
        "job = psu.persist(plus, 'cell', args=(2,))\nresult = job.fetch(timeout=60)\nresult, job.getstdout()",
        "base = 50\npsu.persist(plus, 'edited', args=(2,)).fetch(timeout=60)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(world.home)}}
    ).execute()
    said = [cell.outputs[-1].data["text/plain"] for cell in notebook.cells[1:]]
    assert said == ["(42, 'in a job\\n')", "52"]


# --- where it stands


def test_a_job_says_where_it_stands_and_what_it_writes_while_it_runs(world):
    gate = world.home / "gate"

    def slow():
        print("begun", flush=True)
        print("careful", file=sys.stderr, flush=True)
        while not gate.exists():
            time.sleep(0.01)
        print("done")
        return "value"

    job = started(slow)
    until(lambda: job.getstdout() == "begun\n")
    assert (job.status(), job.isready(), job.wait(timeout=0.05)) == ("running", False, False)
    assert "running" in job.jobinfo()
    assert job.getstderr() == "careful\n"
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s; it goes on"):
        job.fetch(timeout=0.05)
    with pytest.raises(psu.ExecutorError, match=r"is running, so nothing was deleted\. cancel\(\) it"):
        job.cleanup()
    gate.touch()
    assert job.fetch(timeout=60) == "value"
    assert job.getstdout() == "begun\ndone\n"
    assert "done" in job.jobinfo()


def test_a_name_is_one_jobs_until_it_is_cleaned_up(world):
    job = started(abs, -1, name="mine")
    with pytest.raises(psu.NameTakenError, match=r"readmgr\('mine'\) is its handle"):
        started(abs, -1, name="mine")
    assert job.fetch(timeout=60) == 1
    job.cleanup()
    with pytest.raises(psu.NotFoundError, match="no function job named 'mine'"):
        psu.readmgr("mine")
    with pytest.raises(psu.NotFoundError, match="was removed"):
        job.fetch()
    assert repr(job) == "<function job 'mine': removed>"
    assert started(abs, -2, name="mine").fetch(timeout=60) == 2


def test_of_two_sessions_that_want_a_name_at_once_one_gets_it(world):
    text = (
        "import paraschut as psu, sys, time\n"
        "try: psu.persist(abs, 'wanted', args=(-1,))\n"
        "except psu.NameTakenError: print('taken')\n"
        "else: print('mine')"
    )
    sessions = [world.python(text, stdout=-1) for _ in range(4)]
    said = [session.communicate(timeout=120)[0].split() for session in sessions]
    assert sorted(said) == [[b"mine"], [b"taken"], [b"taken"], [b"taken"]]
    assert psu.readmgr("wanted").fetch(timeout=60) == 1


# --- how it fails


def failing(error, *args):
    raise error(*args)


class AwkwardError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_exception_comes_back_as_itself_with_the_jobs_traceback_as_its_cause(world):
    job = started(failing, KeyError, "nowhere")
    with pytest.raises(KeyError, match="nowhere") as caught:
        job.fetch(timeout=60)
    cause = caught.value.__cause__
    assert isinstance(cause, psu.JobFailed)
    assert cause.reason == "KeyError: 'nowhere'"
    assert "in failing" in cause.traceback
    assert "paraschut" not in cause.traceback
    assert job.status() == "failed"
    assert "KeyError" in job.getstderr()
    until(lambda: world.failures(job.batch_id) == {0: "KeyError: 'nowhere'"})


def test_an_exception_that_cannot_be_made_again_comes_as_its_text(world):
    with pytest.raises(
        psu.JobFailed, match=r"failed: AwkwardError: this and that(.|\n)*in failing"
    ) as caught:
        started(failing, AwkwardError, "this", "that").fetch(timeout=60)
    assert caught.value.reason == "AwkwardError: this and that"


def test_a_result_that_cannot_be_pickled_is_said_there_and_here(world):
    job = started(lambda: (number for number in range(3)))
    with pytest.raises(TypeError, match=r"the result cannot be pickled: .*generator"):
        job.fetch(timeout=60)
    assert "cannot be pickled" in job.getstderr()


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (lambda: sys.exit(3), "sys.exit(3)"),
        (sys.exit, "sys.exit()"),
        (os.abort, "signal 6 (SIGABRT)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9 (SIGKILL)"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "signal 11 (SIGSEGV)"),
        (lambda: os._exit(7), "exit code 7"),
        (lambda: os._exit(0), "exited 0 without saying complete"),
        (lambda: os.kill(os.getpid(), signal.SIGINT), "KeyboardInterrupt"),
    ],
)
def test_each_way_to_end_without_a_value_is_told_apart(world, fn, reason):
    job = started(fn)
    with pytest.raises(psu.JobFailed) as caught:
        job.fetch(timeout=60)
    assert caught.value.reason == reason
    assert job.status() == "failed"


def test_the_message_of_a_crash_has_the_last_words_of_the_job(world):
    with pytest.raises(psu.JobFailed, match=r"signal 6(.|\n)*Fatal Python error: Aborted"):
        started(os.abort).fetch(timeout=60)


def test_too_much_memory_and_too_much_time_are_told_apart(world):
    hungry = started(
        lambda: (bytearray(300_000_000), time.sleep(60)), name="hungry", resources={"mem": "100mb"}
    )
    slow = started(time.sleep, 60, name="slow", resources={"walltime": 1})
    for job, reason in ((hungry, "out of memory"), (slow, "time limit")):
        with pytest.raises(psu.JobFailed) as caught:
            job.fetch(timeout=60)
        assert caught.value.reason == reason


def test_a_job_is_cancelled_while_it_runs_and_while_it_waits(world):
    running = started(time.sleep, 60, name="runs", resources={"cpus": os.cpu_count()})
    until(lambda: running.status() == "running")
    waiting = started(time.sleep, 60, name="waits")
    assert waiting.status() == "queued"
    for job in (waiting, running):
        assert job.cancel()
        with pytest.raises(psu.JobFailed) as caught:
            job.fetch(timeout=60)
        assert caught.value.reason == "cancelled"
        assert not job.cancel()
    running.cleanup()


def test_a_job_that_does_not_heed_is_killed_by_force(world):
    def deaf():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(60)

    job = started(deaf)
    pid = int(until(job.getstdout))
    assert job.cancel(force=True)
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert job.status() == "failed"


@pytest.mark.parametrize(("state", "reason"), [("held", "cancelled"), ("complete", "has no result")])
def test_what_others_did_to_a_job_ends_the_wait_for_it(world, state, reason):
    job = started(time.sleep, 60)
    until(lambda: job.status() == "running")
    psu.set_job_field(job.batch_id, 0, {"state": state})
    with pytest.raises(psu.JobFailed, match=reason):
        job.fetch(timeout=60)


def test_a_job_that_was_reset_is_waited_for_again(world):
    job = started(time.time)
    first = job.fetch(timeout=60)
    psu.set_job_field(job.batch_id, 0, Unless={})
    assert job.status() == "empty"
    assert job.fetch(timeout=60) > first


def test_a_job_whose_processes_were_all_killed_does_not_keep_anybody_waiting(world):
    job = started(time.sleep, 600)
    until(lambda: job.status() == "running")
    for process in world.mine():
        process.kill()
    with pytest.raises(psu.JobFailed) as caught:
        job.fetch(timeout=60)
    assert caught.value.reason == "vanished"


def test_what_cannot_be_pickled_is_not_started(world):
    with pytest.raises(psu.JobError, match=r"cannot be pickled: TypeError.*Nothing was started"):
        started(print, sys.stdout)
    with pytest.raises(psu.JobError, match="needs a function, and got 3"):
        started(3)
    with pytest.raises(psu.ParaschutError, match="4000 cpus"):
        started(abs, -1, resources={"cpus": 4000})
    with pytest.raises(psu.NotFoundError):
        psu.readmgr("story")
    assert started(abs, -1).fetch(timeout=60) == 1


# --- what it survives

STARTER = """
import os, paraschut as psu, signal, sys, time
def slow():
    time.sleep(1)
    return os.getppid()
psu.persist(slow, "survivor")
print("started", flush=True)
if sys.argv[1:] == ["die"]:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


def test_it_survives_kill_9_of_its_session_and_is_fetched_by_another(world):
    with world.python(STARTER, "die", stdout=-1) as session:
        session.wait(timeout=60)
        assert session.returncode == -signal.SIGKILL
    fetched = "import paraschut as psu; print(psu.readmgr('survivor').fetch(timeout=60) > 0)"
    with world.python(fetched, stdout=-1) as other:
        assert other.communicate(timeout=120)[0] == b"True\n"


def test_it_survives_that_its_terminal_is_closed(world):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", STARTER])
    said = b""
    while b"started" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)  # SIGHUP to the session
    os.waitpid(pid, 0)
    assert psu.readmgr("survivor").fetch(timeout=60) > 0


def test_it_survives_that_the_agent_is_killed(world):
    job = started(lambda: time.sleep(1) or "still")
    until(lambda: job.status() == "running")
    world.kill_agent()
    assert job.fetch(timeout=60) == "still"


def test_a_result_that_cannot_be_written_into_the_index_is_kept_beside_it(world):
    with open(world.home / "config.toml", "a") as settings:
        settings.write("lock_timeout = 0.3\n")
    gate = world.home / "gate"
    jobs = [started(until_exists, gate, end, name=str(end)) for end in (False, True)]
    until(lambda: {job.status() for job in jobs} == {"running"})
    with closing(sqlite3.connect(world.index, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        gate.touch()
        until(lambda: os.path.isdir(world.paths.events) and len(os.listdir(world.paths.events)) == 2)
    assert jobs[0].fetch(timeout=60) == "kept"
    with pytest.raises(ValueError, match="this too"):
        jobs[1].fetch(timeout=60)


def until_exists(path, fail):
    while not path.exists():
        time.sleep(0.01)
    if fail:
        raise ValueError("this too")
    return "kept"


# --- whom it trusts


def test_nothing_is_loaded_from_an_index_that_others_can_write(world):
    job = started(abs, -1)
    assert job.fetch(timeout=60) == 1
    os.chmod(world.index, 0o666)
    with pytest.raises(psu.TrustError, match=r"can be written by others.*chmod go-w"):
        job.fetch()
    late = psu.persist(abs, "late", args=(-1,))
    with pytest.raises(psu.TrustError):
        late.fetch(timeout=60)
    os.chmod(world.index, 0o600)
    with pytest.raises(psu.TrustError, match="can be written by others"):
        late.fetch()  # it was the job that did not load it


@pytest.mark.parametrize("which", ["file", "data", "batch"])
def test_nothing_is_loaded_from_a_file_that_others_can_write(world, which):
    job = started(lambda: b"x" * 200_000)
    assert len(job.fetch(timeout=60)) == 200_000
    path = Path(world.paths.result(job.batch_id, 0, 1, "value"))
    place = {"file": path, "data": path.parent, "batch": path.parent.parent}[which]
    place.chmod(place.stat().st_mode | 0o020)
    with pytest.raises(psu.TrustError, match="can be written by others"):
        job.fetch()


# --- in another environment


def test_other_versions_are_said_in_the_log_of_the_job(world, monkeypatch):
    job = started(abs, -1)
    world.until_complete(job.batch_id)
    world.change('UPDATE payload SET about = replace(about, \'"Python": "3\', \'"Python": "2\')')
    psu.set_job_field(job.batch_id, 0, Unless={})
    assert job.fetch(timeout=60) == 1
    assert "made with other versions: Python 2." in job.getstderr()


def test_where_a_pickle_cannot_be_read_both_versions_are_named(world):
    job = started(abs, -1)
    world.until_complete(job.batch_id)
    world.change(
        "UPDATE payload SET about = replace(about, '\"Python\": \"3', '\"Python\": \"2'), data = x'80'"
    )
    psu.set_job_field(job.batch_id, 0, Unless={})
    here = ".".join(map(str, sys.version_info[:3]))
    with pytest.raises(RuntimeError, match=rf"cannot be loaded: .*Python 2\..*, here {here}"):
        job.fetch(timeout=60)


def test_a_module_that_was_edited_runs_as_it_is_now_and_the_log_says_so(world):
    (world.home / "edited.py").write_text("def value(): return 'then'\n")
    text = (
        "import paraschut as psu, sys\n"
        "sys.path.insert(0, '.')\n"
        "import edited\n"
        "psu.LocalJobExecutor\n"
        "blocker = psu.persist(__import__('time').sleep, 'block', args=(3,), resources={'cpus': __import__('os').cpu_count()})\n"
        "psu.persist(edited.value, 'edited')\n"
        "open('edited.py', 'w').write('def value(): return \"now, which is longer\"\\n')\n"
    )
    with world.python(text) as session:
        assert session.wait(timeout=60) == 0
    job = psu.readmgr("edited")
    assert job.fetch(timeout=60) == "now, which is longer"
    assert "module edited was edited after this job was made" in job.getstderr()
