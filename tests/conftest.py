"""What the stories begin with: a home of their own, an index in it, and jobs to put there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from fakes import FakeCluster
from hypothesis import HealthCheck, settings
from stories import BATCH, ROOT, dump, jobs_of

from paraschut import desk
from paraschut.command import job_variables
from paraschut.process import host_name
from paraschut.store.store import Store

#: What breaks commands and paths that somebody forgot to quote.
WEIRD = "we ird'; $x"

# Who runs the tests in the background may have made them deaf to these, and all that they start with them.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# The machines that run these tests may be slow and busy; how long an example takes says nothing about the code.
settings.register_profile(
    "stories",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("stories")


@pytest.fixture(autouse=True)
def _no_settings_of_whoever_tests(tmp_path, monkeypatch):
    """Neither the variables of a job that we may be in, nor the settings of the user who runs the tests."""
    for name in [name for name in os.environ if name.startswith("PARASCHUT_")]:
        monkeypatch.delenv(name)
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data")):
        monkeypatch.setenv(name, str(tmp_path / "user" / folder))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a configuration and a name that must be quoted; it is the current one."""
    folder = tmp_path / WEIRD
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text('[paraschut]\njob_dir = "jobs"\n', "utf-8")
    monkeypatch.chdir(folder)
    # Jobs that run in processes of their own find the package as this one does, installed or not.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    yield folder
    desk._close_desks()
    desk._desks.clear()


@pytest.fixture
def configure(home):
    """Return a function that writes settings: ``configure(max_jobs=5)``."""

    def write(**given):
        lines = [
            f"{key} = {value if not isinstance(value, str) else chr(34) + value + chr(34)}"
            for key, value in given.items()
        ]
        (home / "config.toml").write_text("\n".join(["[paraschut]", 'job_dir = "jobs"', *lines, ""]), "utf-8")

    return write


@pytest.fixture
def index(home):
    """Return the path of an empty index, where the configuration of ``home`` says that it is."""
    path = home / "jobs" / "index.db"
    with Store(path, create=True):
        return str(path)


@pytest.fixture
def store(index):
    """Return the open index."""
    opened = Store(index)
    opened.rest()  # what is tried opens the index itself
    return opened


@pytest.fixture
def unchanged(index):
    """Return a block that must raise, and leave the index as it was: ``with unchanged(JobError, "words"):``."""

    @contextmanager
    def refused(error, match):
        before = dump(index)
        with pytest.raises(error, match=match) as caught:
            yield caught
        assert dump(index) == before

    return refused


@pytest.fixture
def make_jobs():
    """Return a function that gives job dicts, numbered from 0; nothing is added.

    ``make_jobs(3)``, ``make_jobs(3, batch=20260101000001, priority=0.5, script="sleep 1")``. A field that is a
    function is called with the JobIndex.
    """

    return lambda number=1, batch=BATCH, start=0, **fields: jobs_of(batch, number, start, **fields)


@pytest.fixture
def become(index, monkeypatch):
    """Return a function that makes this process the one that runs an attempt."""

    def be(key, token="t"):
        for name, value in job_variables(index, *key, token, 0, f"{token}.0").items():
            monkeypatch.setenv(name, value)

    return be


JOB = {"resources": {"mem": "1gb"}, "odd": (1, 2), "array": np.arange(3), "note": "old"}


@pytest.fixture
def in_job(store, make_jobs, become):
    """We are the first attempt of job 0 of two."""
    from verbs import add, claim

    add(store, make_jobs(2, **JOB))
    key = claim(store, "t", host=host_name())[0]
    become(key)
    return key


@pytest.fixture
def outside(store, make_jobs):
    """Two jobs that wait, and we are none of them."""
    from verbs import add

    add(store, make_jobs(2, **JOB))


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setenv("PARASCHUT_LOCK_TIMEOUT", "0.05")


@pytest.fixture
def python(home):
    """Return a function that runs Python text in a process of its own, in ``home``: ``python("print(1)").stdout``."""

    def run(text, *arguments, check=True, env=None, **options):
        done = subprocess.run(
            [sys.executable, "-c", text, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **(env or {})},
            **options,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def _fake(kind, tmp_path, monkeypatch):
    cluster = FakeCluster(kind, tmp_path / f"fake-{kind}" / WEIRD)
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.stop()


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Return a fake Slurm, whose commands are the first ones on PATH in this test."""
    yield from _fake("slurm", tmp_path, monkeypatch)


@pytest.fixture
def fake_sge(tmp_path, monkeypatch):
    """Return a fake Grid Engine, whose commands are the first ones on PATH in this test."""
    yield from _fake("sge", tmp_path, monkeypatch)


@pytest.fixture
def fake_pbs(tmp_path, monkeypatch):
    """Return a fake PBS, whose commands are the first ones on PATH in this test."""
    yield from _fake("pbs", tmp_path, monkeypatch)
