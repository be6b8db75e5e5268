"""What a worker is at, and what it has done and not told yet: a file that outlives the worker.

A worker takes several short calls in one transaction, and writes what came of them into the index in the next one.
In between, this file says which calls are its own, which of them have begun, and what came of those that ended. So
the zygote can hand over what a worker leaves behind that dies, or that is kept by a long call: results that are not
in the index yet, and calls that have not begun. If the zygote is killed, too, the agent does the same.

Who begins a call, and who takes calls away, holds a lock on the file: no call is begun that was taken away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

#: In a call; the logs have got their names; how many calls have begun, may begin, are accounted for; since when; where
#: the calls stand.
_HEADER = struct.Struct("=??IIIdQ")


class _State(NamedTuple):
    """The header of the file."""

    in_call: bool = False
    named: bool = False
    begun: int = 0
    until: int = 0
    settled: int = 0
    since: float = 0.0
    base: int = _HEADER.size


class Claim(NamedTuple):
    """A call that a worker has taken.

    Attributes
    ----------
    started : float
        The time at which it was taken, as it stands in the index.
    """

    key: tuple[int, int, int]
    token: str
    task: int
    started: float


class Left(NamedTuple):
    """What a worker leaves behind: what came of calls, and calls that have not begun."""

    done: list[dict[str, Any]]
    not_begun: list[Claim]


class Series:
    """The file of one worker.

    Parameters
    ----------
    path : str
        Where it is.

    Raises
    ------
    OSError
        If it cannot be opened; with ``make``, made.
    """

    def __init__(self, path: str, *, make: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
        self._descriptor = os.open(path, flags, 0o600)
        self._end = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _state(self) -> _State:
        data = os.pread(self._descriptor, _HEADER.size, 0)
        return _State._make(_HEADER.unpack(data)) if len(data) == _HEADER.size else _State()

    def _set(self, state: _State) -> None:
        os.pwrite(self._descriptor, _HEADER.pack(*state), 0)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_State]:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield self._state()
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _append(self, what: object) -> int:
        line = json.dumps(what).encode() + b"\n"
        os.pwrite(self._descriptor, line, self._end)
        self._end += len(line)
        return self._end - len(line)

    # -- the zygote, before it tells a worker a job ----------------------------------------------------------------

    def begin(self, claim: Claim) -> None:
        """Begin anew, with the call that the worker will be told."""
        os.ftruncate(self._descriptor, 0)
        self._set(_State(until=1))
        self._end = _HEADER.size
        self._append([claim])

    # -- the worker --------------------------------------------------------------------------------------------------

    def starts(self) -> bool:
        """Begin the next call; return False if it was taken away, or the logs have got the name of another."""
        with self._locked() as state:
            may = state.begun < state.until and not state.named
            if may:
                self._set(state._replace(in_call=True, begun=state.begun + 1, since=time.monotonic()))
        return may

    def record(self, what: dict[str, Any]) -> None:
        """Write down what came of a call."""
        self._append(what)

    def ended(self) -> None:
        """Say that the call is over."""
        with self._locked() as state:
            self._set(state._replace(in_call=False))

    def settled(self) -> None:
        """Say that all that was written down stands in the index."""
        with self._locked() as state:
            self._set(state._replace(settled=len(self._records(state)[1])))

    def propose(self, claims: list[Claim]) -> int:
        """Write down calls that are about to be taken; return what makes them those of this worker."""
        self._end = os.fstat(self._descriptor).st_size
        return self._append(claims)

    def adopt(self, proposed: int, count: int) -> None:
        """Have the calls that were proposed, and be done with those before."""
        with self._locked() as state:
            self._set(_State(named=state.named, until=count, base=proposed))

    def follow(self) -> None:
        """Take up a file that the zygote has begun."""
        self._end = os.fstat(self._descriptor).st_size

    # -- the zygote and the agent ------------------------------------------------------------------------------------

    def _records(self, state: _State) -> tuple[list[Claim], list[dict[str, Any]], list[Claim]]:
        """Return the calls that the worker has, what came of those that ended, and the calls that it was about to take."""
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, max(0, size - state.base), state.base)
        claims: list[list[Claim]] = []
        done = []
        for line in data.splitlines():
            try:
                what = json.loads(line)
            except ValueError:  # it was killed while it wrote this
                break
            if isinstance(what, list):
                claims.append([Claim(tuple(key), *rest) for key, *rest in what])
            else:
                done.append(what)
        return (claims or [[]])[0], done, [one for more in claims[1:] for one in more]

    def last(self) -> Claim:
        """Return the call that has begun last, or is to begin first."""
        state = self._state()
        return self._records(state)[0][max(state.begun - 1, 0)]

    def stop(self, key: tuple[int, int, int] | None = None) -> tuple[bool, list[Claim]]:
        """Let no other call begin, if a job is the worker's; return whether it is at that job, and what will not begin.

        ``key``: the job; None: whichever it is at.
        """
        with self._locked() as state:
            claims, _, _ = self._records(state)
            at = claims[state.begun - 1] if state.in_call else claims[0] if not state.begun else None
            left = claims[max(state.begun, 1) : state.until]
            if key is not None and key not in {claim.key for claim in (*left, *filter(None, [at]))}:
                return False, []
            self._set(state._replace(until=state.begun))
        return at is not None and at.key == key, left

    def take(self, longer: float | None = None, *, all_of_it: bool = False) -> Left:
        """Take away what is not in the index yet and what has not begun.

        ``longer``: only from a worker that has been in a call for so many seconds. ``all_of_it``: also what may be in the
        index, or was taken away before by somebody who may not have told it.
        """
        with self._locked() as state:
            if longer is not None and not (state.in_call and time.monotonic() - state.since >= longer):
                return Left([], [])
            claims, done, proposed = self._records(state)
            self._set(state._replace(until=state.begun, settled=len(done)))
        if all_of_it:
            return Left(done, [*claims[state.begun :], *proposed])
        return Left(done[state.settled :], claims[state.begun : state.until])

    def name(self, longer: float, name: Any) -> bool:
        """Name the logs of a call that has taken so many seconds, by ``name``; return whether that was done."""
        with self._locked() as state:
            if not state.in_call or time.monotonic() - state.since < longer:
                return False
            name(self._records(state)[0][state.begun - 1])
            self._set(state._replace(named=True))
        return True


def path_of(folder: str, process: str) -> str:
    """Return the file of the worker of a zygote, which is named by its pid and start ticks."""
    return os.path.join(folder, f"series.{process}")


def files(folder: str) -> list[str]:
    """Return the files of all workers."""
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("series.")]


def process_of(path: str) -> str:
    """Return the pid and start ticks of the zygote whose worker has that file."""
    return os.path.basename(path).removeprefix("series.")


def writes_of(log: str, key: tuple[int, int, int]) -> bool:
    """Return whether what writes into a log that has no name yet is at that job: it may be at another one of its own."""
    folder, name = os.path.split(log)
    try:
        series = Series(path_of(folder, name.split(".")[1]))
    except OSError:  # it has but one
        return True
    try:
        return series.last().key == key
    except IndexError:  # it is about to take another job
        return False
    finally:
        series.close()


def left_by(folder: str, process: str) -> Left:
    """Return what the worker of a zygote leaves behind that was killed."""
    try:
        series = Series(path_of(folder, process))
    except OSError:  # it had none
        return Left([], [])
    try:
        return series.take(all_of_it=True)
    finally:
        series.close()


def stop(folder: str, process: str, key: tuple[int, int, int]) -> tuple[bool, list[Claim]]:
    """Let the worker of a zygote begin no other call, if a job is its own; see ``Series.stop``."""
    try:
        series = Series(path_of(folder, process))
    except OSError:  # it has none: it is at that job, and does nothing else
        return True, []
    try:
        return series.stop(key)
    finally:
        series.close()
