"""The configuration: where it is found, what it may say, and what holds when nobody says anything.

Reading is strict: a key that nothing knows or a value of the wrong type is an error that names the file, the
line and what is valid. A file is small, so it is read whenever it is asked for, and nothing is kept.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from paraschut.config_rules import FIELDS, RULES, File, refuse_unknown, shown
from paraschut.errors import ConfigError

FILE_NAME = "config.toml"
#: Variables of a job's submitter that it gets. TMPDIR and CUDA_VISIBLE_DEVICES are not here: each job has its own.
ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "PKG_CONFIG_PATH"),
    *("PYTHONPATH", "VIRTUAL_ENV", "CONDA*", "_CONDA*", "MAMBA*", "PIXI*"),
    *("MODULEPATH", "MODULESHOME", "LOADEDMODULES", "_LMFILES_", "LMOD*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "CUDA_HOME", "CUDA_PATH"),
    *("R_HOME", "R_LIBS*", "JULIA_*", "PERL5LIB", "JAVA_HOME"),
)


def _default_job_dir() -> Path:
    from platformdirs import user_data_path

    return user_data_path("paraschut") / "jobs"


def _default_template() -> dict[str, Any]:
    return {
        "priority": 1,
        "name": ["human", "genome_map"],
        "data_type": "foo",
        "data": None,
        "script": "my_template_script.sh",
        "queue": "tamirs3",
        "resources": {"cput": "04:59:00", "mem": "1gb", "pmem": "1gb", "pvmem": "3gb", "vmem": "3gb"},
        "state": "init",
    }


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; without arguments, those that work on one machine.

    Attributes
    ----------
    source : Path | None
        The file that they came from; None if there was none.
    job_dir : Path
        The folder of the index and of all files of jobs.
    index : Path
        The index: ``index.db`` in ``job_dir``; inside a job, that which the job is of.
    executor : str
        The name of the executor; ``executor_name`` is the one that holds.
    local_run : bool
        Whether this machine is the cluster, whatever ``executor`` says.
    max_jobs : int
        At most this many jobs of the index are queued or running at once.
    max_workers, cpus, mem : int
        What local jobs may use of this machine: jobs at once, processors, bytes; 0 is all that it has.
    environment : tuple[str, ...]
        Variables that a job gets from its submitter; a name that ends in ``*`` is a prefix.
    prologue : tuple[str, ...]
        Lines of shell that are run before each job on a cluster.
    trusted_users : tuple[str, ...]
        Users, besides this one, whose pickled data may be loaded.
    journal_mode : str
        ``auto``, ``wal`` or ``delete``.
    lock_timeout, command_timeout : float
        Seconds to wait for the index, and for one command of a scheduler.
    queue_age : float
        Seconds for which an answer of the scheduler's queue is shared.
    warning : float
        Seconds before its time limit at which a job gets the signal URG, on which ``on_warning`` listens; 0: never.
    retries : int
        How often a job that ended badly is tried again, where the job does not say so.
    retry_pause : float
        Seconds before the first new try; each further pause is twice as long, up to an hour.
    retry_mem_factor, retry_mem_limit : float, int
        What more memory a job asks for after it ran out of it, and bytes that this never exceeds; 0 is no limit.
    retry_walltime_factor, retry_walltime_limit : float
        The same for the time limit, in seconds.
    grace : float | None
        Seconds that a job may leave no trace before it is missing; None: chosen by the file system.
    template : Mapping[str, Any]
        The fields of a new job besides BatchID and JobIndex; take them from ``fresh_template()``.

    Examples
    --------
    >>> Config(job_dir=Path("/data/jobs"), executor="slurm", local_run=True).executor_name
    'local'
    """

    source: Path | None = None
    job_dir: Path = field(default_factory=_default_job_dir)
    index: Path = Path()
    executor: str = "local"
    local_run: bool = False
    max_jobs: int = 1000
    max_workers: int = 0
    cpus: int = 0
    mem: int = 0
    environment: tuple[str, ...] = ENVIRONMENT
    prologue: tuple[str, ...] = ()
    trusted_users: tuple[str, ...] = ()
    journal_mode: Literal["auto", "wal", "delete"] = "auto"
    lock_timeout: float = 60.0
    command_timeout: float = 60.0
    queue_age: float = 5.0
    warning: float = 60.0
    retries: int = 0
    retry_pause: float = 10.0
    retry_mem_factor: float = 2.0
    retry_mem_limit: int = 0
    retry_walltime_factor: float = 2.0
    retry_walltime_limit: float = 0.0
    grace: float | None = None
    template: Mapping[str, Any] = field(default_factory=_default_template, hash=False)

    def __post_init__(self) -> None:
        if self.index == Path():
            object.__setattr__(self, "index", self.job_dir / "index.db")

    @property
    def executor_name(self) -> str:
        """The executor that holds: ``local`` where this machine is the cluster."""
        return "local" if self.local_run else self.executor

    def fresh_template(self) -> dict[str, Any]:
        """Return the fields of a new job, as a copy that may be changed at will."""
        return deepcopy(dict(self.template))


