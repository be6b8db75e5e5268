"""What Slurm 22.05 was seen to print, for the calls that an executor makes."""

from __future__ import annotations

import getopt
import os
import time

import core
from core import Refused

GENTLE = True  # SIGTERM first, SIGKILL later
SPLITS = True  # a task of an array gets a job id of its own
NODE = "fake1"
CPUS, MEMORY = 16, 32000
PARTITIONS = {"main": 7 * 86400, "short": 300}

#: Order and short forms of the states of squeue.
STATES = {
    "PENDING": "PD", "RUNNING": "R", "SUSPENDED": "S", "COMPLETED": "CD", "CANCELLED": "CA", "FAILED": "F",
    "TIMEOUT": "TO", "NODE_FAIL": "NF", "PREEMPTED": "PR", "OUT_OF_MEMORY": "OOM", "COMPLETING": "CG",
}  # fmt: skip
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
        indices, limit = _array(options.get("array", ""), known["settings"]["array_limit"])
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
    core.start_runner(fake)
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
    for name in ("job-name", "comment", "array"):
        if len(options.get(name, "")) > (4096 if name == "array" else 1024):
            raise _refusal("Pathname of a file, directory or other parameter too long")
    fields = {
        "partition": options.get("partition", "main"),
        "cpus": 1,
        "nodes": 1,
        "memory": 256,
        "walltime": 0,
    }
    if "time" in options and options["time"] not in ("UNLIMITED", "INFINITE"):
        try:
            # Minutes when there is one number, or two after a day; the real one rounds up to a minute.
            days, dash, rest = options["time"].rpartition("-")
            parts = rest.split(":")
            as_clock = {(1, ""): f"{rest}:00", (1, "-"): f"{rest}:00:00", (2, "-"): f"{rest}:00"}
            fields["walltime"] = core.seconds(as_clock.get((len(parts), dash), rest)) + int(days or 0) * 86400
        except ValueError:
            raise Refused("sbatch: error: Invalid --time specification", 255) from None
    if "mem" in options:
        units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
        text = options["mem"].upper().removesuffix("B")
        number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "M")
        if not number.isdigit():
            raise Refused("sbatch: error: Invalid --mem specification", 255)
        fields["memory"] = max(1, int(number) * units[unit] // 2**20)
        if fields["memory"] > MEMORY:
            raise Refused(
                "sbatch: error: Memory specification can not be satisfied\n"
                "sbatch: error: Batch job submission failed: Requested node configuration is not available"
            )
    for name, field in (("cpus-per-task", "cpus"), ("nodes", "nodes")):
        if name in options:
            if not options[name].partition("-")[0].isdigit():
                raise Refused(f'sbatch: error: Invalid numeric value "{options[name]}" for --{name}.', 255)
            fields[field] = int(options[name].partition("-")[0])
    if fields["partition"] not in PARTITIONS:
        raise Refused(
            f"sbatch: error: invalid partition specified: {fields['partition']}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    for gres in filter(None, options.get("gres", "").split(",")):
        kind, _, count = gres.partition(":")
        if kind != "gpu":
            raise Refused("sbatch: error: Invalid generic resource (gres) specification")
        if int(count.rpartition(":")[2] or 1) > 2:
            raise _refusal("Requested node configuration is not available")
    if options.get("constraint"):
        raise _refusal("Invalid feature specification")
    fields["begin"] = _begin(options.get("begin", "now"))
    fields["after"] = _dependency(options.get("dependency", ""))
    return fields


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


def _array(text, limit):
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
    return bool(core.is_held(known, job, now)) or bool(_never(job))


def _never(job):
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
        indices = _array(job["array_text"], 2**31)[0]
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
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        line = f"slurmstepd-{NODE}: error: {words.format(raw=task['raw'], node=NODE, time=stamp)}\n"
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


# --- squeue ---------------------------------------------------------------------------------------------------

QUEUE_SHORT = "A:ahi:j:lM:n:o:O:p:q:rR:S:st:u:vVw:"
QUEUE_LONG = [
    "account=", "all", "array", "format=", "Format=", "help", "json", "jobs=", "long", "me", "name=", "noheader",
    "noconvert", "nodelist=", "partition=", "qos=", "sort=", "states=", "user=", "version",
]  # fmt: skip
QUEUE_LETTERS = {
    "h": "noheader", "j": "jobs", "n": "name", "o": "format", "O": "Format", "p": "partition", "r": "array",
    "S": "sort", "t": "states", "u": "user",
}  # fmt: skip
USUAL = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
TITLES = {
    "i": "JOBID", "F": "ARRAY_JOB_ID", "K": "ARRAY_TASK_ID", "A": "JOBID", "T": "STATE", "t": "ST", "r": "REASON",
    "j": "NAME", "k": "COMMENT", "V": "SUBMIT_TIME", "S": "START_TIME", "e": "END_TIME", "M": "TIME",
    "l": "TIME_LIMIT", "D": "NODES", "C": "CPUS", "m": "MIN_MEMORY", "P": "PARTITION", "u": "USER",
    "E": "DEPENDENCY", "N": "NODELIST", "R": "NODELIST(REASON)", "B": "EXEC_HOST", "Z": "WORK_DIR", "Q": "PRIORITY",
    "U": "USER", "a": "ACCOUNT", "q": "QOS", "o": "COMMAND",
}  # fmt: skip


def squeue(fake, argv):
    """List jobs."""
    try:
        found, _ = getopt.getopt(argv, QUEUE_SHORT, QUEUE_LONG)
    except getopt.GetoptError as error:
        raise Refused(
            f"squeue: unrecognized option '--{error.opt}'\nTry \"squeue --help\" for more information"
        ) from None
    options = {
        name[2:] if name.startswith("--") else QUEUE_LETTERS.get(name[1:], name[1:]): v for name, v in found
    }
    with fake.state(change=False) as known:
        wanted = _wanted_ids(known, options.get("jobs"))
        rows = [
            row
            for job in known["jobs"].values()
            if core.remembered(known, job)
            for row in _rows(known, job, one_each="array" in options)
            if _chosen(row, options, wanted)
        ]
    rows.sort(key=lambda row: (list(STATES).index(row["T"]), row["_held"], int(row["A"])))
    form = options.get("format", USUAL)
    lines = [] if "noheader" in options else [_format(form, TITLES)]
    return 0, "".join(line + "\n" for line in [*lines, *(_format(form, row) for row in rows)])


def _wanted_ids(known, text):
    """Return the (job, index) pairs that --jobs names, or None for all."""
    if text is None:
        return None
    wanted = []
    for part in text.split(","):
        number, _, index = part.partition("_")
        if not number.isdigit() or (index and not index.strip("[]").replace("-", "").isdigit()):
            raise Refused(f"squeue: error: Invalid job id: {part}")
        wanted.append((number, index))
    names = {number for number, _ in wanted}
    gone = [
        number
        for number in names
        if number not in known["jobs"] or not core.remembered(known, known["jobs"][number])
    ]
    if len(wanted) == 1 and gone and not any(_by_raw(known, number) for number in gone):
        raise Refused("slurm_load_jobs error: Invalid job id specified")
    return wanted


def _by_raw(known, raw):
    for job in known["jobs"].values():
        for index, task in job["tasks"].items():
            if str(task["raw"]) == raw and core.remembered(known, job):
                return job, index
    return None


def _rows(known, job, *, one_each):
    """Return what squeue could say of a job, a row for each line."""
    waiting = job["waiting"]
    now = time.time()
    base = {
        "F": str(job["id"]), "j": job["name"], "k": job["comment"] if job["comment"] is not None else "(null)",
        "V": _stamp(job["submitted"]), "l": _clock(job["walltime"] or 3600), "D": str(job["nodes"]),
        "C": str(job["cpus"]), "m": f"{job['memory']}M", "P": job["partition"], "u": job["user"], "E": "(null)",
        "Z": job["cwd"], "a": "(null)", "q": "(null)", "o": job["command"] or "(null)", "Q": "4294901757",
        "_held": job["held"], "B": "n/a", "N": "", "U": str(os.getuid()),
    }  # fmt: skip
    rows = []
    gone = job.get("dropped", [])
    shown = [("PENDING", waiting)] if waiting else []
    if gone and not waiting and not job["tasks"]:
        shown.append(("CANCELLED", gone))
    for state, indices in shown:
        reason = _reason(known, job, now)
        pending = {
            **base, "T": state, "t": STATES[state], "r": reason, "A": str(job["id"]), "e": "N/A", "M": "0:00",
            "S": _stamp(job["begin"]) if job["begin"] > now else "N/A", "R": f"({reason})",
        }  # fmt: skip
        after = [f"{kind}:{number}(unfulfilled)" for kind, numbers in job["after"] for number in numbers
                 if str(number) in known["jobs"] and core.is_live(known["jobs"][str(number)])]  # fmt: skip
        pending["E"] = ",".join(after) or "(null)"
        if not job["array"]:
            rows.append({**pending, "i": str(job["id"]), "K": "N/A"})
        elif one_each:
            rows += [{**pending, "i": f"{job['id']}_{index}", "K": index} for index in indices]
        else:
            most = f"%{job['limit']}" if job["limit"] else ""
            text = core.ranges(map(int, indices)) + most
            cut = 64 if os.environ.get("SLURM_BITSTR_LEN") != "0" else None
            name = f"{job['id']}_[{text}]"
            # A long list is cut with no sign of it.
            rows.append(
                {**pending, "i": name if cut is None or len(text) < cut else name[: cut + 2], "K": text}
            )
    for index, task in job["tasks"].items():
        running = task["state"] == "running"
        # SIGTERM is sent, but it lives on.
        state = ("COMPLETING" if "due" in task else "RUNNING") if running else task["shown"]
        rows.append({
            **base, "T": state, "t": STATES[state], "r": "None" if running else task["reason"], "A": str(task["raw"]),
            "i": f"{job['id']}_{index}" if job["array"] else str(job["id"]), "K": index if job["array"] else "N/A",
            "S": _stamp(task["started"]), "e": _stamp(task["ended"]) if not running else "N/A", "N": NODE, "B": NODE,
            "M": _clock((now if running else task["ended"]) - task["started"]), "R": NODE,
        })  # fmt: skip
    return rows


def _reason(known, job, now):
    why = core.is_held(known, job, now)
    if why:
        return {
            "hold": "JobHeldUser",
            "begin": "BeginTime",
            "after": "Dependency",
            "never": "DependencyNeverSatisfied",
        }[why]
    if _never(job):
        return _never(job)
    running = sum(task["state"] == "running" for task in job["tasks"].values())
    if job["limit"] and running >= job["limit"]:
        return "JobArrayTaskLimit"
    return "Resources" if known["settings"]["slots"] else "Priority"


def _chosen(row, options, wanted):
    states = options.get("states")
    if states is None:
        if row["T"] not in ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING"):
            return False
    elif states.lower() != "all" and not {row["T"], row["t"]} & {
        state.upper() for state in states.split(",")
    }:
        return False
    if "me" in options and row["u"] != core.user_name():
        return False
    if "user" in options and row["u"] not in options["user"].split(","):
        return False
    if "name" in options and row["j"] not in options["name"].split(","):
        return False
    if "partition" in options and row["P"] not in options["partition"].split(","):
        return False
    if wanted is None:
        return True
    return any(
        (number in (row["F"], row["A"]) and not index) or (number == row["F"] and index == row["K"])
        for number, index in wanted
    )


def _format(form, row):
    import re

    def one(match):
        right, width, letter = match.groups()
        value = row.get(letter, "")
        if not width:
            return value
        return value[: int(width)].rjust(int(width)) if right else value[: int(width)].ljust(int(width))

    return re.sub(r"%(\.?)(\d*)([a-zA-Z])", one, form)


def _stamp(when):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))


