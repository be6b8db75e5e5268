"""What the demo leaves on disk: a table and two figures, each written beside and renamed into place."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paraschut.demo.sweep import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which readers with any colour vision can tell apart.
_COLOURS = {"SVC": "#0072B2", "k-NN": "#E69F00", "forest": "#009E73", "logistic": "#CC79A7"}
_DPI = 150


def ranking_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean accuracy of every model as a bar, best on top, with the spread of its folds."""
    from matplotlib.figure import Figure

    lowest = min(row["mean"] - row["std"] for row in rows)
    floor = max(0.0, math.floor(lowest * 50) / 50)
    figure = Figure(figsize=(8, 1.3 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.barh(
            place,
            row["mean"] - floor,
            left=floor,
            xerr=row["std"],
            color=_COLOURS[row["model"]],
            error_kw={"ecolor": "#333333", "capsize": 3, "lw": 1},
            height=0.7,
        )
        axes.annotate(
            f"{row['mean']:.3f}",
            (row["mean"] + row["std"], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [label(row["model"], row["params"]) for row in rows], fontsize=9)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    highest = max(row["mean"] + row["std"] for row in rows)
    axes.set_xlim(floor, highest + 0.12 * (highest - floor))
    axes.set_xlabel(f"accuracy: mean of the folds ± standard deviation (the axis starts at {floor:.2f})")
    axes.set_title("Which model reads handwritten digits best?")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_figure(tested: Mapping[str, Any], title: str) -> Figure:
    """Draw the confusion matrix of the best model on images that it had never seen."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    counts = tested["confusion"]
    most = max(map(max, counts))
    figure = Figure(figsize=(5.6, 5.8), layout="constrained")
    axes = figure.add_subplot()
    # On a linear scale a single wrong digit would look like none.
    axes.imshow([[n or math.nan for n in row] for row in counts], cmap="Blues", norm=LogNorm(0.5, 2 * most))
    for shown, row in enumerate(counts):
        for read, n in enumerate(row):
            if n:
                colour = "white" if n > most / 4 else "black"
                axes.text(read, shown, str(n), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.set_xlabel("read as")
    axes.set_ylabel("shows")
    axes.set_title(
        f"{title}\n{tested['errors']} of {tested['images']} unseen images misread: accuracy "
        f"{tested['accuracy']:.3f} (95 % interval {tested['low']:.3f} to {tested['high']:.3f})",
        fontsize=9,
    )
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PNG; whoever looks at ``path`` sees all of it or nothing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    # Agg needs no display, which compute nodes do not have.
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png", dpi=_DPI)
    write_beside(path, picture.getvalue())


def save_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Save the ranking as CSV, one column for each parameter that any of the models has."""
    names = sorted({name for row in rows for name in row["params"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "JobIndex", "model", *names, "mean", "std", "seconds"])
    for row in rows:
        values = [row["params"].get(name, "") for name in names]
        writer.writerow(
            [row["rank"], row["JobIndex"], row["model"], *values, row["mean"], row["std"], row["seconds"]]
        )
    write_beside(path, text.getvalue().encode())


def write_beside(path: Path, content: bytes) -> None:
    """Write a file whole: first under a name of its own in the same folder, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
