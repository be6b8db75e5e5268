from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paraschut.errors import ExecutorError, SubmitError
from paraschut.executors import file as file_module
from paraschut.executors import traces
from paraschut.executors.base import Submission, Task
from paraschut.executors.file import FileJobExecutor
from paraschut.process import host_name

pytestmark = pytest.mark.process

ROOT = str(Path(__file__).parents[2])
SHELLS = [[shell, *flags] for shell in ("dash", "bash") if shutil.which(shell) for flags in ([], ["-eu"])]
WEIRD = 'a\'; echo $HOME\n"b" \\n\\c é\u0101\u0201 *'


def names_below(process):
    names = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            names.append(one.name())
    return names


class House:
    """A folder with an index, whose tasks and submissions are made in a line."""

    def __init__(self, folder):
        self.folder = folder
        self.index = str(folder / "index.db")
        self.executor = FileJobExecutor()
        self.script = str(folder / "jobs.sh")
        self.lines = folder / "lines"

    def task(self, number, command, env=None, **other):
        command = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
        logs = self.folder / "1" / "logs"
        given = {
            "workdir": str(self.folder),
            "stdout": str(logs / f"{number}.1.out"),
            "stderr": str(logs / f"{number}.1.err"),
        }
        return Task(
            number,
            1,
            number,
            1,
            command,
            {"LINES_FILE": str(self.lines), **(env or {})},
            resources={},
            **{**given, **other},
        )

    def submission(self, token, commands, env=None):
        tasks = tuple(one if isinstance(one, Task) else self.task(i, one) for i, one in enumerate(commands))
        token += os.urandom(4).hex()  # as in life, no token is used twice
        return Submission(token, self.index, str(self.folder / "submissions" / token), env or {}, tasks)

    def submit(self, token, commands, env=None):
        submission = self.submission(token, commands, env)
        assert self.executor.submit(submission) == submission.token
        return submission

    def start(self, *shell, **other):
        return subprocess.Popen(
            [*shell, self.script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **other
        )

    def run(self, *shell):
        with self.start(*shell) as process:
            out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def evidence(self, submission):
        return self.executor.evidence(submission.folder)

    def codes(self, submission):
        return {task: end.code for task, end in self.evidence(submission).exits.items()}

    def log(self, number, key="out"):
        return (self.folder / "1" / "logs" / f"{number}.1.{key}").read_text()

    def written(self):
        return self.lines.read_text().split() if self.lines.exists() else []


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def weird_house(tmp_path):
    folder = tmp_path / WEIRD
    folder.mkdir()
    return House(folder)


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def line(text):
    return f'echo {text} >> "$LINES_FILE"'


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_jobs_run_in_order_with_all_that_is_theirs(weird_house, shell):
    house = weird_house
    workdir = house.folder / "work dir\n"
    workdir.mkdir()
    values = {
        "QUOTES": 'it\'s "so"',
        "LINES": "a\nb\n\n",
        "DOLLAR": "$HOME `date` \\",
        "WORDS": "é\u0101 * ~",
        "EMPTY": "",
        "a.b": "dots",
        "UID": "7",
        "IFS": "e",
        "BASH_FUNC_f%%": "() { :; }",
    }
    show = "import os, sys; print(ascii({k: os.environ.get(k) for k in sys.argv[1:]})); print(os.getcwd())"
    command = [
        sys.executable,
        "-c",
        show,
        *values,
        "COMMON",
        "a.c",
        "PARASCHUT_TASK",
        "PARASCHUT_CLUSTERID",
        "A b'c\n",
    ]
    tasks = [
        house.task(0, command, {**values, "COMMON": "own"}, workdir=str(workdir)),
        house.task(1, line(1)),
        house.task(2, line(2)),
    ]
    done = house.submit("t1", tasks, env={"COMMON": "all", "a.c": "odd\n"})
    status, out = house.run(*shell)
    assert (status, out) == (0, "paraschut: jobs run: 3, of these ended with an error: 0\n")
    assert house.written() == ["1", "2"]
    seen = {
        **values,
        "COMMON": "own",
        "a.c": "odd\n",
        "PARASCHUT_TASK": "0",
        "PARASCHUT_CLUSTERID": f"{done.token}.0",
        "A b'c\n": None,
    }
    assert house.log(0) == f"{seen!a}\n{workdir}\n"
    assert house.codes(done) == {0: 0, 1: 0, 2: 0}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_ends_are_written_down_as_they_were(house, shell):
    commands = ["exit 0", "exit 3", "kill -9 $$", "exit 255", ["/no/such/program"]]
    before = time.time()
    done = house.submit("t1", commands)
    status, out = house.run(*shell)
    assert status == 1
    assert "jobs run: 5, of these ended with an error: 4" in out
    assert "job 1:1 ended with exit code 3" in out
    found = house.evidence(done)
    ends = {task: (end.code, end.signal) for task, end in found.exits.items()}
    assert ends == {0: (0, None), 1: (3, None), 2: (None, 9), 3: (255, None), 4: (127, None)}
    assert "/no/such/program" in house.log(4, "err")
    end = found.exits[0]
    assert end.host == host_name()
    assert before - 1 <= end.started <= end.ended <= time.time()
    assert {mark.alive for mark in found.marks.values()} == {False}
    assert found.marks[0].holder.split()[:2] == [f"{done.token}.0", host_name()]


def test_logs_are_made_and_empty_ones_removed(house):
    both = str(house.folder / "deep" / "er" / "both")
    done = house.submit(
        "t1",
        [
            "echo out",
            "echo err >&2",
            "read x; echo $?",
            house.task(3, "echo out; echo err >&2; echo out", stdout=both, stderr=both),
            house.task(4, "echo lost", stdout="/dev/null", stderr="/dev/null"),
        ],
    )
    assert house.run("sh")[0] == 0
    assert sorted(os.listdir(house.folder / "1" / "logs")) == ["0.1.out", "1.1.err", "2.1.out"]
    assert house.log(2) == "1\n"  # the end of /dev/null
    assert Path(both).read_text() == "out\nerr\nout\n"
    assert Path("/dev/null").exists()
    assert sorted(os.listdir(done.folder)) == sorted(
        ["script.sh", *(name for n in range(5) for name in (f"{n}.exit", f"{n}.run.0"))]
    )


def test_a_log_that_cannot_be_written_is_said(house):
    (house.folder / "file").write_text("")
    done = house.submit(
        "t1", [house.task(0, line("x"), stdout=str(house.folder / "file" / "out")), line("y")]
    )
    status, out = house.run("sh")
    assert status == 1
    assert "job 1:0 was not run: its log" in out
    assert house.codes(done) == {0: 126, 1: 0}
    assert house.written() == ["y"]


def test_a_job_without_its_folder_is_not_run_elsewhere(house):
    done = house.submit("t1", [house.task(0, line("x"), workdir=str(house.folder / "gone")), line("y")])
    assert house.run("sh")[0] == 1
    assert house.codes(done) == {0: 126, 1: 0}
    assert "its working directory" in house.log(0, "err")
    assert house.written() == ["y"]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if len(shell) == 1], ids=" ".join)
