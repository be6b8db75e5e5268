"""Somebody who types commands, at a terminal, in a script, or in a job."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from cli_world import BATCH

from paraschut import __main__ as program
from paraschut.prepare import add_job_to_queue


class Keyboard(io.StringIO):
    """Somebody at a terminal, who has typed an answer already."""

    def isatty(self):
        return True


@pytest.fixture
def call(home, capfdbinary, monkeypatch):
    """Return a function that runs a command as the program does: ``call("queue", "--json").out``."""

    def run(*words, answer=None):
        monkeypatch.setattr(sys, "argv", ["paraschut", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if answer is None else Keyboard(answer))
        with pytest.raises(SystemExit) as left:
            program.main()
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(status=left.value.code, out=out.decode(), err=err.decode())

    return run


@pytest.fixture
def done(call):
    """Return a function that runs a command that must work, and returns what it printed."""

    def run(*words, **options):
        told = call(*words, **options)
        assert (told.status, told.err if "answer" not in options else "") == (0, ""), told
        return told.out

    return run


@pytest.fixture
def batch(configure, make_jobs):
    """A batch of four jobs, of which the last waits for the others; nothing here starts a process."""
    configure(executor="file")
    add_job_to_queue(make_jobs(3, name="lung/map", n=lambda index: index * 10))
    add_job_to_queue(make_jobs(1, start=3, name="lung/map", n=30, priority=0.5))
    return BATCH


@pytest.fixture
def inside(batch, done, home, monkeypatch):
    """Return a function that makes this process a job of the batch, by its index; an attempt of it was submitted."""
    done("submit")

    def become(index):
        for name, value in {
            "INDEX": home / "jobs" / "index.db", "BATCHID": batch, "JOBINDEX": index, "ATTEMPT": 1,
        }.items():  # fmt: skip
            monkeypatch.setenv(f"PARASCHUT_{name}", str(value))

    return become
