"""Where an index lies, and how SQLite may keep its journal there.

A write-ahead log needs memory shared by all that open the file, so it works on one host only
(https://sqlite.org/wal.html). Whatever may be opened from other hosts keeps a rollback journal.
"""

from __future__ import annotations

import os
import sqlite3
import time

from paraschut.errors import StoreBusyError, StoreError
from paraschut.store import engine

#: File systems that are this machine's own; anything else may be shared and is treated so.
LOCAL = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs"),
        *("tmpfs", "ramfs", "overlay", "apfs", "hfs", "vfat", "exfat", "ntfs", "ntfs3"),
    }
)
#: The bytes of SQLite's header that say 2 in WAL mode (https://sqlite.org/fileformat.html, offsets 18 and 19).
_MODE_BYTES = slice(18, 20)

# Closing any descriptor of the file drops SQLite's own locks in this process, so one that had to be opened
# stays open (https://sqlite.org/howtocorrupt.html, 2.2).
_kept: dict[str, int] = {}


def file_system(path: str) -> str:
    """Return the type of the file system that a path is on; empty where it cannot be told."""
    import psutil

    path = os.path.realpath(path)
    best = ("", "")
    for partition in psutil.disk_partitions(all=True):
        mount = partition.mountpoint
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, partition.fstype)
    return best[1]


def library_version() -> tuple[int, ...]:
    """Return the version of SQLite."""
    return sqlite3.sqlite_version_info


def is_local(path: str) -> bool:
    """Return whether a path is on a file system of this machine alone."""
    return file_system(path) in LOCAL


def mode_for(path: str, configured: str, *, other_hosts: bool) -> str:
    """Return the journal mode that an index should have: ``wal`` or ``delete``."""
    if configured != "auto":
        return configured
    return "wal" if not other_hosts and is_local(path) else "delete"


def refuse_shared_log(index: str) -> None:
    """Raise if an index in WAL mode is seen through a file system that other hosts may share."""
    if index in _kept or is_local(index):
        return
    descriptor = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
    _kept[index] = descriptor
    if os.pread(descriptor, 20, 0)[_MODE_BYTES] == b"\x02\x02":
        raise StoreError(
            f"{index} keeps a write-ahead log, which only works on the machine whose disk it is on, and is seen here "
            f'through a network file system. On that machine, set journal_mode = "delete" in the configuration and '
            f"run 'paraschut queue' once."
        )


def switch(connection: sqlite3.Connection, index: str, mode: str, limit: float) -> None:
    """Bring an index into a journal mode.

    Raises
    ------
    StoreBusyError
        If other processes keep it open for longer than ``limit`` seconds; naming them.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            (now,) = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
        except sqlite3.OperationalError as error:
            if not engine.is_busy(error):
                raise
            now = None
        if now == mode:
            return
        if time.monotonic() > deadline:
            raise StoreBusyError(
                f"The journal of {index} cannot be switched to {mode!r} while others have it open"
                f"{_holders(index)}. Close them (or wait until their jobs have ended) and try again."
            )
        time.sleep(0.1)


def _holders(index: str) -> str:
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if process.pid != os.getpid() and any(file.path == index for file in process.open_files()):
                found.append(f"{process.pid} ({process.name()})")
        except psutil.Error:
            continue
    return f": process {', '.join(found)}" if found else ""
