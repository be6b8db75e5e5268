"""The real schedulers, for the tests that are about them: running, or skipped with a sentence that says why."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import MARK, World
from machine import BARE, USER, Trouble
from sge import GridEngine
from sites import HOLD, Site, configure
from slurm import Slurm
from stories import ROOT

from paraschut import desk

#: Read here, because each test starts without any PARASCHUT_* variable.
REQUIRED = os.environ.get("PARASCHUT_TESTS_REQUIRE", "").split(",")
#: Whether the run that started this one holds the clusters for it.
HELD = bool(os.environ.get("PARASCHUT_TESTS_HELD"))
FOUND = {"slurm": Slurm(), "sge": GridEngine()}


def _skip(sentence):
    if "clusters" in REQUIRED:
        pytest.fail(f"{sentence}, and PARASCHUT_TESTS_REQUIRE=clusters wants it.")
    pytest.skip(f"{sentence}.")


def _why_not(cluster):
    if cluster.missing():
        return cluster.missing()
    if not cluster.pid(cluster.daemons[0]):
        return "make clusters starts it"
    if cluster.title == "Slurm":
        return "it does not answer; tests/clusters/slurm.py status says what of it runs"
    # The daemons of Grid Engine are in a network of their own, which only root enters.
    return f"it does not answer from here; tests/clusters/sge.py run --user {USER} COMMAND runs one beside Grid Engine"


def _given(name, monkeypatch):
    cluster = FOUND[name]
    lock = cluster.folder / "lock"
    if not lock.exists():
        _skip(f"{cluster.title} does not run ({_why_not(cluster)})")
    with lock.open() as held:
        # Another run of the tests may be on this machine, and stop what this test needs.
        if not HELD:
            fcntl.flock(held, fcntl.LOCK_EX)
        if not cluster.running():
            _skip(f"{cluster.title} does not run ({_why_not(cluster)})")
        for variable, value in cluster.environment().items():
            monkeypatch.setenv(variable, value)
        yield cluster
        # A test may have stopped or frozen some of it.
        if not os.getuid():
            for daemon in cluster.daemons:
                cluster.up(daemon)


@pytest.fixture
def slurm(monkeypatch):
    """Return the real Slurm, whose commands work in this test."""
    yield from _given("slurm", monkeypatch)


@pytest.fixture
def sge(monkeypatch):
    """Return the real Grid Engine, whose commands work in this test."""
    yield from _given("sge", monkeypatch)


def _another_slurm(number, **how):
    """Start a Slurm that only this run of the tests has, and stop it."""
    cluster = Slurm(
        f"/tmp/psu-slurm-{os.getpid()}-{number}", 20_000 + os.getpid() % 400 * 30 + 10 * number, **how
    )
    try:
        cluster.start()
    except Trouble as trouble:
        _skip(f"Slurm cannot be started here ({trouble})")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def _forgetful():
    yield from _another_slurm(1, extra="MinJobAge=2")


@pytest.fixture(scope="session")
def _accounting():
    yield from _another_slurm(2, accounting=True, extra="MinJobAge=2")


#: Jobs of the partition ``urgent`` take nodes from others, which have some time to end.
PREEMPTS = """PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=1:00:00 State=UP
"""


@pytest.fixture(scope="session")
def _preempting():
    yield from _another_slurm(3, extra=PREEMPTS)


@pytest.fixture
def preempting_slurm(_preempting, monkeypatch):
    """Return a Slurm of our own whose partition ``urgent`` takes nodes from jobs of the other ones."""
    monkeypatch.setenv("SLURM_CONF", _preempting.environment()["SLURM_CONF"])
    return _preempting


@pytest.fixture
def forgetful_slurm(_forgetful, monkeypatch):
    """Return a Slurm of our own that forgets a job within some ten seconds of its end, and has no accounting."""
    monkeypatch.setenv("SLURM_CONF", _forgetful.environment()["SLURM_CONF"])
    return _forgetful


@pytest.fixture
def accounting_slurm(_accounting, monkeypatch):
    """Return a Slurm of our own with slurmdbd, so that sacct knows what squeue has forgotten."""
    monkeypatch.setenv("SLURM_CONF", _accounting.environment()["SLURM_CONF"])
    return _accounting


@pytest.fixture(scope="session")
def _small():
    yield from _another_slurm(4, extra="MaxJobCount=12\nMinJobAge=2")


@pytest.fixture
def small_slurm(_small, monkeypatch):
    """Return a Slurm of our own that has room for a dozen jobs."""
    monkeypatch.setenv("SLURM_CONF", _small.environment()["SLURM_CONF"])
    return _small


@pytest.fixture
def users_python():
    """Return a Python that the ordinary user can run, and the PYTHONPATH with which it has this package."""
    if os.getuid():
        pytest.skip("only root can do something as another user.")
    root, packages = Path(__file__).parents[2], Path(pytest.__file__).parents[1]
    wanted = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for python, path in ((sys.executable, str(root)), ("/usr/bin/python3", f"{root}:{packages}")):
        argv = ["runuser", "--user", USER, "--", python, "-c", f"{wanted} or __import__('paraschut')"]
        if not subprocess.run(
            argv, env={**BARE, "PYTHONPATH": path}, cwd="/", capture_output=True, check=False
        ).returncode:
            return python, path
    _skip(
        f"no Python {sys.version_info[0]}.{sys.version_info[1]} that the user {USER} can run has this package"
    )
    return None


@pytest.fixture
def users_folder():
    """Return a folder that the ordinary user may write, and can reach; pytest's own are closed to others."""
    if os.getuid():
        pytest.skip("only root can do something as another user.")
    folder = tempfile.mkdtemp(prefix="psu-")
    shutil.chown(folder, USER, USER)
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


