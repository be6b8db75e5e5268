"""The command line as a program: the script ``paraschut``, and ``python -m paraschut``."""

from __future__ import annotations

import os
import sys

#: What a shell reports of a program that ended with SIGINT, or with SIGPIPE.
INTERRUPTED, UNREAD = 130, 141


def main() -> None:
    """Run one command and leave with its exit status."""
    try:
        status = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _close_output()
        status = UNREAD
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    # A job that is a shell script pays for each call, so it gets by without click and SQLAlchemy.
    if arguments[:1] == ["job"]:
        from paraschut import job_cli

        return job_cli.main(arguments[1:])
    from paraschut import cli

    return cli.run(arguments)


def _close_output() -> None:
    # Whoever read has left; the interpreter would complain about what is still in the buffers.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


if __name__ == "__main__":
    main()
