"""The example as a person goes through it: run in JupyterLab, watched while it runs, looked at in light and dark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from browsing import KERNEL_IDLE, change_theme, do
from stories import ROOT

pytestmark = pytest.mark.browser

BACKGROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}
#: Which cells hold what is looked at.
WATCHED, FAILED, PAST = 'psu.watch(1, f"BatchID == {B}")', "ReportMissing=True", "psu.history(lesson, 1)"
#: The last cell shows that all was removed; JupyterLab draws only cells that are near, so it is asked itself.
ALL_RAN = (
    "jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')"
    ".every(cell => cell.model.executionCount !== null && cell.model.executionState !== 'running')"
)


def cell_with(page, text):
    """Return the number of the cell that holds a text."""
    found = page.evaluate(
        "text => jupyterapp.shell.currentWidget.content.widgets.findIndex("
        "cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().includes(text))",
        text,
    )
    assert found >= 0, text
    return found


def dashboard_of(page, number):
    """Scroll to a cell, and return the dashboard below it."""
    page.evaluate(
        "number => { jupyterapp.shell.currentWidget.content.scrollToItem(number, 'center') }", number
    )
    return page.locator(f"[data-windowed-list-index='{number}'] .jp-OutputArea-output .psu")


def seen(page, number, what):
    """Wait until something is true of the dashboard below a cell, and return it.

    A dashboard that is watched is another element after each look, so the page is asked in one go.
    """
    return page.wait_for_function(
        f"""number => {{
            const one = document.querySelector(`[data-windowed-list-index='${{number}}'] .jp-OutputArea-output .psu`)
            return one && ({what})
        }}""",
        arg=number,
    ).json_value()


def keep(page, number, name, shows="true"):
    """Keep a picture of the documentation, if ``make pictures`` asks for it."""
    folder = os.environ.get("DOCS_PICTURES")
    if folder:
        clip = seen(page, number, f"({shows}) && one.getBoundingClientRect().toJSON()")
        page.screenshot(
            path=Path(folder, f"{name}.png"), clip={key: clip[key] for key in ("x", "y", "width", "height")}
        )


def test_the_example_runs_and_is_looked_at_in_both_themes(lab):
    shutil.copy(ROOT / "example.ipynb", lab.folder)
    page = lab.open("example.ipynb", run=False)
    page.wait_for_function(KERNEL_IDLE)
    do(page, "notebook:clear-all-cell-outputs")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output').length === 0")
    do(page, "notebook:run-all-cells")

    # While its cell goes on, and is not run again, what watch shows changes.
    watched = cell_with(page, WATCHED)
    page.wait_for_function(
        "number => jupyterapp.shell.currentWidget.content.widgets[number].model.outputs.length > 0",
        arg=watched,
        timeout=300_000,
    )
    shown = dashboard_of(page, watched)
    before = seen(page, watched, "one.querySelector('.psu-lane') && one.querySelector('.psu-part').innerText")
    for theme in ("dark", "light"):
        change_theme(page, theme)
        keep(page, watched, f"dashboard-{theme}", shows="one.querySelector('.psu-lane')")
    seen(page, watched, f"one.querySelector('.psu-part').innerText !== '{before}'")
    assert shown.count() == 1, "it was the same output all the time"

    page.wait_for_function(ALL_RAN, timeout=300_000)
    said = page.evaluate("JSON.stringify(jupyterapp.shell.currentWidget.content.model.toJSON())")
    assert '"output_type":"error"' not in said
    assert "watch: nothing runs or waits any more." in said
    assert "The queue is empty" in said

    for theme in ("light", "dark"):
        change_theme(page, theme)
        failed = cell_with(page, FAILED)
        look_at(dashboard_of(page, failed), theme)
        keep(page, failed, f"missing-{theme}")
        past = dashboard_of(page, cell_with(page, PAST))
        assert "reset missing" in past.inner_text()
        fits(past)
    assert page.said == []


def look_at(shown, theme):
    """Hover, fold and unfold what the failed lesson shows."""
    shown.wait_for()
    assert shown.evaluate("one => getComputedStyle(one).backgroundColor") == BACKGROUND[theme]
    text = shown.inner_text()
    for words in ("lesson", "66%", "missing, with the reason", "exit code 1"):
        assert words in text
    part = shown.locator(".psu-bar .psu-missing")
    before = part.evaluate("one => getComputedStyle(one).filter")
    part.hover()
    assert part.get_attribute("title") == "1 missing"
    assert part.evaluate("one => getComputedStyle(one).filter") != before, "it lights up"
    details = shown.locator("details").first
    reason = shown.get_by_text("exit code 1")
    assert reason.is_visible()
    details.locator("summary").first.click()
    assert not reason.is_visible()
    details.locator("summary").first.click()
    assert reason.is_visible()
    fits(shown)


def fits(shown):
    """Look that nothing sticks out to the right, and nothing has to be scrolled sideways."""
    wide = shown.evaluate(
        "one => [one, ...one.querySelectorAll('*')].filter(part => part.scrollWidth > part.clientWidth + 1"
        " && part.clientWidth > 0 && getComputedStyle(part).display !== 'inline').map(part => part.outerHTML.slice(0, 200))"
    )
    assert wide == []
