"""The science of the demo: which model reads handwritten digits best? Knows nothing of jobs.

The images are split once. Models are compared by cross-validation on the training part alone, so that the
test part is still unseen when the winner meets it: its accuracy there is not flattered by having been chosen.
Every random choice has a fixed seed, and every estimator one thread: the same job gives the same score.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from paraschut.errors import JobError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 20240229
FOLDS = 5
TEST_PART = 0.25
_DARKEST = 16.0  # the images have 17 levels of grey, 0 to 16


class Digits(NamedTuple):
    """The images (one row of 64 pixels each, 0 to 1) and what they show, in two parts."""

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]


def load() -> Digits:
    """Read the 1,797 images that come with scikit-learn, and split them, each digit in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x / _DARKEST, y, test_size=TEST_PART, stratify=y, random_state=SEED
    )
    return Digits(x_train, y_train, x_test, y_test)


def parameter_grid(models: int | None = None) -> list[dict[str, Any]]:
    """List the models to compare, families in turn, so that the first few already have some of each.

    Parameters
    ----------
    models
        How many; by default all 16.

    Returns
    -------
    list of dict
        Each with ``model`` (the family) and ``params`` (what its estimator is given).

    Raises
    ------
    JobError
        If there are not that many.

    Examples
    --------
    >>> parameter_grid(1)
    [{'model': 'SVC', 'params': {'C': 1.0, 'gamma': 0.02}}]
    """
    families: dict[str, list[dict[str, Any]]] = {
        "SVC": [{"C": c, "gamma": gamma} for gamma in (0.02, 0.1, 0.5) for c in (1.0, 10.0)],
        "k-NN": [{"n_neighbors": k} for k in (1, 3, 5, 9)],
        "forest": [{"n_estimators": n} for n in (25, 75, 150)],
        "logistic": [{"C": c} for c in (0.01, 0.1, 1.0)],
    }
    longest = max(map(len, families.values()))
    grid = [
        {"model": family, "params": sets[turn]}
        for turn in range(longest)
        for family, sets in families.items()
        if turn < len(sets)
    ]
    if models is None:
        return grid
    if isinstance(models, bool) or not isinstance(models, int) or not 1 <= models <= len(grid):
        raise JobError(
            f"The demo cannot compare {models!r} models: give a whole number from 1 to {len(grid)}, "
            "or nothing for all of them."
        )
    return grid[:models]


def label(model: str, params: Mapping[str, Any]) -> str:
    """Name a model in one line, for tables and figures.

    Examples
    --------
    >>> label("SVC", {"C": 10.0, "gamma": 0.1})
    'SVC C=10 gamma=0.1'
    """
    return " ".join([model, *(f"{key}={value:g}" for key, value in params.items())])


def build(model: str, params: Mapping[str, Any]) -> Any:
    """Make the estimator, not yet fitted."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if model == "SVC":
        return SVC(kernel="rbf", **params)
    if model == "k-NN":
        return KNeighborsClassifier(n_jobs=1, **params)
    if model == "forest":
        return RandomForestClassifier(n_jobs=1, random_state=SEED, **params)
    if model == "logistic":
        return LogisticRegression(max_iter=2000, **params)
    raise JobError(
        f"The demo has no model called {model!r}: set 'model' to SVC, k-NN, forest or logistic, then reset the job."
    )


def evaluate(model: str, params: Mapping[str, Any], x: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
    """Cross-validate one model; every model meets the same five folds.

    Returns
    -------
    dict
        ``folds`` (the accuracy of each), their ``mean`` and sample standard deviation ``std``, and how many
        ``seconds`` it took; plain numbers only, so that the index keeps them as JSON and Filter can see them.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    began = time.perf_counter()
    splitter = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)
    scores = cross_val_score(build(model, params), x, y, cv=splitter, scoring="accuracy", n_jobs=1)
    folds = [float(score) for score in scores]
    return {
        "folds": folds,
        "mean": statistics.fmean(folds),
        "std": statistics.stdev(folds),
        "seconds": round(time.perf_counter() - began, 3),
    }


def rank(jobs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the trained models in order, best first.

    Equal means are settled by the steadier folds, then by the smaller JobIndex, so that the order never
    depends on which job ended first.

    Parameters
    ----------
    jobs
        The dicts of the training jobs: ``JobIndex``, ``model``, ``params`` and ``score``.

    Returns
    -------
    list of dict
        One row a model: ``rank`` (from 1), ``JobIndex``, ``model``, ``params``, ``mean``, ``std``, ``seconds``.

    Raises
    ------
    JobError
        If there are no jobs, or one of them has no score.
    """
    found = list(jobs)
    unscored = sorted(job["JobIndex"] for job in found if not job.get("score"))
    if not found or unscored:
        which = f"jobs {unscored} have no 'score'" if unscored else "the batch has no training jobs"
        raise JobError(f"The models cannot be ranked: {which}. Set their state to 'init' and submit again.")
    found.sort(key=lambda job: (-job["score"]["mean"], job["score"]["std"], job["JobIndex"]))
    return [
        {
            "rank": place,
            "JobIndex": job["JobIndex"],
            "model": job["model"],
            "params": dict(job["params"]),
            **{key: job["score"][key] for key in ("mean", "std", "seconds")},
        }
        for place, job in enumerate(found, start=1)
    ]


def test_best(model: str, params: Mapping[str, Any], digits: Digits) -> dict[str, Any]:
    """Fit one model on the whole training part, and read the test part with it.

    Returns
    -------
    dict
        ``accuracy`` with its 95 % interval ``low`` and ``high``, ``errors`` out of ``images``, and the
        ``confusion`` matrix (rows: what the image shows; columns: what was read).
    """
    from sklearn.metrics import confusion_matrix

    fitted = build(model, params).fit(digits.x_train, digits.y_train)
    confusion = confusion_matrix(digits.y_test, fitted.predict(digits.x_test), labels=range(10)).tolist()
    images = sum(map(sum, confusion))
    right = sum(confusion[digit][digit] for digit in range(10))
    low, high = wilson(right, images)
    return {
        "accuracy": right / images,
        "low": low,
        "high": high,
        "errors": images - right,
        "images": images,
        "confusion": confusion,
    }


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the Wilson interval of a proportion, which stays honest close to 1, where digits live."""
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def format_ranking(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the ranking as text."""
    from tabulate import tabulate

    return tabulate(
        [
            (row["rank"], label(row["model"], row["params"]), row["mean"], row["std"], row["JobIndex"])
            for row in rows
        ],
        headers=("rank", "model", "mean accuracy", "std of folds", "JobIndex"),
        floatfmt=("d", "", ".4f", ".4f", "d"),
    )
