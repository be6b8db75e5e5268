"""The store's verbs in the few words that a story needs, with the time as a plain number."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from paraschut.paths import Paths
from paraschut.plan import Head, Limits, next_groups
from paraschut.process import identity
from paraschut.store import spool, views
from paraschut.store.claims import NewSubmission
from paraschut.store.ending import end_attempt
from paraschut.store.filters import compile_filter
from paraschut.store.runtime import Ended, Key, mark_run

HOST = "here"
ME = identity()


def ask(index, sql, *values):
    """Return the rows of a query, with a connection of its own."""
    with closing(sqlite3.connect(str(index))) as connection:
        return connection.execute(sql, values).fetchall()


def states(index):
    """Return the state of each job by (BatchID, JobIndex)."""
    return {(b, j): state for b, j, state in ask(index, 'SELECT "BatchID", "JobIndex", state FROM job')}


def read(store, batch, index):
    """Return one job with all its fields."""
    with store.reading() as connection:
        return views.get_job(store, connection, batch, index)


def filtered(store, text):
    """Return the jobs that a Filter finds, by batch."""
    with store.reading() as connection:
        found = views.islands(connection, compile_filter(text))
    return {
        batch: sorted(index for b, _, first, last in found if b == batch for index in range(first, last + 1))
        for batch in {one[0] for one in found}
    }


def add(store, jobs, *, new=True, now=1.0, workdir="/work here"):
    """Add job dicts of any batches in one transaction."""
    batches = {}
    for job in jobs:
        batches.setdefault(job["BatchID"], []).append(job)
    store.add(batches, now, workdir, new=new)


def submission(token, *, host=None, now=2.0, executor="file", environment=None, whole=True, defaults=None):
    """Return who claims: this process, with a local queue if ``host`` is given."""
    return NewSubmission(
        token=token,
        executor=executor,
        owner=ME,
        environment=environment or {"PATH": "/bin"},
        now=now,
        host=host,
        whole=whole,
        defaults=defaults,
    )


def decide(max_jobs=1000, min_prior=0.0, only=None):
    """Return what ``plan`` decides, as dispatch hands it to ``Store.claim``."""

    def chosen(ready):
        heads = [Head(*head) for head in ready.heads if only is None or head[0] in only]
        limits = Limits(max_jobs - ready.active, min_prior, ready.global_top)
        return [(head.batch_id, head.priority) for head in next_groups(heads, limits)], limits.room

    return chosen


def no_needs(job):
    """Ask for nothing."""
    return {}


def claim(store, token, *, condition=None, vet=no_needs, host=None, now=2.0, **limits):
    """Claim what is next; return the keys of the attempts."""
    taken = store.claim(submission(token, host=host, now=now), decide(**limits), vet, condition)
    return [Key(one.batch_id, one.job_index, one.n) for one in taken.jobs]


def start(store, key, now=3.0):
    """Let an attempt say that it runs."""
    with store.writing() as (_, db):
        mark_run(db, key, now)


def end(store, key, code=0, signal=None, *, started=3.0, now=4.0, reason=None, complete=False):
    """Fold the end of an attempt; return whether it was news."""
    with store.writing() as (_, db):
        return end_attempt(db, key, Ended(started, now, code, signal), reason, complete=complete)


def change(store, fields, *, batch, indices=None, unless=None, only=None, now=5.0, why="set"):
    """Change fields of jobs as dispatch does; return how many, and what must be deleted."""
    return store.change({batch: indices}, fields, unless or {}, who=ME, now=now, why=why, only=only)


def fold_events(store, files=None, *, key=None, also=None, unlink=True):
    """Fold event files as the next writer does, with what it writes itself; return their paths."""
    files = spool.pending(Paths(store.index), key) if files is None else files
    events = spool.load(files)
    with store.writing() as (_, db):
        spool.fold(db, store.index, events, ())
        if also is not None:
            also(db)
    if unlink:
        spool.unlink(Paths(store.index), events)
    return [event.path for event in events]
