"""Jobs that are told before their time is over: they save, are started again, and go on; that is no failure."""

from __future__ import annotations

import sys

import pytest
from helpers import BATCH

import paraschut as psu

pytestmark = pytest.mark.process

#: Counts to ten, in as many starts as it takes.
COUNTS = """
import os, time
import paraschut as psu

job = psu.get_job_info(SetID=True)
count = int(open("saved").read()) if os.path.exists("saved") else 0
def save():
    with open("saved", "w") as file:
        file.write(str(count))
    with open(os.environ["LINES"], "a") as file:
        file.write(f"saved {count}\\n")
    psu.requeue()
psu.on_warning(save)
while count < 10:
    time.sleep(0.4)
    count += 1
psu.set_complete()
"""
#: A shell that does the same once.
SHELL = (
    f"trap 'echo saved >> \"$LINES\"; {sys.executable} -m paraschut job requeue; exit' URG; "
    '[ "$PARASCHUT_ATTEMPT" -ge 2 ] || while :; do sleep 0.1; done; echo went on >> "$LINES"'
)


def configured(world, **settings):
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    names = '["PATH", "HOME", "LANG", "PYTHONPATH", "LINES"]'
    text = f'[paraschut]\njob_dir = "jobs"\nenvironment = {names}\n{lines}'
    (world.home / "config.toml").write_text(text, "utf-8")


def test_a_python_job_saves_and_goes_on_from_there(world):
    """It is never killed for its time limit, and no retry is spent."""
    configured(world, warning=2)
    (world.home / "counts.py").write_text(COUNTS, "utf-8")
    world.add(f"{sys.executable} counts.py", complete_on_exit=False, resources={"walltime": "4s"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    world.until(lambda: not world.attempts(ended=None))
    *before, last = world.attempts()
    assert before
    assert {(row["reason"], row["code"]) for row in before} == {("requeued", 0)}
    assert (last["reason"], last["code"]) == (None, 0)
    saved = [int(line.split()[1]) for line in world.lines()]
    assert saved == sorted(saved)
    assert len(saved) == len(before)
    (job,) = world.query("SELECT retried, raised FROM job")
    assert (job["retried"], job["raised"]) == (0, None)


def test_a_shell_job_hears_the_signal(world):
    configured(world, warning=3)
    world.add(SHELL, resources={"walltime": "6s"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert world.lines() == ["saved", "went on"]
    assert [row["reason"] for row in world.attempts()] == ["requeued", None]


def test_who_does_not_listen_is_not_harmed(world):
    """The signal is one that is ignored by default."""
    configured(world, warning=3)
    world.add("sleep 4; echo done >> $LINES", resources={"walltime": "5s"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    assert world.lines() == ["done"]
    assert len(world.attempts()) == 1


def test_a_job_that_is_deleted_may_save_and_stays_deleted(world):
    configured(world)
    (world.home / "counts.py").write_text(COUNTS.replace("count < 10", "True"), "utf-8")
    world.add(f"{sys.executable} counts.py", complete_on_exit=False)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: world.states()[0] == "run")
    world.until(lambda: [one for one in world.of_job() if "counts.py" in " ".join(one.cmdline())])
    psu.get_job_info(BATCH, 0)
    psu.qdel_job(BATCH, 0)
    world.until(lambda: not world.attempts(ended=None))
    assert world.states() == {0: "held"}


def test_on_a_cluster_the_script_tells_the_job(world, fake_slurm):
    """Whatever the scheduler; a closer sends it again."""
    configured(world, warning=2, executor='"slurm"', grace=0.5, queue_age=0.2)
    (world.home / "counts.py").write_text(COUNTS, "utf-8")
    world.add(
        f"{sys.executable} counts.py", SHELL, complete_on_exit=lambda index: index == 1, retries=1,
        resources=lambda index: {"walltime": "4s"} if index == 0 else {"walltime": "5s"},
    )  # fmt: skip
    psu.submit_jobs(Verbose=False)
    world.until_complete(seconds=120)
    assert {row["reason"] for row in world.attempts()} == {"requeued", None}
    assert {"saved", "went on"} <= set(world.lines())
