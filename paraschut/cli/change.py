"""The commands that change jobs: reset, cancel, remove, boost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from paraschut.cli.parts import (
    Chosen,
    Selector,
    Verbatim,
    ask,
    choose,
    filter_option,
    in_states,
    in_these_states,
    jobs_and_batches,
    jobs_of,
    json_option,
    named,
    offer_states,
    open_index,
    put_json,
    selector,
    selector_argument,
    selectors_argument,
    state_option,
    whole,
    yes_option,
)
from paraschut.look.texts import plural

_FINISHED = ("complete", "collected")
_UNFINISHED = ("init", "submit", "run", "spawn")


def _refuse_nothing(selectors: tuple[Selector, ...], condition: str) -> tuple[Selector, ...]:
    """Return selectors, all batches if only a condition chooses; refuse a command that names nothing at all."""
    if not selectors and not condition:
        raise click.UsageError(
            "Say which jobs: a SELECTOR (last, all, BATCH, BATCH:JOB), --state or --filter, or several of these."
        )
    return selectors or (Selector("all"),)


def _tell(line: str, count: int, *, as_json: bool, **what: Any) -> None:
    """Say what was done, in words or as data."""
    if as_json:
        put_json({"count": count, **what})
    else:
        click.echo(line)


def _indices(chosen: Sequence[Chosen]) -> dict[str, list[int]]:
    return {str(one.batch_id): sorted(one.indices) for one in chosen}


@click.command(cls=Verbatim)
@selectors_argument(selector, "[SELECTOR]...")
@click.option(
    "--to",
    "state",
    metavar="STATE",
    default="init",
    shell_complete=offer_states,
    help="The new state; default: init.",
)
@click.option("--all-states", is_flag=True, help="Also jobs that are complete or collected.")
@state_option
@filter_option("Only jobs that meet it.")
@yes_option
@json_option
def reset(
    selectors: tuple[Selector, ...],
    state: str,
    all_states: bool,
    only: tuple[str, ...],
    condition: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Set jobs back to 'init', to be submitted again.

    Jobs that are complete or collected are left alone, unless --all-states is
    given. Those that an executor has are deleted from it.

    For example:

      paraschut reset 20260101000000:1,3-8
      paraschut reset last --state missing --yes

    --json: an object with count (how many jobs were changed), state, and jobs
    (those that were chosen: an object of BatchID to a list of JobIndex).
    """
    from paraschut import set_batch_field

    condition = in_these_states(condition, only)
    selectors = _refuse_nothing(selectors, condition)
    left_alone = [state] if all_states else [*_FINISHED, state]
    with open_index() as store:
        chosen = in_states(choose(store, selectors, condition), lambda one: one not in left_alone)
    count, line = 0, "There is nothing to reset: no such job, or all are in their state already or done."
    if chosen:
        ask(f"set {jobs_and_batches(chosen)} to {state!r}", chosen, yes=yes)
        count = set_batch_field(jobs_of(chosen), {"state": state}, {"state": left_alone})
        line = f"Set {plural(count, 'job')} to {state!r}."
    _tell(line, count, as_json=as_json, state=state, jobs=_indices(chosen))


@click.command(cls=Verbatim)
@selectors_argument(selector, "[SELECTOR]...")
@click.option(
    "--to",
    "state",
    metavar="STATE",
    default="held",
    help="What becomes of the jobs: held, the default, so that nothing sends them again, or init.",
)
@state_option
@filter_option("Only jobs that meet it.")
@yes_option
@json_option
def cancel(
    selectors: tuple[Selector, ...],
    state: str,
    only: tuple[str, ...],
    condition: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Take jobs off the queue, running ones too.

    They are held back, and nothing sends them again until "paraschut reset" is
    told to.

    For example:

      paraschut cancel last
      paraschut cancel 20260101000000:7 --to init --yes

    --json: an object as of "paraschut reset".
    """
    from paraschut import qdel_batch

    condition = in_these_states(condition, only)
    selectors = _refuse_nothing(selectors, condition)
    with open_index() as store:
        chosen = in_states(
            choose(store, selectors, condition), lambda one: one in _UNFINISHED and one != state
        )
    count, line = 0, "There is nothing to cancel: no such job, or all are done or held."
    if chosen:
        ask(f"take {jobs_and_batches(chosen)} off the queue, to {state!r}", chosen, yes=yes)
        count = qdel_batch(jobs_of(chosen), state)
        line = f"Took {plural(count, 'job')} off the queue, to {state!r}."
    _tell(line, count, as_json=as_json, state=state, jobs=_indices(chosen))


@click.command(cls=Verbatim)
@selectors_argument(whole, "[BATCH]...")
@click.option(
    "--state",
    "only",
    metavar="STATE",
    multiple=True,
    shell_complete=offer_states,
    help="Only batches whose jobs are all in this state. May be given several times, or as a,b.",
)
@filter_option("Only batches whose jobs all meet it.")
@yes_option
@json_option
def remove(
    selectors: tuple[Selector, ...], only: tuple[str, ...], condition: str, yes: bool, as_json: bool
) -> None:
    """Remove batches for good.

    Their jobs, their history, their scripts, data and logs. What still runs is
    deleted from its executor first.

    For example:

      paraschut remove 20260101000000
      paraschut remove --state collected --yes

    --json: an object with count (how many batches were removed) and batches
    (their BatchIDs).
    """
    from paraschut import remove_batch

    condition = in_these_states(condition, only)
    selectors = _refuse_nothing(selectors, condition)
    with open_index() as store:
        chosen = choose(store, selectors)
        if condition:
            meeting = {one.batch_id: len(one.indices) for one in choose(store, selectors, condition)}
            chosen = [one for one in chosen if meeting.get(one.batch_id) == len(one.indices)]
    count, line = 0, "There is nothing to remove: no such batch."
    batches = [one.batch_id for one in chosen]
    if chosen:
        ask(f"remove {jobs_and_batches(chosen)} for good, with all files", chosen, yes=yes)
        count = remove_batch(batches)
        line = f"Removed {plural(count, 'batch')}."
    _tell(line, count, as_json=as_json, batches=batches)


# A number below 0 would be taken for an option otherwise.
@click.command(cls=Verbatim, context_settings={"ignore_unknown_options": True})
@selector_argument("batch", "BATCH", whole)
@click.argument("by", metavar="BY", type=float)
@json_option
def boost(batch: Selector, by: float, as_json: bool) -> None:
    """Add to the priority of all jobs of a batch.

    Jobs above 100 go before those of all other batches.

    For example:

      paraschut boost last 100
      paraschut boost last -100

    --json: an object with count (how many jobs were changed), by, and batches
    (their BatchIDs).
    """
    from paraschut import boost_batch_priority

    with open_index() as store:
        chosen = named(store, [batch])
        batch_ids = [one.batch_id for one in choose(store, [batch])] if chosen is None else list(chosen)
    count = boost_batch_priority(batch_ids, int(by) if by.is_integer() else by)
    line = f"Added {by:g} to the priority of {plural(count, 'job')}."
    _tell(line, count, as_json=as_json, by=by, batches=batch_ids)
