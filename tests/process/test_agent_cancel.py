"""Jobs are deleted, reset and removed while they wait and while they run: never two attempts of one at a time."""

from __future__ import annotations

import sys

import pytest
from helpers import BATCH

import paraschut as psu
from paraschut.paths import Paths
from paraschut.store import spool
from paraschut.store.runtime import Key

pytestmark = pytest.mark.process

#: Says when it starts and when it ends, also when it is asked to, which it takes its time for.
SLOW = (
    'trap \'sleep 0.5; echo "end $J" >> "$LINES"; exit 1\' TERM; '
    'until [ -e go ]; do sleep 0.05; done; echo "end $J" >> "$LINES"'
)


def alternate(lines):
    """Return whether each start of a job is followed by its end before the next."""
    open_ones = set()
    for line in lines:
        what, index = line.split()
        if (what == "start") == (index in open_ones):
            return False
        open_ones ^= {index}
    return True


def test_deleting_ends_the_tree_and_holds_the_jobs(world):
    """Those that run end with all that they started, those that wait never start; nothing sends them again."""
    world.add(*[world.says("$J", then="setsid sleep 1001 & sleep 1002 & sleep 1003")] * 4, world.says("$J"))
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until(lambda: len(world.of_job(0)) >= 3 and len(world.of_job(1)) >= 3)
    assert psu.qdel_job(BATCH, [0, 2]) == 2
    world.until(lambda: not world.of_job(0), 20)
    assert (world.states()[0], world.states()[2]) == ("held", "held")
    world.until(lambda: world.states()[3] == "run")
    assert psu.qdel_batch(BATCH) == 3
    for index in range(4):
        world.until(lambda index=index: not world.of_job(index), 20)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: all(attempt["ended"] for attempt in world.attempts()))
    assert set(world.states().values()) == {"held"}
    assert sorted(world.lines()) == ["0", "1", "3"]
    assert not world.failures()


def test_what_was_deleted_runs_again_when_it_is_set_back(world):
    """Setting the state to 'init' is enough; the new attempt starts after the old one has ended."""
    world.add(world.says("start", "$J", then=SLOW.replace("0.5", "2")))
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    psu.qdel_job(BATCH, 0)
    psu.set_job_field(BATCH, 0, {"state": "init"})
    with pytest.raises(psu.JobError, match="has not ended yet"):
        psu.submit_one_job(BATCH, 0, Verbose=False)
    (world.home / "go").touch()
    world.until(lambda: psu.submit_jobs(Verbose=False) is not None and world.count("complete") == 1)
    assert world.lines() == ["start 0", "end 0"] * 2


def test_a_running_job_is_reset_again_and_again(world):
    """Two processes reset and submit in a loop: there is never more than one attempt at a time."""
    world.add(*[world.says("start", "$J", then=SLOW)] * 3)
    text = (
        "import sys, time, paraschut as psu\n"
        f"for _ in range(4):\n"
        f"    psu.set_job_field({BATCH}, [0, 1, 2]); psu.submit_jobs(Verbose=False); time.sleep(0.3)\n"
    )
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=3, cpus=3), Verbose=False)
    world.until_lines(3)
    processes = [world.python(text) for _ in range(2)]
    for process in processes:
        assert process.wait(60) == 0
    (world.home / "go").touch()
    world.until(lambda: psu.submit_jobs(Verbose=False) is not None and world.count("complete") == 3)
    assert alternate(world.lines())
    assert len(world.lines()) == 2 * sum(attempt["started"] is not None for attempt in world.attempts())


def test_writing_the_dict_of_a_running_job_does_not_start_it_twice(world):
    """update_job with another state is no back door: the running attempt ends before the next one starts."""
    world.add(world.says("start", "$J", then=SLOW))
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    job = psu.get_job_info(BATCH, 0)
    job["state"] = "init"
    psu.update_job(job)
    psu.submit_jobs(Verbose=False)
    world.until(lambda: len(world.lines()) >= 2 or world.attempts()[0]["ended"])
    (world.home / "go").touch()
    world.until(lambda: psu.submit_jobs(Verbose=False) is not None and world.count("complete") == 1)
    assert alternate(world.lines())


