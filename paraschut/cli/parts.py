"""What the commands share: how their help looks, selectors of jobs, common options, and the question before a loss."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from inspect import cleandoc
from typing import Any, NamedTuple

import click

from paraschut.cli import job as job_cli
from paraschut.config import load_config
from paraschut.errors import JobError, NotFoundError, ParaschutError
from paraschut.job import STATES
from paraschut.look.summary import parse_spans
from paraschut.look.texts import clean, plural
from paraschut.store import views
from paraschut.store.store import Store

#: Batches that a question lists.
_MOST_LISTED = 10
#: Words that the shell is offered.
_MOST_OFFERED = 50
#: Digits of the longest BatchID that SQLite can hold for sure.
_DIGITS = 18
#: The states in which an executor has a job.
_ACTIVE = ("submit", "run", "spawn")

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

# How help looks


class Verbatim(click.Command):
    """A command whose help is shown as it is written."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help without breaking its lines anew."""
        del ctx
        _write(formatter, self.help or "")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the last words without breaking their lines anew."""
        del ctx
        if self.epilog:
            _write(formatter, self.epilog)


def _write(formatter: click.HelpFormatter, text: str) -> None:
    formatter.write_paragraph()
    for line in cleandoc(text).split("\n"):
        formatter.write(f"  {line}".rstrip() + "\n")


class Commands(Verbatim, click.Group):
    """The commands, in the order in which they were added."""

    command_class = Verbatim

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(self.commands)


# Which jobs


class Selector(NamedTuple):
    """A batch, or ``last``, or ``all``; and the indices of its jobs, None for all of them."""

    batch: int | str
    indices: tuple[int, ...] | None = None


class Chosen(NamedTuple):
    """The jobs of one batch that a command is about, as indices by state."""

    batch_id: int
    name: str
    states: dict[str, list[int]]

    @property
    def indices(self) -> list[int]:
        """The jobs, whatever their state."""
        return sorted(index for group in self.states.values() for index in group)


def selector(text: str) -> Selector:
    """Read one selector, as the type of an argument.

    Examples
    --------
    >>> selector("last:1,3-5")
    Selector(batch='last', indices=(1, 3, 4, 5))
    """
    name, colon, indices = (part.strip() for part in text.partition(":"))
    if name not in {"last", "all"} and not (name.isascii() and name.isdecimal() and len(name) <= _DIGITS):
        raise click.BadParameter(
            f"{text!r} names no jobs; write a BatchID, 'last' or 'all', or some jobs of a batch as in "
            f"20260101000000:1,3-8."
        )
    batch = int(name) if name.isdecimal() else name
    if not colon:
        return Selector(batch)
    if batch == "all":
        raise click.BadParameter("'all' takes no job indices; write a BatchID or 'last' in front of them.")
    try:
        return Selector(batch, parse_spans(indices))
    except JobError as error:
        raise click.BadParameter(str(error)) from error


def whole(text: str) -> Selector:
    """Read a selector of whole batches, as the type of an argument."""
    one = selector(text)
    if one.indices is not None:
        raise click.BadParameter(f"{text!r} names single jobs, and this command takes whole batches.")
    return one


def open_index() -> Store:
    """Open the index of the configuration that holds here."""
    return Store.of(load_config())


def named(store: Store, selectors: Iterable[Selector]) -> dict[int, list[int] | None] | None:
    """Return the jobs that selectors name, by batch: None is all of a batch. None: all batches.

    Raises
    ------
    NotFoundError
        If there is no such batch or job.
    """
    selectors = list(selectors)
    if any(one.batch == "all" for one in selectors):
        return None
    found: dict[int, list[int] | None] = {}
    with store.reading() as connection:
        for one in selectors:
            batch_id = one.batch if isinstance(one.batch, int) else _last(connection)
            if not views.existing(connection, batch_id):
                raise NotFoundError(
                    f"There is no batch {batch_id} in the index. 'paraschut queue' shows what there is."
                )
            before = found.get(batch_id, [])
            if one.indices is None or before is None:
                found[batch_id] = None
                continue
            unknown = set(one.indices) - set(views.indices_of(connection, batch_id, one.indices))
            if unknown:
                raise NotFoundError(f"There is no job {batch_id}:{min(unknown)} in the index.")
            found[batch_id] = sorted({*before, *one.indices})
    return found


def _last(connection: Any) -> int:
    newest = sorted(views.batches(connection).values(), key=lambda one: (one.created, one.batch_id))
    for one in reversed(newest):
        if views.existing(connection, one.batch_id):  # others are only reserved
            return one.batch_id
    raise NotFoundError("There is no last batch: the index has no jobs yet.")


def choose(store: Store, selectors: Sequence[Selector], condition: str = "") -> list[Chosen]:
    """Return the jobs that selectors name and that meet a Filter."""
    only: Any = None
    if condition.strip():
        from paraschut.store.filters import compile_filter

        only = compile_filter(condition)
    by_batch = named(store, selectors)
    with store.reading() as connection:
        islands = views.islands(connection, only)
        known = views.batches(connection)
    sets = {batch_id: indices and set(indices) for batch_id, indices in (by_batch or {}).items()}
    chosen: dict[int, Chosen] = {}
    for batch_id, state, first, last in islands:
        if by_batch is not None and batch_id not in by_batch:
            continue
        some = sets.get(batch_id)
        indices = [index for index in range(first, last + 1) if some is None or index in some]
        if indices:
            one = chosen.setdefault(batch_id, Chosen(batch_id, known[batch_id].name or "", {}))
            one.states.setdefault(state, []).extend(indices)
    if not chosen:
        tell_unknown(store, condition)
    return list(chosen.values())


def tell_unknown(store: Store, condition: str) -> None:
    """Say why a Filter may have found nothing."""
    if not condition.strip():
        return
    from paraschut.store.filters import unknown_fields

    with store.reading() as connection:
        for line in unknown_fields(connection, condition):
            click.echo(line, err=True)


def one_job(one: Selector) -> tuple[int, int]:
    """Return the one job that a selector names."""
    if isinstance(one.batch, int) and one.indices is not None and len(one.indices) == 1:
        return one.batch, one.indices[0]
    with open_index() as store:
        pairs = [(part.batch_id, index) for part in choose(store, [one]) for index in part.indices]
    if len(pairs) != 1:
        raise click.UsageError(
            f"The selector names {plural(len(pairs), 'job')}, and this command takes one: write BATCH:JOB, as in "
            f"20260101000000:7 or last:7."
        )
    return pairs[0]


def in_states(chosen: Iterable[Chosen], good: Callable[[str], bool]) -> list[Chosen]:
    """Return those of the jobs that are in certain states."""
    parts = (
        one._replace(states={state: group for state, group in one.states.items() if good(state)})
        for one in chosen
    )
    return [part for part in parts if part.states]


def jobs_of(chosen: Iterable[Chosen]) -> dict[int, list[dict[str, Any]]]:
    """Return jobs as the verbs take them: in the form of what ``get_queue(Verbose=False)`` returns."""
    return {one.batch_id: [{"JobIndex": index} for index in one.indices] for one in chosen}


# Words


def jobs_and_batches(chosen: Sequence[Chosen]) -> str:
    """Return how many jobs of how many batches, in words."""
    return f"{plural(sum(len(one.indices) for one in chosen), 'job')} of {plural(len(chosen), 'batch')}"


def put_json(value: object) -> None:
    """Print one JSON document."""
    job_cli.put(job_cli.json_text(value) + "\n")


# Options


def selectors_argument(read: Callable[[str], Selector], name: str, *, required: bool = False) -> Decorator:
    """Return the argument that takes selectors."""
    return click.argument(
        "selectors", metavar=name, nargs=-1, type=read, required=required, shell_complete=_offer_batches
    )


def selector_argument(name: str, metavar: str, read: Callable[[str], Selector] = selector) -> Decorator:
    """Return the argument that takes one selector."""
    return click.argument(name, metavar=metavar, type=read, shell_complete=_offer_batches)


def _offer_batches(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return how a selector may go on, for the shell: a batch, the newest first."""
    del context, parameter
    newest: list[str] = []
    with suppress(ParaschutError), open_index() as store, store.reading() as connection:
        newest = [str(batch_id) for batch_id in sorted(views.batches(connection), reverse=True)]
    return [word for word in ("last", "all", *newest) if word.startswith(begun)][:_MOST_OFFERED]


