"""Measure each figure beside its floor and its peers, and print one table."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sqlite3
import sys
import time
from pathlib import Path

import paraschut
from bench.common import RESULTS, Row

FIGURES = ("adding", "dashboard", "passes", "local", "callback", "contention", "functions", "clusters")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: a first look")
    parser.add_argument(
        "--only", action="append", choices=FIGURES, metavar="NAME", help=f"one of: {', '.join(FIGURES)}"
    )
    parser.add_argument("--out", type=Path, help="the file for the table (default: one in bench/results)")
    given = parser.parse_args()
    rows: list[Row] = []
    RESULTS.mkdir(exist_ok=True)
    out = given.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.md"
    for name in given.only or FIGURES:
        print(f"{time.strftime('%H:%M:%S')} {name} …", file=sys.stderr, flush=True)
        rows.extend(importlib.import_module(f"bench.{name}").measure(quick=given.quick))
        # After each figure: a run takes long, and what is measured is kept if it is broken off.
        out.write_text(table(rows, quick=given.quick) + "\n", encoding="utf-8")
    print(out.read_text(encoding="utf-8"), end="")


def table(rows: list[Row], *, quick: bool) -> str:
    """Return the rows as Markdown, under a line that says where they were measured."""
    lines = [
        f"# paraschut {paraschut.__version__}: speed, {time.strftime('%Y-%m-%d')}{' (quick)' if quick else ''}",
        "",
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}. Medians [least–greatest] of interleaved rounds; each ratio is that of "
        f"paraschut to its floor in the same round.",
        "",
        "| figure | paraschut | floor | ratio | target | met | peers in this run | recorded elsewhere |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        cells = (row.figure, row.ours, row.floor, row.ratio, row.target, met, row.peers, row.recorded)
        lines.append(f"| {' | '.join(cell or '–' for cell in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
