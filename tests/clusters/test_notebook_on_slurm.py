"""The notebook's section on jobs that share their work, with its very scripts, on the real Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from sites import configure
from stories import ROOT

import paraschut as psu

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def cell(name):
    """Return the source of a cell of the notebook."""
    notebook = nbformat.read(ROOT / "example.ipynb", as_version=4)
    (found,) = (one.source for one in notebook.cells if one.id == name)
    return found


def test_map_jobs_spawn_on_real_data_and_a_reduction_follows(make_site, monkeypatch):
    """Six jobs that each become three, the images of digits, and the pair of images that is the closest."""
    site = make_site("slurm")
    configure(site.world, executor='"slurm"')
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("cell-49b", "cell-49c"):
        first, _, text = cell(name).partition("\n")
        Path(first.removeprefix("%%writefile ")).write_text(text, "utf-8")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, _, y_train, _ = train_test_split(x / 16, y, test_size=0.25, stratify=y, random_state=0)
    template = {**psu.get_job_template(SetID=True), "JobIndex": 0, "queue": "", "resources": {}}
    psu.generate_data(template, {"train": (x_train, y_train)})
    # The cell itself, but for what is there to be looked at.
    source = (
        cell("cell-49d").replace("psu.get_job_template(SetID=True)", "{**template}").partition("psu.watch")[0]
    )
    known = {"psu": psu, "template": template}
    exec(source, known)
    batch = known["twins"]
    site.until_complete(batch, 180)
    closest = psu.get_job_info(batch, 6)["closest"]
    assert len(closest) == 6
    assert closest == sorted(closest)
    for distance, first, second, *digits in closest:
        assert [y_train[int(first)], y_train[int(second)]] == digits
        assert abs(((x_train[int(first)] - x_train[int(second)]) ** 2).sum() ** 0.5 - distance) < 1e-9
    for index in range(6):
        assert [one["state"] for one in psu.spawn_get_info(batch, index)] == ["complete"] * 3
    arrays = site.world.query("SELECT cluster_id FROM submission WHERE cluster_id LIKE '%#%'")
    assert len(arrays) == 7  # the map jobs, and the helpers of each
    site.until_rests()
