"""The report: what it says, that it is one whole file, and that a large queue makes no large report."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser

import pytest
from stories import BATCH
from verbs import add

import paraschut as psu
from paraschut.look.runs import Run, busy_share, causes, hungriest, lanes, slowest
from paraschut.process import host_name

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
EVIL = "<script>alert(1)</script> $x_1$ {braces}"
GIB = 1 << 30


def ran(index, started=0.0, took=10.0, **more):
    one = Run(
        BATCH, index, 1, "node", started, started, started + took, None, GIB, took / 2, 2, 2 * GIB, 60.0
    )
    return one._replace(**more)


# -- what is said of runs


def test_runs_side_by_side_get_lanes_of_their_own():
    runs = [ran(0), ran(1, 5.0), ran(2, 10.0), ran(3, 12.0, ended=None)]
    assert [(run.job_index, lane) for run, lane in lanes(runs, now=20.0)] == [(0, 0), (1, 1), (2, 0), (3, 2)]


def test_no_two_runs_overlap_in_a_lane():
    chance = random.Random(1)
    runs = [ran(n, chance.uniform(0, 100), chance.uniform(0, 20)) for n in range(300)]
    ends = {}
    for run, lane in lanes(runs, now=0):
        assert ends.get(lane, 0) <= run.started
        ends[lane] = run.ended


def test_how_many_ran_adds_up_to_the_time_they_took():
    chance = random.Random(2)
    runs = [ran(n, chance.uniform(0, 80), chance.choice([0.1, 5, 20])) for n in range(100)]
    edges = [number * 2.5 for number in range(41)]
    shares = busy_share(runs, edges, now=0)
    assert sum(shares) * 2.5 == pytest.approx(sum(run.seconds(0) for run in runs))
    assert min(shares) >= 0


def test_extremes_and_causes():
    runs = [ran(0), ran(1, took=99), ran(2, max_rss=3 * GIB, reason="out of memory"), ran(3, max_rss=None)]
    assert slowest(runs, 1, 0)[0].job_index == 1
    assert hungriest(runs, 2)[0].job_index == 2
    assert [(reason, len(group)) for reason, group in causes(runs)] == [("out of memory", 1)]


# -- the file


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert value.startswith("#"), "nothing is loaded"

    def handle_data(self, data):
        self.text += data


def fill(store, count, batch=BATCH):
    """Give jobs attempts that ended, as they are after a day on some nodes."""
    chance = random.Random(3)
    rows = []
    for index in range(count):
        started = 1e9 + chance.uniform(0, 3e4)
        failed = index % 50 == 7
        took = chance.lognormvariate(4, 0.7)
        rows.append(
            (
                *(
                    batch,
                    index,
                    1,
                    "t",
                    index,
                    f"node{index % 40}",
                    json.dumps({"cpus": 2, "mem": 4 * GIB, "walltime": 3600}),
                ),
                *(1e9, started, started + took, "out of memory" if failed else None),
                *(int(chance.uniform(0.2, 3) * GIB), took),
            )
        )
    with store.writing() as (connection, _):
        raw = connection.connection.cursor()
        raw.execute(
            "INSERT INTO submission (token, executor, host, pid, boot_id, start_ticks, claimed, recorded, settled)"
            " VALUES ('t', 'slurm', ?, 1, '', 1, 1, 1, 1)",
            (host_name(),),
        )
        raw.executemany(
            'INSERT INTO attempt ("BatchID", "JobIndex", n, token, task, host, asked, submitted, started, ended, reason, max_rss, cpu)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


@pytest.fixture
def hundred(store, make_jobs):
    add(store, make_jobs(100, name=EVIL, state="complete"))
    fill(store, 100)
    return store


def test_a_report_says_what_ran(hundred, tmp_path):
    path = psu.report(BATCH, tmp_path / "report.html")
    assert list(tmp_path.glob(".report*")) == [], "nothing is left beside it"
    page = Page(path.read_text("utf-8"))
    for words in (
        *("100 of 100 jobs complete", "<script>alert(1)</script> $x_1$ {braces}", "100 attempts", "2 failed"),
        *(
            "When what ran, by host",
            "node0",
            "10 more",
            "How long they took",
            "Throughput:",
            "of what was asked for",
        ),
        *("out of memory", f"{BATCH}:7, 57", "The slowest", "The hungriest"),
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags


def test_the_same_report_twice_is_the_same(hundred, tmp_path):
    def text():
        return re.sub(r"[0-9:-]+ UTC", "", psu.report(path=tmp_path / "a.html").read_text("utf-8"))

    assert text() == text()


def test_a_batch_that_has_not_begun_has_a_report_too(store, make_jobs, tmp_path):
    add(store, make_jobs(2))
    assert "nothing has started yet" in psu.report(path=tmp_path / "r.html").read_text("utf-8")


def test_what_runs_and_what_is_not_known(store, make_jobs, tmp_path):
    add(store, make_jobs(1, state="run"))
    fill(store, 1)
    with store.writing() as (connection, _):
        connection.exec_driver_sql(
            "UPDATE attempt SET ended=NULL, max_rss=NULL, cpu=NULL, host=NULL, asked=NULL"
        )
    assert "nothing has ended yet" in psu.report(path=tmp_path / "r.html").read_text("utf-8")


def test_nothing_to_report_is_said(index, tmp_path):
    with pytest.raises(psu.ParaschutError, match="nothing to report"):
        psu.report(path=tmp_path / "r.html")
    assert list(tmp_path.glob("*.html")) == []


def test_a_hundred_thousand_jobs_make_a_small_report(store, make_jobs, tmp_path):
    add(store, make_jobs(100_000, state="complete"))
    fill(store, 100_000)
    path = psu.report(path=tmp_path / "large.html")
    assert path.stat().st_size < 5_000_000
    assert "How many ran, by host" in path.read_text("utf-8")


def test_figures_for_notebooks(hundred):
    from matplotlib import pyplot as plt

    axes = psu.plot_timeline(BATCH)
    assert axes.get_title().startswith("When what ran")
    assert psu.plot_timeline(BATCH, "JobIndex < 3", axes) is axes
    assert psu.plot_resources(BATCH).get_xlabel() == "asked for (GiB)"
    assert psu.plot_resources(BATCH, What="time").get_ylabel().startswith("used (")
    with pytest.raises(psu.JobError, match="'mem' or 'time'"):
        psu.plot_resources(What="size")
    with pytest.raises(psu.FilterError):
        psu.plot_timeline(BATCH, "n >> 3")
    plt.close("all")


def test_from_the_command_line(hundred, home, python):
    program = "import sys; sys.argv = ['paraschut', 'report', 'last', '-o', 'r.html']; from paraschut.__main__ import main; main()"
    assert python(program, check=False).stdout == "Wrote r.html\n"
    assert (home / "r.html").is_file()


def test_hosts_are_in_the_order_that_people_expect():
    from paraschut.look.runs import by_host

    runs = [ran(0, host=name) for name in ("node10", "node9", "", "gpu2", "node1")]
    assert list(by_host(runs)) == ["", "gpu2", "node1", "node9", "node10"]