def parse_config(text: str, source: Path, *, job_dir: Path | None = None) -> Config:
    r"""Return the settings that a text holds.

    Parameters
    ----------
    text : str
        TOML with a ``[paraschut]`` table; other tables are left alone.
    source : Path
        The file that it is from: its folder is what paths are relative to.
    job_dir : Path | None
        The folder of jobs if the text names none; default: ``jobs`` beside the file.

    Raises
    ------
    ConfigError
        Naming the file, the key, its line where it can be found, and what is valid.

    Examples
    --------
    >>> parse_config('[paraschut]\nmem = "16gb"', Path("/data/config.toml")).mem
    17179869184
    """
    file = File(text, source)
    try:
        table = tomllib.loads(text).get("paraschut")
    except ValueError as error:  # broken, or a number of thousands of digits
        raise ConfigError(
            f"{source} is not valid TOML: {error}. Mend that line, or compare with `paraschut init`."
        ) from None
    if not isinstance(table, dict):
        file.refuse(
            ("paraschut",), "there is no [paraschut] table. Put a line [paraschut] above its settings."
        )
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "template":
            values[key] = _template(file, value)
        elif key in RULES:
            values[key] = file.read(RULES[key], ("paraschut", key), value)
        else:
            refuse_unknown(file, key)
    folder = source.parent
    values["job_dir"] = folder / values.get("job_dir", job_dir or "jobs")
    return Config(source=source, **values)


def _template(file: File, table: object) -> dict[str, Any]:
    here = ("paraschut", "template")
    if not isinstance(table, dict):
        file.refuse(
            here,
            f"template = {shown(table)} is not valid. Write its fields below a line [paraschut.template].",
        )
    for key in ("BatchID", "JobIndex"):
        if key in table:
            file.refuse(
                (*here, key),
                f"{key} is each job's own and cannot be in the template. Remove the line; jobs get it later.",
            )
    own = {
        key: file.read(FIELDS[key], (*here, key), value) if key in FIELDS else value
        for key, value in table.items()
    }
    return {**_default_template(), **own}


def find_config(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration file that holds here, or None where there is none.

    Parameters
    ----------
    start : Path | None
        The folder to look in, and then above; default: the current one.
    environ : Mapping[str, str] | None
        The environment; default: that of this process.

    Returns
    -------
    Path | None
        ``$PARASCHUT_CONFIG``; else the nearest ``config.toml`` with a ``[paraschut]`` table; else the one in
        the user's configuration folder.

    Raises
    ------
    ConfigError
        If the file that the environment names is not there, or one that may hold cannot be read.
    """
    named = (os.environ if environ is None else environ).get("PARASCHUT_CONFIG")
    if named:
        path = Path(named).absolute()
        if not _is_file(path):
            raise ConfigError(
                f"PARASCHUT_CONFIG names {path}, which is not a file that can be read. Correct it, or unset it."
            )
        return path
    try:
        folder = (start or Path()).absolute()
    except FileNotFoundError:
        raise ConfigError(
            "The current folder no longer exists. Go to one that does, or set PARASCHUT_CONFIG."
        ) from None
    for path in (above / FILE_NAME for above in (folder, *folder.parents)):
        if _is_ours(path):
            return path
    path = _user_config()
    return path if _is_file(path) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return False
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    # A file server that stumbles must not make us use another index than a moment ago.
    return ConfigError(
        f"{path} cannot be read: {error.strerror}. Try again, or name another in PARASCHUT_CONFIG."
    )


def _is_ours(path: Path) -> bool:
    # Many tools have a file of this name: what is not ours is none of our business, broken or not.
    try:
        data = path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else b""
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return isinstance(tomllib.loads(data.decode("utf-8-sig")).get("paraschut"), dict)
    except ValueError:
        return b"[paraschut" in data  # broken, and ours: reading it says where


def _user_config() -> Path:
    from platformdirs import user_config_path

    return user_config_path("paraschut") / FILE_NAME


def load_config(
    path: Path | None = None, *, start: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Return the configuration that holds here; inside a job, with the index that the job is of.

    Parameters
    ----------
    path : Path | None
        The file; default: what ``find_config`` finds.
    start, environ
        As for ``find_config``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or says something that is not valid.
    """
    environ = os.environ if environ is None else environ
    found = path.absolute() if path else find_config(start, environ)
    config = Config() if found is None else _read(found)
    if found and config.trusted_users and not path and not environ.get("PARASCHUT_CONFIG"):
        _refuse_foreign_trust(found)
    index = environ.get("PARASCHUT_INDEX")
    if index:
        at = Path(index).absolute()
        config = replace(config, index=at, job_dir=at.parent)
    return config


def _read(path: Path) -> Config:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}). Save it again as UTF-8.") from error
    # Jobs do not belong in the folder of a user's settings.
    return parse_config(text, path, job_dir=_default_job_dir() if path == _user_config() else None)


def _refuse_foreign_trust(path: Path) -> None:
    # Somebody who can lay a file above our folder could otherwise make us load what they pickled.
    status = path.stat()
    if status.st_uid not in {os.getuid(), 0} or status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"{path}: others can write this file, so its trusted_users cannot be followed. If you know the file, "
            f"name it in the variable PARASCHUT_CONFIG; else put a {FILE_NAME} of your own nearer."
        )


def write_config(path: Path) -> Path:
    """Write the example configuration, with a comment for every setting.

    Parameters
    ----------
    path : Path
        The new file, or a folder, which gets a ``config.toml``.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ConfigError
        If there is a file already, or it cannot be written.
    """
    from importlib.resources import files

    text = files("paraschut").joinpath("config_template.toml").read_text("utf-8")
    path = path.absolute()
    path = path / FILE_NAME if path.is_dir() else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} exists already and is left as it is. Edit it, or move it away first."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}. Choose a folder of your own."
        ) from error
    return path
