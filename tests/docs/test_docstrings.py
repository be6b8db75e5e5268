"""The examples in docstrings do what they show, and whatever is public has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import paraschut as psu

FINDER = doctest.DocTestFinder(exclude_empty=True)


def modules():
    """Return the names of all modules of the package."""
    return ["paraschut", *(found.name for found in pkgutil.walk_packages(psu.__path__, "paraschut."))]


def examples():
    """Return every docstring that has examples which run."""
    found = (test for name in modules() for test in FINDER.find(importlib.import_module(name), name))
    return [test for test in found if any(not one.options.get(doctest.SKIP) for one in test.examples)]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_an_example_shows_what_happens(test, home):
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append, clear_globs=False)
    assert said == []


def public():
    """Return the public functions and executors, by name."""
    things = ((name, getattr(psu, name)) for name in psu.__all__)
    return {
        name: thing
        for name, thing in things
        if callable(thing) and not (inspect.isclass(thing) and issubclass(thing, Exception))
    }


def told(name):
    """Return a docstring, with those of the public functions that it refers to."""
    text = inspect.getdoc(public()[name]) or ""
    return "\n".join(
        [text, *(inspect.getdoc(public()[one]) for one in re.findall(r"``(\w+)``", text) if one in public())]
    )


@pytest.mark.parametrize("name", sorted(public()))
def test_whatever_is_public_is_explained_and_has_an_example(name):
    text = inspect.getdoc(public()[name])
    assert text
    assert ">>> " in text
    assert text.splitlines()[0].endswith((".", ":"))
    words = set(re.findall(r"\w+", told(name)))
    assert [one for one in inspect.signature(public()[name]).parameters if one not in words] == []
