"""paraschut: prepare, submit and watch batches of jobs, on a laptop or a cluster, with no server.

Import it as ``psu``. The names below are all there is; each is imported when it is first used, so that
``import paraschut`` costs a job almost nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paraschut.change import (
        boost_batch_priority,
        qdel_batch,
        qdel_job,
        remove_batch,
        remove_batch_by_state,
        set_batch_field,
        set_job_field,
    )
    from paraschut.checkpoint import on_warning, requeue
    from paraschut.errors import (
        BatchExistsError,
        ConfigError,
        ExecutorError,
        FilterError,
        JobError,
        JobFailed,
        NameTakenError,
        NotFoundError,
        NotInJobError,
        ParaschutError,
        SchemaError,
        ScriptError,
        StaleJobError,
        StoreBusyError,
        StoreError,
        SubmitError,
        TrustError,
    )
    from paraschut.executors.file import FileJobExecutor
    from paraschut.executors.local import LocalJobExecutor
    from paraschut.executors.pbs import PBSJobExecutor
    from paraschut.executors.sge import SGEJobExecutor
    from paraschut.executors.slurm import SlurmJobExecutor
    from paraschut.functions.futures import BatchExecutor
    from paraschut.functions.mapping import persist_map
    from paraschut.functions.persisting import persist, readmgr
    from paraschut.look.dashboard import get_queue
    from paraschut.look.explaining import explain
    from paraschut.look.histories import history
    from paraschut.look.logs import print_log
    from paraschut.look.reporting import plot_resources, plot_timeline, report
    from paraschut.look.watching import watch
    from paraschut.prepare import (
        add_batch_to_queue,
        add_job_to_queue,
        generate_data,
        get_job_template,
        load_data,
    )
    from paraschut.runtime import get_job_info, get_qstat, set_complete, set_progress, update_job
    from paraschut.scripts import generate_script
    from paraschut.spawn import spawn_complete, spawn_get_info, spawn_resubmit, spawn_submit
    from paraschut.submitter import periodic_submitter
    from paraschut.submitting import submit_jobs, submit_one_batch, submit_one_job

    ClusterID: str | None

__version__ = "0.1.0"

__all__ = [
    "BatchExecutor",
    "BatchExistsError",
    "ClusterID",
    "ConfigError",
    "ExecutorError",
    "FileJobExecutor",
    "FilterError",
    "JobError",
    "JobFailed",
    "LocalJobExecutor",
    "NameTakenError",
    "NotFoundError",
    "NotInJobError",
    "PBSJobExecutor",
    "ParaschutError",
    "SGEJobExecutor",
    "SchemaError",
    "ScriptError",
    "SlurmJobExecutor",
    "StaleJobError",
    "StoreBusyError",
    "StoreError",
    "SubmitError",
    "TrustError",
    "__version__",
    "add_batch_to_queue",
    "add_job_to_queue",
    "boost_batch_priority",
    "explain",
    "generate_data",
    "generate_script",
    "get_job_info",
    "get_job_template",
    "get_qstat",
    "get_queue",
    "history",
    "load_data",
    "on_warning",
    "periodic_submitter",
    "persist",
    "persist_map",
    "plot_resources",
    "plot_timeline",
    "print_log",
    "qdel_batch",
    "qdel_job",
    "readmgr",
    "remove_batch",
    "remove_batch_by_state",
    "report",
    "requeue",
    "set_batch_field",
    "set_complete",
    "set_job_field",
    "set_progress",
    "spawn_complete",
    "spawn_get_info",
    "spawn_resubmit",
    "spawn_submit",
    "submit_jobs",
    "submit_one_batch",
    "submit_one_job",
    "update_job",
    "watch",
]

_HOMES = {
    "change": (
        "boost_batch_priority",
        "qdel_batch",
        "qdel_job",
        "remove_batch",
        "remove_batch_by_state",
        "set_batch_field",
        "set_job_field",
    ),
    "checkpoint": ("on_warning", "requeue"),
    "look.dashboard": ("get_queue",),
    "errors": (
        "BatchExistsError",
        "ConfigError",
        "ExecutorError",
        "FilterError",
        "JobError",
        "JobFailed",
        "NameTakenError",
        "NotFoundError",
        "NotInJobError",
        "ParaschutError",
        "SchemaError",
        "ScriptError",
        "StaleJobError",
        "StoreBusyError",
        "StoreError",
        "SubmitError",
        "TrustError",
    ),
    "executors.file": ("FileJobExecutor",),
    "executors.local": ("LocalJobExecutor",),
    "executors.pbs": ("PBSJobExecutor",),
    "executors.sge": ("SGEJobExecutor",),
    "executors.slurm": ("SlurmJobExecutor",),
    "look.histories": ("history",),
    "look.logs": ("print_log",),
    "look.explaining": ("explain",),
    "functions.persisting": ("persist", "readmgr"),
    "functions.futures": ("BatchExecutor",),
    "functions.mapping": ("persist_map",),
    "prepare": (
        "add_batch_to_queue",
        "add_job_to_queue",
        "generate_data",
        "get_job_template",
        "load_data",
    ),
    "look.reporting": ("plot_resources", "plot_timeline", "report"),
    "runtime": ("get_job_info", "get_qstat", "set_complete", "set_progress", "update_job"),
    "scripts": ("generate_script",),
    "spawn": ("spawn_complete", "spawn_get_info", "spawn_resubmit", "spawn_submit"),
    "submitter": ("periodic_submitter",),
    "submitting": ("submit_jobs", "submit_one_batch", "submit_one_job"),
    "look.watching": ("watch",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "ClusterID":
        return os.environ.get("PARASCHUT_CLUSTERID")
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'paraschut' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"paraschut.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
