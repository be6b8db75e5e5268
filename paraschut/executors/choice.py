"""Which executor is meant: by its name, as it was given, or by what this machine has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from paraschut.errors import ExecutorError
from paraschut.executors.base import JobExecutor

if TYPE_CHECKING:
    from paraschut.config import Config


def kept_defaults(which: JobExecutor | str) -> str | None:
    """Return what an executor was given, as a batch keeps it; None for one that is named: it is as configured.

    Raises
    ------
    ExecutorError
        If JSON cannot hold it.
    """
    if isinstance(which, str):
        return None
    given = which.defaults()
    try:
        return json.dumps(given, sort_keys=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ExecutorError(
            f"{which!r} was given what the index cannot keep for later passes ({error}). Give it strings, numbers, "
            f"lists and dicts of these."
        ) from error


def _plain(value: Any) -> Any:
    """Return a number of NumPy's, or a path, as JSON can hold it."""
    return value.item() if hasattr(value, "item") else os.fspath(value)


def executor_of(which: JobExecutor | str, config: Config, defaults: str | None = None) -> JobExecutor:
    """Return an executor from its name, or as it was given.

    Parameters
    ----------
    which : JobExecutor | str
        The executor, or its name.
    defaults : str | None
        With a name: what an earlier one was given (``kept_defaults``); None: as configured.

    Raises
    ------
    ExecutorError
        If there is none of that name; naming those that there are. Or if it cannot be made from its defaults.
    """
    if isinstance(which, JobExecutor):
        which.heed(config)
        return which
    if which == "auto":
        which = found_here(os.environ)
    known = _OWN if which in _OWN else _registered()
    if which not in known:
        raise ExecutorError(
            f"There is no executor named {which!r}. There are: {', '.join(sorted(known))}. Others are found through "
            f"the entry point group 'paraschut.executors' of installed packages."
        )
    module, _, name = known[which].partition(":")
    kind: type[JobExecutor] = getattr(import_module(module), name)
    if defaults is None:
        made = kind.configured(config)
        made.heed(config)
        return made
    try:
        made = kind.from_defaults(json.loads(defaults))
    except (TypeError, ValueError) as error:
        raise ExecutorError(
            f"The executor {which!r} cannot be made as it was given for this batch, {defaults}: {error}. Give the "
            f"pass an Executor."
        ) from error
    made.heed(config)
    return made


def on_other_hosts(config: Config) -> bool:
    """Return whether jobs of the configured executor run on other hosts; as far as it is known here."""
    try:
        return executor_of(config.executor_name, config).other_hosts
    except ExecutorError:
        return False


def found_here(environ: Mapping[str, str]) -> str:
    """Return the name of the scheduler whose commands are on this machine, or ``local``.

    Examples
    --------
    >>> found_here({"PATH": ""})
    'local'
    """

    def has(command: str) -> bool:
        return shutil.which(command, path=environ.get("PATH", os.defpath)) is not None

    if has("sbatch"):
        return "slurm"
    if has("qsub"):
        # Both call it qsub; only Grid Engine has qconf.
        return "sge" if has("qconf") else "pbs"
    return "local"


def _registered() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {**{point.name: point.value for point in entry_points(group="paraschut.executors")}, **_OWN}


_OWN = {
    "local": "paraschut.executors.local:LocalJobExecutor",
    "file": "paraschut.executors.file:FileJobExecutor",
    "slurm": "paraschut.executors.slurm:SlurmJobExecutor",
    "sge": "paraschut.executors.sge:SGEJobExecutor",
    "pbs": "paraschut.executors.pbs:PBSJobExecutor",
}
