"""What can go wrong, as classes; the message of each is a sentence that ends with what to do.

::

    ParaschutError
    ├── ConfigError          the configuration cannot be read, or says something unknown
    ├── JobError             a job dict is wrong: a field, its type, its script, its resources
    │   ├── BatchExistsError     that BatchID is taken
    │   └── ScriptError          a script is missing, or names a field that the job does not have
    ├── NameTakenError       another function job has that name
    ├── JobFailed            a function job ended without a result; says why, with its own traceback
    ├── NotFoundError        no such batch, job, attempt or log
    ├── NotInJobError        something that only works inside a job was called outside of one
    ├── FilterError          the Filter is not a condition; points at the spot
    ├── StaleJobError        another process changed the same field meanwhile
    ├── StoreError           the index cannot be used
    │   ├── StoreBusyError       others held it for longer than the time limit
    │   ├── SchemaError          it is not an index, or was written by a newer paraschut
    │   └── TrustError           what is pickled there could have been written by somebody else
    └── ExecutorError        the executor cannot do what was asked
        └── SubmitError          it refused, or could not be reached; nothing was submitted

The caller may rely on one thing: when one of these is raised by a call, that call changed nothing,
unless its message says otherwise.
"""

from __future__ import annotations


class ParaschutError(Exception):
    """The root: ``except ParaschutError`` catches everything that this package raises on purpose."""


class ConfigError(ParaschutError):
    """The configuration cannot be read, or has a key or a value that is not valid."""


class JobError(ParaschutError):
    """A job dict is wrong."""


class BatchExistsError(JobError):
    """A batch with this BatchID is already in the index."""


class ScriptError(JobError):
    """A job's script does not exist, or names a field that the job does not have."""


class NameTakenError(ParaschutError):
    """A function job with this name is in the index already."""


class JobFailed(ParaschutError):  # noqa: N818 - the word that a reader of a traceback needs
    """A function job ended without a result.

    Attributes
    ----------
    reason : str
        Why, in a few words: ``ValueError: too small``, ``signal 6 (SIGABRT)``, ``out of memory``, ``cancelled``.
    traceback : str
        The traceback of the job, or the last lines of its error log; empty if there is none.
    """

    def __init__(self, message: str, reason: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[JobFailed], tuple[str, str, str]]:
        return type(self), (str(self), self.reason, self.traceback)


class NotFoundError(ParaschutError, LookupError):
    """There is no such batch, job, attempt or log."""


class NotInJobError(ParaschutError):
    """The call needs a job to be in, and there is none in the environment."""


class FilterError(ParaschutError, ValueError):
    """The Filter is not a condition over this queue."""


class StaleJobError(ParaschutError):
    """Another process changed the same field since this dict was read."""


class StoreError(ParaschutError):
    """The index cannot be opened, read or written."""


class StoreBusyError(StoreError):
    """Other processes held the index for longer than the time limit."""


class SchemaError(StoreError):
    """The file is not an index of paraschut, or was written by a newer version."""


class TrustError(StoreError):
    """The index, or a folder above it, could have been written by somebody else."""


class ExecutorError(ParaschutError):
    """The executor cannot do what was asked of it."""


class SubmitError(ExecutorError):
    """The executor refused the jobs, or could not be reached; they are in 'init' again."""