def _clock(length):
    length = int(length)
    days, rest = divmod(length, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}" if days else text


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
    state = options.get("--state", options.get("-t"))
    words, code = [], 0
    with fake.state() as known:
        chosen = []
        for text in rest:
            number, _, index = text.partition("_")
            if not number.isdigit():
                words.append(f"scancel: error: Invalid job id {text}")
                code = 1
            elif number in known["jobs"]:
                chosen.append((number, _indices(index)))
            elif by_raw := _by_raw(known, number):
                chosen.append((str(by_raw[0]["id"]), [by_raw[1]]))
        if not rest and (name or user or state):
            chosen = [(number, None) for number in known["jobs"]]
        for number, indices in chosen:
            job = known["jobs"][number]
            if (name and job["name"] != name) or (user and job["user"] != user):
                continue
            if state in ("PENDING", "PD"):
                indices = [index for index in job["waiting"] if indices is None or index in indices]
            elif state in ("RUNNING", "R"):
                indices = [index for index in job["tasks"] if indices is None or index in indices]
            core.cancel(known, job, indices)
    if words:
        raise Refused("\n".join(words), code)
    return 0, ""


def _indices(text):
    """Return the indices of ``5`` or ``[3-4,7]``; None for the whole job."""
    if not text:
        return None
    return [str(index) for index in _array(text.strip("[]"), 2**31)[0]]


