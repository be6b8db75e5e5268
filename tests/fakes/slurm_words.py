"""What the fake Slurm says when it is asked, as Slurm 22.05 was seen to say it."""

from __future__ import annotations

import getopt
import os
import re
import time

import core
from core import Refused, stamp
from slurm_jobs import NODE, PARTITIONS, by_raw, never

#: Order and short forms of the states of squeue.
STATES = {
    "PENDING": "PD", "RUNNING": "R", "SUSPENDED": "S", "COMPLETED": "CD", "CANCELLED": "CA", "FAILED": "F",
    "TIMEOUT": "TO", "NODE_FAIL": "NF", "PREEMPTED": "PR", "OUT_OF_MEMORY": "OOM", "COMPLETING": "CG",
}  # fmt: skip


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
    if len(wanted) == 1 and gone and not any(by_raw(known, number) for number in gone):
        raise Refused("slurm_load_jobs error: Invalid job id specified")
    return wanted


def _rows(known, job, *, one_each):
    """Return what squeue could say of a job, a row for each line."""
    waiting = job["waiting"]
    now = time.time()
    base = {
        "F": str(job["id"]), "j": job["name"], "k": job["comment"] if job["comment"] is not None else "(null)",
        "V": stamp(job["submitted"]), "l": _clock(job["walltime"] or 3600), "D": str(job["nodes"]),
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
            "S": stamp(job["begin"]) if job["begin"] > now else "N/A", "R": f"({reason})",
        }  # fmt: skip
        after = [
            f"{kind}:{number}{'_*' if known['jobs'][str(number)]['array'] else ''}(unfulfilled)"
            for kind, numbers in job["after"]
            for number in numbers
            if str(number) in known["jobs"] and core.is_live(known["jobs"][str(number)])
        ]
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
            "S": stamp(task["started"]), "e": stamp(task["ended"]) if not running else "N/A", "N": NODE, "B": NODE,
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
    if never(job):
        return never(job)
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
    if "user" in options and not {row["u"], row["U"]} & set(options["user"].split(",")):
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
    def one(match):
        right, width, letter = match.groups()
        value = row.get(letter, "")
        if not width:
            return value
        return value[: int(width)].rjust(int(width)) if right else value[: int(width)].ljust(int(width))

    return re.sub(r"%(\.?)(\d*)([a-zA-Z])", one, form)


def _clock(length):
    length = int(length)
    days, rest = divmod(length, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}" if days else text


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
                    f"Configuration data as of {stamp(time.time())}",
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
    found_task = None if job else by_raw(known, number)
    if found_task:
        job, index = found_task
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
            (
                f"Requeue={int(job['restarts'])} Restarts={task.get('restarts', 0)} BatchFlag=1 Reboot=0 "
                f"ExitCode={task.get('exit', '0:0')}"
            ),
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
        rows = [
            row for job in known["jobs"].values() for row in _account(known, job, "allocations" in options)
        ]
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


def _account(known, job, only_jobs):
    base = {
        "jobname": job["name"], "partition": job["partition"], "alloccpus": str(job["cpus"]), "user": job["user"],
        "submit": stamp(job["submitted"]), "comment": job["comment"] or "", "reqmem": f"{job['memory']}M",
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
        if not core.in_books(known, task):
            continue
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
            "start": stamp(task["started"]), "end": "Unknown" if running else stamp(task["ended"]),
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