def offer_states(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return how a state may go on, for the shell."""
    del context
    words = STATES if parameter.name == "state" else (*STATES, "missing")
    return [word for word in words if word.startswith(begun)]


def filter_option(text: str) -> Decorator:
    """Return the option that takes a Filter."""
    return click.option("--filter", "condition", metavar="CONDITION", default="", help=text)


#: Chooses jobs by their state; :func:`in_these_states` makes a Filter of it.
state_option = click.option(
    "--state",
    "only",
    metavar="STATE",
    multiple=True,
    shell_complete=offer_states,
    help="Only jobs in this state, or 'missing'. May be given several times, or as a,b.",
)


def words_of(given: Iterable[str]) -> list[str]:
    """Return the states that are given, one a word or several with commas between them."""
    return [word.strip() for one in given for word in one.split(",") if word.strip()]


def in_these_states(condition: str, states: Iterable[str]) -> str:
    r"""Return a Filter that also holds only for jobs in some states; as it is if there are none.

    Examples
    --------
    >>> in_these_states("n > 3", ["run,missing"])
    "(n > 3\n) AND (state IN ('run') OR failure IS NOT NULL)"
    """
    words = words_of(states)
    if not words:
        return condition
    texts = ", ".join("'" + word.replace("'", "''") + "'" for word in words if word != "missing")
    parts = [f"state IN ({texts})"] if texts else []
    parts += ["failure IS NOT NULL"] if "missing" in words else []
    only = f"({' OR '.join(parts)})"
    if not condition.strip():
        return only
    from paraschut.store.filters import compile_filter

    compile_filter(condition)  # so that a mistake is shown in the user's own words
    return f"({condition}\n) AND {only}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, in UTF-8.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def ask(deed: str, chosen: Sequence[Chosen], *, yes: bool) -> None:
    """Say what is about to happen to which jobs, and go on only if somebody agrees or has agreed.

    Raises
    ------
    ParaschutError
        If nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        ids = [str(one.batch_id) for one in chosen[:_MOST_LISTED]] + ["…"] * (len(chosen) > _MOST_LISTED)
        raise ParaschutError(
            f"This would {deed} ({', '.join(ids)}), and there is no terminal to ask at. Nothing was changed. Add --yes "
            f"if it is what you want."
        )
    click.echo(f"This will {deed}:", err=True)
    for one in chosen[:_MOST_LISTED]:
        states = ", ".join(f"{len(group):,} {clean(state)}" for state, group in one.states.items())
        click.echo(f"  {one.batch_id}  {clean(one.name)}  ({states})", err=True)
    if len(chosen) > _MOST_LISTED:
        click.echo(f"  and {plural(len(chosen) - _MOST_LISTED, 'more batch')}", err=True)
    if any(state in one.states for one in chosen for state in _ACTIVE):
        click.echo("What an executor still has of them will be deleted from it.", err=True)
    if not click.confirm("Go on?", err=True):
        raise ParaschutError("You said no, so nothing was changed.")
