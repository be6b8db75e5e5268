"""The fake Slurm's sbatch and scancel, and how its tasks start and end, as Slurm 22.05 was seen to do it."""

from __future__ import annotations

import getopt
import os
import time

import core
import runner
from core import Refused, stamp

GENTLE = True  # SIGTERM first, SIGKILL later
SPLITS = True  # a task of an array gets a job id of its own
NODE = "fake1"
CPUS, MEMORY, GPUS = 16, 32000, 2
PARTITIONS = {"main": 7 * 86400, "short": 300}

WORDS = {
    "CANCELLED": "*** JOB {raw} ON {node} CANCELLED AT {time} ***",
    "TIMEOUT": "*** JOB {raw} ON {node} CANCELLED AT {time} DUE TO TIME LIMIT ***",
    "PREEMPTED": "*** JOB {raw} ON {node} CANCELLED AT {time} DUE TO PREEMPTION ***",
    "NODE_FAIL": "*** JOB {raw} ON {node} CANCELLED AT {time} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
}
OOM = (
    "slurmstepd-{node}: error: Detected 1 oom-kill event(s) in StepId={raw}.batch. Some of your processes may have "
    "been killed by the cgroup out-of-memory handler.\n"
)
NOBODY = "Unable to contact slurm controller (connect failure)"

SHORT = "A:a:c:C:D:d:e:G:H:hIi:J:k:L:M:m:N:n:o:p:Qq:st:uVvW:w:x:"
LONG = [
    "account=", "acctg-freq=", "array=", "begin=", "chdir=", "comment=", "constraint=", "contiguous",
    "cpus-per-task=", "deadline=", "dependency=", "error=", "exclude=", "exclusive", "export=", "export-file=",
    "get-user-env", "gpus=", "gpus-per-node=", "gpus-per-task=", "gres=", "hint=", "hold", "input=", "job-name=",
    "kill-on-invalid-dep=", "licenses=", "mail-type=", "mail-user=", "mem=", "mem-per-cpu=", "mem-per-gpu=",
    "mincpus=", "nice=", "no-kill", "no-requeue", "nodelist=", "nodes=", "ntasks=", "ntasks-per-node=",
    "open-mode=", "output=", "oversubscribe", "parsable", "partition=", "priority=", "qos=", "quiet", "requeue",
    "reservation=", "signal=", "spread-job", "test-only", "time=", "time-min=", "tmp=", "verbose", "version",
    "wait", "wait-all-nodes=", "wckey=", "wrap=",
]  # fmt: skip
LETTERS = {
    "A": "account", "a": "array", "b": "begin", "c": "cpus-per-task", "D": "chdir", "d": "dependency",
    "e": "error", "G": "gpus", "H": "hold", "i": "input", "J": "job-name", "L": "licenses", "N": "nodes",
    "n": "ntasks", "o": "output", "p": "partition", "Q": "quiet", "q": "qos", "t": "time", "V": "version",
    "v": "verbose", "W": "wait", "w": "nodelist", "x": "exclude",
}  # fmt: skip


def nobody_answers(command, argv):
    """Raise what a command says when no slurmctld listens."""
    if command == "sbatch":
        raise Refused(f"sbatch: error: Batch job submission failed: {NOBODY}")
    if command == "scancel":
        raise Refused(f"scancel: error: Kill job error on job id {argv[-1] if argv else ''}: {NOBODY}", 8)
    if command == "scontrol" and argv[:1] == ["ping"]:
        refused = Refused(f"Slurmctld(primary) at {NODE} is DOWN")
        refused.aloud = True
        raise refused
    if command != "sacct":
        raise Refused(
            f"slurm_load_jobs error: {NOBODY}" if command != "sinfo" else f"slurm_load_partitions: {NOBODY}"
        )


# --- sbatch ---------------------------------------------------------------------------------------------------


