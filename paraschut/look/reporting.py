"""A report to look at: one HTML file about what ran, and its figures for notebooks."""

from __future__ import annotations

import html
import io
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paraschut.checks import numbers_of
from paraschut.config import load_config
from paraschut.errors import JobError, ParaschutError
from paraschut.look.dashboard import bring_up_to_date, condition_of, summarise
from paraschut.look.figures import draw_resources, draw_throughput, draw_timeline, draw_times
from paraschut.look.render_html import escaped, queue_html, table_html
from paraschut.look.runs import Run, causes, hungriest, slowest
from paraschut.look.summary import BatchRow, Totals, format_spans, spans_of
from paraschut.look.texts import duration
from paraschut.resources import format_size
from paraschut.store import views
from paraschut.store.store import Store

_MOST_ROWS = 10
_MOST_CAUSES = 30
_LONGEST_LIST = 300
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{margin:24px auto;max-width:1080px;padding:0 12px;background:#fff;color:#1f2328;font:14px/1.5 system-ui,sans-serif}}
h1{{font-size:20px}}figure{{margin:18px 0}}figure svg{{max-width:100%;height:auto}}
.pair{{display:flex;flex-wrap:wrap;gap:12px}}.pair figure{{flex:1 1 420px;margin:0}}
.psu{{--psu-card:#fff;margin:12px 0}}</style></head>
<body data-jp-theme-light="true"><h1>{title}</h1><p>{words}</p>{parts}</body></html>
"""


def report(
    BatchID: int | Sequence[int] | None = None,
    path: str | os.PathLike[str] = "paraschut-report.html",
    Filter: str = "",
) -> Path:
    """Write one self-contained HTML file about what ran: when, where, for how long, with what, and what went wrong.

    It has a timeline of the attempts by host, how long they took, what they asked for against what they used, how many
    ended when, failures by their cause, and the slowest and hungriest jobs. It opens from disk and loads nothing.

    Parameters
    ----------
    BatchID : int | Sequence[int] | None
        The batches; None: all.
    path : str | os.PathLike[str]
        The file; one that is there is replaced.
    Filter : str
        Only jobs that meet a condition, as for ``get_queue``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParaschutError
        If matplotlib is not installed, or there is nothing to report.

    Examples
    --------
    >>> report(20260101000000, "yeast.html")  # doctest: +SKIP
    PosixPath('yeast.html')
    """
    _need_matplotlib()
    rows, totals, runs, now = _gathered(BatchID, Filter)
    if not rows:
        raise ParaschutError(
            "There is nothing to report: no such job is in the index. get_queue() shows what there is."
        )
    text = _page(rows, totals, runs, now)
    target = Path(path)
    # Written beside and renamed: who has it open never sees half of it.
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(target)
    return target


def plot_timeline(
    BatchID: int | Sequence[int] | None = None, Filter: str = "", Axes: Any | None = None
) -> Any:
    """Draw when what ran on which host.

    Parameters
    ----------
    BatchID : int | Sequence[int] | None
        The batches; None: all.
    Filter : str
        Only jobs that meet a condition, as for ``get_queue``.
    Axes : matplotlib.axes.Axes | None
        Where to draw; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn on.

    Raises
    ------
    ParaschutError
        If matplotlib is not installed.

    Examples
    --------
    >>> plot_timeline(20260101000000).figure.savefig("timeline.png")  # doctest: +SKIP
    """
    axes = _axes(Axes, (9, 4))
    _, _, runs, now = _gathered(BatchID, Filter)
    draw_timeline(axes, runs, now)
    return axes


def plot_resources(
    BatchID: int | Sequence[int] | None = None, Filter: str = "", What: str = "mem", Axes: Any | None = None
) -> Any:
    """Draw what jobs used against what they asked for.

    Parameters
    ----------
    BatchID : int | Sequence[int] | None
        The batches; None: all.
    Filter : str
        Only jobs that meet a condition, as for ``get_queue``.
    What : str
        ``'mem'``: memory; ``'time'``: run time against walltime.
    Axes : matplotlib.axes.Axes | None
        Where to draw; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn on.

    Raises
    ------
    ParaschutError
        If matplotlib is not installed, or ``What`` is neither.

    Examples
    --------
    >>> plot_resources(20260101000000, What="time")  # doctest: +SKIP
    """
    if What not in {"mem", "time"}:
        raise JobError(f"What is {What!r}; it must be 'mem' or 'time'.")
    axes = _axes(Axes, (5, 5))
    _, _, runs, _ = _gathered(BatchID, Filter)
    draw_resources(axes, runs, What)
    return axes


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401, ICN001 - only whether it is there
    except ImportError as error:
        raise ParaschutError(
            "Figures need matplotlib, which is not installed here: pip install matplotlib"
        ) from error


def _axes(given: Any | None, size: tuple[float, float]) -> Any:
    if given is not None:
        return given
    _need_matplotlib()
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _gathered(
    batches: int | Sequence[int] | None, text: str
) -> tuple[Sequence[BatchRow], Totals, list[Run], float]:
    chosen = None if batches is None else list(numbers_of(batches))
    if chosen is not None:
        only = f"BatchID IN ({', '.join(map(str, chosen))})"
        if text.strip():
            condition_of(text)  # so that a mistake is shown in the user's own words
            only = f"({text}\n) AND {only}"
        text = only
    config = load_config()
    now = time.time()
    if not os.path.exists(config.index):
        return (), Totals(0, 0, 0, 0, 0), [], now
    condition = condition_of(text)
    with Store.of(config) as store:
        notes = bring_up_to_date(store, config, None)
        rows, totals = summarise(store, condition, notes)
        with store.reading() as connection:
            runs = views.runs(connection, condition)
    return rows, totals, runs, now


# The page


def _page(rows: Sequence[BatchRow], totals: Totals, runs: list[Run], now: float) -> str:
    names = ", ".join(dict.fromkeys(row.name for row in rows if row.name)) or "no name"
    title = f"{escaped(names)}: {totals.complete:,} of {totals.jobs:,} jobs complete"
    failed = sum(1 for run in runs if run.reason)
    spent = sum(run.seconds(now) for run in runs)
    cpu = sum(run.cpu or 0.0 for run in runs)
    words = (
        f"{len(runs):,} attempts, of which {failed:,} failed; {duration(spent)} of running, "
        f"{duration(cpu)} of processors. {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC."
    )
    height = min(2 + 0.25 * len({run.host for run in runs}) + 0.02 * min(len(runs), 150), 12)
    parts = [
        queue_html(rows, totals, now=now),
        _figure(lambda axes: draw_timeline(axes, runs, now), (10.5, height)),
        _pair(lambda axes: draw_times(axes, runs), lambda axes: draw_throughput(axes, runs)),
        _pair(
            lambda axes: draw_resources(axes, runs, "mem"), lambda axes: draw_resources(axes, runs, "time")
        ),
        table_html("Failed attempts, by cause", [("", list(_cause_rows(runs)), "none")]),
        table_html("The slowest", [("", list(_run_rows(slowest(runs, _MOST_ROWS, now), now)), "none yet")]),
        table_html("The hungriest", [("", list(_run_rows(hungriest(runs, _MOST_ROWS), now)), "not known")]),
    ]
    return _PAGE.format(title=title, words=html.escape(words), parts="".join(parts))


def _pair(*draws: Callable[[Any], None]) -> str:
    return f'<div class="pair">{"".join(_figure(draw, (5.2, 3.6)) for draw in draws)}</div>'


def _figure(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same report twice is the same text: no date, no random names.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "paraschut", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>"


def _cause_rows(runs: Iterable[Run]) -> Iterable[Mapping[str, object]]:
    for reason, group in causes(runs)[:_MOST_CAUSES]:
        by_batch: dict[int, list[int]] = {}
        for run in group:
            by_batch.setdefault(run.batch_id, []).append(run.job_index)
        where = "; ".join(
            f"{batch}:{format_spans(spans_of(found))}" for batch, found in sorted(by_batch.items())
        )
        cut = where if len(where) <= _LONGEST_LIST else f"{where[:_LONGEST_LIST]} …"
        yield {"cause": reason, "attempts": len(group), "jobs": cut}


def _run_rows(runs: Iterable[Run], now: float) -> Iterable[Mapping[str, object]]:
    for run in runs:
        took = run.seconds(now)
        cpus = run.cpus or 1
        yield {
            "job": run.label,
            "host": run.host,
            "time": duration(took),
            "asked": None if run.walltime is None else duration(run.walltime),
            "memory": None if run.max_rss is None else format_size(run.max_rss),
            "asked ": None if run.mem is None else format_size(run.mem),
            "processors": None if run.cpu is None or not took else f"{run.cpu / took / cpus:.0%} of {cpus}",
            "ended": "runs" if run.ended is None else run.reason or "well",
        }
