"""The example notebook runs from top to bottom, and what is committed is what it gave."""

from __future__ import annotations

import json
import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from stories import ROOT

PATH = ROOT / "example.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    """Return all outputs as text."""
    return json.dumps([cell.outputs for cell in code_cells(notebook)])


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Return the name of a kernel that is the Python which runs the tests, without anybody's settings."""
    spec = tmp_path / "jupyter" / "kernels" / "of-the-tests" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "of the tests", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return spec.parent.name


@pytest.mark.notebook
def test_it_runs_from_top_to_bottom_in_an_empty_folder(notebook, kernel, playground):
    client = NotebookClient(
        notebook, timeout=600, kernel_name=kernel, resources={"metadata": {"path": str(playground)}}
    )
    client.execute()
    text = outputs_of(notebook)
    assert "complete: 18/18" in text
    assert "exit code 1: 1" in text
    assert "complete: 20/20" in text
    assert "copy 2 of 3:" in text
    assert "complete: 7/7" in text
    assert text.count("image/png") == 5
    assert "The queue is empty" in text


def test_what_is_committed_was_executed_in_order_without_an_error(notebook):
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [(output.output_type, output.get("name")) for cell in cells for output in cell.outputs]
    assert not [kind for kind in kinds if kind in {("error", None), ("stream", "stderr")}]


def test_what_is_committed_names_no_place_of_whoever_executed_it(notebook):
    shown = outputs_of(notebook).replace("/tmp/paraschut-example/", "")
    assert re.findall(r"/(?:home|root|Users|work|tmp|usr|opt|mnt)\b[^\"' ]*", shown) == []


def test_it_is_small():
    assert PATH.stat().st_size < 1_000_000
