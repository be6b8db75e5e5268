"""What the fake PBS says when it is asked, as OpenPBS 23.06.06 was seen to say it."""

from __future__ import annotations

import getopt
import json
import re
import time

import core
from core import Refused
from pbs_jobs import HOST, NCPUS, QUEUES, VERSION

#: What the release prints without quotes, because C takes it for a number; some of it is no JSON.
NUMBER = re.compile(r"[+-]?(nan|inf|infinity|\d+\.?\d*(e[+-]?\d+)?|\.\d+|0x[0-9a-f]+)\Z", re.IGNORECASE)
QUOTED = re.compile(r"00\d+\Z")
FINISHED = "Job has finished, use -x or -H to obtain historical job information"
NO_HISTORY = "PBS is not configured to maintain job history"


# --- qstat ----------------------------------------------------------------------------------------------------


def qstat(fake, argv):
    """List jobs: as a table, as text, as JSON."""
    if argv == ["--version"]:
        return 0, f"pbs_version = {VERSION}\n"
    try:
        found, ids = getopt.gnu_getopt(argv, "fF:txBHJTu:wsn1E")
    except getopt.GetoptError as error:
        raise Refused(
            f"qstat: invalid option -- '{error.opt}'\nusage: \nqstat [-f] [-J] [-p] [-t] [-x]", 2
        ) from None
    options = dict(found)
    with fake.state(change=False) as known:
        if "-B" in options:
            return 0, _server(known)
        if "-F" in options and "-f" not in options:
            raise Refused("usage: \nqstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim]", 2)
        entries, errors, code = _find(known, ids, options)
    err = "".join(f"qstat: {line}\n" for line in errors)
    if "-f" in options and "-F" in options:
        return code, document(entries), err
    if "-f" in options:
        return (
            code,
            "".join(_as_text(name, entry, wide="-w" in options) for name, entry in entries.items()),
            err,
        )
    return code, _as_table(entries), err


def _find(known, ids, options):
    """Return the entries that are asked for, the complaints, and the exit code."""
    old, tasks = "-x" in options or "-H" in options, "-t" in options
    history = known["settings"]["accounting"]
    if old and not history:
        return {}, [f"{NO_HISTORY} {name}" for name in ids or [""]], 0
    entries, errors, code = {}, [], 0
    if not ids:
        for job in known["jobs"].values():
            if core.is_live(job) or (old and core.remembered(known, job)):
                entries |= _entries(known, job, tasks=tasks)
        return entries, errors, code
    for text in ids:
        match = re.match(r"(\d+)(?:\[(\d*)\])?(?:\.([\w-]+))?\Z", text)
        if not match:
            kind = "illegally formed job identifier:" if text[:1].isdigit() else "Unknown queue destination"
            errors.append(f"{kind} {text}")
            code = 1 if text[:1].isdigit() else 170
            continue
        job, index = known["jobs"].get(match[1]), match[2]
        full = f"{text.partition('.')[0]}.{HOST}"
        every = _entries(known, job, tasks=True) if job else {}
        if (
            not job
            or full not in every
            or not core.remembered(known, job)
            or (not history and not core.is_live(job))
        ):
            errors.append(f"Unknown Job Id {full}")
            code = 153
        elif not old and not core.is_live(job):
            errors.append(f"{full} {FINISHED}")
            code = 35
        elif index == "" or index is None:
            entries |= _entries(known, job, tasks=tasks)
        else:
            entries[full] = every[full]
    return entries, errors, code


def _entries(known, job, *, tasks):
    """Return name -> attributes of a job, and of its subjobs when they are asked for."""
    now, number = time.time(), job["id"]
    live, dropped = core.is_live(job), job.get("dropped", [])
    why = core.is_held(known, job, now, unknown="drop") if live else ""
    began = [task for task in job["tasks"].values() if task["state"] in ("running", "ended")]
    entry = {
        "Job_Name": job["name"], "Job_Owner": f"{job['user']}@{HOST}", "job_state": "Q", "queue": job["queue"],
        "server": HOST, "Checkpoint": "u", "ctime": time.ctime(job["submitted"]),
        **({"depend": job["depend_text"]} if job["depend_text"] and (why == "after" or job.get("never")) else {}),
        "Error_Path": f"{HOST}:{job['path_e']}", "Hold_Types": {"hold": "u", "after": "s"}.get(why, "n"),
        "Join_Path": job["join"], "Keep_Files": job["keep"], "Mail_Points": "a",
        "mtime": time.ctime(job["submitted"]), "Output_Path": f"{HOST}:{job['path_o']}", "Priority": 0,
        "qtime": time.ctime(job["submitted"]), "Rerunable": "True" if job["restarts"] else "False",
        "Resource_List": {
            **({"ncpus": "1"} if "select" not in job["resources"] else {}), **job["resources"], "nodect": 1,
            "place": "pack", "select": _select(job["resources"]),
        },
        "substate": 10,
        "Variable_List": {key: value for key, value in job["environment"].items() if key.startswith("PBS_O_")},
        "etime": time.ctime(job["submitted"]), "Submit_arguments": job["submit"],
        "project": "_pbs_project_default", "Submit_Host": HOST,
    }  # fmt: skip
    if isinstance(entry["Resource_List"].get("ncpus"), str):
        entry["Resource_List"]["ncpus"] = int(entry["Resource_List"]["ncpus"])
    if job["account"]:
        entry["Account_Name"] = job["account"]
    if why in ("hold", "after"):
        entry |= {"job_state": "H", "substate": 22 if why == "after" else 20}
    elif why == "begin":
        entry |= {"job_state": "W", "substate": 30}
    elif live and not began:
        entry["comment"] = _waiting_words(job)
    if not live and not began:
        # Deleted before it ran, or waiting for what can never be: no Exit_status.
        entry |= {"job_state": "F", "substate": 92 if job.get("never") else 91}
        if job.get("never"):
            entry["Hold_Types"] = "s"
    if not job["array"]:
        if began:
            entry |= _task_entry(job, "", began[0])
        return {f"{number}.{HOST}": entry}
    return _array_entries(job, entry, began, dropped, live, tasks)


