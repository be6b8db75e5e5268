"""What local jobs find: their variables, the environment of their submitter; and how they go on by themselves."""

from __future__ import annotations

import json
import os
import sys

import pytest
from helpers import BATCH

import paraschut as psu

pytestmark = pytest.mark.process

PRINT = f"{sys.executable} -c 'import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], \"w\"))'"
COMPLETE = "import paraschut as psu; psu.get_job_info(SetID=True); psu.set_complete(Submit=True)"
VALUES = {
    "QUOTES": 'it\'s "so" `date` $HOME',
    "LINES_OF_TEXT": "one\ntwo\n\n three\t",
    "COMMAS": "a,b=c;d:e,",
    "OTHER_WORDS": "größe 数 \U0001f9ec é",
    "BACKSLASHES": "\\n \\\\ \\'",
    "EMPTY": "",
    "SPACES": "  two  ",
    "LONG": "x" * 100_000,
}


def read(path):
    """Return the environment that a job wrote down."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_variables_arrive_as_they_are(world):
    """Whatever a value holds."""
    world.add(f"{PRINT} found", vars=VALUES)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    found = read("found")
    assert {name: found.get(name) for name in VALUES} == VALUES


def test_a_job_has_the_environment_of_its_submitter_and_not_of_the_agent(world, monkeypatch):
    """The agent was started from a shell with other values: no job of another submitter sees them."""
    (world.home / "config.toml").write_text(
        '[paraschut]\njob_dir = "jobs"\nmax_workers = 1\nenvironment = ["PATH", "PYTHONPATH", "FOO", "BAR*"]\n',
        "utf-8",
    )
    world.add(f"{PRINT} first", f"{PRINT} second", priority=lambda index: 2 - index)
    world.add(f"{PRINT} third", batch=BATCH + 1)
    psu_submit = "import sys, paraschut as psu; psu.submit_one_batch(int(sys.argv[1]), Verbose=False)"
    theirs = {"FOO": "starter", "BARREL": "oak", "SECRET": "1"}
    assert world.python(psu_submit, BATCH, env=theirs).wait(60) == 0
    world.until_complete(BATCH)
    monkeypatch.setenv("FOO", "ours")
    psu.submit_jobs(Verbose=False)
    world.until_complete(BATCH + 1)
    # One process serves them all; it was told this environment before the other one.
    world.add(f"{PRINT} fourth", batch=BATCH + 2)
    assert world.python(psu_submit, BATCH + 2, env=theirs).wait(60) == 0
    world.until_complete(BATCH + 2)
    # The second group went by itself, in the environment of the first.
    for path in ("first", "second", "fourth"):
        found = read(path)
        assert (found["FOO"], found["BARREL"]) == ("starter", "oak")
        assert "SECRET" not in found
    found = read("third")
    assert found["FOO"] == "ours"
    assert not {"BARREL", "SECRET", "STORY"} & set(found)


def test_vars_win_over_the_environment(world):
    """A job's own value of a variable that submitters hand on."""
    world.add(f"{PRINT} found", vars={"LANG": "C", "PARASCHUT_BATCHID": "7"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert read("found")["LANG"] == "C"
    assert read("found")["PARASCHUT_BATCHID"] == str(BATCH)


def test_a_job_inherits_nothing_that_is_open(world):
    """Only its three streams; no signal that it ignores; a session of its own, where it was added."""
    world.add(
        "exec 9< /proc/self/fd; ls /proc/self/fd > fds; pwd > where; grep SigIgn /proc/self/status > ignored; ps -o pid=,sid= -p $$ > ids"
    )
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    home = world.home
    assert len((home / "fds").read_text("utf-8").split()) == 5  # the one that is listed, and 9
    assert (home / "where").read_text("utf-8") == f"{home}\n"
    ignored = int((home / "ignored").read_text("utf-8").split()[1], 16)
    assert not ignored & 0x7FFFFFFF
    pid, session = (home / "ids").read_text("utf-8").split()
    assert pid == session


def test_python_jobs_submit_the_next_group_themselves(world):
    """set_complete(Submit=True): three groups run although nobody calls anything."""
    run = f"{sys.executable} -c '{COMPLETE}'"
    world.add(
        *[world.says("$J", then=run)] * 6, priority=lambda index: 3 - index // 2, complete_on_exit=False
    )
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert [sorted(world.lines()[n : n + 2]) for n in (0, 2, 4)] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert len(world.attempts()) == 6


def test_shell_jobs_submit_the_next_group_themselves(world):
    """The same through the command line."""
    run = f"{sys.executable} -m paraschut job complete --submit"
    world.add(
        *[world.says("$J", then=run)] * 4, priority=lambda index: 2 - index // 2, complete_on_exit=False
    )
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert sorted(world.lines()[:2]) == ["0", "1"]
    assert sorted(world.lines()) == ["0", "1", "2", "3"]


def test_a_job_that_starts_the_agent_is_not_its_parent(world):
    """An agent that was started from inside a job lives on when the job ends, and knows nothing of it."""
    run = f"{sys.executable} -c '{COMPLETE}'"
    world.add(
        world.says("$J", then=f"until [ -e go ]; do sleep 0.05; done; {run}"),
        world.says("$J"),
        priority=lambda index: 2 - index,
        complete_on_exit=lambda index: index == 1,
    )
    script = world.home / "jobs.sh"
    psu.submit_one_job(BATCH, 0, psu.FileJobExecutor(script), Verbose=False)
    (world.home / "go").touch()
    world.change("UPDATE batch SET executor='local'")  # so that the job's own pass needs an agent
    assert world.python("import os, sys; os.execv('/bin/sh', ['sh', sys.argv[1]])", script).wait(60) == 0
    world.until_complete()
    with open(f"/proc/{world.agent()}/environ", "rb") as file:
        names = {line.split(b"=")[0] for line in file.read().split(b"\0")}
    assert not names & {b"PARASCHUT_JOBINDEX", b"PARASCHUT_CLUSTERID", b"PARASCHUT_TOKEN"}
    assert os.getsid(world.agent()) != os.getsid(0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "exit code 3"),
        ("kill -TERM $$", "signal 15 (SIGTERM)"),
        ("./nothing-of-that-name", "exit code 127"),
    ],
)
def test_a_shell_job_that_fails_is_missing_and_blocks(world, script, reason):
    """The reason is said, and the group below does not start; reset, it goes on by itself."""
    world.add(
        f"[ -e go ] || {script}", world.says("$J"), world.says("$J"), priority=lambda index: [2, 2, 1][index]
    )
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.failures() and world.count("complete") == 1)
    assert world.failures() == {0: reason}
    psu.submit_jobs(Verbose=False)
    assert world.states() == {0: "run", 1: "complete", 2: "init"}
    (world.home / "go").touch()
    psu.get_queue(Verbose=False, ResetMissing=True)
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert world.lines() == ["1", "2"]


