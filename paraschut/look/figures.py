"""Runs as figures of matplotlib. No store, no clock; the figures are made by the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paraschut.look.runs import Run, busy_share, by_host, lanes
from paraschut.look.texts import clean

#: As in the dashboard.
GOOD, BAD, NOW = "#2f8f4e", "#d1242f", "#0b6bd3"
#: Up to so many runs, each is a bar or a point of its own.
_MANY = 2000
_STEPS = 400
_MOST_HOSTS = 30
_LONGEST_NAME = 24
_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit in which a time span is a number of two digits or so: its seconds and its name."""
    return next((unit for unit in _UNITS if seconds >= 2 * unit[0]), _UNITS[-1])


def draw_timeline(axes: Any, runs: Sequence[Run], now: float) -> None:
    """Draw when what ran on which host: a bar for each run, or how many there were where there are thousands."""
    if not runs:
        _nothing(axes, "nothing has started yet")
        return
    begin = min(run.started for run in runs)
    end = max(run.started + run.seconds(now) for run in runs)
    size, unit = unit_of(end - begin)
    hosts = by_host(runs)
    names = set(sorted(hosts, key=lambda name: (-len(hosts[name]), name))[:_MOST_HOSTS])
    ticks, labels, height = [], [], 0.0
    for name in hosts:
        if name not in names:
            continue
        if len(runs) <= _MANY:
            used = _bars(axes, hosts[name], height, begin, size, now)
        else:
            used = _area(axes, hosts[name], height, begin, end, size, now)
        ticks.append(height + used / 2)
        labels.append(clean(name)[:_LONGEST_NAME] or "?")
        height += used + 0.8
    axes.set_yticks(ticks)
    axes.set_yticklabels(labels, parse_math=False)
    axes.set_xlim(0, max(end - begin, 1e-9) / size)
    axes.set_ylim(height - 0.6, -0.4)
    axes.set_xlabel(f"{unit} since the first start")
    left = len(hosts) - len(names)
    title = "When what ran, by host" if len(runs) <= _MANY else "How many ran, by host"
    axes.set_title(title + (f" (the busiest {len(names)}; {left} more)" if left else ""))


def _bars(axes: Any, runs: Sequence[Run], base: float, begin: float, size: float, now: float) -> float:
    placed = lanes(runs, now)
    used = 1.0 + max(lane for _, lane in placed)
    scale = min(1.0, 8 / used)
    for colour, chosen in (
        (GOOD, [one for one in placed if one[0].ended is not None and not one[0].reason]),
        (BAD, [one for one in placed if one[0].reason]),
        (NOW, [one for one in placed if one[0].ended is None and not one[0].reason]),
    ):
        by_lane: dict[int, list[tuple[float, float]]] = {}
        for run, lane in chosen:
            by_lane.setdefault(lane, []).append(((run.started - begin) / size, run.seconds(now) / size))
        for lane, spans in by_lane.items():
            axes.broken_barh(
                spans,
                (base + lane * scale, 0.85 * scale),
                facecolor=colour,
                edgecolor="white",
                linewidth=0.3,
            )
    return used * scale


def _area(
    axes: Any, runs: Sequence[Run], base: float, begin: float, end: float, size: float, now: float
) -> float:
    step = max(end - begin, 1e-9) / _STEPS
    edges = [begin + number * step for number in range(_STEPS + 1)]
    shares = busy_share(runs, edges, now)
    most = max(shares) or 1.0
    height = 2.0
    axes.stairs(
        [base + height * (1 - share / most) for share in shares],
        [(edge - begin) / size for edge in edges],
        baseline=base + height,
        fill=True,
        color=GOOD,
    )
    axes.annotate(f"{most:.0f}", (1.005, base), xycoords=("axes fraction", "data"), fontsize=7, va="center")
    return height


def draw_times(axes: Any, runs: Sequence[Run]) -> None:
    """Draw how long the runs took that ended, the failed ones apart."""
    ended = [run for run in runs if run.ended is not None]
    if not ended:
        _nothing(axes, "nothing has ended yet")
        return
    size, unit = unit_of(max(run.seconds(0) for run in ended))
    groups = [
        [run.seconds(0) / size for run in ended if bool(run.reason) is failed] for failed in (False, True)
    ]
    axes.hist(groups, bins=30, stacked=True, color=[GOOD, BAD], label=["ended well", "failed"])
    axes.set_xlabel(unit)
    axes.set_ylabel("attempts")
    axes.set_title("How long they took")
    if groups[1]:
        axes.legend(frameon=False)


def draw_throughput(axes: Any, runs: Sequence[Run]) -> None:
    """Draw how many ended well until when."""
    ends = sorted(run.ended for run in runs if run.ended is not None and not run.reason)
    if not ends:
        _nothing(axes, "nothing has ended well yet")
        return
    begin = min(run.started for run in runs)
    size, unit = unit_of(ends[-1] - begin)
    every = max(1, len(ends) // _STEPS)
    points = sorted({*range(0, len(ends), every), len(ends) - 1})
    axes.step(
        [0.0, *((ends[number] - begin) / size for number in points)],
        [0, *(number + 1 for number in points)],
        where="post",
        color=GOOD,
    )
    axes.set_xlabel(f"{unit} since the first start")
    axes.set_ylabel("ended well")
    axes.set_ylim(bottom=0)
    rate = len(ends) / max((ends[-1] - begin) / 3600, 1e-9)
    axes.set_title(f"Throughput: {rate:,.0f} an hour on average")


def draw_resources(axes: Any, runs: Sequence[Run], what: str) -> None:
    """Draw what runs used against what they asked for; ``what`` is ``mem`` or ``time``.

    Below the line, less was used than asked for.
    """
    ended = [run for run in runs if run.ended is not None]
    if what == "mem":
        unit, name = "GiB", "memory"
        pairs = [
            (run.mem / 2**30, run.max_rss / 2**30, bool(run.reason))
            for run in ended
            if run.mem and run.max_rss is not None
        ]
    else:
        size, unit = unit_of(max((run.walltime or 0 for run in ended), default=0))
        name = "time"
        pairs = [
            (run.walltime / size, run.seconds(0) / size, bool(run.reason)) for run in ended if run.walltime
        ]
    if not pairs:
        _nothing(axes, f"no attempt that ended had asked for {name}, or its use is not known")
        return
    asked = [pair[0] for pair in pairs]
    used = [pair[1] for pair in pairs]
    most = max(*asked, *used) * 1.05
    if len(pairs) > _MANY:
        axes.hexbin(asked, used, gridsize=30, mincnt=1, bins="log", cmap="Greens", extent=(0, most, 0, most))
    else:
        axes.scatter(
            asked, used, s=14, alpha=0.6, c=[BAD if failed else GOOD for *_, failed in pairs], linewidths=0
        )
    axes.plot([0, most], [0, most], color="#59636e", linewidth=0.8)
    axes.set_xlim(0, most)
    axes.set_ylim(0, most)
    axes.set_xlabel(f"asked for ({unit})")
    axes.set_ylabel(f"used ({unit})")
    share = sum(used) / sum(asked)
    axes.set_title(f"{name.capitalize()}: {share:.0%} of what was asked for was used")


def _nothing(axes: Any, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", color="#59636e", transform=axes.transAxes)
    axes.set_axis_off()
