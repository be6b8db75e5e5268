"""Whether what is pickled in an index, or beside it, could have been written by somebody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from paraschut.errors import TrustError


def check_trusted(path: str, trusted_users: Iterable[str] = ()) -> None:
    """Raise unless only this user (or a trusted one) can have written a file.

    The file and its folder must belong to this user or a trusted one and not be writable by others; no
    folder above may be writable by everybody, unless it is sticky as ``/tmp`` is.

    Raises
    ------
    TrustError
        Saying which file or folder, why, and what to do.
    """
    path = os.path.realpath(path)
    trusted = {os.getuid(), *map(_uid, trusted_users)}
    for place in (path, os.path.dirname(path)):
        status = os.stat(place)
        if status.st_uid not in trusted:
            raise TrustError(
                f"{place} belongs to user {status.st_uid}, not to you: what is pickled there is not loaded, because "
                f"loading it could run their code. If you trust them, add them to trusted_users in the configuration."
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise TrustError(
                f"{place} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}): what is pickled there is "
                f"not loaded. Take that right away: chmod go-w '{place}'"
            )
    _check_above(os.path.dirname(path))


def _check_above(folder: str) -> None:
    while (above := os.path.dirname(folder)) != folder:
        folder = above
        mode = os.stat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise TrustError(
                f"{folder} can be written by everybody (mode {stat.S_IMODE(mode):04o}), so what lies below it can be "
                f"exchanged, and what is pickled there is not loaded. Take that right away: chmod o-w '{folder}'"
            )


def _uid(name: str) -> int:
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise TrustError(
            f"trusted_users in the configuration names {name!r}, and there is no such user."
        ) from None
