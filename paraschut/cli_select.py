"""What a command is about: selectors of batches and jobs, and the question before anything is lost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import click

from paraschut.errors import JobError, NotFoundError, ParaschutError
from paraschut.render import clean
from paraschut.store import views
from paraschut.store.store import Store
from paraschut.summary import parse_spans

#: Batches that a question lists.
_MOST_LISTED = 10
_ACTIVE = ("submit", "run", "spawn")

EXPLAINED = """\
A SELECTOR names jobs: 20260101000000 (all jobs of that batch), 20260101000000:7 (one of them),
20260101000000:1,3-8 (several), last (the newest batch), last:7, or all."""


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
    def count(self) -> int:
        """How many jobs they are."""
        return sum(map(len, self.states.values()))


def selector(text: str) -> Selector:
    """Read one selector; the type of an argument of click."""
    name, colon, indices = text.partition(":")
    word = name.strip().lower()
    batch = int(word) if word.isdecimal() and word.isascii() else word
    if batch not in {"last", "all"} and isinstance(batch, str):
        raise click.BadParameter(
            f"{text!r} names no jobs; write a BatchID, 'last' or 'all', or some jobs of a batch as in "
            f"20260101000000:1,3-8."
        )
    if not colon:
        return Selector(batch)
    if batch == "all":
        raise click.BadParameter("'all' takes no job indices; write a BatchID, or 'last', in front of them.")
    try:
        return Selector(batch, parse_spans(indices))
    except JobError as error:
        raise click.BadParameter(str(error)) from error


def whole(text: str) -> Selector:
    """Read a selector of whole batches; the type of an argument of click."""
    one = selector(text)
    if one.indices is not None:
        raise click.BadParameter(f"{text!r} names single jobs; this command takes whole batches only.")
    return one


def wanted(store: Store, selectors: Iterable[Selector]) -> dict[int, list[int] | None] | None:
    """Return the job indices that selectors name, by batch, None for all of a batch; None for all batches.

    Raises
    ------
    NotFoundError
        If there is no such batch or job.
    """
    selectors = list(selectors)
    if any(one.batch == "all" for one in selectors):
        return None
    found: dict[int, set[int] | None] = {}
    with store.reading() as connection:
        for one in selectors:
            batch_id = one.batch if isinstance(one.batch, int) else _last(connection)
            if not views.existing(connection, batch_id):
                raise NotFoundError(
                    f"There is no batch {batch_id} in the index. 'paraschut queue' shows what there is."
                )
            before = found.get(batch_id, set())
            if one.indices is None or before is None:
                found[batch_id] = None
                continue
            unknown = set(one.indices) - set(views.indices_of(connection, batch_id, one.indices))
            if unknown:
                raise NotFoundError(f"There is no job {batch_id}:{min(unknown)} in the index.")
            found[batch_id] = before | set(one.indices)
    return {batch_id: indices and sorted(indices) for batch_id, indices in found.items()}


def _last(connection: Any) -> int:
    newest = sorted(views.batches(connection).values(), key=lambda one: (one.created, one.batch_id))
    for one in reversed(newest):
        if views.existing(connection, one.batch_id):  # others are only reserved
            return one.batch_id
    raise NotFoundError("There is no last batch: the index has no jobs yet.")


def only_job(store: Store, one: Selector) -> tuple[int, int]:
    """Return the one job that a selector names."""
    found = wanted(store, [one])
    jobs = choose(store, [one]) if found is None or None in found.values() else None
    if jobs is None and found is not None:
        pairs = [(batch_id, index) for batch_id, indices in found.items() for index in indices or ()]
    else:
        pairs = [(part.batch_id, index) for part in jobs or () for group in part.states.values() for index in group]
    if len(pairs) != 1:
        raise click.UsageError(
            f"This command shows one job, and the selector names {len(pairs)}; write BATCH:JOB, as in {pairs[0][0]}:"
            f"{pairs[0][1]}."
        )
    return pairs[0]


def choose(store: Store, selectors: Sequence[Selector], Filter: str = "") -> list[Chosen]:
    """Return the jobs that selectors name and that meet a Filter; without selectors, of all batches."""
    condition: Any = None
    if Filter.strip():
        from paraschut.store.filters import compile_filter

        condition = compile_filter(Filter)
    named = wanted(store, selectors) if selectors else None
    with store.reading() as connection:
        islands = views.islands(connection, condition)
        known = views.batches(connection)
    chosen: dict[int, Chosen] = {}
    sets = {batch_id: None if indices is None else set(indices) for batch_id, indices in (named or {}).items()}
    for batch_id, state, first, last in islands:
        if named is not None and batch_id not in named:
            continue
        some = sets.get(batch_id)
        indices = [index for index in range(first, last + 1) if some is None or index in some]
        if indices:
            part = chosen.setdefault(batch_id, Chosen(batch_id, known[batch_id].name or "", {}))
            part.states.setdefault(state, []).extend(indices)
    return list(chosen.values())


def in_states(chosen: Iterable[Chosen], good: Callable[[str], bool]) -> list[Chosen]:
    """Return those of the jobs that are in certain states."""
    parts = (
        one._replace(states={state: group for state, group in one.states.items() if good(state)})
        for one in chosen
    )
    return [part for part in parts if part.states]


def jobs_of(chosen: Iterable[Chosen]) -> dict[int, list[dict[str, Any]]]:
    """Return jobs in the form in which the verbs take what ``get_queue(Verbose=False)`` returns."""
    return {
        part.batch_id: [{"JobIndex": index} for group in part.states.values() for index in group]
        for part in chosen
    }


def plural(count: int, word: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> plural(1, "job"), plural(2, "batch")
    ('1 job', '2 batches')
    """
    ending = "" if count == 1 else "es" if word.endswith("ch") else "s"
    return f"{count:,} {word}{ending}"


def jobs_and_batches(chosen: Sequence[Chosen]) -> str:
    """Return how many jobs of how many batches, in words."""
    return f"{plural(sum(one.count for one in chosen), 'job')} of {plural(len(chosen), 'batch')}"


def ask(deed: str, chosen: Sequence[Chosen], *, yes: bool) -> None:
    """Say what is about to happen to which jobs, and go on only if a person agrees or has agreed.

    Raises
    ------
    ParaschutError
        If nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if not sys.stdin or not sys.stdin.isatty():
        some = ", ".join(str(one.batch_id) for one in chosen[:_MOST_LISTED])
        more = ", …" if len(chosen) > _MOST_LISTED else ""
        raise ParaschutError(
            f"This would {deed} ({some}{more}), and there is no terminal to ask at: say --yes if that is what you "
            f"want. Nothing was changed."
        )
    click.echo(f"This will {deed}:", err=True)
    for one in chosen[:_MOST_LISTED]:
        states = ", ".join(f"{len(group):,} {clean(state)}" for state, group in one.states.items())
        click.echo(f"  {one.batch_id}  {clean(one.name)}: {states}", err=True)
    if len(chosen) > _MOST_LISTED:
        click.echo(f"  and {plural(len(chosen) - _MOST_LISTED, 'more batch')}", err=True)
    active = Counter(state for one in chosen for state, group in one.states.items() for _ in group)
    with_executor = sum(active[state] for state in _ACTIVE)
    if with_executor:
        click.echo(f"{plural(with_executor, 'job')} with an executor will be deleted from it first.", err=True)
    if not click.confirm("Go on?", err=True):
        raise ParaschutError("The answer was no. Nothing was changed.")