def _select(resources):
    parts = [
        f"{name}={value}"
        for name, value in sorted({"ncpus": "1", **resources}.items())
        if name in ("mem", "ncpus")
    ]
    return resources.get("select") or ":".join(["1", *parts])


def _array_entries(job, entry, began, dropped, live, tasks):
    parent = {**entry, **_parent_entry(job, began, dropped, live)}
    entries = {f"{job['id']}[].{HOST}": parent}
    if not tasks:
        return entries
    # What has not started says what its parent says.
    lent = {**entry, **{key: parent[key] for key in ("stime", "Exit_status", "comment") if key in parent}}
    gone = {"job_state": "X" if live else "F", "substate": 70 if live else 91, "comment": "Subjob finished"}
    every = {**dict.fromkeys(job["waiting"], "waiting"), **dict.fromkeys(dropped, "dropped"), **job["tasks"]}
    for index in sorted(every, key=int):
        task = every[index]
        if task == "waiting":
            shown = {**lent, "job_state": "Q", "substate": 10}
        elif task == "dropped":
            shown = {**lent, **gone}
        elif not live and job.get("deleted") and not task.get("verdict"):
            # Whoever deletes an array takes the results of its finished subjobs away.
            shown = {**lent, **gone, "Exit_status": 1}
        else:
            shown = {**entry, **_task_entry(job, index, task)}
            shown["job_state"] = "X" if live and shown["job_state"] == "F" else shown["job_state"]
        entries[f"{job['id']}[{index}].{HOST}"] = shown
    return entries


def _parent_entry(job, began, dropped, live):
    """Return what an array says of itself beside what each job says."""
    ended = [task for task in began if task["state"] == "ended"]
    parent = {
        "array": "True",
        "array_state_count": f"Queued:{len(job['waiting'])} Running:{len(began) - len(ended)} Exiting:0 "
        f"Expired:{len(dropped) + len(ended)}",
        "array_indices_submitted": job["range"],
        "array_indices_remaining": core.ranges(map(int, job["waiting"])) or "-",
    }
    if job["limit"]:
        parent["max_run_subjobs"] = job["limit"]
    if not began:
        return parent
    when = min(task["started"] for task in began)
    words = f"Job Array Began at {time.strftime('%a %b %d at %H:%M', time.localtime(when))}"
    parent |= {"job_state": "B", "substate": 70, "stime": time.ctime(when), "comment": words}
    if ended:
        parent["Exit_status"] = int(any(task["status"] > 0 for task in ended))
    if not live:
        deleted = bool(dropped) or any(task.get("verdict") == "CANCELLED" for task in ended)
        good = all(task["substate"] == 92 for task in ended)
        parent |= {"job_state": "F", "substate": 91 if deleted else 92 if good else 93}
        parent["comment"] = f"{words} and {'terminated' if deleted else 'finished' if good else 'failed'}"
    return parent


def _waiting_words(job):
    asked = int(job["resources"].get("ncpus", 1))
    if asked > NCPUS:
        return f"Can Never Run: Insufficient amount of resource: ncpus (R: {asked} A: {NCPUS} T: {NCPUS})"
    return "Not Running: Not enough free nodes available"


def _task_entry(job, index, task):
    """Return what a started job or subjob says of itself."""
    running = task["state"] == "running"
    wall = int((time.time() if running else task["ended"]) - task["started"])
    ncpus = int(job["resources"].get("ncpus", 1))
    words = f"Job run at {time.strftime('%a %b %d at %H:%M', time.localtime(task['started']))} on ({HOST}:ncpus={ncpus})"
    entry = {
        "resources_used": {
            "cpupercent": 0, "cput": "00:00:00", "mem": "0kb", "ncpus": ncpus, "vmem": "0kb",
            "walltime": f"{wall // 3600:02}:{wall // 60 % 60:02}:{wall % 60:02}",
        },
        "job_state": "R" if running else "F", "exec_host": f"{HOST}/0", "exec_vnode": f"({HOST}:ncpus={ncpus})",
        "stime": time.ctime(task["started"]), "jobdir": job["environment"]["HOME"],
        "substate": 42 if running else task["substate"], "run_count": task["restarts"] + 1,
        "comment": words if running else f"{words} and {task['words']}",
    }  # fmt: skip
    if job["array"]:
        entry |= {"array_id": f"{job['id']}[].{HOST}", "array_index": int(index)}
        for letter, key in (("o", "Output_Path"), ("e", "Error_Path")):
            entry[key] = f"{HOST}:{task['final'][letter]}"
    if running and "verdict" in task and "due" in task:
        entry |= {"job_state": "E", "substate": 51}
    if not running:
        entry |= {
            "Exit_status": task["status"],
            "Stageout_status": 1,
            "history_timestamp": int(task["ended"]),
        }
    elif task["restarts"]:
        entry["Exit_status"] = -11
    return entry


