"""The command line: one short command for each verb, which calls what a notebook would call.

The commands of shell jobs are in ``cli.job``, which gets by without click.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraschut import __version__
from paraschut.cli import job as job_cli
from paraschut.cli.change import boost, cancel, remove, reset
from paraschut.cli.look import explain, history, info, log, queue, report, watch
from paraschut.cli.parts import (
    Commands,
    Selector,
    Verbatim,
    filter_option,
    json_option,
    named,
    open_index,
    put_json,
    selector,
    selectors_argument,
    tell_unknown,
)
from paraschut.cli.run import doctor
from paraschut.cli.run import run as run_commands
from paraschut.errors import ParaschutError
from paraschut.look.texts import plural

if TYPE_CHECKING:
    from paraschut.demo import DemoResult
    from paraschut.dispatch import Submitted

_INTERRUPTED = 130

_EPILOG = """\
"paraschut COMMAND --help" tells more about one of them.

A SELECTOR names jobs:
  20260101000000        all jobs of that batch
  20260101000000:7      one of them
  20260101000000:1,3-8  several
  last, last:7          the newest batch, or one of its jobs
  all                   all jobs of all batches
A BATCH is the same without job indices. --state STATE (also 'missing') and
--filter CONDITION choose among them.

To have the shell complete commands and options, add to ~/.bashrc (for zsh and
fish, with zsh_source and fish_source to their own files):
  eval "$(_PARASCHUT_COMPLETE=bash_source paraschut)"

Colours are used on a terminal only, and not if NO_COLOR is set.

Exit status: 0 it is done; 1 it could not be done, for a reason that is told
in a sentence; 2 wrong usage; 130 Ctrl-C; 141 the reader of the output left.
How the jobs are does not matter: "queue" gives 0 also when some are missing.
"""


def run(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status.

    Parameters
    ----------
    arguments : Sequence[str]
        What stands behind ``paraschut``.
    """
    if "_PARASCHUT_COMPLETE" in os.environ:  # the shell asks how a word may go on
        cli.main(list(arguments), prog_name="paraschut")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name shows a question mark instead, and the command goes on.
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with cli.make_context("paraschut", list(arguments)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo(err=True)  # the cursor stands behind the question
        return _INTERRUPTED
    except ParaschutError as error:
        click.echo(f"Error: {error}", err=True)
        return job_cli.FAILED
    return job_cli.DONE


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="paraschut")
def cli() -> None:
    """Prepare, submit and watch batches of jobs, with no server.

    For example, to begin here, to try it out, and to look:

      paraschut init
      paraschut demo
      paraschut queue
    """


_executor = click.option(
    "--executor", metavar="NAME", help="Who runs them; default: each batch's own, or the configured one."
)
_max_jobs = click.option(
    "--max-jobs",
    metavar="N",
    type=click.IntRange(min=0),
    help="At most N jobs of the index are queued or running at once; default: as configured.",
)
_min_prior = click.option(
    "--min-prior",
    metavar="PRIORITY",
    type=float,
    default=0.0,
    help="Submit nothing of a lower priority; default: 0.",
)
_filter = filter_option("Submit only jobs that meet it; it never changes what holds back what.")


@click.command(cls=Verbatim)
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
def init(folder: Path) -> None:
    """Write a commented config.toml, here or in another FOLDER.

    It holds in that folder and all below it. A file that is there already is
    left alone.

    For example:

      paraschut init ~/projects/yeast
    """
    from paraschut.config import FILE_NAME, write_config

    written = write_config(folder if folder.suffix == ".toml" else folder / FILE_NAME)
    click.echo(f"Wrote {written}. It holds in its folder and all below.")
    other = os.environ.get("PARASCHUT_CONFIG")
    if other:
        click.echo(f"Note that PARASCHUT_CONFIG names {other}, which holds before it.")


@click.command(cls=Verbatim)
@click.option("--models", metavar="N", type=click.IntRange(min=1), help="Compare only N models.")
@click.option(
    "--timeout", metavar="SECONDS", type=float, default=600.0, help="Wait at most so long; default: 600."
)
@json_option
def demo(models: int | None, timeout: float, as_json: bool) -> None:
    """Run the example on real data.

    Which model reads handwritten digits best? Sixteen are trained side by side,
    then ranked, and the best one is tested: three priority groups of one batch.
    It needs two packages more: pip install scikit-learn matplotlib

    For example:

      paraschut demo --models 4

    --json: an object with BatchID, ranking (objects, one a model, best first),
    tested (the best one on images that it has not seen), table and figures
    (paths).
    """
    from paraschut import get_queue
    from paraschut.demo import run as run_demo

    _line_by_line()
    result = run_demo(timeout=timeout, models=models, show=None if as_json else get_queue)
    if as_json:
        put_json(result._asdict())
    else:
        click.echo(_demo_text(result))


