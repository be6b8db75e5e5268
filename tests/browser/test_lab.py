"""The dashboard as a person sees it: in JupyterLab, in light and dark, trusted or not, standing still or changing."""

from __future__ import annotations

import os

import pytest
from browsing import do

from paraschut.look.render_html import queue_html
from paraschut.look.summary import BatchRow, MissingRow, Span, StateRow, Totals

pytestmark = pytest.mark.browser

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
PREPARE = f"""
import paraschut as psu
EVIL = {EVIL!r}
job = psu.get_job_template(SetID=True)
job |= {{"name": EVIL, "data_type": "<b>bold</b>", "note": EVIL, "script": "true"}}
B = job["BatchID"]
psu.add_batch_to_queue(B, [job] * 40, set_index=True)
psu.set_job_field(B, range(10), {{"state": "complete"}})
psu.set_job_field(B, [11, 13, 15], {{"state": "<i>mine</i>"}})
"""
RENDERED = ".jp-OutputArea-output .psu"


def picture(page, name):
    """Keep a picture where the environment says, for whoever wants to look."""
    folder = os.environ.get("PICTURES")
    if folder:
        page.screenshot(path=os.path.join(folder, f"{name}.png"))


def seen(page, words, selector=RENDERED):
    try:
        page.locator(selector).filter(has_text=words).first.wait_for()
    except Exception:
        picture(page, "not-seen")
        raise


@pytest.mark.parametrize("dark", [False, True])
def test_the_dashboard_in_a_notebook(lab, dark):
    lab.write(
        "look.ipynb", PREPARE, "psu.get_queue()", "psu.get_queue(Verbose=False)", "psu.get_job_info(B, 3)"
    )
    page = lab.open("look.ipynb", dark=dark)
    seen(page, f"{'<script>alert(1)</script>'}")
    page.locator(RENDERED).nth(2).wait_for()
    shown = page.locator(RENDERED).first
    assert "25%" in shown.inner_text()
    assert "complete: 10/40" in shown.inner_text()
    assert page.locator(f"{RENDERED} script, {RENDERED} img, {RENDERED} b b").count() == 0
    background = shown.evaluate("one => getComputedStyle(one).backgroundColor")
    assert background == ("rgb(20, 24, 30)" if dark else "rgb(255, 255, 255)")
    # Hovering a part of the bar tells what it is.
    part = shown.locator(".psu-bar i").first
    part.hover()
    assert part.get_attribute("title") == "10 complete"
    # It folds and unfolds without any program.
    details = shown.locator("details").first
    assert details.evaluate("one => one.open")
    details.locator("summary").first.click()
    assert not details.evaluate("one => one.open")
    details.locator("summary").first.click()
    # Nothing sticks out to the right.
    assert page.evaluate(
        "[...document.querySelectorAll('.psu')].every(one => one.scrollWidth <= one.clientWidth)"
    )
    picture(page, f"lab-{'dark' if dark else 'light'}")
    assert page.said == []


def test_in_a_notebook_that_is_not_trusted_it_can_be_read(lab):
    row = BatchRow(
        20260101000000,
        EVIL,
        "reads",
        (StateRow("run", 2, (Span(0, 1),), (Span(1, 1),)), StateRow("complete", 2, (Span(2, 3),))),
        (MissingRow(0, f"exit code 1 {EVIL}", 1),),
        ((1, 0.5, EVIL),),
    )
    shown = queue_html([row], Totals(1, 1, 1, 2, 4))
    lab.write("old.ipynb", "psu.get_queue()", outputs=[{"text/html": shown, "text/plain": "as text"}])
    page = lab.open("old.ipynb", run=False)
    seen(page, "alert(1)", ".jp-OutputArea-output")
    text = page.locator(".jp-OutputArea-output").first.inner_text()
    for words in ("<script>alert(1)</script>", "20260101000000", "50%", "exit code 1", "1*", "complete: 2/4"):
        assert words in text
    assert page.said == []
    picture(page, "lab-untrusted")


def test_watching_changes_one_output_and_ends_by_itself(lab):
    lab.write(
        "watch.ipynb",
        PREPARE,
        "watched = psu.watch(0.3, block=False)",
        "import time; time.sleep(3)\npsu.set_batch_field(B, {'state': 'complete'})\nprint('changed')",
        "print('ended', watched.wait(30))",
    )
    page = lab.open("watch.ipynb")
    seen(page, "25%")
    seen(page, "100%")
    seen(page, "watch: nothing runs or waits any more.")
    page.get_by_text("ended True").wait_for()
    assert page.locator(RENDERED).count() == 1, "it was the same output all the time"
    assert page.said == []


def test_watching_until_the_end_and_until_somebody_stops_it(lab):
    lab.write(
        "watch.ipynb",
        PREPARE,
        "psu.watch(0.3)",
        "psu.set_batch_field(B, {'state': 'complete'}); psu.watch(0.3); print('went on')",
    )
    page = lab.open("watch.ipynb")
    seen(page, "25%")
    do(page, "notebook:interrupt-kernel")
    seen(page, "watch: stopped looking after")
