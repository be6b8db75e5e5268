"""What the fake Grid Engine says when it is asked, as 8.1.9 was seen to say it."""

from __future__ import annotations

import fnmatch
import os
import time
from xml.sax.saxutils import escape

import core
from core import Refused, stamp
from sge_jobs import ENVIRONMENTS, HOST, QUEUES, SLOTS, task_list

SCHEMAS = "http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat"
RULE = "=" * 62
ZOMBIES = 100


# --- qstat ----------------------------------------------------------------------------------------------------


def qstat(fake, argv):
    """List jobs, or tell all about one."""
    options, at = {}, 0
    takes = {
        "-u": 1,
        "-g": 1,
        "-s": 1,
        "-j": 1,
        "-q": 1,
        "-xml": 0,
        "-f": 0,
        "-r": 0,
        "-ext": 0,
        "-ne": 0,
        "-help": 0,
    }
    while at < len(argv):
        if argv[at] not in takes:
            raise Refused(f'error: ERROR! invalid option argument "{argv[at]}"', 1)
        options[argv[at]] = argv[at + 1] if takes[argv[at]] and at + 1 < len(argv) else ""
        at += 1 + takes[argv[at]]
    if "-help" in options:
        return 0, "SGE 8.1.9\nusage: qstat [options]\n"
    with fake.state(change=False) as known:
        if "-j" in options:
            return _details(known, options["-j"], xml="-xml" in options)
        rows = list(_rows(known, options))
    return 0, _as_xml(rows) if "-xml" in options else _as_table(rows)


def _rows(known, options):
    """Yield what the two lists of qstat say: a row for each line."""
    wanted, user = options.get("-s", "prs"), options.get("-u", core.user_name())
    jobs = [job for job in known["jobs"].values() if user == "*" or job["user"] in user.split(",")]
    if "z" in wanted:
        ended = [job for job in jobs if not core.is_live(job) and core.remembered(known, job)]
        for job in ended[-ZOMBIES:]:
            yield _row(job, "zombie", "z", job["submitted"], job["shape"])
    if "r" in wanted or "s" in wanted:
        for job in jobs:
            yield from _running_rows(job)
    if "p" in wanted:
        for job in jobs:
            yield from _pending_rows(known, job, one_each=options.get("-g") == "d")


def _row(job, is_, state, when, tasks):
    row = {"number": job["id"], "name": job["name"], "owner": job["user"], "slots": job["slots"]}
    queue = f"{job['queue']}@{HOST}" if is_ == "running" else ""
    return {**row, "is": is_, "state": state, "when": when, "tasks": tasks, "queue": queue}


def _running_rows(job):
    for index, task in job["tasks"].items():
        if task["state"] == "running":
            state = f"{'d' if task.get('verdict') else ''}{'R' if task['restarts'] else ''}r"
            yield _row(job, "running", state, task["started"], index)


def _pending_rows(known, job, *, one_each):
    for index, task in job["tasks"].items():
        if task["state"] == "error":
            yield _row(job, "pending", "Eqw", job["submitted"], index)
    if not job["waiting"]:
        return
    held = core.is_held(known, job, time.time()) in ("hold", "after")
    state = "hqw" if held else "Rq" if job.get("again") else "qw"
    for tasks in job["waiting"] if one_each else [_spans(job)]:
        yield _row(job, "pending", state, job["submitted"], tasks)


def _spans(job):
    """Return the waiting tasks as ``4-10:1`` or ``1-4999:1,5001-10000:1``; one alone is its number."""
    if not job["array"]:
        return ""
    step = int(job["shape"].rpartition(":")[2])
    spans = []
    for index in map(int, job["waiting"]):
        if spans and index - spans[-1][1] == step:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    parts = []
    for low, high in spans:
        parts += (
            [str(low)]
            if low == high
            else ([f"{low},{high}"] if high - low == step else [f"{low}-{high}:{step}"])
        )
    return ",".join(parts)


def _as_table(rows):
    if not rows:
        return ""
    head = (
        "job-ID  prior   name       user         state submit/start at     queue                          slots "
        "ja-task-ID \n" + "-" * 113 + "\n"
    )
    return head + "".join(
        f"{row['number']:>7} {'0.50000' if row['is'] == 'running' else '0.00000'} {row['name'][:10]:<10} "
        f"{row['owner'][:12]:<12} {row['state']:<5} {time.strftime('%m/%d/%Y %H:%M:%S', time.localtime(row['when']))} "
        f"{row['queue'][:30]:<30} {row['slots']:>5} {row['tasks'] or '        '}\n"
        for row in rows
    )