def sbatch(fake, argv):
    """Submit a script."""
    options, rest = _options(argv)
    if "version" in options:
        return 0, "slurm-wlm 22.05.8\n"
    text, command = _script(options, rest)
    for name, value in _options(core.directives(text, "#SBATCH"))[0].items():
        options.setdefault(name, value)
    fields = _fields(options)
    with fake.state() as known:
        indices, limit = array_indices(options.get("array", ""), known["settings"]["array_limit"])
        if core.over_limit(known, len(indices or [0])):
            raise Refused(
                "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
                "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
                "(job submit limit, user's size and/or time limits)"
            )
        job = core.new_job(
            known, indices=indices, limit=limit, held="hold" in options, restarts="no-requeue" not in options,
            name=options.get("job-name", "wrap" if "wrap" in options else os.path.basename(command or "sbatch")),
            comment=options.get("comment"), arguments=rest[1:], cwd=options.get("chdir", os.getcwd()),
            array_text=options.get("array", ""), command=command, **fields,
        )  # fmt: skip
        job["script"] = core.keep_script(fake, job, text)
        job["output"] = options.get("output", "slurm-%A_%a.out" if indices is not None else "slurm-%j.out")
        job["error"] = options.get("error", job["output"])
        job["append"] = options.get("open-mode") == "append"
        job["environment"] = _environment(fake, job, options)
    runner.start(fake)
    if "quiet" in options and "parsable" in options:
        return 0, ""
    return 0, f"{job['id']}\n" if "parsable" in options else f"Submitted batch job {job['id']}\n"


def _options(argv):
    try:
        found, rest = getopt.getopt(argv, SHORT, LONG)
    except getopt.GetoptError as error:
        if error.msg.endswith("not recognized"):
            words = (
                f"sbatch: unrecognized option '--{error.opt}'"
                if len(error.opt) > 1
                else f"sbatch: invalid option -- '{error.opt}'"
            )
        else:
            words = f"sbatch: option '--{error.opt}' requires an argument"
        raise Refused(f'{words}\nTry "sbatch --help" for more information', 255) from None
    options = {}
    for name, value in found:
        options[name[2:] if name.startswith("--") else LETTERS.get(name[1:], name[1:])] = value
    return options, rest


def _script(options, rest):
    if "wrap" in options:
        return f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{options['wrap']}\n", None
    if rest:
        try:
            with open(rest[0], newline="") as file:
                text = file.read()
        except OSError:
            raise Refused(f"sbatch: error: Unable to open file {rest[0]}") from None
    else:
        import sys

        text = sys.stdin.read()
    if not text.startswith("#!"):
        raise Refused(
            "sbatch: error: This does not look like a batch script.  The first\n"
            "sbatch: error: line must start with #! followed by the path to an interpreter.\n"
            "sbatch: error: For instance: #!/bin/sh"
        )
    if "\r\n" in text:
        raise Refused(
            "sbatch: error: Batch script contains DOS line breaks (\\r\\n)\n"
            "sbatch: error: instead of expected UNIX line breaks (\\n)."
        )
    if len(text) > 4 * 2**20:
        raise _refusal("Pathname of a file, directory or other parameter too long")
    return text, os.path.abspath(rest[0]) if rest else None


def _refusal(words):
    return Refused(f"sbatch: error: Batch job submission failed: {words}")


