"""What each key of the configuration may be, and where in the file one is that may not. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from paraschut.errors import ConfigError, JobError
from paraschut.resources import needs_of, parse_size, parse_time

_LARGEST = 2**63 - 1  # what an integer of SQLite holds


class Rule(NamedTuple):
    """What a key may be: ``read`` returns the value to keep, or raises ValueError."""

    read: Callable[[Any], Any]
    expected: str
    example: str


def _require(good: object, value: Any) -> Any:
    if not good:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    return str(_require(isinstance(value, str) and value.strip(), value))


def _path(value: Any) -> Path:
    # "$SCRATCH/jobs" would be taken for a folder of that name, and nobody would look for it there.
    _require(not _text(value).startswith("$"), value)
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # "~somebody" who is not here
        raise ValueError(value) from error


def _flag(value: Any) -> bool:
    return bool(_require(isinstance(value, bool), value))  # not the truth of the value: "false" is a mistake


def _whole(value: Any, *, least: int) -> int:
    return int(_require(type(value) is int and least <= value <= _LARGEST, value))


def _number(value: Any) -> Any:
    # By exact type, because True is an int to Python and a mistake here.
    return _require(type(value) in {int, float} and -_LARGEST <= value <= _LARGEST, value)


def _seconds(value: Any, *, or_zero: bool = True) -> float:
    return float(_require(_number(value) > 0 or (or_zero and value == 0), value))


def _factor(value: Any) -> float:
    return float(_require(_number(value) >= 1, value))


def _duration(value: Any) -> float:
    try:
        return parse_time(value)
    except JobError as error:
        raise ValueError(value) from error


def _size(value: Any) -> int:
    try:
        return parse_size(value)
    except JobError as error:
        raise ValueError(value) from error


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _require(isinstance(value, list), value)))


def _variables(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    return tuple(_require(all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", name) for name in names), names))


def _one_of(value: Any, *, words: tuple[str, ...]) -> Any:
    return _require(value in words, value)


def _name(value: Any) -> str | list[str]:
    return list(_texts(value)) if isinstance(value, list) else _text(value)


def _string(value: Any) -> str:
    return str(_require(isinstance(value, str), value))


def _state(value: Any) -> str:
    return str(_require(_text(value) not in {"submit", "run", "spawn"}, value))


def _resources(value: Any) -> dict[str, Any]:
    try:
        needs_of(_require(isinstance(value, dict), value))
    except JobError as error:
        raise ValueError(str(error)) from error
    return dict(value)


_WHOLE = "a whole number of 0 or more"
_FOLDER = (
    "a path: absolute, relative to this file, or beginning with ~ (variables such as $HOME are not replaced)"
)

#: The settings, in the order of the template.
RULES = {
    "job_dir": Rule(_path, _FOLDER, '"jobs"'),
    "executor": Rule(_text, "the name of an executor", '"slurm"'),
    "local_run": Rule(_flag, "true or false, without quotes", "true"),
    "max_jobs": Rule(partial(_whole, least=1), "a whole number of 1 or more", "1000"),
    "max_workers": Rule(partial(_whole, least=0), _WHOLE, "4"),
    "cpus": Rule(partial(_whole, least=0), _WHOLE, "8"),
    "mem": Rule(_size, "a size with its unit, or a number of bytes", '"16gb"'),
    "environment": Rule(
        _variables, "a list of names of variables, where a name may end in *", '["PATH", "CONDA*"]'
    ),
    "prologue": Rule(_texts, "a list of lines of shell", '["module load gcc"]'),
    "trusted_users": Rule(_texts, "a list of names of users", '["alice"]'),
    "journal_mode": Rule(
        partial(_one_of, words=("auto", "wal", "delete")), '"auto", "wal" or "delete"', '"auto"'
    ),
    "lock_timeout": Rule(_seconds, "a number of seconds, 0 or more", "60.0"),
    "command_timeout": Rule(partial(_seconds, or_zero=False), "a number of seconds above 0", "60.0"),
    "queue_age": Rule(_seconds, "a number of seconds, 0 or more", "5.0"),
    "warning": Rule(_seconds, "a number of seconds, 0 or more", "60.0"),
    "retries": Rule(partial(_whole, least=0), _WHOLE, "3"),
    "retry_pause": Rule(_seconds, "a number of seconds, 0 or more", "10.0"),
    "retry_mem_factor": Rule(_factor, "a number of 1 or more", "2.0"),
    "retry_mem_limit": Rule(_size, "a size with its unit, or a number of bytes; 0 is no limit", '"64gb"'),
    "retry_walltime_factor": Rule(_factor, "a number of 1 or more", "2.0"),
    "retry_walltime_limit": Rule(_duration, "a time, or a number of seconds; 0 is no limit", '"2-00:00:00"'),
    "grace": Rule(_seconds, "a number of seconds, 0 or more", "90.0"),
}
#: The known fields of the template; others are the user's own.
FIELDS = {
    "priority": Rule(_number, "a finite number", "1"),
    "name": Rule(_name, "a string or a list of strings", '["human", "genome_map"]'),
    "data_type": Rule(_string, "a string", '"foo"'),
    "script": Rule(_text, "a template file or a command line", '"my_template_script.sh"'),
    "queue": Rule(_string, "a string", '"tamirs3"'),
    "resources": Rule(
        _resources, "a table of what a job asks for", '{ cpus = 2, mem = "4gb", walltime = "02:00:00" }'
    ),
    "retries": Rule(partial(_whole, least=0), _WHOLE, "3"),
    "state": Rule(_state, '"init", "held" or a word of your own', '"init"'),
}


class File(NamedTuple):
    """A file's text, to say where in it something is wrong."""

    text: str
    source: Path

    def refuse(self, path: tuple[str, ...], sentence: str) -> NoReturn:
        """Raise, naming the file and the line of a key."""
        line = line_of(self.text, path)
        raise ConfigError(f"{self.source}{f', line {line}' if line else ''}: {sentence}")

    def read(self, rule: Rule, path: tuple[str, ...], value: object) -> Any:
        """Return the value to keep of a key, or refuse it."""
        try:
            return rule.read(value)
        except ValueError as error:
            key, why = path[-1], error.__cause__
            reason = (
                f" ({str(why).rstrip('.')})" if isinstance(why, JobError) and isinstance(value, dict) else ""
            )
            self.refuse(
                path,
                f"{key} = {shown(value)} is not valid{reason}. It must be {rule.expected}; for example: "
                f"{key} = {rule.example}",
            )


def refuse_unknown(file: File, key: str) -> NoReturn:
    """Raise for a key that is no setting, with the one that was probably meant."""
    from difflib import get_close_matches

    valid = [*RULES, "template"]
    if key in FIELDS and key not in RULES:
        hint = " It is a field of jobs: put it below [paraschut.template]."
    elif close := get_close_matches(key.lower().replace("-", "_"), valid, n=1):
        hint = f" Did you mean {close[0]}?"
    else:
        hint = ""
    file.refuse(("paraschut", key), f"there is no setting {key!r}.{hint} Valid are: {', '.join(valid)}.")


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]")
_KEY = re.compile(r"""\s*([\w."' -]+?)\s*=""")


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Return the number of the line that sets a key; None where it is written in a way not looked for."""
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            section = here = _parts(header[1])
        elif key := _KEY.match(line):
            here = (*section, *_parts(key[1]))
        else:
            continue
        if here[: len(path)] == path:
            return number
    return None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def shown(value: object) -> str:
    """Return a value as TOML writes it, shortened if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