def test_a_job_that_exits_without_a_word_is_missing(world):
    """Exit status 0 is not enough for a job that is to say complete itself."""
    world.add("true", complete_on_exit=False)
    psu.submit_jobs(Verbose=False)
    world.until(world.failures)
    assert world.failures() == {0: "exited 0 without saying complete"}


def test_a_script_that_cannot_be_run_says_why(world):
    """The log of errors has the words, the verdict the code that a shell would give."""
    (world.home / "script.py").write_text("#!/no/such/interpreter\n", "utf-8")
    (world.home / "script.py").chmod(0o700)
    gone = world.home / "gone"
    gone.mkdir()
    world.add("./script.py", "true", workdir=lambda index: str(world.home if index == 0 else gone))
    gone.rmdir()
    psu.submit_jobs(Verbose=False)
    world.until(lambda: len(world.failures()) == 2)
    assert world.failures() == {0: "exit code 127", 1: "exit code 127"}
    for index in (0, 1):
        with open(psu.get_job_info(BATCH, index)["stderr"][-1], encoding="utf-8") as file:
            assert "could not be started" in file.read()


def test_a_log_that_cannot_be_kept_does_not_change_how_the_job_ended(world):
    """Something else lies where the logs belong."""
    world.add("echo much; sleep 0.5", "echo much; exit 3", world.says("$J"))
    (world.home / "jobs" / str(BATCH)).write_text("in the way", "utf-8")
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.failures() and world.count("complete") == 2)
    assert world.failures() == {1: "exit code 3"}
