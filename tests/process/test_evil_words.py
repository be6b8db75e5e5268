"""A job whose name, fields, error and logs are a program, or change a terminal: shown as text wherever one looks."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import paraschut as psu

pytestmark = pytest.mark.process

SCRIPT = "<script>alert(1)</script>"
#: Clears a screen, names a window, and turns round what follows.
ESCAPES = "\x1b[2J\x1b]0;mine\x07\u202e"
EVIL = SCRIPT + ESCAPES
#: Colours are kept in logs; nothing else that begins with an escape is.
HARM = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202e]")


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "paraschut", *words], capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


@pytest.fixture
def evil(index):
    """Return the batch of a job that failed in its own words, and one of a function that did."""
    job = psu.get_job_template(SetID=True)
    words = EVIL.replace("\x1b", r"\033").replace("\x07", r"\007")
    job |= {"name": EVIL, "data_type": EVIL, "note": EVIL, EVIL: EVIL, "complete_on_exit": True}
    job |= {"script": f"printf '{words}\\n'; printf '{words}\\n' >&2; exit 3", "resources": {}}
    psu.add_batch_to_queue(job["BatchID"], [job], set_index=True)

    def call():
        print(EVIL)
        raise ValueError(EVIL)

    handle = psu.persist(call, EVIL)
    handle.wait(120)
    psu.submit_jobs(Verbose=False)
    psu.watch(0.2)
    return job["BatchID"], handle


def test_a_name_that_is_a_program_is_text_everywhere(evil, tmp_path, capsys):
    batch, handle = evil
    assert handle.status() == "failed"
    capsys.readouterr()
    psu.get_queue(ReportMissing=True)
    psu.print_log(batch, 0)
    psu.print_log(batch, 0, "stderr")
    said = capsys.readouterr()
    history, job = psu.history(batch, 0), psu.get_job_info(batch, 0)
    looked = [
        *(said.out, said.err, repr(history), repr(job), repr(handle), handle.jobinfo()),
        *(command("queue"), command("watch"), command("log", f"{batch}:0"), command("info", f"{batch}:0")),
        *(command("history", f"{batch}:0"), command("log", "all", "--grep", "alert")),
    ]
    for text in looked:
        assert not HARM.search(text), text
    assert all(SCRIPT in text for text in (said.out, repr(job), *looked[6:10]))
    psu.report(path=tmp_path / "report.html")
    pages = [
        psu.get_queue(Verbose=False)._repr_html_(),
        *(one._repr_html_() for one in (history, job)),
        (tmp_path / "report.html").read_text("utf-8"),
    ]
    for page in pages:
        assert SCRIPT not in page
        assert not HARM.search(page)
    assert all("&lt;script&gt;alert(1)&lt;/script&gt;" in page for page in (pages[0], *pages[2:]))