# --- scontrol, sacct, sinfo -----------------------------------------------------------------------------------


def scontrol(fake, argv):
    """Answer ``ping``, ``show config`` and ``show job``."""
    flags = [word for word in argv if word.startswith("-")]
    words = [word for word in argv if not word.startswith("-")]
    with fake.state(change=False) as known:
        if words == ["ping"]:
            return 0, f"Slurmctld(primary) at {NODE} is UP\n"
        if words[:2] == ["show", "config"]:
            settings = {
                "AccountingStorageType": f"accounting_storage/{'slurmdbd' if known['settings']['accounting'] else 'none'}",
                "ClusterName": "fake", "JobRequeue": "1", "MaxArraySize": str(known["settings"]["array_limit"]),
                "MaxJobCount": "10000", "MinJobAge": f"{int(known['settings']['forget'])} sec",
                "SLURM_CONF": fake.path("slurm.conf"), "SLURM_VERSION": "22.05.8",
            }  # fmt: skip
            lines = [f"{name:<23} = {value}" for name, value in settings.items()]
            return 0, "\n".join(
                [
                    f"Configuration data as of {_stamp(time.time())}",
                    *lines,
                    "",
                    f"Slurmctld(primary) at {NODE} is UP",
                    "",
                ]
            )
        if words[:2] == ["show", "job"] and len(words) > 2:
            return 0, _show_job(known, words[2], one_line=bool({"-o", "--oneliner"} & set(flags)))
    raise Refused(f"invalid entity:{' '.join(words)}")