def _fields(options):
    """Check the options and return what the scheduler keeps of them."""
    for name, most in (("job-name", 1024), ("comment", 1024), ("array", 4096)):
        if len(options.get(name, "")) > most:
            raise _refusal("Pathname of a file, directory or other parameter too long")
    partition = options.get("partition", "main")
    if partition not in PARTITIONS:
        raise Refused(
            f"sbatch: error: invalid partition specified: {partition}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    if options.get("constraint"):
        raise _refusal("Invalid feature specification")
    _check_gres(options.get("gres", ""))
    return {
        "partition": partition,
        "walltime": _walltime(options.get("time", "UNLIMITED")),
        "memory": _memory(options.get("mem", "256")),
        "cpus": _number(options, "cpus-per-task"),
        "nodes": _number(options, "nodes"),
        "begin": _begin(options.get("begin", "now")),
        "after": _dependency(options.get("dependency", "")),
    }


def _walltime(text):
    """Return the seconds of a time; the real one rounds up to a minute, and comes up to a minute late."""
    if text in ("UNLIMITED", "INFINITE"):
        return 0
    days, dash, rest = text.rpartition("-")
    # One number is minutes, two are minutes and seconds; after days they are hours, and hours and minutes.
    as_clock = {(0, ""): f"{rest}:00", (0, "-"): f"{rest}:00:00", (1, "-"): f"{rest}:00"}
    try:
        return core.seconds(as_clock.get((rest.count(":"), dash), rest)) + int(days or 0) * 86400
    except ValueError:
        raise Refused("sbatch: error: Invalid --time specification", 255) from None


def _memory(text):
    """Return megabytes."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    text = text.upper().removesuffix("B")
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "M")
    if not number.isdigit():
        raise Refused("sbatch: error: Invalid --mem specification", 255)
    memory = max(1, int(number) * units[unit] // 2**20)
    if memory > MEMORY:
        raise Refused(
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: Requested node configuration is not available"
        )
    return memory


def _number(options, name):
    number = options.get(name, "1").partition("-")[0]
    if not number.isdigit():
        raise Refused(f'sbatch: error: Invalid numeric value "{options[name]}" for --{name}.', 255)
    return int(number)


def _check_gres(text):
    for gres in filter(None, text.split(",")):
        kind, _, count = gres.partition(":")
        if kind != "gpu":
            raise Refused("sbatch: error: Invalid generic resource (gres) specification")
        if int(count.rpartition(":")[2] or 1) > GPUS:
            raise _refusal("Requested node configuration is not available")


def _begin(text):
    base, _, more = text.partition("+")
    units = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "": 1}
    if base == "now":
        number = more.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = more[len(number) :].removesuffix("s")
        if (number.isdigit() or not more) and unit in units:
            return time.time() + int(number) * units[unit] if more else 0
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise Refused(
        f"Invalid time specification (pos=0): {text}\nsbatch: error: Invalid --begin specification", 255
    )


def _dependency(text):
    after = []
    for part in filter(None, text.replace("?", ",").split(",")):
        kind, _, numbers = part.partition(":")
        if kind == "singleton":
            continue
        ids = [number.partition("_")[0].partition("+")[0] for number in numbers.split(":")]
        if kind not in ("after", "afterany", "afterok", "afternotok", "aftercorr") or not all(
            map(str.isdigit, ids)
        ):
            raise _refusal("Job dependency problem")
        after.append([kind, [int(number) for number in ids]])
    return after


def array_indices(text, limit):
    """Return the indices of ``1,3,7-20:4%3`` and how many may run at once; None for a plain job."""
    if not text:
        return None, 0
    text, _, most = text.partition("%")
    indices = set()
    try:
        for part in text.split(","):
            span, _, step = part.partition(":")
            low, dash, high = span.partition("-")
            indices.update(range(int(low), int(high if dash else low) + 1, int(step or 1)))
        good = indices and max(indices) < limit and min(indices) >= 0 and not (most and int(most) < 1)
    except ValueError:
        good = False
    if not good:
        raise _refusal("Invalid job array specification")
    return sorted(indices), int(most or 0)


def _environment(fake, job, options):
    """Return what of the submitter's variables the job gets."""
    wanted = options.get("export", "ALL")
    own = {
        "PATH": f"{fake.path('bin')}:{core.LOGIN_PATH}", "HOME": os.environ.get("HOME", fake.home),
        "USER": job["user"], "LOGNAME": job["user"], "SHELL": "/bin/bash", "MAIL": f"/var/mail/{job['user']}",
    }  # fmt: skip
    names = wanted.split(",")
    kept = dict(os.environ) if "ALL" in names else own
    if wanted not in ("ALL", "NONE", "NIL"):
        for name in names:
            key, is_set, value = name.partition("=")
            if is_set:
                kept[key] = value
            elif key in os.environ:
                kept[key] = os.environ[key]
    if "export" in options:
        kept["SLURM_EXPORT_ENV"] = wanted
    if wanted in ("NONE", "NIL"):
        kept["SLURM_GET_USER_ENV"] = "1"
    return kept


# --- what the runner asks -------------------------------------------------------------------------------------


def holds(known, job, now):
    """Return whether the job may not start."""
    return bool(core.is_held(known, job, now)) or bool(never(job))


def never(job):
    if job["cpus"] > CPUS:
        return "PartitionConfig"
    if job["walltime"] > PARTITIONS[job["partition"]]:
        return "PartitionTimeLimit"
    return ""


def way(fake, job, index, task):
    """Return how a task is started."""
    raw, number = task["raw"], job["id"]
    letters = {
        "j": raw, "J": raw, "A": number, "a": index if job["array"] else 4294967294, "x": job["name"],
        "u": job["user"], "N": NODE, "n": 0, "t": 0, "s": "batch",
    }  # fmt: skip
    paths = {
        name: os.path.join(job["cwd"], core.expand(job[key], letters))
        for name, key in (("stdout", "output"), ("stderr", "error"))
    }
    task.update(paths)
    cpus = str(job["cpus"])
    environment = {
        **job["environment"],
        "ENVIRONMENT": "BATCH", "HOSTNAME": NODE, "SLURMD_NODENAME": NODE, "SLURM_CLUSTER_NAME": "fake",
        "SLURM_CONF": fake.path("slurm.conf"), "SLURM_CPUS_ON_NODE": cpus, "SLURM_GTIDS": "0",
        "SLURM_JOBID": str(raw), "SLURM_JOB_ID": str(raw), "SLURM_JOB_CPUS_PER_NODE": cpus,
        "SLURM_JOB_NAME": job["name"], "SLURM_JOB_NODELIST": NODE, "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_PARTITION": job["partition"], "SLURM_JOB_UID": str(os.getuid()), "SLURM_JOB_USER": job["user"],
        "SLURM_LOCALID": "0", "SLURM_MEM_PER_NODE": str(job["memory"]), "SLURM_NNODES": "1",
        "SLURM_NODEID": "0", "SLURM_NODELIST": NODE, "SLURM_PROCID": "0", "SLURM_SUBMIT_DIR": job["cwd"],
        "SLURM_SUBMIT_HOST": os.uname().nodename, "SLURM_TASKS_PER_NODE": "1", "TMPDIR": "/tmp",
    }  # fmt: skip
    if job["cpus"] > 1:
        environment["SLURM_CPUS_PER_TASK"] = cpus
    if task["restarts"]:
        environment["SLURM_RESTART_COUNT"] = str(task["restarts"])
    if job["array"]:
        indices = array_indices(job["array_text"], 2**31)[0]
        environment |= {
            "SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": index,
            "SLURM_ARRAY_TASK_COUNT": str(len(indices)), "SLURM_ARRAY_TASK_MIN": str(indices[0]),
            "SLURM_ARRAY_TASK_MAX": str(indices[-1]),
            "SLURM_ARRAY_TASK_STEP": str(indices[1] - indices[0] if len(indices) > 1 else 1),
        }  # fmt: skip
    else:
        for name in [name for name in environment if name.startswith("SLURM_ARRAY_")]:
            del environment[name]
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if job["append"] else os.O_TRUNC)
    return {
        "argv": [job["script"], *job["arguments"]], "cwd": job["cwd"], "environment": environment, **paths,
        "flags": flags, "no_log": 253,
    }  # fmt: skip