def _as_xml(rows):
    def one(row):
        start = "JAT_start_time" if row["is"] == "running" else "JB_submission_time"
        lines = [
            f'    <job_list state="{row["is"]}">',
            f"      <JB_job_number>{row['number']}</JB_job_number>",
            f"      <JAT_prio>{'0.50000' if row['is'] == 'running' else '0.00000'}</JAT_prio>",
            f"      <JB_name>{escape(row['name'])}</JB_name>",
            f"      <JB_owner>{row['owner']}</JB_owner>",
            f"      <state>{row['state']}</state>",
            f"      <{start}>{stamp(row['when'])}</{start}>",
            f"      <queue_name>{row['queue']}</queue_name>",
            f"      <slots>{row['slots']}</slots>",
            *([f"      <tasks>{row['tasks']}</tasks>"] if row["tasks"] else []),
            "    </job_list>",
        ]
        return "\n".join(lines) + "\n"

    return (
        f"<?xml version='1.0'?>\n<job_info  xmlns:xsd=\"{SCHEMAS}/qstat.xsd\">\n  <queue_info>\n"
        + "".join(one(row) for row in rows if row["is"] == "running")
        + "  </queue_info>\n  <job_info>\n"
        + "".join(one(row) for row in rows if row["is"] != "running")
        + "  </job_info>\n</job_info>\n"
    )


def _details(known, text, *, xml):
    found, unknown = [], []
    for name in text.split(","):
        matching = [
            job
            for job in known["jobs"].values()
            if core.is_live(job) and (str(job["id"]) == name or fnmatch.fnmatch(job["name"], name))
        ]
        found += matching
        unknown += [] if matching else [name]
    if xml:
        if not found:
            names = "".join(f"    <ST_name>{escape(name)}</ST_name>\n" for name in unknown)
            return 0, f"<?xml version='1.0'?>\n<unknown_jobs >\n{names}</unknown_jobs>\n"
        elements = "".join(_xml_element(job) for job in found)
        return 0, (
            f"<?xml version='1.0'?>\n<detailed_job_info  xmlns:xsd=\"{SCHEMAS}/detailed_job_info.xsd\">\n"
            f"  <djob_info>\n{elements}  </djob_info>\n  <messages>\n    <element>\n    </element>\n  </messages>\n"
            "</detailed_job_info>\n"
        )
    out = "".join(_text_record(known, job) for job in found)
    if unknown:
        return 1, out, "Following jobs do not exist: \n" + "".join(f"{name}\n" for name in unknown)
    return 0, out


def _xml_element(job):
    pairs = [pair.partition("=") for pair in (job["context"] or "").split(",") if pair]
    context = "".join(
        f"        <context_list>\n          <VA_variable>{escape(name)}</VA_variable>\n"
        f"          <VA_value>{escape(value)}</VA_value>\n        </context_list>\n"
        for name, _, value in pairs
    )
    return (
        f"    <element>\n      <JB_job_number>{job['id']}</JB_job_number>\n"
        f"      <JB_submission_time>{int(job['submitted'])}</JB_submission_time>\n"
        f"      <JB_owner>{job['user']}</JB_owner>\n      <JB_account>{job['account']}</JB_account>\n"
        f"      <JB_job_name>{escape(job['name'])}</JB_job_name>\n"
        f"      <JB_script_file>{escape(job['script_file'])}</JB_script_file>\n"
        + (f"      <JB_context>\n{context}      </JB_context>\n" if context else "")
        + "    </element>\n"
    )


def _text_record(known, job):
    options = job["options"]
    lines = {
        "job_number": job["id"], "exec_file": f"job_scripts/{job['id']}",
        "submission_time": time.ctime(job["submitted"]), "owner": job["user"], "uid": os.getuid(),
        "sge_o_workdir": job["submitted_in"], "sge_o_host": HOST, "account": job["account"],
        "hard resource_list": job["resources"], "job_name": job["name"],
        "stdout_path_list": f"NONE:NONE:{options['o']}" if "o" in options else "", "jobshare": "0",
        "restart": options.get("r", ""), "shell_list": f"NONE:{job['shell']}", "script_file": job["script_file"],
        "parallel environment": f" {options['pe'].partition(' ')[0]} range: {job['slots']}" if "pe" in options else "",
        "jid_predecessor_list (req)": options.get("hold_jid", ""),
        "jid_predecessor_list": ",".join(str(number) for _, numbers in job["after"] for number in numbers),
        "job-array tasks": job["shape"], "context": job["context"] or "",
    }  # fmt: skip
    record = [RULE, *(f"{name + ':':<28}{value}" for name, value in lines.items() if value != "")]
    record += [
        f"error reason{index or '1':>11}:      {task['error']}"
        for index, task in job["tasks"].items()
        if task["state"] == "error"
    ]
    why = core.is_held(known, job, time.time())
    words = {"hold": "Job is in hold state", "after": "job dropped because of job dependencies"}.get(
        why, job["never"]
    )
    if words:
        record.append(f"{'scheduling info:':<28}{words}")
    return "\n".join(record) + "\n"


