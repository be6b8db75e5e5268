"""Looks whether all that paraschut stands on holds here: configuration, folder, locks, index, clock, scheduler, agent."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from paraschut.config import Config, load_config
from paraschut.errors import ParaschutError
from paraschut.executors.choice import executor_of
from paraschut.executors.cluster import ClusterJobExecutor
from paraschut.look.texts import plural
from paraschut.paths import make_folder
from paraschut.process import Identity, host_name, is_alive
from paraschut.store import journal, views
from paraschut.store.store import Store

#: The oldest SQLite that has all that is used.
_SQLITE = (3, 26)
_LEAST_ROOM = 100 << 20
_MOST_SKEW = 5.0
#: A child that tries to lock a file; 0: it could, 3: it could not.
_LOCKER = (
    "import fcntl, sys\n"
    "file = open(sys.argv[1], 'r+b')\n"
    "try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "except OSError: sys.exit(3)\n"
)


class Check(NamedTuple):
    """What was looked at, whether it is fine (None: nothing to look at), and the sentence."""

    name: str
    fine: bool | None
    words: str


def examine() -> Iterator[Check]:
    """Yield what was found, one check after the other."""
    try:
        config = load_config()
    except ParaschutError as error:
        yield Check("configuration", False, str(error))
        return
    yield Check("configuration", True, str(config.source or "none; the defaults hold"))
    checks: tuple[tuple[str, Callable[[Config], tuple[bool | None, str]]], ...] = (
        ("folder", _folder),
        ("room", _room),
        ("locks", _locks),
        ("renaming", _renaming),
        ("clock", _clock),
        ("SQLite", _sqlite),
        ("index", _index),
        ("journal", _journal),
        ("executor", _executor),
        ("agent", _agent),
    )
    for name, look in checks:
        try:
            yield Check(name, *look(config))
        except (ParaschutError, OSError, subprocess.SubprocessError) as error:
            yield Check(name, False, str(error))


def _folder(config: Config) -> tuple[bool, str]:
    path = os.path.dirname(os.fspath(config.index))
    make_folder(path)
    found = os.stat(path)
    if not os.access(path, os.W_OK | os.X_OK):
        return False, f"{path} cannot be written: set job_dir in the configuration to a folder of yours."
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o022:
        return False, f"Others can write to {path}, and so decide what your jobs run: chmod go-w {path}"
    return True, f"{path} is yours ({journal.file_system(path) or 'unknown file system'})"


def _room(config: Config) -> tuple[bool, str]:
    path = os.path.dirname(os.fspath(config.index))
    free = shutil.disk_usage(path).free
    words = f"{free / (1 << 30):.1f} GiB free"
    return free >= _LEAST_ROOM, words if free >= _LEAST_ROOM else f"Only {words} in {path}: make room there."


def _locks(config: Config) -> tuple[bool, str]:
    """One process holds a lock, another one tries to; then it is let go."""
    import fcntl

    path = _probe(config, "lock")
    command = [sys.executable, "-I", "-c", _LOCKER, path]
    try:
        with open(path, "wb") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = subprocess.run(command, check=False, capture_output=True, timeout=60).returncode
        free = subprocess.run(command, check=False, capture_output=True, timeout=60).returncode
    finally:
        os.unlink(path)
    if (held, free) != (3, 0):
        return False, (
            f"Two processes can hold one lock in {os.path.dirname(path)}, which would break the index: set job_dir to "
            f"another file system, or have this one mounted with locks."
            if held == 0
            else f"A lock in {os.path.dirname(path)} is not let go: set job_dir to another file system."
        )
    return True, "what one process locks, another one cannot"


def _renaming(config: Config) -> tuple[bool, str]:
    path = _probe(config, "file")
    other = f"{path}.renamed"
    try:
        with open(path, "wb") as file:
            file.write(b"whole")
        os.replace(path, other)
        with open(other, "rb") as file:
            whole = file.read() == b"whole" and not os.path.exists(path)
        os.symlink("one", path)
        try:
            os.symlink("two", path)
            exclusive = False
        except FileExistsError:
            exclusive = True
    finally:
        for name in (path, other):
            if os.path.lexists(name):
                os.unlink(name)
    if whole and exclusive:
        return True, "files appear whole, and a link is made once"
    return (
        False,
        f"{os.path.dirname(path)} does not rename or link as it should: set job_dir to another file system.",
    )


def _clock(config: Config) -> tuple[bool, str]:
    path = _probe(config, "clock")
    try:
        with open(path, "wb"):
            skew = os.stat(path).st_mtime - time.time()
    finally:
        os.unlink(path)
    words = f"the file system's clock and this machine's are {abs(skew):.1f} s apart"
    return abs(skew) <= _MOST_SKEW, words if abs(skew) <= _MOST_SKEW else f"{words}: have them set by NTP."


def _sqlite(config: Config) -> tuple[bool, str]:
    del config
    version = journal.library_version()
    told = ".".join(map(str, version))
    if version < _SQLITE:
        return False, f"SQLite is {told}; 3.26 or newer is needed: use a newer Python."
    return True, told


def _index(config: Config) -> tuple[bool | None, str]:
    if not os.path.exists(config.index):
        return None, f"{config.index} is not there yet; adding jobs makes it"
    with Store.of(config) as store, store.reading() as connection:
        fault = views.fault(connection)
        count = len(views.batches(connection))
    if fault:
        return False, f"{config.index} is damaged ({fault}): bring back a copy of it."
    return True, f"{config.index}, {plural(count, 'batch')}, whole"


def _journal(config: Config) -> tuple[bool | None, str]:
    if not os.path.exists(config.index):
        return None, "is chosen when the index is made"
    with Store.of(config) as store, store.reading() as connection:
        mode = views.journal_mode(connection)
    local = journal.is_local(os.fspath(config.index))
    if mode == "wal" and not local:
        return False, (
            'It is a write-ahead log on a disk that other machines may share: set journal_mode = "delete" in the '
            "configuration, on the machine whose disk it is."
        )
    return True, "write-ahead log, on a disk of this machine" if mode == "wal" else "rollback journal"


def _executor(config: Config) -> tuple[bool, str]:
    executor = executor_of("local" if config.local_run else config.executor, config)
    if executor.isconnected():
        if isinstance(executor, ClusterJobExecutor):
            executor.ask()
            return True, f"{executor.name} answers, and can be used from here"
        return True, f"{executor.name} can be used from here"
    commands = ", ".join(getattr(executor, "commands", ())) or "its commands"
    return False, (
        f"{executor.name} cannot be used from here: {commands} must be on PATH. Log in to a machine of the cluster, or "
        f'set executor = "local".'
    )


def _agent(config: Config) -> tuple[bool | None, str]:
    found = None
    if os.path.exists(config.index):
        with Store.of(config) as store, store.reading() as connection:
            found = views.agent_of(connection, host_name())
    if found is None:
        return None, "none runs on this machine; submitting local jobs starts one"
    who = Identity(host_name(), *found)
    if is_alive(who) is False:
        return None, "none runs on this machine now; submitting local jobs starts one"
    return True, f"process {who.pid} looks after the local jobs"


def _probe(config: Config, word: str) -> str:
    folder = os.path.dirname(os.fspath(config.index))
    return os.path.join(folder, f".doctor-{word}-{host_name()}-{os.getpid()}")