def last_words(job, task):
    """Write what slurmstepd writes into the log of a task that is ended."""
    words = WORDS.get(task["verdict"])
    if words:
        line = (
            f"slurmstepd-{NODE}: error: {words.format(raw=task['raw'], node=NODE, time=stamp(time.time()))}\n"
        )
        _append(task, line)


def _append(task, line):
    try:
        with open(task["stderr"], "a") as log:
            log.write(line)
    except OSError:
        return


def note_end(known, job, index, task):
    """Decide state, exit code and reason of a task that has ended."""
    verdict = task.get("verdict")
    if verdict == "OUT_OF_MEMORY":
        _append(task, OOM.format(node=NODE, raw=task["raw"]))
        task.update(shown="OUT_OF_MEMORY", exit="0:125", reason="OutOfMemory")
    elif verdict == "NODE_FAIL":
        task.update(shown="NODE_FAIL", exit="0:0", reason="NodeDown")
    elif verdict == "TIMEOUT":
        task.update(shown="TIMEOUT", exit="0:15", reason="TimeLimit")
    elif verdict in ("CANCELLED", "PREEMPTED"):
        code = task["code"] if not task["signal"] else 0
        task.update(shown=verdict, exit=f"{code}:{task['signal'] or 15 * (not code)}", reason="None")
    elif task["code"] == 253 and not os.path.exists(task["stdout"]):
        task.update(shown="FAILED", exit="0:53", reason="JobLaunchFailure")
    elif task["signal"]:
        task.update(shown="FAILED", exit=f"0:{task['signal']}", reason="JobLaunchFailure")
    elif task["code"]:
        task.update(shown="FAILED", exit=f"{task['code']}:0", reason="NonZeroExitCode")
    else:
        task.update(shown="COMPLETED", exit="0:0", reason="None")


