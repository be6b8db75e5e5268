"""What ``get_queue(Verbose=False)`` returns: a dict like any other, that can be looked at."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
from stories import BATCH
from verbs import add, claim

import paraschut as psu
from paraschut.look.snapshot import Queue
from paraschut.process import host_name


@pytest.fixture
def queue(store, make_jobs):
    add(store, make_jobs(4, name=["yeast", "map"], size=lambda index: index / 2))
    add(store, make_jobs(2, batch=BATCH + 1, name="<b>late</b>", state="complete"))
    claim(store, "t", host=host_name())
    return psu.get_queue(Verbose=False)


def test_it_is_a_dict_of_lists_of_dicts(queue):
    assert isinstance(queue, dict)
    assert list(queue) == [BATCH, BATCH + 1]
    assert queue == {key: [dict(job) for job in group] for key, group in queue.items()}
    assert pickle.loads(pickle.dumps(queue)) == queue
    assert copy.deepcopy(queue) == queue
    assert {**queue}[BATCH + 1][0]["state"] == "complete"


def test_it_is_short_in_a_terminal_and_the_dashboard_in_a_notebook(queue):
    assert repr(queue) == "<Queue of 2 batches, 6 jobs: 4 submit, 2 complete>"
    shown = queue._repr_html_()
    assert "yeast/map" in shown
    assert "&lt;b&gt;late&lt;/b&gt;" in shown
    assert "complete: <b>2/6</b>" in shown
    del queue[BATCH]
    assert "yeast/map" not in queue._repr_html_(), "it shows what is in it"
    assert "is empty" in Queue()._repr_html_()


def test_a_state_of_the_users_changes_no_terminal():
    assert repr(Queue({1: [{"state": "\x1b[31mred\u202e"}]})) == "<Queue of 1 batch, 1 job: 1 red>"


def test_it_is_the_same_dashboard(store, queue):
    from paraschut.look.dashboard import summarise

    with store.writing() as (connection, _):
        connection.exec_driver_sql("UPDATE attempt SET started=submitted WHERE JobIndex < 2")
        connection.exec_driver_sql(
            "UPDATE job SET state='run', progress=0.5, progress_message='half' WHERE JobIndex = 0 AND state='submit'"
        )
        connection.exec_driver_sql("UPDATE job SET failure='vanished' WHERE JobIndex = 1 AND state='submit'")
    rows, totals = summarise(store, None, ())
    found, sums = psu.get_queue(Verbose=False).summary()

    def without_times(row):
        return (row.batch_id, row.name, sorted(row.states, key=str), row.missing, row.progress)

    assert list(map(without_times, found)) == list(map(without_times, rows))
    assert sums == totals
    assert found[0].elapsed is not None
    assert (found[0].left, found[1].elapsed) == (pytest.approx(rows[0].left, abs=60), None)


def test_what_is_complete_and_about_to_end_takes_no_more_time(store, queue):
    from paraschut.look.dashboard import summarise

    with store.writing() as (connection, _):
        connection.exec_driver_sql("UPDATE attempt SET started=submitted - 60")
        connection.exec_driver_sql("UPDATE attempt SET ended=submitted - 50 WHERE JobIndex > 0")
        connection.exec_driver_sql("UPDATE job SET state='complete'")
    (row, _), _ = summarise(store, None, ())
    assert row.left is None
    assert row.elapsed >= 60


def test_as_a_table(queue):
    pytest.importorskip("pandas")
    table = queue.to_pandas()
    assert list(table["state"]) == ["submit"] * 4 + ["complete"] * 2
    assert list(table["size"][:4]) == [0, 0.5, 1, 1.5]
    assert table["size"][4:].isna().all()


def test_without_pandas_it_says_what_to_install(queue, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(psu.ParaschutError, match="pip install pandas"):
        queue.to_pandas()


def test_a_job_is_short_too(queue, store):
    job = queue[BATCH][0]
    assert repr(job).startswith(f"<Job {BATCH}:0 yeast/map, submit, ")
    assert dict(job) == job
    job["failure"] = "out of memory"
    assert "out of memory" in repr(job)
    assert f"{BATCH}:0" in job._repr_html_()
    assert repr(psu.get_job_info(BATCH, 1)).startswith(f"<Job {BATCH}:1 ")


def test_before_there_is_an_index_it_is_empty(home):
    assert psu.get_queue(Verbose=False) == {}


def test_a_notebook_gets_html_and_text(queue, monkeypatch):
    """A stand-in of the notebook; the real one is in tests/browser."""
    import types

    shown = []
    module = types.SimpleNamespace(
        get_ipython=lambda: types.SimpleNamespace(kernel=object()),
    )
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(
        sys.modules,
        "IPython.display",
        types.SimpleNamespace(display=lambda data, raw: shown.append((data, raw))),
    )
    psu.get_queue()
    ((data, raw),) = shown
    assert raw
    assert "yeast/map" in data["text/plain"]
    assert data["text/html"].startswith('<div class="psu">')