def test_two_scripts_at_once_start_each_job_once(house, shell):
    for token in ("t1", "t2"):
        house.submit(token, [line(f"{token}.{n}") for n in range(40)])
    first, second = house.start(*shell), house.start(*shell)
    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert sorted(house.written()) == sorted(f"{token}.{n}" for token in ("t1", "t2") for n in range(40))
    assert house.run(*shell) == (0, "paraschut: jobs run: 0, of these ended with an error: 0\n")


def test_a_killed_script_leaves_the_job_to_its_watcher(house):
    done = house.submit(
        "t1", [line(0), f"{line(1)}; while [ ! -e go ]; do sleep 0.05; done; {line('1b')}", line(2)]
    )
    with house.start("sh") as process:
        wait_for(lambda: house.written() == ["0", "1"])
        process.kill()
    assert house.evidence(done).marks[1].alive
    assert house.run("sh")[0] == 0  # goes on with what was not started
    assert house.written() == ["0", "1", "2"]
    (house.folder / "go").touch()
    wait_for(lambda: house.codes(done) == {0: 0, 1: 0, 2: 0})
    assert house.written() == ["0", "1", "2", "1b"]


def test_what_was_killed_with_its_watcher_is_not_run_again(house):
    done = house.submit("t1", [line(0), f"{line(1)}; sleep 60", line(2)])
    with house.start("sh", start_new_session=True) as process:
        wait_for(lambda: house.written() == ["0", "1"])
        os.killpg(process.pid, signal.SIGKILL)
    assert house.run("sh")[0] == 0
    assert house.written() == ["0", "1", "2"]
    found = house.evidence(done)
    assert sorted(found.exits) == [0, 2]
    wait_for(lambda: house.evidence(done).marks[1].alive is False)