# --- scancel --------------------------------------------------------------------------------------------------


def scancel(fake, argv):
    """Cancel; who has ended, or was never there, is no error."""
    long = [
        "batch",
        "full",
        "hurry",
        "me",
        "name=",
        "partition=",
        "quiet",
        "signal=",
        "state=",
        "user=",
        "verbose",
    ]
    found, rest = getopt.gnu_getopt(argv, "bfHn:p:Qs:t:u:v", long)
    options = dict(found)
    name = options.get("--name", options.get("-n"))
    user = options.get("--user", options.get("-u")) or ("--me" in options and core.user_name())
    state = options.get("--state", options.get("-t", "")).upper()
    with fake.state() as known:
        chosen, words = _named(known, rest)
        if not rest and (name or user or state):
            chosen = [(number, None) for number in known["jobs"]]
        for number, indices in chosen:
            job = known["jobs"][number]
            if (name and job["name"] != name) or (user and job["user"] != user):
                continue
            in_state = {
                "PENDING": job["waiting"],
                "PD": job["waiting"],
                "RUNNING": job["tasks"],
                "R": job["tasks"],
            }
            if state:
                these = [i for i in in_state.get(state, ()) if indices is None or i in indices]
                core.cancel(known, job, these)
            else:
                core.cancel(known, job, indices)
    if words:
        raise Refused("\n".join(words))
    return 0, ""


def _named(known, texts):
    """Return (job, indices) for each id that is known, and what is said of those that are no ids."""
    chosen, words = [], []
    for text in texts:
        number, _, index = text.partition("_")
        if not number.isdigit():
            words.append(f"scancel: error: Invalid job id {text}")
        elif number in known["jobs"]:
            chosen.append((number, _indices(index)))
        elif found_task := by_raw(known, number):
            chosen.append((str(found_task[0]["id"]), [found_task[1]]))
    return chosen, words


def _indices(text):
    """Return the indices of ``5`` or ``[3-4,7]``; None for the whole job."""
    if not text:
        return None
    return [str(index) for index in array_indices(text.strip("[]"), 2**31)[0]]


def by_raw(known, raw):
    for job in known["jobs"].values():
        for index, task in job["tasks"].items():
            if str(task["raw"]) == raw and core.remembered(known, job):
                return job, index
    return None