def test_a_job_that_does_not_run_cannot_be_set_to_run(world):
    """Only running makes a job run: nobody would ever end it, or find it missing."""
    world.add("true")
    with pytest.raises(psu.JobError, match="cannot be set to state 'run'"):
        psu.set_job_field(BATCH, 0, {"state": "run"})
    psu.submit_jobs(Verbose=False)
    world.until_complete()


def test_a_batch_is_removed_while_it_runs(world):
    """All that runs ends first; then nothing is left of it, and another batch is not touched."""
    world.add(*[world.says("$J", then="setsid sleep 1001 & sleep 1002")] * 3)
    world.add(world.says("other"), batch=BATCH + 1)
    psu.submit_one_batch(BATCH, psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until_lines(2)
    assert psu.remove_batch(BATCH) == 1
    assert not world.states()
    assert not world.attempts()
    world.until(lambda: not world.of_job(0) + world.of_job(1), 20)
    assert not (world.home / "jobs" / str(BATCH)).exists()
    psu.submit_jobs(Verbose=False)
    world.until_complete(BATCH + 1)


def test_what_has_said_complete_and_runs_on_is_removed_too(world):
    """Removing a batch ends also those of its processes that have nothing left to say."""
    done = f"{sys.executable} -c 'import paraschut as psu; psu.set_complete()'"
    world.add(f"{done}; {world.says('$J', then='sleep 1000')}", complete_on_exit=False)
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    assert world.states() == {0: "complete"}
    assert psu.remove_batch(BATCH) == 1
    world.until(lambda: not world.of_job(0), 20)


def test_a_start_that_was_never_made_can_be_deleted(world):
    """The agent was killed between its commit and the gate, and the job deleted before the next one looked."""
    world.add(world.says("$J"))
    psu.submit_jobs(Verbose=False)
    world.until_complete()
    world.kill_agent()
    world.end_all()
    world.change("UPDATE job SET state='run'")
    world.change("UPDATE attempt SET ended=NULL, code=NULL, started=1, process='4194304:1:' || ?", _boot())
    (row,) = world.attempts()
    with open(Paths(world.index).agent(row["host"]) + "/ends.1.1", "w", encoding="utf-8") as file:
        file.write('{"process": "4194304:1", "not_started": true}\n')
    world.change("UPDATE attempt SET cancelled=2, reason='cancelled'")
    world.change("UPDATE job SET state='init', ending=1")
    psu.submit_jobs(Verbose=False)
    world.until(lambda: psu.submit_jobs(Verbose=False) is not None and world.count("complete") == 1)
    assert len(world.attempts()) == 2


def test_a_batch_that_took_the_number_of_a_removed_one(world):
    """What was written down of the old jobs says nothing of the new ones, whoever reads it again."""
    world.add("until [ -e go ]; do sleep 0.05; done", batch=BATCH + 1)
    world.add(world.says("$J"))
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    world.until_complete()
    psu.remove_batch(BATCH)
    world.add(world.says("$J", then="until [ -e go ]; do sleep 0.05; done"))
    psu.submit_jobs(Verbose=False)
    world.until_lines(2)
    first = world.kill_agent()
    world.until(lambda: world.agent() not in {None, first})
    psu.get_queue(Verbose=False)
    assert world.states() == {0: "run"}
    (world.home / "go").touch()
    world.until_complete()
    world.until_complete(BATCH + 1)


def test_what_a_job_could_not_write_counts_before_its_end(world):
    """It said complete in a file beside the index: its end does not make it missing, and the next group goes."""
    world.add(
        world.says("$J", then="until [ -e go ]; do sleep 0.05; done"),
        world.says("$J"),
        priority=lambda index: 2 - index,
        complete_on_exit=lambda index: index == 1,
    )
    psu.submit_jobs(Verbose=False)
    world.until_lines(1)
    event = spool.describe(None, kind="fields", at=1.0, host="here")
    event["columns"]["state"] = "complete"
    spool.spool(world.paths, Key(BATCH, 0, 1), event)
    (world.home / "go").touch()
    world.until_complete()


def _boot():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