def test_a_job_that_outlives_its_watcher_is_seen(house):
    done = house.submit("t1", [f"{line(0)}; exec sleep 60"])
    with house.start("sh") as process:
        wait_for(lambda: house.written() == ["0"])
        watcher = psutil.Process(traces.parse_mark(house.evidence(done).marks[0].holder).pid)
        assert watcher.parent().pid == process.pid
        watcher.kill()
        process.communicate(timeout=30)
    assert process.returncode == 1
    assert house.evidence(done).marks[0].alive
    assert house.executor.delete(done, [0]) == {0}
    assert house.evidence(done).marks[0].alive is False


PIPE_SUBMIT = """
import sys
sys.path.insert(0, {root!r})
from paraschut.executors.base import Submission, Task
from paraschut.executors.file import FileJobExecutor
folder = {folder!r}
task = Task(0, 1, 9, 1, ("/bin/sh", "-c", 'echo more >> "$LINES_FILE"'), {{"LINES_FILE": {lines!r}}}, folder,
            folder + "/o", folder + "/e", {{}})
FileJobExecutor().submit(Submission("t9", {index!r}, folder + "/submissions/t9", {{}}, (task,)))
"""


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if len(shell) == 1], ids=" ".join)
def test_the_running_script_goes_on_with_what_its_jobs_submit(weird_house, shell):
    house = weird_house
    house.script = str(house.folder / "night's.sh")
    house.executor = FileJobExecutor(house.script)
    text = PIPE_SUBMIT.format(root=ROOT, folder=str(house.folder), lines=str(house.lines), index=house.index)
    env = {"PARASCHUT_INDEX": house.index}
    done = house.submit("t1", [house.task(0, [sys.executable, "-c", text], env), line("last")])
    assert house.run(*shell) == (0, "paraschut: jobs run: 3, of these ended with an error: 0\n")
    assert house.codes(done) == {0: 0, 1: 0}, house.log(0, "err")
    assert house.written() == ["last", "more"]
    assert not (house.folder / "jobs.sh").exists()  # a job's own executor writes to the script that runs it


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if len(shell) == 1], ids=" ".join)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [True, False], ids=["group", "script"])
def test_a_signal_ends_the_current_job_and_stops(house, shell, sent, to_all):
    done = house.submit("t1", [f"sh -c '{line(0)}; sleep 60; {line('late')}'; {line('later')}", line(1)])
    with house.start(*shell, start_new_session=True) as process:
        wait_for(lambda: "sleep" in names_below(process))
        if to_all:  # as a terminal does
            os.killpg(process.pid, sent)
        else:
            process.send_signal(sent)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + sent
    assert "ending the current job" in out
    end = house.evidence(done).exits[0]
    assert end.signal in {sent, signal.SIGTERM}
    assert house.run(*shell)[0] == 0
    assert house.written() == ["0", "1"]