def _demo_text(result: DemoResult) -> str:
    from paraschut.demo import format_ranking

    best, tested = result.ranking[0], result.tested
    figures = "\n".join(f"figure: {path}" for path in result.figures)
    return (
        f"\n{format_ranking(result.ranking)}\n\n"
        f"On {tested['images']} images that no model has seen, {best['model']} reads {tested['accuracy']:.1%} correctly "
        f"(95 % interval: {tested['low']:.1%} to {tested['high']:.1%}).\n\n"
        f"table:  {result.table}\n{figures}"
    )


@click.command(cls=Verbatim)
@selectors_argument(selector, "[SELECTOR]...")
@_executor
@_max_jobs
@_min_prior
@_filter
@click.option("--force", is_flag=True, help="Settle the claims of submitters that fell silent at once.")
@json_option
def submit(
    selectors: tuple[Selector, ...],
    executor: str | None,
    max_jobs: int | None,
    min_prior: float,
    condition: str,
    force: bool,
    as_json: bool,
) -> None:
    """Submit the next priority group of each batch.

    Of all batches, or of those that are named. Single jobs (BATCH:JOB) are
    submitted at once, whatever their priority; only --executor goes with them.

    For example:

      paraschut submit --max-jobs 100 --filter 'name LIKE "%yeast%"'
      paraschut submit last:3,7

    --json: an object with count, jobs (an object of BatchID to a list of
    JobIndex) and left (what was left and why: a list of sentences).
    """
    limits = {"MaxJobs": max_jobs, "MinPrior": min_prior, "ForceSubmit": force, "Filter": condition}
    if any(one.indices is not None for one in selectors) and (max_jobs is not None or any(limits.values())):
        raise click.UsageError("Single jobs are submitted at once: only --executor goes with them.")
    passes: list[Submitted] = []
    try:
        for one in _passes(selectors, executor, limits):
            passes.append(one)
            if not as_json:
                click.echo(str(one))
    finally:
        # What was submitted before an error is told all the same.
        if as_json and passes:
            put_json(_passes_dict(passes))
    if not any(one.count for one in passes):
        with open_index() as store:
            tell_unknown(store, condition)


def _passes(
    selectors: Sequence[Selector], executor: str | None, limits: Mapping[str, Any]
) -> Iterator[Submitted]:
    from paraschut import submit_jobs, submit_one_batch, submit_one_job

    by_batch = None
    if selectors:
        with open_index() as store:
            by_batch = named(store, selectors)
    if by_batch is None:
        yield submit_jobs(executor, **limits, Verbose=False)
        return
    for batch_id, indices in by_batch.items():
        if indices is not None:
            yield submit_one_job(batch_id, indices, executor, Verbose=False)
    batch_ids = [batch_id for batch_id, indices in by_batch.items() if indices is None]
    if batch_ids:
        yield submit_one_batch(batch_ids, executor, **limits, Verbose=False)


def _passes_dict(passes: Sequence[Submitted]) -> dict[str, Any]:
    return {
        "count": sum(one.count for one in passes),
        # A batch is submitted by one pass only.
        "jobs": {str(batch_id): indices for one in passes for batch_id, indices in one.jobs.items()},
        "left": [why for one in passes for why in one.left],
    }


@click.command(cls=Verbatim)
@click.option(
    "--period",
    metavar="MINUTES",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Between the beginnings of two passes; default: 10.",
)
@click.option("-n", "passes", metavar="N", type=click.IntRange(min=0), help="Make N passes, and end.")
@_executor
@_max_jobs
@_min_prior
@_filter
def submitter(
    period: float,
    passes: int | None,
    executor: str | None,
    max_jobs: int | None,
    min_prior: float,
    condition: str,
) -> None:
    """Submit again and again, until Ctrl-C.

    For those who cannot leave that to the jobs. A pass that fails (a scheduler
    that is down) is told, and the next one comes in time. One is enough for an
    index: a second one refuses to start.

    For example:

      nohup paraschut submitter --period 5 > submitter.log 2>&1 &
    """
    from paraschut import periodic_submitter

    _line_by_line()
    made = periodic_submitter(
        period,
        float("inf") if passes is None else passes,
        executor,
        MaxJobs=max_jobs,
        MinPrior=min_prior,
        Filter=condition,
    )
    click.echo(f"Ended after {plural(made, 'pass')}.")


def _line_by_line() -> None:
    # The output of what runs for long is followed with tail -f.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)


def _offer_verbs(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return how a command of shell jobs may go on, for the shell."""
    del parameter
    return (
        []
        if context.params.get("arguments")
        else [verb for verb in job_cli.COMMANDS if verb.startswith(begun)]
    )


@click.command(
    cls=Verbatim,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=_offer_verbs)
def job(arguments: tuple[str, ...]) -> None:
    """Inside a shell job: who am I, this far, complete."""
    raise click.exceptions.Exit(job_cli.main(arguments))


for _command in (
    init,
    demo,
    run_commands,
    submit,
    queue,
    watch,
    log,
    info,
    explain,
    history,
    report,
    reset,
    cancel,
    remove,
    boost,
    submitter,
    doctor,
    job,
):
    cli.add_command(_command)
