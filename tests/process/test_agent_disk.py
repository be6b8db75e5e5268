"""A disk that is full, cannot be written, or has an awkward name."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from helpers import BATCH, World, until

import paraschut as psu

pytestmark = pytest.mark.process


@pytest.fixture
def disk(world):
    """Return a world whose index is on a small disk of its own; ``remount`` makes that read-only."""
    folder = world.home / "jobs"
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield world
    finally:
        world.end_all()
        subprocess.run(["umount", "-l", folder], check=True)


def remount(world, how):
    """Let the disk be read-only or not."""
    subprocess.run(["mount", "-o", f"remount,{how}", world.home / "jobs"], check=True)


def fill(world):
    """Leave no room on the disk; return the file that takes it."""
    path = world.home / "jobs" / "fill"
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return path


def test_a_full_disk_is_said_and_changes_nothing(disk):
    """Adding, changing and submitting raise a sentence; when there is room again, all goes on."""
    disk.add(*[disk.says("$J")] * 3)
    before = disk.query("SELECT * FROM job")
    path = fill(disk)
    for change in (
        lambda: disk.add(*["true"] * 5000, batch=BATCH + 1),
        lambda: disk.add("true " * 100_000, batch=BATCH + 1),
        lambda: psu.set_batch_field(BATCH, {"note": "x" * 200_000}),
        lambda: psu.submit_jobs(Verbose=False),
    ):
        with pytest.raises(psu.StoreError, match="full"):
            change()
    path.unlink()
    assert disk.query("SELECT * FROM job") == before
    psu.submit_jobs(Verbose=False)
    disk.until_complete()
    assert sorted(disk.lines()) == ["0", "1", "2"]


def test_the_disk_is_full_for_a_while(disk):
    """Jobs end and others wait while nothing can be written: when there is room again, the agent goes on by itself."""
    script = disk.says("$J", then="until [ -e go ]; do sleep 0.05; done; " + disk.says("end $J"))
    disk.add(*[script] * 2, *[disk.says("$J")] * 3)
    psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
    disk.until_lines(2)
    path = fill(disk)
    (disk.home / "go").touch()
    disk.until_lines(4)
    until(lambda: not disk.of_job(0) + disk.of_job(1))
    path.unlink()
    disk.until_complete()
    assert sorted(disk.lines()) == ["0", "1", "2", "3", "4", "end 0", "end 1"]


def test_a_disk_that_cannot_be_written(disk):
    """A sentence that names the index and what to do; looking still works."""
    disk.add(disk.says("$J"))
    remount(disk, "ro")
    with pytest.raises(psu.StoreError, match="cannot be opened or written"):
        disk.add("true", batch=BATCH + 1)
    with pytest.raises(psu.StoreError, match="cannot be opened or written"):
        psu.submit_jobs(Verbose=False)
    assert [job["state"] for job in psu.get_queue(Verbose=False)[BATCH]] == ["init"]
    remount(disk, "rw")
    psu.submit_jobs(Verbose=False)
    disk.until_complete()


def test_a_home_of_any_name(home, world, monkeypatch):
    """Spaces, quotes, semicolons, newlines, a leading dash, other scripts: jobs, logs and the agent find their way."""
    folder = home / "-a b;c'd\"e\n$(touch x) 数 %s {f} *"
    folder.mkdir(mode=0o700)
    shutil.copy(home / "config.toml", folder)
    monkeypatch.chdir(folder)
    here = World(folder, world.mark)
    here.lines_file = world.lines_file
    try:
        here.add(
            *[here.says("$J", then="echo out; echo err >&2; until [ -e go ]; do sleep 0.05; done")] * 4,
            priority=lambda index: 2 - index // 2,
        )
        psu.submit_jobs(psu.LocalJobExecutor(max_workers=2, cpus=2), Verbose=False)
        here.until_lines(2)
        first = here.kill_agent()
        here.until(lambda: here.agent() not in {None, first})
        (folder / "go").touch()
        here.until_complete()
        for index in range(4):
            job = psu.get_job_info(BATCH, index)
            for key, word in (("stdout", "out\n"), ("stderr", "err\n")):
                with open(job[key][0], encoding="utf-8") as file:
                    assert file.read() == word
        assert not (folder / "x").exists()
    finally:
        here.end_all()