# --- qacct, qconf, qhost --------------------------------------------------------------------------------------


def qacct(fake, argv):
    """Tell what the accounting knows: ended tasks that had started."""
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    wanted, only = options.get("-j", "*"), options.get("-t")
    with fake.state(change=False) as known:
        records = [
            _record(job, index, task)
            for job in known["jobs"].values()
            if str(job["id"]) == wanted or (not wanted.isdigit() and fnmatch.fnmatch(job["name"], wanted))
            for index, task in sorted(job["tasks"].items(), key=lambda item: item[1]["ended"])
            if task["state"] == "ended"
            and core.in_books(known, task)
            and (only is None or index in task_list(only))
        ]
    if not records:
        kind = "id" if wanted.isdigit() else "name"
        raise Refused(f"error: job {kind} {wanted} not found")
    return 0, "".join(records)


def _record(job, index, task):
    signal = {137: "(Killed)", 139: "(Segmentation fault)", 143: "(Terminated)"}.get(task["status"], "")
    wall = int(task["ended"] - task["started"])
    lines = {
        "qname": job["queue"], "hostname": HOST, "group": job["user"], "owner": job["user"], "project": "NONE",
        "department": "defaultdepartment", "jobname": job["name"], "jobnumber": job["id"],
        "taskid": index or "undefined", "account": job["account"], "priority": "0",
        "qsub_time": time.ctime(job["submitted"]), "start_time": time.ctime(task["started"]),
        "end_time": time.ctime(task["ended"]), "granted_pe": "NONE", "slots": job["slots"], "failed": task["failed"],
        "exit_status": f"{task['status']:<21}{signal}" if signal else task["status"], "ru_wallclock": f"{wall}s",
        "ru_utime": "0.010s", "ru_stime": "0.001s", "ru_maxrss": "4.574KB", "cpu": "0.011s", "mem": "0.000Bs",
        "io": "0.000B", "iow": "0.000s", "maxvmem": "0.000B", "arid": "undefined", "ar_sub_time": "undefined",
        "category": "NONE",
    }  # fmt: skip
    return f"{RULE}\n" + "".join(f"{name:<13}{value!s:<20}\n" for name, value in lines.items())


def qconf(fake, argv):
    """Show parts of the configuration."""
    with fake.state(change=False) as known:
        settings = known["settings"]
    answers = {
        "-ssconf": "algorithm                         default\nschedule_interval                 0:0:1\n"
        "maxujobs                          0\n",
        "-sconf": f"#global:\nexecd_spool_dir              {fake.folder}\nfinished_jobs                {ZOMBIES}\n"
        f"max_aj_instances             2000\nmax_aj_tasks                 {settings['array_limit']}\n"
        f"max_u_jobs                   {settings['user_limit'] or 0}\nmax_jobs                     0\n",
        "-spl": "".join(f"{name}\n" for name in ENVIRONMENTS),
        "-sql": "".join(f"{name}\n" for name in QUEUES),
        "-sh": f"{HOST}\n",
    }
    if argv[:1] == ["-sp"] and argv[1:] and argv[1] in ENVIRONMENTS:
        return 0, f"pe_name            {argv[1]}\nslots              999\nallocation_rule    $pe_slots\n"
    if not argv or argv[0] not in answers:
        raise Refused(f'error: invalid option argument "{" ".join(argv)}"')
    return 0, answers[argv[0]]


def qhost(fake, argv):
    """List the hosts."""
    return 0, (
        "HOSTNAME                ARCH         NCPU NSOC NCOR NTHR  LOAD  MEMTOT  MEMUSE  SWAPTO  SWAPUS\n"
        + "-" * 94
        + "\nglobal                  -               -    -    -    -     -       -       -       -       -\n"
        f"{HOST:<23} lx-amd64       {SLOTS:>2}    1   {SLOTS:>2}   {SLOTS:>2}  0.05   23.5G  217.6M     0.0     0.0\n"
    )
