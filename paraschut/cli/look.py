"""The commands that look: queue, log, info, history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from paraschut.cli import job as job_cli
from paraschut.cli.parts import (
    Selector,
    Verbatim,
    choose,
    filter_option,
    in_these_states,
    json_option,
    named,
    one_job,
    open_index,
    put_json,
    selector_argument,
    selectors_argument,
    state_option,
    whole,
    words_of,
)
from paraschut.errors import JobError, NotFoundError
from paraschut.look.screen import coloured
from paraschut.look.summary import parse_spans
from paraschut.look.texts import plural


@click.command(cls=Verbatim)
@selectors_argument(whole, "[BATCH]...")
@state_option
@filter_option("Show only jobs that meet it.")
@click.option("--report-missing", is_flag=True, help="Show the end of the error log of each missing job.")
@click.option("--reset-missing", is_flag=True, help="Set missing jobs back to 'init' first.")
@json_option
def queue(
    selectors: tuple[Selector, ...],
    only: tuple[str, ...],
    condition: str,
    report_missing: bool,
    reset_missing: bool,
    as_json: bool,
) -> None:
    """Show where every batch stands, or those that are named.

    Job indices by state, with * where their process is seen to be alive; what
    is missing and why; the totals.

    For example:

      paraschut queue --state run,missing
      paraschut queue last --filter 'resources.mem = "4gb"'

    --json: an object of BatchID to a list of objects, one a job, with the
    fields of its dict; "failure" is why it is missing. What JSON cannot hold is
    its plain likeness, or null.
    """
    from paraschut import get_queue

    if as_json and report_missing:
        raise click.UsageError("--report-missing prints text, so it does not go with --json.")
    found = get_queue(
        Verbose=not as_json,
        ResetMissing=reset_missing,
        ReportMissing=report_missing,
        Display=words_of(only) or None,
        Filter=_of_batches(selectors, condition),
    )
    if as_json:
        put_json({str(batch_id): jobs for batch_id, jobs in (found or {}).items()})


@click.command(cls=Verbatim)
@selectors_argument(whole, "[BATCH]...")
@click.option(
    "--interval",
    "-n",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=5.0,
    help="Between two looks; default: 5.",
)
@state_option
@filter_option("Show only jobs that meet it.")
def watch(selectors: tuple[Selector, ...], interval: float, only: tuple[str, ...], condition: str) -> None:
    """Show where every batch stands, and keep that up to date.

    On a screen of its own, which q or Ctrl-C leaves; arrow keys scroll. It ends
    by itself when no job is left that runs or waits. Into a pipe or a file, text
    is printed whenever something has changed.

    For example:

      paraschut watch
      paraschut watch last -n 2 --state run,missing
    """
    from paraschut import watch as watch_queue

    watch_queue(
        interval,
        _of_batches(selectors, condition),
        Display=words_of(only) or None,
    )


def _of_batches(selectors: Sequence[Selector], condition: str) -> str:
    """Return a Filter that also holds only for some batches."""
    if not selectors:
        return condition
    with open_index() as store:
        by_batch = named(store, selectors)
    if by_batch is None:
        return condition
    only = f"BatchID IN ({', '.join(map(str, by_batch))})"
    if not condition.strip():
        return only
    from paraschut.store.filters import compile_filter

    compile_filter(condition)  # so that a mistake is shown in the user's own words
    return f"({condition}\n) AND {only}"


@click.command(cls=Verbatim)
@selector_argument("which", "SELECTOR")
@click.option("--stderr", is_flag=True, help="What was written to standard error, not to standard output.")
@click.option(
    "--attempt",
    metavar="N",
    type=int,
    default=-1,
    help="Which attempt: 1 is the first, -1 the last, which is the default.",
)
@click.option("--lines", "-n", metavar="N", type=click.IntRange(min=0), help="Only the last N lines.")
@click.option("--head", metavar="N", type=click.IntRange(min=0), help="Only the first N lines.")
@click.option("--range", "span", metavar="A-B", help="Only lines A to B, counted from 1: 5-9, or 1,5-9.")
@click.option("--regex", metavar="REGEX", help="Only lines in which this regular expression is found.")
@click.option(
    "--grep",
    "wanted",
    metavar="REGEX",
    help="Search the logs of all jobs that are meant, and print what is found as BATCH:JOB:line: text.",
)
@click.option(
    "--follow", "-f", is_flag=True, help="Go on as the jobs write, until they have ended or Ctrl-C."
)
@state_option
@filter_option("Only jobs that meet it.")
def log(
    which: Selector,
    stderr: bool,
    attempt: int,
    lines: int | None,
    head: int | None,
    span: str | None,
    regex: str | None,
    wanted: str | None,
    follow: bool,
    only: tuple[str, ...],
    condition: str,
) -> None:
    """Print what jobs wrote, also while they run.

    Of whole batches, those that have started are meant. A log may be of any
    size: very long lines are cut, and bytes that are no text are replaced.

    For example:

      paraschut log last:7 --stderr --lines 20
      paraschut log last:7 -f
      paraschut log last --grep 'loss: nan|Traceback'
      paraschut log all --state missing --stderr --lines 5

    Exit status: as of all commands; and 1 if --grep finds nothing.
    """
    from paraschut import print_log

    condition = in_these_states(condition, only)
    if attempt == 0:
        raise click.UsageError("--attempt counts from 1, or backwards from -1: there is no attempt 0.")
    parts = {"--lines": lines, "--head": head, "--range": span}
    given = [option for option, value in parts.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} do not go together: each says which lines.")
    key = "stderr" if stderr else "stdout"
    if wanted is not None:
        if given or regex or follow or attempt != -1:
            raise click.UsageError(
                "--grep searches the whole last log: only --stderr, --state and --filter go with it."
            )
        _grep(which, condition, key, wanted)
        return
    if follow and (head is not None or span is not None):
        raise click.UsageError("What is followed is at the end: only --lines says where to begin.")
    chosen = _line_numbers(lines, head, span)
    number = attempt - 1 if attempt > 0 else attempt
    found = _with_log(which, condition, attempt, number)
    for batch_id, indices in found.items():
        if len(found) > 1 and len(indices) == 1:
            click.echo(f"--- {batch_id}:{indices[0]}, {key}")
        print_log(batch_id, indices, key, LogIndex=number, Lines=chosen, RegEx=regex, Follow=follow)


def _line_numbers(lines: int | None, head: int | None, span: str | None) -> int | Iterable[int] | None:
    if head is not None:
        return range(head)
    if span is not None:
        try:
            return [number - 1 for number in parse_spans(span) if number]
        except JobError as error:
            raise click.UsageError(
                f"--range takes line numbers, as 5-9 or 1,5-9: {span!r} is none."
            ) from error
    return lines


def _grep(which: Selector, condition: str, key: str, wanted: str) -> None:
    from paraschut.look.logs import grep, pattern_of

    pattern = pattern_of(wanted)
    found = False
    with open_index() as store:
        jobs = {one.batch_id: one.indices for one in choose(store, [which], condition)}
        for log, number, line in grep(store, jobs, key, pattern):
            found = True
            where = f"{log.batch_id}:{log.job_index}:{number}: "
            click.echo(click.style(where, fg="cyan") + line if coloured() else where + line, color=True)
    if not found:
        raise click.exceptions.Exit(job_cli.FAILED)


def _with_log(which: Selector, condition: str, attempt: int, number: int) -> dict[int, list[int]]:
    """Return the jobs that are meant and have the attempt; those that are named must have it."""
    from paraschut.store import views

    found: dict[int, list[int]] = {}
    must = which.indices is not None and not condition.strip()
    with open_index() as store:
        chosen = choose(store, [which], condition)
        with store.reading() as connection:
            for batch_id, index in ((one.batch_id, index) for one in chosen for index in one.indices):
                attempts = views.attempts_of(connection, batch_id, index)
                there = len(attempts) >= abs(attempt)
                if must and attempts and not there:
                    raise NotFoundError(
                        f"Job {batch_id}:{index} has {plural(len(attempts), 'attempt')}, and --attempt {attempt} is none of "
                        f"them; 'paraschut history {batch_id}:{index}' lists them."
                    )
                if must or (there and attempts[number]["started"] is not None):
                    found.setdefault(batch_id, []).append(index)
    if not found:
        raise NotFoundError("None of the jobs that are meant has such a log yet.")
    return found


@click.command(cls=Verbatim)
@selector_argument("which", "BATCH:JOB")
@json_option
def info(which: Selector, as_json: bool) -> None:
    """Print the dict of a job, with all its fields.

    For example:

      paraschut info last:7

    --json: an object with the fields of the dict. What JSON cannot hold is its
    plain likeness, or null.
    """
    from paraschut.runtime import get_job_info

    found = get_job_info(*one_job(which))
    if as_json:
        put_json(found)
    else:
        click.echo(_job_text(found))


def _job_text(job: Mapping[str, Any]) -> str:
    from paraschut.look.texts import clean

    width = max(map(len, job))
    return "\n".join(
        f"{clean(field):<{width}}  {clean(job_cli.plain_text(job[field]))}".rstrip() for field in job
    )


@click.command(cls=Verbatim)
@selectors_argument(whole, "[BATCH]...")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    default="paraschut-report.html",
    help="The file; default: paraschut-report.html.",
)
@state_option
@filter_option("Only jobs that meet it.")
@json_option
def report(
    selectors: tuple[Selector, ...], output: str, only: tuple[str, ...], condition: str, as_json: bool
) -> None:
    """Write an HTML file about what ran, to look at.

    A timeline by host, run times, what was asked for and used, throughput,
    failures by cause, the slowest and hungriest jobs. It opens from disk. It
    needs matplotlib: pip install matplotlib

    For example:

      paraschut report last -o yeast.html

    --json: an object with path.
    """
    from paraschut import report as report_on

    path = report_on(path=output, Filter=_of_batches(selectors, in_these_states(condition, only)))
    if as_json:
        put_json({"path": str(path)})
    else:
        click.echo(f"Wrote {path}")


@click.command(cls=Verbatim)
@selector_argument("which", "BATCH:JOB")
@json_option
def history(which: Selector, as_json: bool) -> None:
    """Print the attempts of a job, and what was done to it.

    Every attempt with its times and its end, and what people and rules did to
    the job: resets, edits, deletions.

    For example:

      paraschut history last:7

    --json: an object with BatchID, JobIndex, attempts (objects with n,
    executor, host, submitted, started, cancelled, ended, code, signal, reason,
    max_rss, cpu, ClusterID) and events (objects with at, kind, JobIndex, host,
    pid, detail; JobIndex is null where several jobs were changed at once).
    Times are UTC epoch seconds, durations seconds, sizes bytes; what is not
    known is null.
    """
    from paraschut.look.histories import history as history_of

    found = history_of(*one_job(which))
    if as_json:
        put_json(found)
    else:
        click.echo(repr(found))


@click.command(cls=Verbatim)
@selector_argument("which", "BATCH:JOB")
@json_option
def explain(which: Selector, as_json: bool) -> None:
    """Say why a job is not running.

    Every rule, job or word of the scheduler that holds it back: the group above
    it, what it comes after, a priority above 100, the limit of jobs, the pause
    before it is tried again.

    For example:

      paraschut explain last:7

    --json: a list of sentences.
    """
    from paraschut.look.explaining import explain as explain_job

    found = explain_job(*one_job(which))
    if as_json:
        put_json(list(found))
    else:
        click.echo(repr(found))
