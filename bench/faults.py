"""A worked example: a thousand jobs with random faults, and three more tries for each. ``python -m bench.faults 1000``.

What will happen to each job is drawn beforehand: it exits with an error, is killed, needs more memory or more time than
it asks for, or never works at all. At the end every job is complete, or missing with the right reason, and the history
has every attempt: what is in the index is compared with what was drawn.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

RETRIES = 3
MEGA = 1 << 20
#: What each job asks for; schedulers round times up to minutes.
MEM, WALLTIME, WALLTIME_ON_CLUSTERS = 64 * MEGA, 6.0, 60.0
_HUNGRY = f"{shlex.quote(sys.executable)} -c 'import time; data = bytearray({100 * MEGA}); time.sleep(3)'"
#: Kinds of jobs, and how many of a hundred are of it.
KINDS = {"healthy": 55, "unlucky": 34, "hungry": 4, "slow": 4, "doomed": 3}


def drawn(number: int, seed: int, walltime: float = WALLTIME) -> tuple[str, list[str | None]]:
    """Return the command of a job, and how each of its attempts will end: why, or None for well."""
    dice = random.Random(f"{seed}.{number}")
    (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
    if kind == "hungry":
        return _HUNGRY, ["out of memory", None]
    if kind == "slow":
        return f"sleep {walltime * 1.5:.0f}", ["time limit", None]
    faults = RETRIES + 1 if kind == "doomed" else dice.randint(1, RETRIES) if kind == "unlucky" else 0
    codes = [dice.choice([1, 2, 77, 0]) for _ in range(faults)]
    ends = [f"exit code {code}" if code else "signal 9 (SIGKILL)" for code in codes]
    cases = " ".join(
        f"{n}) {f'exit {code}' if code else 'kill -s KILL $$'};;" for n, code in enumerate(codes, 1)
    )
    command = f"case $PARASCHUT_ATTEMPT in {cases} esac" if codes else "true"
    return command, [*ends, *([] if kind == "doomed" else [None])]


def run(count: int, seed: int, workers: int, executor: str = "local") -> Counter[str]:
    """Run the jobs in the current folder; return how many attempts ended how.

    Raises
    ------
    AssertionError
        Naming the first job of which the index says something else than was drawn.
    """
    import paraschut as psu

    walltime = WALLTIME if executor == "local" else WALLTIME_ON_CLUSTERS
    Path("config.toml").write_text('[paraschut]\njob_dir = "jobs"\nretry_pause = 0.5\n', "utf-8")
    job = psu.get_job_template(SetID=True)
    job |= {
        "name": "faults",
        "queue": "",
        "retries": RETRIES,
        "complete_on_exit": True,
        "resources": {"mem": MEM, "walltime": walltime},
    }
    jobs = [{**job, "script": drawn(number, seed, walltime)[0]} for number in range(count)]
    psu.add_batch_to_queue(job["BatchID"], jobs, set_index=True)
    local = psu.LocalJobExecutor(max_workers=workers, cpus=workers)
    psu.submit_jobs(local if executor == "local" else executor, MaxJobs=count)
    _await(job["BatchID"])
    return _compared(job["BatchID"], count, seed, walltime)


def _await(batch: int) -> None:
    import paraschut as psu

    def going(one: dict[str, object]) -> bool:
        return one["state"] != "complete" and not one.get("failure")

    while any(map(going, psu.get_queue(Verbose=False)[batch])):
        time.sleep(1)
    psu.get_queue()


def _compared(batch: int, count: int, seed: int, walltime: float) -> Counter[str]:
    import paraschut as psu

    told: Counter[str] = Counter()
    for number in range(count):
        _, ends = drawn(number, seed, walltime)
        found = psu.history(batch, number)
        reasons = [attempt["reason"] for attempt in found["attempts"]]
        assert reasons == ends, f"job {batch}:{number} ended as {reasons}, and {ends} was drawn"
        info = psu.get_job_info(batch, number)
        # A short command of a scheduler may never have been seen to run.
        missing = info["state"] in {"submit", "run"} and info.get("failure") == ends[-1]
        assert missing if ends[-1] else info["state"] == "complete", f"job {batch}:{number}: {info}"
        told.update(reason or "complete" for reason in reasons)
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example in a folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--executor", default="local", help="who runs them: local, slurm, sge")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, closing(_Folder(folder)):
        began = time.monotonic()
        told = run(given.count, given.seed, given.workers, given.executor)
        for reason, number in told.most_common():
            print(f"{number:6} attempts: {reason}")
        print(f"{given.count} jobs, as drawn, in {time.monotonic() - began:.0f} s")


class _Folder:
    """Another current folder, until it is closed."""

    def __init__(self, folder: str) -> None:
        self.before = Path.cwd()
        os.chdir(folder)

    def close(self) -> None:
        """Go back."""
        os.chdir(self.before)


if __name__ == "__main__":
    main()
