"""A bar appears for what takes long, on a terminal, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
from contextlib import redirect_stderr

import pytest
from stories import BATCH

import paraschut as psu
from paraschut import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Standard error is a terminal, and nobody waits for the bar."""
    monkeypatch.setattr(progress, "_DELAY", 0)
    return Terminal()


def test_adding_many_jobs_shows_a_bar(index, make_jobs, terminal):
    with redirect_stderr(terminal):
        psu.add_batch_to_queue(BATCH, make_jobs(2000, script="echo {JobIndex}"), build_script=True)
    told = terminal.getvalue()
    assert "adding" in told
    assert "2000" in told
    assert told.endswith("\r"), "it leaves nothing behind"


def test_adding_few_shows_none(index, make_jobs, terminal):
    with redirect_stderr(terminal):
        psu.add_batch_to_queue(BATCH, make_jobs(20))
    assert terminal.getvalue() == ""


def test_removing_many_batches_shows_a_bar(index, make_jobs, terminal):
    for number in range(12):
        psu.add_batch_to_queue(BATCH + number, make_jobs(1, batch=BATCH + number))
    with redirect_stderr(terminal):
        psu.remove_batch(range(BATCH, BATCH + 12))
    assert "removing" in terminal.getvalue()


def test_submitting_and_taking_back_many_jobs_show_bars(index, make_jobs, terminal, tmp_path):
    psu.add_batch_to_queue(BATCH, make_jobs(1000))
    with redirect_stderr(terminal):
        psu.submit_jobs(psu.FileJobExecutor(tmp_path / "later.sh"), MaxJobs=1000, Verbose=False)
        psu.set_batch_field(BATCH, {"n": 1})
        psu.remove_batch(BATCH)
    told = terminal.getvalue()
    for what in ("choosing", "submitting", "setting", "taking back", "deleting"):
        assert f"{what}:" in told
    assert told.endswith("\r")


def test_a_bar_that_stays_tells_how_it_ended(terminal):
    with redirect_stderr(terminal), progress.bar(2, "calls", stays=True) as more:
        more(2)
    assert "2/2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_submitting_shows_bars_of_what_is_chosen_and_of_what_is_handed_over(index, make_jobs, terminal):
    psu.add_batch_to_queue(BATCH, make_jobs(2100))
    with redirect_stderr(terminal):
        psu.submit_jobs(psu.FileJobExecutor(f"{index}.sh"), MaxJobs=2100, Verbose=False)
    assert {job["state"] for job in psu.get_queue(Verbose=False)[BATCH]} == {"submit"}
    told = terminal.getvalue()
    for words in ("choosing: ", "claiming: ", "taking: ", "submitting: "):
        assert words in told
    assert told.endswith("\r")


def test_removing_one_batch_of_many_jobs_shows_how_far_its_jobs_are(index, make_jobs, terminal):
    psu.add_batch_to_queue(BATCH, make_jobs(2000))
    with redirect_stderr(terminal):
        psu.remove_batch(BATCH)
    assert "setting: " in terminal.getvalue()


def test_a_terminal_that_reports_no_size_gets_one_too():
    """Such as that of expect, or of a container."""
    end, other = pty.openpty()
    with open(other, "w", encoding="utf-8") as terminal, redirect_stderr(terminal):
        list(progress.shown(range(3), "counting", many=1))
        with progress.bar(2, "calls", stays=True) as more:
            more(2)
        told = os.read(end, 4096)
    os.close(end)
    assert b"calls: 100%|" in told


def test_what_is_no_terminal_gets_none(index, make_jobs, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_DELAY", 0)
    psu.add_batch_to_queue(BATCH, make_jobs(2000))
    assert capsys.readouterr().err == ""