#: What a scheduler, a shell or SQLite may take for something else in a path.
ODD = "a b'c\"d; 100%25 %a #1 é"


@pytest.fixture
def odd_home(tmp_path, monkeypatch):
    """Return a folder with a name that must be quoted everywhere; it is the current one."""
    folder = tmp_path / ODD
    folder.mkdir(mode=0o700)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    return folder


@pytest.fixture
def world(odd_home, monkeypatch, request):
    """Return a world in which schedulers are asked often, and missing jobs soon found."""
    mark = f"{request.node.name} {odd_home}"
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("LINES", str(odd_home / "lines"))
    made = World(odd_home, mark)
    configure(made)
    yield made
    desk._close_desks()
    desk._desks.clear()
    made.end_all()


@pytest.fixture
def make_site(world, request):
    """Return a function that gives the site of a name, such as ``slurm``, ``fake sge``, ``small slurm`` or ``local``."""
    made = []

    def make(name):
        fake, _, kind = name.rpartition(" ")
        cluster = request.getfixturevalue(f"{fake}_{kind}" if fake else kind) if kind in HOLD else None
        made.append(Site(world, kind, cluster))
        return made[-1]

    yield make
    for site in made:
        site.end()


@pytest.fixture
def wrap(tmp_path, monkeypatch):
    """Return a function that puts a program before a scheduler's command on PATH, as long as its block lasts.

    ``wrap("sbatch", before="kill -KILL $PPID")`` is shell that runs before the command, ``after`` it, or ``instead``;
    ``$CALL`` is the number of the call, from 1. Its value is a function that says how often it was called.
    """
    folder = tmp_path / "wrapped"

    @contextmanager
    def wrapped(command, *, before=":", after=":", instead=""):
        real = shutil.which(command)
        folder.mkdir(exist_ok=True)
        calls = folder / f"{command}.calls"
        calls.write_text("")
        script = folder / command
        script.write_text(
            f'#!/bin/sh\necho call >> "{calls}"\nCALL=$(wc -l < "{calls}")\n{before}\n'
            + (instead or f'{shlex.quote(str(real))} "$@"\nCODE=$?\n{after}\nexit $CODE')
            + "\n"
        )
        script.chmod(0o755)
        with monkeypatch.context() as here:
            here.setenv("PATH", f"{folder}:{os.environ['PATH']}")
            yield lambda: len(calls.read_text().split())
        script.unlink()

    return wrapped