def document(entries):
    whole = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": HOST}
    if entries:
        whole["Jobs"] = {
            name: {**entry, "Job_Name": _raw(entry["Job_Name"])} for name, entry in entries.items()
        }
    text = json.dumps(whole, indent=4, separators=(",", ":"), ensure_ascii=False)
    return re.sub(r'"\x01([^"]*)"', r"\1", text.replace("\\u0001", "\x01")) + "\n"


def _raw(name):
    """Mark a name that the release prints as it stands, because it looks like a number."""
    return f"\x01{name}" if NUMBER.match(name) and not QUOTED.match(name) else name


def _as_text(name, entry, *, wide):
    lines = [f"Job Id: {name}"]
    for key, value in entry.items():
        if key == "Variable_List":
            pairs = ",".join(f"{one}={another}" for one, another in value.items())
            lines.append(f"    {key} = {pairs}")
        elif isinstance(value, dict):
            lines += [f"    {key}.{one} = {another}" for one, another in value.items()]
        else:
            lines.append(f"    {key} = {value}")
    return "\n".join(line if wide else _fold(line) for line in lines) + "\n\n"


def _fold(line):
    """Break a line at 80 columns; what follows begins with a tab."""
    parts = [line[:79]]
    line = line[79:]
    while line:
        parts.append(line[:71])
        line = line[71:]
    return "\n\t".join(parts)


def _as_table(entries):
    if not entries:
        return ""
    lines = [
        "Job id            Name             User              Time Use S Queue",
        "----------------  ---------------- ----------------  -------- - -----",
    ]
    for name, entry in entries.items():
        used = "00:00:00" if "resources_used" in entry else "0"
        user = entry["Job_Owner"].partition("@")[0]
        lines.append(
            f"{name[:17]:<18}{entry['Job_Name'][:15]:<17}{user[:15]:<16}{used:>10} {entry['job_state']} "
            f"{entry['queue']:<16}"
        )
    return "\n".join(lines) + "\n"


def _server(known):
    states = [state for job in known["jobs"].values() for state in ("Queued",) * len(job["waiting"])]
    return (
        f"Server: {HOST}\n    server_state = Active\n    server_host = {HOST}\n    scheduling = True\n"
        f"    total_jobs = {len(states)}\n    default_queue = workq\n"
        f"    job_history_enable = {known['settings']['accounting']}\n"
        f"    max_array_size = {known['settings']['array_limit']}\n    pbs_version = {VERSION}\n\n"
    )


# --- qselect, pbsnodes ----------------------------------------------------------------------------------------


def qselect(fake, argv):
    """Print the ids of the jobs that match."""
    try:
        found, _ = getopt.getopt(argv, "N:u:s:q:A:P:l:xTJH")
    except getopt.GetoptError as error:
        raise Refused(f"qselect: invalid option -- '{error.opt}'", 2) from None
    options = dict(found)
    if options.get("-q", "workq") not in QUEUES:
        raise Refused("qselect: Unknown queue destination", 170)
    names = []
    with fake.state(change=False) as known:
        old = "-x" in options or "-H" in options
        if old and not known["settings"]["accounting"]:
            return 0, "", f"qselect: {NO_HISTORY}\n"
        for job in known["jobs"].values():
            live = core.is_live(job)
            if not (live or (old and core.remembered(known, job))) or ("-H" in options and live):
                continue
            for name, entry in _entries(known, job, tasks="-T" in options).items():
                if "-T" in options and "[]" in name:
                    continue
                wanted = {"-N": job["name"], "-u": job["user"], "-q": job["queue"], "-A": job["account"]}
                if any(options.get(key, value) != value for key, value in wanted.items()):
                    continue
                if entry["job_state"] in options.get("-s", entry["job_state"]) and (
                    "-J" not in options or job["array"]
                ):
                    names.append(name)
    return 0, "".join(f"{name}\n" for name in names)


def pbsnodes(fake, argv):
    """List the nodes."""
    return 0, (
        f"{HOST}\n     Mom = {HOST}\n     ntype = PBS\n     state = free\n     pcpus = {NCPUS}\n"
        f"     resources_available.host = {HOST}\n     resources_available.mem = 24576000kb\n"
        f"     resources_available.ncpus = {NCPUS}\n     resources_available.vnode = {HOST}\n\n"
    )
