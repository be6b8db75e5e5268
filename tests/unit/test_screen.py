"""Colours are for terminals, and for those who want them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest
from verbs import add

import paraschut as psu


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(store, make_jobs, monkeypatch):
    """Return a function that looks at the queue on something."""
    add(store, make_jobs(2, state="complete"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def look(where):
        with redirect_stdout(where):
            psu.get_queue()
        return where.getvalue()

    return look


def test_a_terminal_has_colours(shown):
    assert "\x1b[32m" in shown(Terminal())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_one_that_wants_none_has_none(shown, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert "\x1b" not in shown(Terminal())


def test_a_file_has_none(shown):
    assert "\x1b" not in shown(io.StringIO())
