"""The science of the demo, on a small part of the images, without an index or a job."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

from paraschut import demo
from paraschut.demo import figures, sweep
from paraschut.errors import JobError, ParaschutError


def job(index, mean, std=0.01, model="SVC", params=None):
    score = {"folds": [mean], "mean": mean, "std": std, "seconds": 0.5}
    return {"JobIndex": index, "model": model, "params": params or {"C": 1.0, "gamma": 0.1}, "score": score}


@pytest.fixture(scope="module")
def digits():
    return sweep.load()


@pytest.fixture(scope="module")
def few(digits):
    return sweep.Digits(digits.x_train[:300], digits.y_train[:300], digits.x_test[:100], digits.y_test[:100])


def test_every_image_is_in_exactly_one_part(digits):
    assert len(digits.x_train) + len(digits.x_test) == len(digits.y_train) + len(digits.y_test) == 1797
    assert digits.x_train.shape[1] == 64
    assert 0 <= digits.x_train.min() < digits.x_train.max() <= 1


def test_the_parts_are_the_same_in_every_process_and_hold_every_digit(digits):
    assert (sweep.load().y_test == digits.y_test).all()
    assert set(digits.y_test.tolist()) == set(range(10))


def test_the_grid_has_16_different_models_and_is_plain_json():
    grid = sweep.parameter_grid()
    assert len({sweep.label(**spec) for spec in grid}) == len(grid) == 16
    assert json.loads(json.dumps(grid)) == grid


def test_the_first_few_models_are_of_every_family():
    assert [spec["model"] for spec in sweep.parameter_grid(4)] == ["SVC", "k-NN", "forest", "logistic"]


@pytest.mark.parametrize("models", [0, -1, 17, 2.0, "3", True])
def test_a_number_of_models_that_there_is_not_is_an_error_that_says_what_is(models):
    with pytest.raises(JobError, match="from 1 to 16"):
        sweep.parameter_grid(models)


@pytest.mark.parametrize("spec", sweep.parameter_grid(4), ids=lambda spec: spec["model"])
def test_each_family_reads_most_digits_after_little_training(spec, few):
    score = sweep.evaluate(spec["model"], spec["params"], few.x_train, few.y_train)
    assert len(score["folds"]) == 5
    assert score["mean"] == pytest.approx(sum(score["folds"]) / 5)
    assert 0.6 < score["mean"] <= 1
    assert score["std"] > 0
    assert json.loads(json.dumps(score)) == score


def test_the_same_job_gives_the_same_score(few):
    once, again = (sweep.evaluate("forest", {"n_estimators": 5}, few.x_train, few.y_train) for _ in range(2))
    assert once["folds"] == again["folds"]


def test_an_unknown_family_is_an_error_that_names_the_known_ones(few):
    with pytest.raises(JobError, match=r"'perceptron'.*SVC, k-NN, forest or logistic"):
        sweep.evaluate("perceptron", {}, few.x_train, few.y_train)


def test_ranking_goes_by_mean_then_by_steadiness_then_by_index():
    rows = sweep.rank([job(3, 0.9), job(2, 0.95), job(1, 0.9), job(0, 0.9, std=0.001)])
    assert [row["JobIndex"] for row in rows] == [2, 0, 1, 3]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == {"rank", "JobIndex", "model", "params", "mean", "std", "seconds"}


def test_ranking_does_not_depend_on_the_order_of_the_jobs():
    jobs = [job(index, mean) for index, mean in enumerate((0.9, 0.8, 0.9, 0.7))]
    assert sweep.rank(jobs) == sweep.rank(reversed(jobs))


def test_ranking_names_the_jobs_without_a_score():
    with pytest.raises(JobError, match=r"jobs \[1, 4\] have no 'score'"):
        sweep.rank([job(0, 0.9), {**job(4, 0), "score": None}, {"JobIndex": 1, "model": "SVC", "params": {}}])


def test_ranking_nothing_is_an_error():
    with pytest.raises(JobError, match="no training jobs"):
        sweep.rank([])


def test_the_best_model_is_tested_on_the_test_part_only(few):
    tested = sweep.test_best("k-NN", {"n_neighbors": 1}, few)
    assert tested["images"] == sum(map(sum, tested["confusion"])) == 100
    assert tested["accuracy"] == pytest.approx(1 - tested["errors"] / 100)
    assert tested["low"] < tested["accuracy"] < tested["high"]
    assert json.loads(json.dumps(tested)) == tested


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],  # the last is Newcombe (1998)
)
def test_the_interval_of_a_proportion(successes, trials, low, high):
    assert sweep.wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_ranking_as_text_has_a_line_for_each_model():
    text = sweep.format_ranking(
        sweep.rank([job(0, 0.9), job(1, 0.95, model="k-NN", params={"n_neighbors": 3})])
    )
    assert text.index("k-NN n_neighbors=3") < text.index("SVC C=1 gamma=0.1")
    assert "0.9500" in text


def test_the_table_has_a_column_for_each_parameter_and_is_whole(tmp_path):
    path = tmp_path / "it's a {folder}" / "ranking.csv"
    figures.save_table(sweep.rank([job(0, 0.9), job(1, 0.95, model="k-NN", params={"n_neighbors": 3})]), path)
    with path.open(newline="") as file:
        best, second = csv.DictReader(file)
    assert (best["model"], best["n_neighbors"], best["C"], float(best["mean"])) == ("k-NN", "3", "", 0.95)
    assert (second["JobIndex"], second["C"], second["gamma"]) == ("0", "1.0", "0.1")
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_renamed_into_place_leaves_nothing_beside(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        figures.write_beside(tmp_path / "taken", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_figures_are_png_and_say_what_they_show(tmp_path, few):
    ranking = figures.ranking_figure(sweep.rank([job(0, 0.9), job(1, 1.0, std=0.0)]))
    tested = sweep.test_best("k-NN", {"n_neighbors": 1}, few)
    confusion = figures.confusion_figure(tested, "k-NN n_neighbors=1")
    for name, figure, word in (("r.png", ranking, "standard deviation"), ("c.png", confusion, "read as")):
        figures.save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert word in figure.axes[0].get_xlabel()


def test_importing_the_demo_loads_no_heavy_library():
    heavy = "numpy sklearn matplotlib tabulate"
    code = f"import sys, paraschut.demo; print([m for m in {heavy.split()} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def queue(*states, **fields):
    steps = ["train"] * (len(states) - 2) + ["rank", "refit"]
    spec = {"model": "k-NN", "params": {"n_neighbors": 3}}
    jobs = [
        {"JobIndex": i, "state": s, "step": step, **spec}
        for i, (s, step) in enumerate(zip(states, steps, strict=True))
    ]
    jobs[0].update(fields)
    return jobs


@pytest.mark.parametrize(
    ("states", "reached"),
    [
        (("submit", "run", "init", "init"), "train"),
        (("complete", "run", "init", "init"), "train, half done"),
        (("complete", "complete", "init", "init"), "rank"),
        (("collected", "collected", "complete", "run"), "refit"),
        (("collected", "collected", "complete", "complete"), "done"),
    ],
)
def test_how_far_the_batch_has_come(states, reached):
    assert demo._milestone(queue(*states)) == reached


def test_a_missing_job_ends_the_wait_with_its_name_and_its_reason():
    with pytest.raises(ParaschutError, match=r"job 0 \(k-NN n_neighbors=3\): exit code 1"):
        demo._check_jobs(7, queue("run", "run", "init", "init", failure="exit code 1"))


def test_a_job_that_somebody_took_off_the_queue_ends_the_wait():
    with pytest.raises(ParaschutError, match=r"job 0 .*taken off the queue"):
        demo._check_jobs(7, queue("held", "run", "init", "init"))


def test_a_batch_that_somebody_removed_ends_the_wait():
    with pytest.raises(ParaschutError, match="batch 7 was removed"):
        demo._check_jobs(7, [])


def test_a_job_that_failed_once_and_then_completed_is_no_reason_to_stop():
    demo._check_jobs(7, queue("complete", "run", "init", "init", failure="exit code 1"))


def test_a_library_that_is_lacking_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "sklearn" else name)
    with pytest.raises(ParaschutError, match=r"scikit-learn, which.*pip install scikit-learn matplotlib"):
        demo.prepare()
