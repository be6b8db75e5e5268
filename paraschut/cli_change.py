"""The commands that change jobs: reset, cancel, remove, boost."""

from __future__ import annotations

import click

from paraschut.cli_parts import (
    Selector,
    Verbatim,
    ask,
    choose,
    filter_option,
    in_states,
    jobs_and_batches,
    jobs_of,
    named,
    open_index,
    plural,
    selector,
    selectors_argument,
    whole,
    yes_option,
)

_FINISHED = ("complete", "collected")
_UNFINISHED = ("init", "submit", "run", "spawn")


def _refuse_nothing(selectors: tuple[Selector, ...], other: object, option: str) -> tuple[Selector, ...]:
    """Return selectors, all batches if only an option chooses; refuse a command that names nothing at all."""
    if not selectors and not other:
        raise click.UsageError(
            f"Say which jobs: a SELECTOR (last, all, BATCH, BATCH:JOB), or {option}, or both."
        )
    return selectors or (Selector("all"),)


@click.command(cls=Verbatim)
@selectors_argument(selector, "[SELECTOR]...")
@click.option("--state", metavar="STATE", default="init", help="The new state; default: init.")
@click.option("--all-states", is_flag=True, help="Also jobs that are complete or collected.")
@filter_option("Only jobs that meet it.")
@yes_option
def reset(selectors: tuple[Selector, ...], state: str, all_states: bool, condition: str, yes: bool) -> None:
    """Set jobs back to 'init', to be submitted again.

    Jobs that are complete or collected are left alone, unless --all-states is
    given. Those that an executor has are deleted from it.

    For example:

      paraschut reset 20260101000000:1,3-8
      paraschut reset last --filter 'failure IS NOT NULL' --yes
    """
    from paraschut import set_batch_field

    selectors = _refuse_nothing(selectors, condition, "--filter")
    left_alone = [state] if all_states else [*_FINISHED, state]
    with open_index() as store:
        chosen = in_states(choose(store, selectors, condition), lambda one: one not in left_alone)
    if not chosen:
        click.echo("There is nothing to reset: no such job, or all are in their state already or done.")
        return
    ask(f"set {jobs_and_batches(chosen)} to {state!r}", chosen, yes=yes)
    count = set_batch_field(jobs_of(chosen), {"state": state}, {"state": left_alone})
    click.echo(f"Set {plural(count, 'job')} to {state!r}.")


@click.command(cls=Verbatim)
@selectors_argument(selector, "[SELECTOR]...")
@click.option(
    "--state",
    metavar="STATE",
    default="held",
    help="What becomes of the jobs: held, the default, so that nothing sends them again, or init.",
)
@filter_option("Only jobs that meet it.")
@yes_option
def cancel(selectors: tuple[Selector, ...], state: str, condition: str, yes: bool) -> None:
    """Take jobs off the queue, running ones too.

    They are held back, and nothing sends them again until "paraschut reset" is
    told to.

    For example:

      paraschut cancel last
      paraschut cancel 20260101000000:7 --state init --yes
    """
    from paraschut import qdel_batch

    selectors = _refuse_nothing(selectors, condition, "--filter")
    with open_index() as store:
        chosen = in_states(
            choose(store, selectors, condition), lambda one: one in _UNFINISHED and one != state
        )
    if not chosen:
        click.echo("There is nothing to cancel: no such job, or all are done or held.")
        return
    ask(f"take {jobs_and_batches(chosen)} off the queue, to {state!r}", chosen, yes=yes)
    count = qdel_batch(jobs_of(chosen), state)
    click.echo(f"Took {plural(count, 'job')} off the queue, to {state!r}.")


@click.command(cls=Verbatim)
@selectors_argument(whole, "[BATCH]...")
@click.option("--state", metavar="STATE", help="Only batches whose jobs are all in this state.")
@yes_option
def remove(selectors: tuple[Selector, ...], state: str | None, yes: bool) -> None:
    """Remove batches for good.

    Their jobs, their history, their scripts, data and logs. What still runs is
    deleted from its executor first.

    For example:

      paraschut remove 20260101000000
      paraschut remove --state collected --yes
    """
    from paraschut import remove_batch

    selectors = _refuse_nothing(selectors, state, "--state")
    with open_index() as store:
        chosen = [one for one in choose(store, selectors) if state is None or set(one.states) == {state}]
    if not chosen:
        click.echo("There is nothing to remove: no such batch.")
        return
    ask(f"remove {jobs_and_batches(chosen)} for good, with all files", chosen, yes=yes)
    count = remove_batch([one.batch_id for one in chosen])
    click.echo(f"Removed {plural(count, 'batch')}.")


# A number below 0 would be taken for an option otherwise.
@click.command(cls=Verbatim, context_settings={"ignore_unknown_options": True})
@click.argument("batch", metavar="BATCH", type=whole)
@click.argument("by", metavar="BY", type=float)
def boost(batch: Selector, by: float) -> None:
    """Add to the priority of all jobs of a batch.

    Jobs above 100 go before those of all other batches.

    For example:

      paraschut boost last 100
      paraschut boost last -100
    """
    from paraschut import boost_batch_priority

    with open_index() as store:
        chosen = named(store, [batch])
        batch_ids = [one.batch_id for one in choose(store, [batch])] if chosen is None else list(chosen)
    count = boost_batch_priority(batch_ids, int(by) if by.is_integer() else by)
    click.echo(f"Added {by:g} to the priority of {plural(count, 'job')}.")
