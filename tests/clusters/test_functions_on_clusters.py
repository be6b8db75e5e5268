"""Functions as jobs on real clusters: the same as on this machine."""

from __future__ import annotations

import math
import os
import re
import signal
import time

import pytest
from helpers import until
from stories import ROOT

import paraschut as psu

pytestmark = [pytest.mark.cluster, pytest.mark.process]


@pytest.fixture(params=["slurm", "sge"])
def site(make_site, request):
    return make_site(request.param)


def hello():
    time.sleep(1)  # a long task
    print("Hello, World!")
    return [42]


def test_the_example(site):
    job = psu.persist(hello, "hello", site.executor)
    assert job.status() in {"queued", "running"}
    assert job.fetch(timeout=120) == [42]
    assert (job.getstdout(), job.getstderr()) == ("Hello, World!\n", "")
    assert job.wait()
    job.cleanup()
    psu.persist(lambda: 4 * math.atan(1), "calcpi", site.executor)
    job = psu.readmgr("calcpi")
    assert job.jobinfo().startswith("'calcpi' (job ")
    assert job.fetch(timeout=120) == math.pi
    job.cleanup()


def test_the_page_about_functions(site):
    """Line by line, but for where it runs."""
    page = (ROOT / "docs" / "functions.md").read_text("utf-8")
    text = "".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    there = text.replace('where = "local"', f"where = {site.executor!r}")
    assert there != text
    with site.world.python(there) as session:
        assert session.wait(280) == 0


def test_failures_are_told_apart(site):
    def fail():
        raise KeyError("nowhere")

    jobs = {
        "raises": psu.persist(fail, "raises", site.executor),
        "aborts": psu.persist(os.abort, "aborts", site.executor),
        "cancelled": psu.persist(time.sleep, "cancelled", site.executor, args=(600,)),
    }
    until(lambda: jobs["cancelled"].status() == "running")
    assert jobs["cancelled"].cancel()
    with pytest.raises(KeyError, match="nowhere"):
        jobs["raises"].fetch(timeout=120)
    for name, reason in (("aborts", "signal 6 (SIGABRT)"), ("cancelled", "cancelled")):
        with pytest.raises(psu.JobFailed) as caught:
            jobs[name].fetch(timeout=120)
        assert caught.value.reason == reason


def test_a_map_and_its_reduction_survive_kill_9(site):
    text = (
        "import os, paraschut as psu, signal, sys, time\n"
        "def late(x):\n    time.sleep(0.5)\n    return x * x\n"
        "psu.persist_map(late, range(10), name='squares', chunk=3, reduce=sum, Executor=sys.argv[1])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with site.world.python(text, site.executor) as session:
        assert session.wait(120) == -signal.SIGKILL
    squares = psu.readmgr("squares")
    assert squares.fetch(timeout=180) == 285
    assert squares.results() == [x * x for x in range(10)]


def test_an_executor(site):
    with psu.BatchExecutor(site.executor) as executor:
        assert list(executor.map(pow, [2, 3], [5, 2], timeout=120)) == [32, 9]