def _show_job(known, text, *, one_line):
    number, _, index = text.partition("_")
    job = known["jobs"].get(number)
    by_raw = None if job else _by_raw(known, number)
    if by_raw:
        job, index = by_raw
    if not job or not core.remembered(known, job):
        raise Refused("slurm_load_jobs error: Invalid job id specified")
    rows = [row for row in _rows(known, job, one_each=False) if not index or row["K"] in (index, "N/A")]
    if not rows:
        refused = Refused(f"Job {text} not found")
        refused.aloud = True
        raise refused
    records = []
    for row in rows:
        task = job["tasks"].get(row["K"] if job["array"] else "", {})
        ids = f"JobId={row['A']} " + (
            f"ArrayJobId={row['F']} ArrayTaskId={row['K']} " if job["array"] else ""
        )
        lines = [
            f"{ids}JobName={job['name']}",
            f"UserId={job['user']}({os.getuid()}) GroupId={job['user']}({os.getgid()}) MCS_label=N/A",
            f"JobState={row['T']} Reason={row['r']} Dependency={row['E']}",
            f"Requeue={int(job['restarts'])} Restarts={task.get('restarts', 0)} BatchFlag=1 Reboot=0 "
            f"ExitCode={task.get('exit', '0:0')}",
            f"RunTime=00:{row['M'].zfill(5)} TimeLimit={row['l'].zfill(8)} TimeMin=N/A",
            f"SubmitTime={row['V']} EligibleTime={row['V']}",
            f"StartTime={row['S']} EndTime={row['e']} Deadline=N/A",
            f"Partition={row['P']} AllocNode:Sid=localhost:1",
            f"NodeList={row['N']}",
            f"NumNodes={row['D']} NumCPUs={row['C']} NumTasks=1 CPUs/Task={row['C']} ReqB:S:C:T=0:0:*:*",
            f"Command={row['o']}",
            f"WorkDir={job['cwd']}",
            *([f"Comment={job['comment']}"] if job["comment"] is not None else []),
            f"StdErr={task.get('stderr', job['error'])}",
            "StdIn=/dev/null",
            f"StdOut={task.get('stdout', job['output'])}",
        ]
        records.append(" ".join(lines) + " \n" if one_line else "\n   ".join(lines) + "\n\n")
    return "".join(records)


def sacct(fake, argv):
    """Answer from the accounting, which keeps what the queue forgets."""
    long = ["allocations", "endtime=", "format=", "job=", "jobs=", "name=", "noheader", "parsable", "parsable2",
            "starttime=", "state=", "user=", "duplicates", "allusers", "units=", "delimiter="]  # fmt: skip
    try:
        found, _ = getopt.getopt(argv, "aDE:j:nN:o:pPr:s:S:u:XV", long)
    except getopt.GetoptError as error:
        raise Refused(f"sacct: unrecognized option '--{error.opt}'") from None
    letters = {"j": "jobs", "n": "noheader", "o": "format", "P": "parsable2", "X": "allocations", "u": "user",
               "s": "state", "S": "starttime", "E": "endtime"}  # fmt: skip
    options = {
        name[2:] if name.startswith("--") else letters.get(name[1:], name[1:]): value for name, value in found
    }
    with fake.state(change=False) as known:
        if not known["settings"]["accounting"]:
            raise Refused("Slurm accounting storage is disabled")
        rows = [row for job in known["jobs"].values() for row in _account(job, "allocations" in options)]
    names = options["name"].split(",") if "name" in options else None
    asked = options.get("jobs")
    ids = asked.split(",") if asked else None
    fields = (
        options.get("format", "jobid,jobname,partition,account,alloccpus,state,exitcode").lower().split(",")
    )
    fields = [field.partition("%")[0] for field in fields]
    lines = [] if "noheader" in options else ["|".join(HEADS.get(field, field) for field in fields)]
    for row in rows:
        if names and row["jobname"] not in names and ".batch" not in row["jobid"]:
            continue
        if ids and not {row["jobid"].split(".")[0], row["_job"], row["jobidraw"].split(".")[0]} & set(ids):
            continue
        lines.append("|".join(row.get(field, "") for field in fields))
    return 0, "".join(line + "\n" for line in lines)