def test_a_second_signal_kills_what_hears_none(house):
    done = house.submit("t1", [f"trap '' TERM; {line(0)}; while :; do sleep 0.1; done", line(1)])
    with house.start("sh") as process:
        wait_for(lambda: house.written() == ["0"])
        process.terminate()
        assert "ending the current job" in process.stdout.readline()
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert house.evidence(done).exits[0].signal == 9
    assert house.written() == ["0"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("shell", [shell for shell in SHELLS if len(shell) == 1], ids=" ".join)
def test_jobs_find_signals_as_they_are_elsewhere_and_no_descriptors(house, shell):
    house.submit("t1", [["/bin/sh", "-c", "grep SigIgn /proc/self/status; exec ls /proc/self/fd"]])
    env = {**os.environ, "PARASCHUT_BATCHID": "other", "PARASCHUT_TASK": "9\nPARASCHUT_X=1"}
    house.submit("t2", [house.task(1, "env")])
    with house.start(*shell, env=env) as process:
        process.communicate(timeout=30)
    ignored, *descriptors = house.log(0).split()[1:]
    if subprocess.run(["env", "--default-signal=INT", "true"], capture_output=True).returncode == 0:
        assert int(ignored, 16) & 0b110 == 0
    assert descriptors == ["0", "1", "2", "3"]  # the last is that of ls, for the folder
    assert "PARASCHUT_BATCHID" not in house.log(1)
    assert "PARASCHUT_TASK=1\n" in house.log(1)


def path_without(folder, missing):
    folder.mkdir()
    for name in (
        "awk",
        "cat",
        "date",
        "env",
        "ln",
        "mkdir",
        "mv",
        "ps",
        "readlink",
        "rm",
        "sed",
        "sh",
        "sleep",
        "uname",
    ):
        if name != missing:
            (folder / name).symlink_to(shutil.which(name))
    return {"PATH": str(folder)}


def test_a_small_system_without_ps_ends_jobs_too(house):
    done = house.submit("t1", [f"sh -c '{line(0)}; sleep 60; {line('late')}'; {line('later')}", line(1)])
    dash = shutil.which("dash") or "/bin/sh"
    with house.start(dash, env=path_without(house.folder / "bin", "ps")) as process:
        wait_for(lambda: "sleep" in names_below(process))
        process.terminate()
        process.communicate(timeout=30)
    assert house.evidence(done).exits[0].signal == signal.SIGTERM
    assert house.written() == ["0"]


def test_no_job_runs_where_the_right_to_start_cannot_be_taken(house):
    done = house.submit("t1", [line(0), line(1)])
    with house.start("/bin/sh", env=path_without(house.folder / "bin", "ln")) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"paraschut: stopped: {done.folder} cannot be written" in out
    assert house.written() == []
    assert house.run("sh")[0] == 0
    assert house.written() == ["0", "1"]


def test_deleted_jobs_never_start(house):
    done = house.submit("t1", [line(n) for n in range(4)])
    assert house.executor.delete(done, [1, 3]) == {1, 3}
    assert house.executor.delete(done, [1, 3]) == {1, 3}
    assert house.run("sh")[0] == 0
    assert house.written() == ["0", "2"]
    found = house.evidence(done)
    assert sorted(found.marks) == sorted(found.exits) == [0, 2]
    assert house.executor.delete(done, [0, 2]) == {0, 2}  # what has ended is no error
    assert len(os.listdir(done.folder)) == 1 + 4 + 2


def test_deleting_what_runs_ends_its_whole_tree_and_the_script_goes_on(house, monkeypatch):
    monkeypatch.setattr(file_module, "GRACE", 0.5)
    deaf = (
        f"trap '' TERM; {line(0)}; (while :; do sleep 0.1; done) & sh -c 'echo $$ > pid; sleep 60'; sleep 60"
    )
    away = "setsid sh -c 'echo $$ > away; sleep 60' & " if shutil.which("setsid") else "echo 0 > away;"
    done = house.submit("t1", [away + deaf, line(1)])
    with house.start("sh") as process:
        wait_for(lambda: all((house.folder / name).exists() for name in ("pid", "away", "lines")))
        wait_for(lambda: all((house.folder / name).read_text() for name in ("pid", "away")))
        assert house.executor.delete(done, [0]) == {0}
        process.communicate(timeout=30)
    assert house.evidence(done).exits[0].signal == 9
    assert house.written() == ["0", "1"]
    for name in ("pid", "away"):
        pid = int((house.folder / name).read_text())
        assert pid == 0 or not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_runs_on_another_machine_is_not_said_to_be_gone(house):
    done = house.submit("t1", [line(0), line(1)])
    os.symlink("x.0 elsewhere 1 5.b00t", Path(done.folder, "0.run.0"))
    assert house.evidence(done).marks[0].alive is None
    assert house.executor.delete(done, [0, 1]) == {1}
    os.symlink("strange", Path(done.folder, "5.run.0"))
    mark = house.evidence(done).marks[5]
    assert (mark.holder, mark.alive) == ("unknown unknown", None)


def test_a_mark_without_start_ticks_is_judged_by_its_age(house):
    done = house.submit("t1", [line(0)])
    with subprocess.Popen(["sleep", "60"]) as process:
        path = Path(done.folder, "0.run.0")
        os.symlink(f"{done.token}.0 {host_name()} {process.pid} 1700000000", path)
        assert house.evidence(done).marks[0].alive is True
        os.utime(path, (1, 1), follow_symlinks=False)  # that pid is used by another process now
        assert house.evidence(done).marks[0].alive is False
        process.kill()
    os.utime(path, follow_symlinks=False)
    assert house.evidence(done).marks[0].alive is False


def test_a_folder_that_cannot_be_read_is_an_error(house):
    (house.folder / "file").write_text("")
    with pytest.raises(ExecutorError, match="cannot be read"):
        house.executor.evidence(str(house.folder / "file"))


def test_thousands_of_jobs_are_written_and_read(house):
    done = house.submit("t1", [["/bin/true"]] * 2000)
    assert house.executor.delete(done, range(2, 2000)) == set(range(2, 2000))
    assert house.run("sh") == (0, "paraschut: jobs run: 2, of these ended with an error: 0\n")
    for n in range(2, 2000):
        os.unlink(Path(done.folder, f"{n}.run.0"))
        os.symlink(f"t1.{n} {host_name()} 1 5.b00t", Path(done.folder, f"{n}.run.0"))
        Path(done.folder, f"{n}.exit").write_text(f"{n % 128} 10 20 node\n")
    found = house.evidence(done)
    assert len(found.marks) == len(found.exits) == 2000
    assert found.exits[130].code == 2


def test_a_script_that_is_not_ours_is_left_alone(house):
    Path(house.script).write_text("#!/bin/sh\necho mine\n")
    with pytest.raises(SubmitError, match="was not written by paraschut"):
        house.submit("t1", [line(0)])
    assert sorted(os.listdir(house.folder)) == ["jobs.sh"]


@pytest.mark.parametrize("path", ["gone/jobs.sh", "file/jobs.sh"])
def test_what_cannot_be_written_is_refused_and_leaves_nothing(house, path):
    (house.folder / "file").write_text("")
    house.executor = FileJobExecutor(house.folder / path)
    with pytest.raises(SubmitError, match=r"could not be written .* so nothing was submitted"):
        house.submit("t1", [line(0)])
    assert sorted(os.listdir(house.folder)) == ["file"]


@contextlib.contextmanager
def no_file_larger_than(size):
    """Make the disk full for this process: writes are cut off there, then fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_submission(house):
    first = house.submit("t1", [line(0)])
    queue = Path(house.script + ".queue")
    before = queue.read_bytes()
    with (
        no_file_larger_than(5000),
        pytest.raises(SubmitError, match=r"script.* could not be written \(File too large\)"),
    ):
        house.submit("t2", [line(1)] * 100)
    assert os.listdir(house.folder / "submissions") == [first.token]
    assert queue.read_bytes() == before


def test_half_a_line_is_never_run_and_spoils_no_other(house):
    house.submit("t0", [line("no")])
    queue = Path(house.script + ".queue")
    padding = b"#" * 20000 + b"\n"  # so that the line does not fit, but the script does
    queue.write_bytes(padding)
    with no_file_larger_than(len(padding) + 30), pytest.raises(SubmitError, match="No space left"):
        house.submit("t1", [line("half")])
    assert queue.stat().st_size == len(padding) + 30
    assert len(os.listdir(house.folder / "submissions")) == 1
    assert house.run("sh")[0] == 0
    assert house.written() == []
    house.submit("t2", [line("whole")])
    assert house.run("sh")[0] == 0
    assert house.written() == ["whole"]


def test_what_a_dead_submitter_wrote_is_found_and_run(weird_house):
    house = weird_house
    house.script = str(house.folder / "night\n's.sh")
    done = house.submission("t1", [line("found")])
    assert house.executor.find(done) is None  # not written yet
    FileJobExecutor(house.script).submit(done)
    Path(house.script + ".queue").unlink()  # as if it had died before it appended the line
    assert house.executor.find(done) == done.token
    assert house.executor.find(done) == done.token
    assert house.run("sh")[0] == 0
    assert house.written() == ["found"]


def test_a_submission_whose_folder_is_gone_is_passed_over(house):
    shutil.rmtree(house.submit("t1", [line("gone")]).folder)
    house.submit("t2", [line("here")])
    assert house.run("sh") == (0, "paraschut: jobs run: 1, of these ended with an error: 0\n")
    assert house.written() == ["here"]


def test_a_folder_that_vanishes_meanwhile_stops_only_its_own_jobs(house):
    done = house.submit("t1", [f"{line(0)}; rm -r submissions/t1*", line(1)])
    house.submit("t2", [line(2)])
    house.run("sh")
    assert house.written() == ["0", "2"]
    assert not Path(done.folder).exists()


def test_the_script_is_private_and_executable(house):
    done = house.submit("t1", [line(0)])
    modes = {
        name: os.stat(name).st_mode & 0o777
        for name in (house.script, house.script + ".queue", done.folder, f"{done.folder}/script.sh")
    }
    assert list(modes.values()) == [0o700, 0o600, 0o700, 0o600]
    kept = os.stat(house.script)
    house.submit("t2", [line(1)])
    assert os.stat(house.script).st_ino == kept.st_ino  # a shell may be reading it
    assert house.run()[0] == 0  # by its first line
    assert house.written() == ["0", "1"]


def test_a_script_without_jobs_says_so(house):
    house.submit("t1", [])
    assert house.run("sh") == (0, "paraschut: jobs run: 0, of these ended with an error: 0\n")
    Path(house.script + ".queue").unlink()
    status, out = house.run("sh")
    assert status == 1
    assert "nothing was submitted" in out


def test_an_executor_shows_its_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repr(FileJobExecutor()) == "FileJobExecutor()"
    assert repr(FileJobExecutor("x.sh")) == f"FileJobExecutor({str(tmp_path / 'x.sh')!r})"
    assert FileJobExecutor().qstat("t1.0") == {}
    assert FileJobExecutor().isconnected()
