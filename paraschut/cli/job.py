"""What a job that is a shell script calls: ``paraschut job info``, ``progress`` and ``complete``.

A script may call these thousands of times, so they cost what the same calls of a Python job cost: the parser is
written by hand, and what importing click or SQLAlchemy would take is not spent. A test holds that true.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paraschut import job as jobs
from paraschut import values
from paraschut.errors import NotFoundError, NotInJobError, ParaschutError
from paraschut.runtime import get_job_info, set_complete, set_progress

#: Exit statuses, the same for all commands.
DONE, FAILED, MISUSED = 0, 1, 2

#: What comes from the environment or has a command of its own, and so is not for ``--set``.
_NOT_OURS = frozenset({*jobs.COLUMNS, *jobs.RUNTIME, "progress", "progress_message", "failure"})

HELP = """\
Usage: paraschut job COMMAND [OPTIONS] [ARGUMENTS]

  Inside a job that is a shell script: who am I, this far, complete. The job is
  found through the variables that it was started with.

  For example, the script of a job whose own field "sample" is a file:

    sample=$(paraschut job info sample) || exit
    paraschut job progress 0.5 "aligned"
    wc -l < "$sample" > lines.txt || exit
    paraschut job complete --submit --set lines="$(cat lines.txt)"

Commands:
  info      Say that the job runs, and print its dict or one field of it.
  progress  Tell how far the job is.
  complete  Set the job's state to 'complete'.
  requeue   Let the job be started again after this end of it.

  "paraschut job COMMAND --help" tells more.
"""

_HELPS = {
    "info": """\
Usage: paraschut job info [OPTIONS] [FIELD]

  Set the job's state to 'run', and print its dict as JSON, or one FIELD of it:
  texts and numbers as they are, "true", "false", nothing for None, and what
  has parts as JSON. What JSON cannot hold is shown as its plain likeness, or
  null.

  For example:

    sample=$(paraschut job info sample) || exit
    paraschut job info --json resources

Options:
  --set-id / --no-set-id  Whether to set the job's state to 'run'; it may be
                          said as often as one likes. By default it is.
  --json                  Print one field as JSON too: texts in quotes.
  -h, --help              Show this message and exit.
""",
    "progress": """\
Usage: paraschut job progress FRACTION [MESSAGE]...

  Tell how far the job is, between 0 and 1, with a few words;
  "paraschut queue" shows both.

  For example:

    paraschut job progress 0.5 "epoch 10 of 20"

Options:
  -h, --help  Show this message and exit.
""",
    "complete": """\
Usage: paraschut job complete [OPTIONS]

  Set the job's state to 'complete'. A job that ends without it is missing,
  unless it has the field complete_on_exit.

  For example:

    paraschut job complete --submit --set score=0.93 --set 'notes=looks good'

Options:
  --submit           Then submit what became free, as "paraschut submit" does.
  --set FIELD=VALUE  Keep a value in the job's dict, in the same transaction.
                     It is read as JSON (0.93, [1, 2], true, "007"), and is a
                     text if it is not. May be given several times.
  -h, --help         Show this message and exit.
""",
    "requeue": """\
Usage: paraschut job requeue

  Say that the end of this attempt, which is to come, is no failure: the job is
  started again by the next pass, and goes on from what it has saved. Some
  seconds before its time limit, a job gets the signal URG.

  For example:

    trap 'cp state checkpoint; paraschut job requeue; exit' URG

Options:
  -h, --help  Show this message and exit.
