"""The command line as a program: the script ``paraschut``, and ``python -m paraschut``."""

from __future__ import annotations

import errno
import os
import sys

#: Exit statuses, as a shell reports SIGINT and SIGPIPE.
INTERRUPTED, UNREAD = 130, 141
_FAILED = 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run one command and leave with its exit status."""
    try:
        status = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = UNREAD
        _close_output()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        status = _FAILED
        what = error.filename or "A file, or the output,"
        sys.stderr.write(f"Error: {what} could not be written: {error.strerror}. Make room and try again.\n")
        _close_output()
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    # A job that is a shell script pays for each call, so it gets by without click and SQLAlchemy.
    if arguments[:1] == ["job"]:
        from paraschut.cli import job as job_cli

        return job_cli.main(arguments[1:])
    from paraschut.cli import main as cli

    return cli.run(arguments)


def _close_output() -> None:
    # The interpreter would try once more to write what is still in the buffers, and complain.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


if __name__ == "__main__":
    main()
