"""Makes the pictures of the README and of these pages, with Chromium: ``make pictures``."""

from __future__ import annotations

import shutil
from pathlib import Path

from paraschut.look.render_html import queue_html
from paraschut.look.summary import BatchRow, MissingRow, Span, StateRow, Totals

FOLDER = Path(__file__).parent / "pictures"
GENOMES = BatchRow(
    20260721170233,
    "ecoli/genome_map",
    "reads",
    (StateRow("complete", 1, (Span(40, 40),)), StateRow("collected", 40, (Span(0, 39),))),
    elapsed=8040,
)
DIGITS = BatchRow(
    20260722092014,
    "digits/model_selection",
    "image",
    (
        StateRow("init", 2, (Span(16, 17),)),
        StateRow("submit", 3, (Span(13, 15),)),
        StateRow("run", 4, (Span(9, 12),), (Span(10, 12),)),
        StateRow("complete", 9, (Span(0, 8),)),
    ),
    (MissingRow(9, "out of memory", 1),),
    ((10, 0.6, "fold 3 of 5"), (12, 0.2, "fold 1 of 5")),
    elapsed=312,
    left=240,
)
TOTALS = Totals(6, 3, 1, 50, 59)


def main() -> None:
    """Take a picture in each theme."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    shown = queue_html([GENOMES, DIGITS], TOTALS, now=1784712332)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 860, "height": 600}, color_scheme=theme)
            page.set_content(f"<body style='margin:0;background:transparent'>{shown}")
            page.locator(".psu").screenshot(path=FOLDER / f"dashboard-{theme}.png", omit_background=True)
        browser.close()


if __name__ == "__main__":
    main()
