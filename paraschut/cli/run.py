"""The commands that begin: run, which makes a batch of plain commands, and doctor, which looks whether all is well."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from paraschut.cli import job as job_cli
from paraschut.cli.parts import Verbatim, json_option, put_json
from paraschut.errors import JobError
from paraschut.look.screen import coloured
from paraschut.look.summary import parse_spans
from paraschut.look.texts import plural

_ITEM = "{}"
_PAUSE = 0.5
_ACTIVE = ("submit", "run", "spawn")
_DONE = ("complete", "collected")


def _indices(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    del context, parameter
    try:
        return None if text is None else parse_spans(text)
    except JobError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    cls=Verbatim,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--each-line", "lines", metavar="FILE", type=click.File("r"), help="A job for each line; - is the input."
)
@click.option("--array", metavar="INDICES", callback=_indices, help="A job for each index, as 0-99 or 1,3-8.")
@click.option("--name", metavar="NAME", help="What the batch is called; default: the command.")
@click.option("--cpus", metavar="N", type=click.IntRange(min=1), help="Processors of each job.")
@click.option("--mem", metavar="SIZE", help="Memory of each job, as 4gb.")
@click.option("--walltime", metavar="TIME", help="The most time that each job may take, as 2h or 00:30:00.")
@click.option("--queue", metavar="QUEUE", help="The queue or partition.")
@click.option(
    "--retries", metavar="N", type=click.IntRange(min=0), help="Try again so often when a job fails."
)
@click.option("--executor", metavar="NAME", help="Who runs them; default: as configured.")
@click.option("--no-submit", is_flag=True, help="Only add the batch.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit status 1 if a job was not completed.")
@json_option
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    lines: Iterable[str] | None,
    array: tuple[int, ...] | None,
    name: str | None,
    executor: str | None,
    no_submit: bool,
    wait: bool,
    as_json: bool,
    words: tuple[str, ...],
    **asked: Any,
) -> None:
    """Make a batch of plain commands, and submit it.

    A job is complete when its command exits with 0. {} in the command stands for
    the line or the index; "paraschut job info item" prints it in a job. A
    command of one word with blanks in it is a line for the shell.

    For example:

      paraschut run -- make -j4 all
      paraschut run --each-line samples.txt --mem 4gb -- ./align.sh {}
      paraschut run --array 0-99 -- python3 simulate.py --seed {}
      paraschut run --wait -- 'sort words.txt | uniq -c > counts.txt'

    --json: an object with BatchID, jobs (a list of JobIndex) and submitted (how
    many of them).
    """
    from paraschut import add_batch_to_queue, submit_one_batch
    from paraschut.prepare import plain_template

    items = _items(lines, array)
    if lines is not None and not any(_ITEM in word for word in words):
        raise click.UsageError(f"The command has no {_ITEM}, which stands for the line.")
    template = _template(plain_template(), name or os.path.basename(words[0].split()[0]), asked)
    batch_id = template["BatchID"]
    jobs = [
        {
            **template,
            "JobIndex": index,
            "script": _line(words, item),
            **({} if item is None else {"item": item}),
        }
        for index, item in items
    ]
    add_batch_to_queue(batch_id, jobs)
    done = None if no_submit else submit_one_batch(batch_id, executor, Verbose=False)
    if as_json and not wait:
        _put(batch_id, jobs, done)
    elif not as_json:
        told = f"added {plural(len(jobs), 'job')}" if done is None else str(done)
        click.echo(f"batch {batch_id}: {told}")
    if wait and done is not None:
        failed = _wait(batch_id, asked["retries"] or 0)
        if as_json:
            _put(batch_id, jobs, done)
        if failed:
            click.echo(
                f"{plural(failed, 'job')} of {len(jobs):,} not completed: paraschut queue {batch_id}",
                err=True,
            )
            raise click.exceptions.Exit(job_cli.FAILED)


def _put(batch_id: int, jobs: Sequence[dict[str, Any]], done: Any) -> None:
    count = 0 if done is None else done.count
    put_json({"BatchID": batch_id, "jobs": [job["JobIndex"] for job in jobs], "submitted": count})


def _items(lines: Iterable[str] | None, array: tuple[int, ...] | None) -> list[tuple[int, str | None]]:
    """Return the index of each job, and what its braces stand for."""
    if lines is not None and array is not None:
        raise click.UsageError("--each-line and --array do not go together: each says which jobs there are.")
    if array is not None:
        return [(index, str(index)) for index in array]
    if lines is None:
        return [(0, None)]
    given = [line.rstrip("\r\n") for line in lines]
    items = [line for line in given if line.strip()]
    if not items:
        raise click.UsageError("There is no line, so there would be no job.")
    return list(enumerate(items))


def _line(words: Sequence[str], item: str | None) -> str:
    """Return the command line of a job; what stands for the braces never becomes part of the shell's language."""
    if len(words) == 1 and any(map(str.isspace, words[0])):
        return words[0] if item is None else words[0].replace(_ITEM, shlex.quote(item))
    return shlex.join(word if item is None else word.replace(_ITEM, item) for word in words)


def _template(template: dict[str, Any], name: str, asked: dict[str, Any]) -> dict[str, Any]:
    resources = {key: asked[key] for key in ("cpus", "mem", "walltime") if asked[key] is not None}
    template |= {"name": name, "complete_on_exit": True, "resources": {**template["resources"], **resources}}
    template |= {key: asked[key] for key in ("queue", "retries") if asked[key] is not None}
    return template


def _wait(batch_id: int, retries: int) -> int:
    """Wait until nothing of a batch runs any more; return how many of its jobs are not complete."""
    from paraschut import get_queue

    while True:
        group = get_queue(Verbose=False, Filter=f"BatchID = {batch_id}").get(batch_id, [])
        left = [job for job in group if job["state"] not in _DONE]
        if not any(_goes_on(job, retries) for job in left):
            return len(left)
        time.sleep(_PAUSE)


def _goes_on(job: Mapping[str, Any], retries: int) -> bool:
    if job["state"] in _ACTIVE:
        return not job.get("failure")
    # It waits for room, or for the next try; both come by themselves.
    return job["state"] == "init" and len(job.get("ClusterID") or ()) <= retries


@click.command(cls=Verbatim)
@json_option
def doctor(as_json: bool) -> None:
    """Look whether all that paraschut stands on holds here.

    Configuration, folder, room, locks between two processes, renaming, clock,
    SQLite, the index, its journal, the scheduler's commands, the agent: one line
    each, fine or what to do.

    For example:

      paraschut doctor

    Exit status: 0 all is fine; 1 something is to be done.

    --json: a list of objects with name, fine (null where there is nothing to
    look at) and words.
    """
    from paraschut.look.doctor import examine

    found = []
    for check in examine():
        found.append(check)
        if not as_json:
            mark, colour = {True: ("fine", "green"), False: ("WRONG", "red"), None: ("-", "")}[check.fine]
            shown = f"{mark:<5}"
            shown = click.style(shown, fg=colour) if coloured() and colour else shown
            click.echo(f"{shown}  {check.name:<13}  {check.words}", color=coloured())
    if as_json:
        put_json([check._asdict() for check in found])
    if any(check.fine is False for check in found):
        raise click.exceptions.Exit(job_cli.FAILED)
