"""Hands jobs over, one submission after the other: what is on its way when a pass is interrupted, and closers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from stories import BATCH

import paraschut as psu
from paraschut import queues
from paraschut.executors.base import Submission
from paraschut.executors.queue import Queue, Row
from paraschut.executors.scheduler import TooManyError


class Full(psu.FileJobExecutor):
    """Takes two jobs at once, says only later that these are too many, and is interrupted meanwhile."""

    def __init__(self, path):
        super().__init__(path)
        self.told = []

    def most(self):
        return 2

    def arrange(self, tasks):
        self.told.append("prepare")
        if len(self.told) > 2:
            raise KeyboardInterrupt
        return super().arrange(tasks)

    def send(self, submission):
        self.told.append(f"send {len(submission.tasks)}")
        return self.answer

    def answer(self):
        self.told.append("answer")
        raise TooManyError("It is full.")


def test_who_is_interrupted_hears_what_was_sent_and_sends_nothing_more(index, make_jobs):
    psu.add_batch_to_queue(BATCH, make_jobs(4))
    full = Full(f"{index}.sh")
    with pytest.raises(KeyboardInterrupt):
        psu.submit_jobs(full, Verbose=False)
    assert full.told == ["prepare", "send 2", "prepare", "answer"]
    assert [job["state"] for job in psu.get_queue(Verbose=False)[BATCH]][:2] == ["init", "init"]


@pytest.mark.parametrize(("name", "waits"), [("a.0123456789abcdef", True), ("a.fedcba9876543210", False)])
def test_a_closer_that_waits_for_anothers_job_is_sent_anew(name, waits):
    """The id of ours was given out again, by a scheduler that lost its memory."""
    queue = Queue(0.0, [Row("7", "", "runs", "R", "", name), Row("8", "", "waits", "PD", "", "closer.x")])
    ours = Submission("0123456789abcdef", "i.db", "f", {}, (), cluster_id="7", carries=BATCH)
    did = []
    executor = SimpleNamespace(
        job_of=str,
        will_start=lambda row, **_: row is not None,
        delete_jobs=lambda ids: did.append(("delete", ids)),
        submit_closer=lambda of, after: did.append(("send", of, after)) or "9",
    )
    store = SimpleNamespace(set_closer=lambda tokens, closer: did.append((closer, tokens)))
    assert queues._goes_on(store, executor, queue, "8", [ours]) is waits
    assert did == ([] if waits else [("delete", ["8"]), ("send", [ours], []), ("9", [ours.token])])
