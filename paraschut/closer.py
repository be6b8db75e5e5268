"""What a closer runs when the jobs of a batch have ended: goes on with it, and with all that goes on by itself.

Jobs that do not call back are judged from what they leave; where the scheduler killed them, that takes a while. So
passes are made until each job of the batch has a verdict, and those that are to be tried again had their pause.
"""

from __future__ import annotations

import sys
import time

from paraschut.config import load_config
from paraschut.dispatch import go_on
from paraschut.errors import ParaschutError
from paraschut.fold import grace_of
from paraschut.store import copies, unsettled
from paraschut.store.store import Store

#: Seconds between two passes.
PAUSE = 2.0
#: Seconds after which the pause of a job that is tried again is looked at once more: a person may have ended it.
LONGEST_SLEEP = 60.0


def carry_on(index: str, batch_id: int) -> int:
    """Make passes until the jobs of a batch that were submitted before have a verdict; return the exit code."""
    config = load_config(environ={"PARASCHUT_INDEX": index})
    started = time.time()
    patience = 3 * grace_of(config, index) + 2 * config.command_timeout
    while True:
        code, looked = 0, time.time()
        try:
            done = go_on(index)
            if done.left:
                _say(batch_id, "; ".join(done.left))
        except ParaschutError as error:
            _say(batch_id, str(error))
            code = 1
        begin = _next_begin(index, batch_id, looked)
        if begin is not None:
            time.sleep(min(max(PAUSE, begin - time.time()), LONGEST_SLEEP))
            started = time.time()
            continue
        if code == 0 and not _open(index, batch_id, started):
            return code
        if time.time() - started > patience:
            _hand_on(index, batch_id)
            return code
        time.sleep(PAUSE)


def _open(index: str, batch_id: int, before: float) -> bool:
    with Store.of(load_config(environ={"PARASCHUT_INDEX": index})) as store, store.reading() as connection:
        return unsettled.carried(connection, batch_id, before)


def _hand_on(index: str, batch_id: int) -> None:
    """Let another closer wait for what still runs: the scheduler started this one too early, or did not answer."""
    with Store.of(load_config(environ={"PARASCHUT_INDEX": index})) as store:
        store.forget_closers(batch_id)
    try:
        go_on(index)
    except ParaschutError as error:
        _say(batch_id, str(error))


def _next_begin(index: str, batch_id: int, after: float) -> float | None:
    """Return when the next pause of a job of the batch ends that had not ended at a time."""
    with Store.of(load_config(environ={"PARASCHUT_INDEX": index})) as store, store.reading() as connection:
        db = store.statements(connection)
        (begin,) = db.run("next_begin_of", now=after, batch_id=batch_id).fetchone()
        return copies.earliest(begin, db, after, BatchID=batch_id)


def _say(batch_id: int, words: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} batch {batch_id}: {words}\n")


if __name__ == "__main__":
    sys.exit(carry_on(sys.argv[1], int(sys.argv[2])))
