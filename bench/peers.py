"""What other libraries do with calls that do nothing: ``python peers.py LIBRARY CALLS WORKERS`` prints calls per second.

A program of its own, run by the interpreter of the peers (``make bench``), so that their needs are not ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

# By its path: this program knows nothing of the package.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from noop import same


@contextmanager
def timed(count: int, found: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    found.append(count / (time.perf_counter() - started))


def joblib(count: int, workers: int, found: list[float]) -> None:
    library = import_module("joblib")
    parallel = library.Parallel(n_jobs=workers, batch_size=1)
    parallel(library.delayed(same)(x) for x in range(10))
    with timed(count, found):
        parallel(library.delayed(same)(x) for x in range(count))


def submitit(count: int, workers: int, found: list[float]) -> None:
    del workers
    executor = import_module("submitit").LocalExecutor(folder="submitit")
    with timed(count, found):
        for job in [executor.submit(same, x) for x in range(count)]:
            job.result()


def executorlib(count: int, workers: int, found: list[float]) -> None:
    library = import_module("executorlib")
    with library.SingleNodeExecutor(max_workers=workers, block_allocation=True) as executor:
        executor.submit(same, 0).result()
        with timed(count, found):
            for call in [executor.submit(same, x) for x in range(count)]:
                call.result()


def dask(count: int, workers: int, found: list[float]) -> None:
    library = import_module("dask.distributed")
    with (
        library.LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
        library.Client(cluster) as client,
    ):
        client.submit(same, -1).result()
        with timed(count, found):
            client.gather([client.submit(same, x) for x in range(count)])


def parsl(count: int, workers: int, found: list[float]) -> None:
    library = import_module("parsl")
    executor = import_module("parsl.executors").HighThroughputExecutor(
        address="127.0.0.1", max_workers_per_node=workers, cores_per_worker=0.1
    )
    with library.load(import_module("parsl.config").Config(executors=[executor], usage_tracking=0)):
        app = library.python_app(same)
        app(0).result()
        with timed(count, found):
            for call in [app(x) for x in range(count)]:
                call.result()


def huey(count: int, workers: int, found: list[float]) -> None:
    """Queue calls in SQLite; its workers are threads of this process, which for calls that do nothing is no loss."""
    queue = import_module("huey").SqliteHuey(filename="huey.db", fsync=False)
    task = queue.task()(same)
    consumer = queue.create_consumer(workers=workers, periodic=False, initial_delay=0.001, backoff=1.05)
    consumer.start()
    try:
        task(0).get(blocking=True)
        with timed(count, found):
            for call in [task(x) for x in range(count)]:
                call.get(blocking=True, backoff=1, preserve=False)
    finally:
        consumer.stop(graceful=False)


LIBRARIES: dict[str, Callable[[int, int, list[float]], None]] = {
    one.__name__: one for one in (joblib, submitit, executorlib, dask, parsl, huey)
}


def main() -> None:
    name, count, workers = sys.argv[1:]
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        LIBRARIES[name](int(count), int(workers), found)
        os.chdir("/")
    print(found[0])


if __name__ == "__main__":
    main()