""",
}

_ELSEWHERE = {
    "info": "'paraschut info BATCH:JOB' prints the dict of any job.",
    "progress": "Only a job itself knows how far it is.",
    "complete": "'paraschut reset BATCH:JOB --to complete' sets the state of any job.",
    "requeue": "'paraschut reset BATCH:JOB' sets any job back to 'init'.",
}


#: Between these lengths, JSON is laid out for the eye.
_SHORT, _LONG = 80, 100_000


class UsageError(Exception):
    """The command was written in a way that makes no sense."""


class _HelpAsked(Exception):  # noqa: N818 - no error
    """The user wants to know how it is written."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status.

    Parameters
    ----------
    arguments : Sequence[str]
        What stands behind ``paraschut job``.
    """
    verb, rest = (arguments[0], list(arguments[1:])) if arguments else ("--help", [])
    if verb in {"-h", "--help"}:
        put(HELP)
        return DONE
    try:
        _command(verb)(rest)
    except _HelpAsked:
        put(_HELPS[verb])
    except UsageError as error:
        usage = _HELPS.get(verb, HELP).partition("\n")[0]
        return _complain(f"{usage}\nTry 'paraschut job --help' for help.\n\nError: {error}", MISUSED)
    except NotInJobError:
        return _complain(
            f"Error: 'paraschut job {verb}' works inside a job, and this process is none (PARASCHUT_BATCHID is not set). "
            f"{_ELSEWHERE[verb]}",
            FAILED,
        )
    except ParaschutError as error:
        return _complain(f"Error: {error}", FAILED)
    return DONE


def put(text: str) -> None:
    """Write text to standard output as UTF-8, whatever the terminal is set to: other programs read it."""
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        # A name of a file that is not UTF-8 goes out as the bytes that it is.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def json_text(value: object) -> str:
    """Return the plain likeness of a value as JSON, with line breaks where a person may read it.

    Examples
    --------
    >>> json_text({"sizes": (1, 2)})
    '{"sizes": [1, 2]}'
    """
    return _dumped(values.shadow(value))


def _dumped(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if _SHORT < len(text) < _LONG:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is only JSON when it is escaped
        text = json.dumps(value, allow_nan=False)
    return text


def field_of(job: Mapping[str, Any], field: str) -> Any:
    """Return one field of a job.

    Raises
    ------
    NotFoundError
        Naming those that it has.
    """
    if field not in job:
        raise NotFoundError(f"{jobs.label(job)} has no field {field!r}. It has: {', '.join(job)}.")
    return job[field]


def plain_text(value: object) -> str:
    """Return a value as a shell wants it: texts and numbers as they are, what has parts as JSON.

    Examples
    --------
    >>> plain_text("a b"), plain_text(0.5), plain_text(True), plain_text(None), plain_text(["a"])
    ('a b', '0.5', 'true', '', '["a"]')
    """
    shadow = values.shadow(value)
    if shadow is None:
        # Infinity, or an object of a class: JSON has no word for it, and a shell may have a use for it.
        return "" if value is None else str(value)
    return shadow if isinstance(shadow, str) else _dumped(shadow)


def _info(given: list[str]) -> None:
    options, names = _parsed(given, {"--set-id": False, "--no-set-id": False, "--json": False})
    if len(names) > 1:
        raise UsageError(f"One FIELD at a time, please: you gave {' '.join(names)}.")
    switches = [name for name, _ in options if name != "--json"]
    job = get_job_info(SetID=not switches or switches[-1] == "--set-id")
    value = field_of(job, names[0]) if names else job
    put((json_text(value) if ("--json", "") in options or not names else plain_text(value)) + "\n")


def _progress(given: list[str]) -> None:
    if given[:1] in (["-h"], ["--help"]):
        raise _HelpAsked
    words = given[1:] if given[:1] == ["--"] else given
    if not words:
        raise UsageError("FRACTION is missing: how far is the job, between 0 and 1?")
    try:
        fraction = float(words[0])
    except ValueError:
        raise UsageError(f"FRACTION is {words[0]!r}; it must be a number between 0 and 1.") from None
    set_progress(fraction, " ".join(words[1:]))


def _complete(given: list[str]) -> None:
    options, others = _parsed(given, {"--submit": False, "--set": True})
    if others:
        raise UsageError(f"Unexpected argument {others[0]!r}; a value is kept with --set FIELD=VALUE.")
    fields = dict(_assignment(value) for name, value in options if name == "--set")
    set_complete(JobInfo=fields or None, Submit=("--submit", "") in options)


def _requeue(given: list[str]) -> None:
    _, others = _parsed(given, {})
    if others:
        raise UsageError(f"Unexpected argument {others[0]!r}.")
    from paraschut.checkpoint import say_requeue

    say_requeue()


def _assignment(text: str) -> tuple[str, Any]:
    field, equals, value = text.partition("=")
    if not field or not equals:
        raise UsageError(f"--set {text!r} is not FIELD=VALUE.")
    if field in _NOT_OURS:
        raise UsageError(f"--set cannot set {field!r}; it is for fields of your own.")
    try:
        return field, json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return field, value


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are no JSON


#: What each verb does.
COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "info": _info,
    "progress": _progress,
    "complete": _complete,
    "requeue": _requeue,
}


def _command(verb: str) -> Callable[[list[str]], None]:
    if verb not in COMMANDS:
        raise UsageError(f"There is no command {verb!r}; there are {', '.join(COMMANDS)}.")
    return COMMANDS[verb]


def _parsed(given: list[str], known: Mapping[str, bool]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return options with their values, and the other arguments.

    Parameters
    ----------
    known : Mapping[str, bool]
        The options, and whether they take a value.
    """
    options: list[tuple[str, str]] = []
    others: list[str] = []
    left = iter(given)
    for word in left:
        if word == "--":
            others.extend(left)
        elif word in {"-h", "--help"}:
            raise _HelpAsked
        elif not word.startswith("-"):
            others.append(word)
        else:
            name, equals, value = word.partition("=")
            if name not in known:
                raise UsageError(f"There is no option {name}.")
            if not known[name] and equals:
                raise UsageError(f"The option {name} takes no value.")
            if known[name] and not equals:
                value = next(left, "")
                if not value:
                    raise UsageError(f"The option {name} needs a value.")
            options.append((name, value))
    return options, others


def _complain(text: str, status: int) -> int:
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")
    return status