HEADS = {
    "jobid": "JobID", "jobidraw": "JobIDRaw", "jobname": "JobName", "state": "State", "exitcode": "ExitCode",
    "derivedexitcode": "DerivedExitCode", "start": "Start", "end": "End", "elapsed": "Elapsed", "maxrss": "MaxRSS",
    "submit": "Submit", "comment": "Comment", "partition": "Partition", "account": "Account", "nodelist": "NodeList",
    "alloccpus": "AllocCPUS", "reqmem": "ReqMem", "totalcpu": "TotalCPU", "reason": "Reason",
}  # fmt: skip


def _account(job, only_jobs):
    base = {
        "jobname": job["name"], "partition": job["partition"], "alloccpus": str(job["cpus"]), "user": job["user"],
        "submit": _stamp(job["submitted"]), "comment": job["comment"] or "", "reqmem": f"{job['memory']}M",
        "_job": str(job["id"]), "account": "", "derivedexitcode": "0:0", "reason": "None",
    }  # fmt: skip
    gone = job.get("dropped", [])
    if job["waiting"] or (gone and not job["tasks"]):
        state = "PENDING" if job["waiting"] else f"CANCELLED by {os.getuid()}"
        most = f"%{job['limit']}" if job["limit"] else ""
        text = f"_[{core.ranges(map(int, job['waiting'] or gone))}{most}]" if job["array"] else ""
        yield {**base, "jobid": f"{job['id']}{text}", "jobidraw": str(job["id"]), "state": state, "exitcode": "0:0",
               "start": "Unknown", "end": "Unknown", "elapsed": "00:00:00"}  # fmt: skip
    for index, task in job["tasks"].items():
        running = task["state"] == "running"
        state = "RUNNING" if running else task["shown"]
        if state == "CANCELLED":
            state = f"CANCELLED by {os.getuid()}"
        # sacct and scontrol do not agree about these.
        exit_code = "0:0" if running or task["shown"] in ("TIMEOUT", "CANCELLED") else task["exit"]
        name = f"{job['id']}_{index}" if job["array"] else str(job["id"])
        elapsed = int((time.time() if running else task["ended"]) - task["started"])
        row = {
            **base, "jobid": name, "jobidraw": str(task["raw"]), "state": state, "exitcode": exit_code,
            "start": _stamp(task["started"]), "end": "Unknown" if running else _stamp(task["ended"]),
            "elapsed": f"{elapsed // 3600:02}:{elapsed // 60 % 60:02}:{elapsed % 60:02}", "nodelist": NODE,
        }  # fmt: skip
        yield row
        if not only_jobs:
            step = state.partition(" ")[0]
            yield {**row, "jobid": f"{name}.batch", "jobidraw": f"{task['raw']}.batch", "jobname": "batch",
                   "state": step, "maxrss": "" if running else "3308K", "partition": ""}  # fmt: skip


def sinfo(fake, argv):
    """List the partitions."""
    found, _ = getopt.getopt(
        argv, "hNp:n:o:", ["noheader", "Node", "partition=", "nodes=", "format=", "version"]
    )
    options = dict(found)
    if "--version" in options:
        return 0, "slurm-wlm 22.05.8\n"
    form = options.get("--format", options.get("-o", "%9P %.5a %.10l %.6D %.6t %N"))
    heads = {
        "P": "PARTITION",
        "a": "AVAIL",
        "l": "TIMELIMIT",
        "D": "NODES",
        "t": "STATE",
        "T": "STATE",
        "N": "NODELIST",
    }
    lines = [] if {"-h", "--noheader"} & set(options) else [_format(form, heads)]
    wanted = options.get("--partition", options.get("-p"))
    for name, limit in PARTITIONS.items():
        if wanted and name not in wanted.split(","):
            continue
        row = {"P": name + "*" * (name == "main"), "a": "up", "l": _clock(limit), "D": "1", "t": "idle", "T": "idle",
               "N": NODE, "R": name}  # fmt: skip
        lines.append(_format(form, row))
    return 0, "".join(line + "\n" for line in lines)
