"""Where every file lives, and how folders are made; opens nothing.

Everything of an index lies in the folder of its file, so that both can be moved together::

    index.db
    events/                       what jobs could not write into the index, to be folded
    agent/<host>.<uid>/           the agent's lock, and the ends of the jobs it ran
    submissions/<token>/          scripts, run marks and exit files of one submission
    <BatchID>/scripts  data  logs
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path as it is meant where we are; ``~`` is the home folder."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def make_folder(path: str) -> None:
    """Make a folder that only its owner can enter, and those above it that are not there.

    ``os.makedirs`` gives those above the mode that the umask leaves.
    """
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        make_folder(os.path.dirname(path))
        make_folder(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


#: What a file system says that has no hard links.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
_SUFFIX = {"stdout": "out", "stderr": "err"}


class Paths:
    """The names of all files of one index.

    Parameters
    ----------
    index : str
        The path of the index file.

    Examples
    --------
    >>> Paths("/data/jobs/index.db").log(20260101000000, 7, 1, "stdout")
    '/data/jobs/20260101000000/logs/7.1.out'
    """

    def __init__(self, index: str | os.PathLike[str]) -> None:
        self.index = os.path.abspath(os.fspath(index))
        self.folder = os.path.dirname(self.index)

    def batch(self, batch_id: int) -> str:
        """Return the folder of a batch."""
        return os.path.join(self.folder, str(batch_id))

    def scripts(self, batch_id: int) -> str:
        """Return the folder of the scripts that were made from templates."""
        return os.path.join(self.batch(batch_id), "scripts")

    def data(self, batch_id: int) -> str:
        """Return the folder of the data of a batch's jobs."""
        return os.path.join(self.batch(batch_id), "data")

    def payload(self, batch_id: int, number: int) -> str:
        """Return the file of a function's arguments that are too large for the index."""
        return os.path.join(self.data(batch_id), f"call.{number}.pkl")

    def result(self, batch_id: int, job_index: int, attempt: int, kind: str) -> str:
        """Return the file of a result (``kind`` is ``value`` or ``error``) that is not in the index."""
        return os.path.join(self.data(batch_id), f"{kind}.{job_index}.{attempt}.pkl")

    def logs(self, batch_id: int) -> str:
        """Return the folder of the logs of a batch's jobs."""
        return os.path.join(self.batch(batch_id), "logs")

    def log(self, batch_id: int, job_index: int, attempt: int, key: str) -> str:
        """Return the file of one stream (``stdout`` or ``stderr``) of one attempt."""
        return f"{self.folder}/{batch_id}/logs/{job_index}.{attempt}.{_SUFFIX[key]}"

    @property
    def events(self) -> str:
        """The folder of the event files of all batches."""
        return os.path.join(self.folder, "events")

    @property
    def submissions(self) -> str:
        """The folder of the submission folders."""
        return os.path.join(self.folder, "submissions")

    def submission(self, token: str) -> str:
        """Return the folder of one submission."""
        return os.path.join(self.submissions, token)

    def agent(self, host: str) -> str:
        """Return the folder of this user's agent on one host."""
        return os.path.join(self.folder, "agent", f"{host}.{os.getuid()}")

    def agent_lock(self, host: str) -> str:
        """Return the file that the agent of one host locks for its life."""
        return os.path.join(self.agent(host), "lock")

    def spare_log(self, host: str, process: str, key: str) -> str:
        """Return the file of a stream of a job that runs on a host, as long as it is too short to have a name.

        ``process`` is the pid and the start ticks of what runs it.
        """
        return os.path.join(self.agent(host), f"log.{process}.{1 if key == 'stdout' else 2}")

    def log_places(self, batch_id: int, job_index: int, attempt: Mapping[str, Any], key: str) -> list[str]:
        """Return where a stream of an attempt may be at this moment: under its name, or in the file that has none yet.

        ``attempt`` has the fields ``n, process, host, ended``.
        """
        places = [self.log(batch_id, job_index, attempt["n"], key)]
        if attempt["process"] and attempt["host"] and attempt["ended"] is None:
            spare = self.spare_log(attempt["host"], attempt["process"].rpartition(":")[0], key)
            # Again its name, which it may get between two looks.
            places += [spare, places[0]]
        return places

    def submitter_lock(self) -> str:
        """Return the file that the one periodic submitter of this index locks."""
        return os.path.join(self.folder, "submitter.lock")

    def local(self) -> str:
        """Return a folder on this host only, for what must not lie on a network file system.

        Its name says which file the index is, by device and inode: every path that leads to it gives the
        same. It does not depend on TMPDIR (which clusters set for each job) nor on XDG_RUNTIME_DIR (which
        cron and ssh lack).
        """
        status = os.stat(self.index)
        return f"/tmp/paraschut-{os.getuid()}/{status.st_dev:x}-{status.st_ino:x}"  # noqa: S108 - its owner is checked
