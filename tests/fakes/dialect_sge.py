"""What Grid Engine 8.1.9 was seen to print, for the calls that an executor makes."""

from __future__ import annotations

import fnmatch
import os
import time
from xml.sax.saxutils import escape

import core
from core import Refused

GENTLE = False  # qdel kills at once
SPLITS = False
HOST = "fake"
QUEUES, ENVIRONMENTS = ("all.q", "short.q"), ("make", "smp")
SLOTS, GPUS = 16, 2
RESOURCES = {
    "h_rt": "time", "s_rt": "time", "h_cpu": "time", "h_vmem": "memory", "s_vmem": "memory", "mem_free": "memory",
    "virtual_free": "memory", "gpu": "int", "hostname": "text", "h": "text", "qname": "text", "q": "text",
    "arch": "text", "h_stack": "memory", "h_fsize": "memory", "mf": "memory",
}  # fmt: skip
PORT = 'unable to send message to qmaster using port 6444 on host "fake": got send error'
REFUSED = "error: commlib error: got select error (Connection refused)"
SCHEMAS = "http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat"
RULE = "=" * 62
ZOMBIES = 100

#: Options of qsub and how many words each takes.
OPTIONS = {
    "N": 1, "t": 1, "tc": 1, "S": 1, "o": 1, "e": 1, "i": 1, "wd": 1, "r": 1, "pe": 2, "l": 1, "hold_jid": 1,
    "hold_jid_ad": 1, "ac": 1, "q": 1, "P": 1, "A": 1, "a": 1, "j": 1, "b": 1, "v": 1, "p": 1, "m": 1, "M": 1,
    "sync": 1, "w": 1, "cwd": 0, "V": 0, "h": 0, "terse": 0, "notify": 0, "now": 1, "hard": 0, "soft": 0, "R": 1,
    "verify": 0, "shell": 1, "C": 1, "clear": 0, "binding": 1, "js": 1, "masterq": 1, "ckpt": 1, "dl": 1,
}  # fmt: skip


def nobody_answers(command, argv):
    """Raise what a command says when no sge_qmaster listens; qacct reads a file."""
    if command == "qsub":
        raise Refused(f"{REFUSED}\nUnable to run job: {PORT}\nExiting.")
    if command == "qdel":
        refused = Refused(PORT)
        refused.aloud = True
        raise refused
    if command != "qacct":
        raise Refused(f"{REFUSED}\nerror: {PORT}")


# --- qsub -----------------------------------------------------------------------------------------------------


def _denied(words, code=1):
    return Refused(f"Unable to run job: {words}\nExiting.", code)


def qsub(fake, argv):
    """Submit a script."""
    options, rest = _options(argv)
    binary = options.get("b") in ("y", "yes")
    text = "" if binary else _text(rest)
    for name, value in _options(core.directives(text, "#$"))[0].items():
        if name == "l":
            options["l"] = ",".join(filter(None, (value, options.get("l", ""))))
        else:
            options.setdefault(name, value)
    name = options.get("N", os.path.basename(rest[0].split()[0]) if rest else "STDIN")
    _check_name(name)
    with fake.state() as known:
        settings = known["settings"]
        indices, shape = _array(options.get("t"), settings["array_limit"])
        fields = _fields(known, options)
        limit, live = settings["user_limit"], sum(core.is_live(job) for job in known["jobs"].values())
        if limit is not None and live >= limit:  # it counts jobs: an array is one
            raise _denied(
                f"job rejected: only {limit} jobs are allowed per user (current job count: {live})", 25
            )
        job = core.new_job(
            known, indices=indices, limit=int(options.get("tc", 0)), held="h" in options, name=name,
            restarts=options.get("r", "n") in ("y", "yes"), shape=shape, arguments=rest[1:], context=options.get("ac"),
            account=options.get("A", "sge"), shell=options.get("S", "/bin/csh"), submitted_in=os.getcwd(),
            cwd=options.get("wd") or (os.getcwd() if "cwd" in options else fake.home), binary=binary,
            script_file=rest[0] if rest else "STDIN", options=options, **fields,
        )  # fmt: skip
        job["script"] = core.keep_script(fake, job, f"exec {' '.join(rest)}\n" if binary else text)
        job["environment"] = _environment(fake, job, options)
    core.start_runner(fake)
    if "terse" in options:
        return 0, f"{job['id']}{'.' + shape if shape else ''}\n"
    what = f"Your job-array {job['id']}.{shape}" if shape else f"Your job {job['id']}"
    return 0, f'{what} ("{name}") has been submitted\n'


def _options(argv):
    options, at = {}, 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-":
        name = argv[at][1:]
        if name not in OPTIONS:
            raise Refused(f'qsub: invalid option argument "{argv[at]}"', 2)
        words = argv[at + 1 : at + 1 + OPTIONS[name]]
        if len(words) < OPTIONS[name]:
            raise Refused(f"qsub: ERROR! -{name} option must have argument", 2)
        value = " ".join(words)
        options[name] = (
            f"{options[name]},{value}" if name in ("l", "hold_jid", "v") and name in options else value
        )
        at += 1 + OPTIONS[name]
    return options, argv[at:]


def _text(rest):
    if not rest:
        import sys

        return sys.stdin.read()
    try:
        with open(rest[0], newline="") as file:
            return file.read()
    except OSError as error:
        raise Refused(
            f"Unable to read script file because of error: error opening {rest[0]}: {error.strerror}", 14
        ) from None


def _check_name(name):
    if name[:1].isdigit():
        raise _denied(f'denied: "{name}" is not a valid object name (cannot start with a digit)')
    if "/" in name:
        raise Refused("qsub: argument to -N option must not contain /")
    for character, called in ((":", "Colon"), ("@", "At"), ("*", "Asterisk")):
        if character in name:
            raise _denied(f"{called} ('{character}') not allowed in objectname")
    if not name.isascii() or any(character.isspace() for character in name):
        raise _denied("Error reading answer list from qmaster")


def _array(text, limit):
    """Return the indices and ``1-10:3``; None and nothing for a plain job."""
    if text is None:
        return None, ""
    span, _, step = text.partition(":")
    low, dash, high = span.partition("-")
    try:
        first, last, by = int(low), int(high if dash else low), int(step or 1)
    except ValueError:
        raise Refused("qsub: -t option only allows one range specification") from None
    if last < first:
        first, last = last, first
    if first < 1:
        raise _denied("job rejected: 0 is an invalid task id")
    indices = list(range(first, last + 1, by))
    if len(indices) > limit:
        raise _denied(f"job rejected: you tried to submit a job with more than {limit} tasks")
    return indices, f"{first}-{last}:{by}"


def _fields(known, options):
    fields = {"walltime": 0, "resources": options.get("l", ""), "slots": 1, "after": [], "begin": 0}
    never = ""
    for item in filter(None, fields["resources"].split(",")):
        name, _, value = item.partition("=")
        kind = RESOURCES.get(name)
        if kind is None:
            raise _denied(f'unknown resource "{name}"')
        if kind == "time":
            try:
                length = core.seconds(value)
            except ValueError:
                raise _denied(f'attribute "{name}" is not a time value') from None
            if name == "h_rt":
                fields["walltime"] = length
        elif kind == "memory" and not value.rstrip("kKmMgG").replace(".", "", 1).isdigit():
            raise _denied(f'attribute "{name}" is not a memory value')
        elif name == "gpu" and int(value) > GPUS:
            never = (
                f'(-l gpu={value}) cannot run at host "{HOST}" because it offers only hc:gpu={GPUS}.000000'
            )
    if "pe" in options:
        kind, _, count = options["pe"].partition(" ")
        if kind not in ENVIRONMENTS:
            raise _denied(f'job rejected: the requested parallel environment "{kind}" does not exist')
        fields["slots"] = int(count.partition("-")[0])
        if fields["slots"] > SLOTS:
            never = f'cannot run in PE "{kind}" because it only offers 0 slots'
    queue = options.get("q", "all.q").partition("@")[0]
    if queue not in QUEUES:
        raise _denied(f'Job was rejected because job requests unknown queue "{queue}"')
    if "P" in options:
        raise _denied(f'job rejected: the requested project "{options["P"]}" does not exist')
    if never and options.get("w") == "e":
        raise _denied("error: no suitable queues")
    needed = []
    for name in filter(None, options.get("hold_jid", "").split(",")):
        needed += [
            job["id"]
            for job in known["jobs"].values()
            if core.is_live(job) and (name == str(job["id"]) or fnmatch.fnmatch(job["name"], name))
        ]
    fields["after"] = [["afterany", needed]] if needed else []
    if "a" in options:
        fields["begin"] = time.mktime(time.strptime(options["a"][:12], "%Y%m%d%H%M"))
    return {**fields, "queue": queue, "never": never}


def _environment(fake, job, options):
    kept = dict(os.environ) if "V" in options else {}
    for item in filter(None, options.get("v", "").split(",")):
        name, is_set, value = item.partition("=")
        kept[name] = value if is_set else os.environ.get(name, "")
    return {
        "LANG": "C.UTF-8", **kept,
        # A job's PATH is that of the machine; here the fake commands are part of it.
        "PATH": kept.get("PATH") or f"{fake.path('bin')}:{core.LOGIN_PATH}",
        "HOME": fake.home, "USER": job["user"], "LOGNAME": job["user"], "SHELL": job["shell"],
        "SGE_O_HOME": os.environ.get("HOME", ""), "SGE_O_HOST": HOST, "SGE_O_LOGNAME": job["user"],
        "SGE_O_PATH": os.environ.get("PATH", ""), "SGE_O_WORKDIR": job["submitted_in"],
    }  # fmt: skip


# --- what the runner asks -------------------------------------------------------------------------------------


def holds(known, job, now):
    """Return whether the job may not start."""
    return bool(core.is_held(known, job, now) or job["never"])


def way(fake, job, index, task):
    """Return how a task is started."""
    number, options = job["id"], job["options"]
    words = {
        "$JOB_ID": str(number), "$TASK_ID": index or "0", "$JOB_NAME": job["name"], "$USER": job["user"],
        "$HOSTNAME": HOST, "$HOME": fake.home,
    }  # fmt: skip

    def log(letter):
        path = options.get(letter, "")
        for word, value in words.items():
            path = path.replace(word, value)
        path = os.path.join(job["cwd"], path.removeprefix(":"))
        usual = f"{job['name']}.{letter}{number}" + (f".{index}" if index else "")
        return os.path.join(path, usual) if os.path.isdir(path) else path

    paths = {"stdout": log("o")}
    paths["stderr"] = paths["stdout"] if options.get("j") in ("y", "yes") else log("e")
    task.update(paths)
    scratch = fake.path("spool", f"{number}.{index or 1}.{job['queue']}")
    os.makedirs(scratch, exist_ok=True)
    first, _, rest = job["shape"].partition("-")
    last, _, step = rest.partition(":")
    environment = {
        **job["environment"],
        "ARC": "lx-amd64", "ENVIRONMENT": "BATCH", "HOSTNAME": HOST, "JOB_ID": str(number), "JOB_NAME": job["name"],
        "JOB_SCRIPT": job["script"], "NHOSTS": "1", "NQUEUES": "1", "NSLOTS": str(job["slots"]), "QUEUE": job["queue"],
        "REQNAME": job["name"], "REQUEST": job["name"], "RESTARTED": str(int(task["restarts"] > 0)),
        "SGE_ACCOUNT": job["account"], "SGE_ARCH": "lx-amd64", "SGE_CELL": "default", "SGE_CLUSTER_NAME": "fake",
        "SGE_CWD_PATH": job["cwd"], "SGE_ROOT": fake.folder, "SGE_STDERR_PATH": paths["stderr"],
        "SGE_STDIN_PATH": "/dev/null", "SGE_STDOUT_PATH": paths["stdout"], "SGE_TASK_ID": index or "undefined",
        "SGE_TASK_FIRST": first or "undefined", "SGE_TASK_LAST": last or "undefined",
        "SGE_TASK_STEPSIZE": step or "undefined", "TERM": "", "TMP": scratch, "TMPDIR": scratch,
    }  # fmt: skip
    return {
        "argv": [job["shell"], job["script"], *job["arguments"]] if not job["binary"] else [job["shell"], job["script"]],
        "cwd": job["cwd"], "environment": environment, **paths, "flags": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        "no_log": 253, "no_cwd": 252,
    }  # fmt: skip


def last_words(job, task):
    """Grid Engine writes nothing into a log."""


def note_end(known, job, index, task):
    """Decide what the accounting says of a task, or that it waits again."""
    verdict, stamp = task.get("verdict"), time.strftime("%m/%d/%Y %H:%M:%S")
    if verdict == "TIMEOUT":
        task.update(failed="37 : qmaster enforced h_rt, h_cpu, or h_vmem limit", status=137)
    elif verdict:
        task.update(failed="100 : assumedly after job", status=137)
    elif task["code"] == 253 and not os.path.exists(task["stdout"]):
        where = f'can\'t open output file "{task["stdout"]}": No such file or directory'
        task.update(state="error", error=f"{stamp} [0:1]: error: {where}")
    elif task["code"] == 252 and not os.path.isdir(job["cwd"]):
        where = f"can't chdir to {job['cwd']}: No such file or directory"
        task.update(state="error", error=f"{stamp} [0:1]: error: {where}")
    elif task["code"] == 127 and not os.path.exists(job["shell"]):
        task.update(state="error", error=f'{stamp} [0:1]: unable to find shell "{job["shell"]}"')
    elif task["code"] == 99:
        return "again"
    elif task["code"] == 100:
        task.update(state="error", error=f"{stamp} [0:1]: exit_status of job start = 100")
    elif task["signal"]:
        task.update(failed="100 : assumedly after job", status=128 + task["signal"])
    else:
        task.update(failed="0", status=task["code"])
    return ""


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
    """Return what the two lists of qstat say: a row for each line."""
    wanted, user = options.get("-s", "prs"), options.get("-u", core.user_name())
    each = options.get("-g") == "d"
    now = time.time()
    running, pending, ended = [], [], []
    for job in known["jobs"].values():
        if user != "*" and job["user"] not in user.split(","):
            continue
        base = {"number": job["id"], "name": job["name"], "owner": job["user"], "slots": job["slots"]}
        for index, task in job["tasks"].items():
            if task["state"] == "running":
                again = "R" if task["restarts"] else ""
                state = f"d{again}r" if task.get("verdict") else f"{again}r"
                running.append({**base, "state": state, "when": task["started"], "tasks": index, "is": "running",
                                "queue": f"{job['queue']}@{HOST}"})  # fmt: skip
            elif task["state"] == "error":
                pending.append(
                    {**base, "state": "Eqw", "when": job["submitted"], "tasks": index, "is": "pending"}
                )
        if job["waiting"]:
            held = "h" if core.is_held(known, job, now) in ("hold", "after") else ""
            state = "Rq" if job.get("again") and not held else f"{held}qw"
            row = {**base, "state": state, "when": job["submitted"], "is": "pending"}
            if each:
                pending += [{**row, "tasks": index} for index in job["waiting"]]
            else:
                pending.append({**row, "tasks": _spans(job)})
        elif not core.is_live(job) and core.remembered(known, job):
            ended.append({**base, "state": "z", "when": job["submitted"], "is": "zombie",
                          "tasks": job["shape"]})  # fmt: skip
    if "z" in wanted:
        yield from ended[-ZOMBIES:]
    if "r" in wanted or "s" in wanted:
        yield from running
    if "p" in wanted:
        yield from pending


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
        f"{row.get('queue', '')[:30]:<30} {row['slots']:>5} {row['tasks'] or '        '}\n"
        for row in rows
    )


def _as_xml(rows):
    def one(row):
        start = "JAT_start_time" if row["is"] == "running" else "JB_submission_time"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(row["when"]))
        lines = [
            f'    <job_list state="{row["is"]}">',
            f"      <JB_job_number>{row['number']}</JB_job_number>",
            f"      <JAT_prio>{'0.50000' if row['is'] == 'running' else '0.00000'}</JAT_prio>",
            f"      <JB_name>{escape(row['name'])}</JB_name>",
            f"      <JB_owner>{row['owner']}</JB_owner>",
            f"      <state>{row['state']}</state>",
            f"      <{start}>{stamp}</{start}>",
            f"      <queue_name>{row.get('queue', '')}</queue_name>",
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


# --- qdel, qacct, qconf, qhost --------------------------------------------------------------------------------


def qdel(fake, argv):
    """Delete jobs and tasks; what it says goes to standard output."""
    words, code, at = [], 0, 0
    user = core.user_name()
    with fake.state() as known:
        while at < len(argv):
            text, indices = argv[at], None
            at += 1
            if text == "-f":
                continue
            if text == "-u":
                chosen = [job for job in known["jobs"].values() if core.is_live(job)]
                at += 1
                if not chosen:
                    words.append(f"There is no job registered for the following users: {argv[at - 1]}")
                    code = 1
            else:
                number, dot, tasks = text.partition(".")
                if at + 1 < len(argv) and argv[at] == "-t":
                    dot, tasks = ".", argv[at + 1]
                    at += 2
                if dot and number.isdigit():
                    indices = _task_list(tasks)
                chosen = [
                    job
                    for job in known["jobs"].values()
                    if core.is_live(job) and (str(job["id"]) == number or fnmatch.fnmatch(job["name"], text))
                ]
                if not chosen:
                    code = 1
                    words.append(
                        f'denied: job "{number}" does not exist'
                        if number.isdigit()
                        else f"The job {text} of user(s) {user} does not exist"
                    )
            for job in chosen:
                said, bad = _delete(known, job, indices, user)
                words += said
                code = code or bad
    return code, "".join(f"{line}\n" for line in words)


def _task_list(text):
    span, _, step = text.partition(":")
    low, dash, high = span.partition("-")
    return [str(index) for index in range(int(low), int(high if dash else low) + 1, int(step or 1))]


def _delete(known, job, indices, user):
    """Return the lines about one job, and whether something was not there."""
    already = [
        index for index, task in job["tasks"].items() if task["state"] == "running" and task.get("verdict")
    ]
    waiting, running = core.cancel(known, job, indices)
    running = [index for index in running if index not in already]
    number, words = job["id"], []
    if already and not waiting and not running and (indices is None or set(indices) & set(already)):
        return [f"job {number} is already in deletion"], 0
    if not job["array"]:
        if running:
            return [f"{user} has registered the job {number} for deletion"], 0
        return [f"{user} has deleted job {number}"], 0
    words += [f"{user} has registered the job-array task {number}.{index} for deletion" for index in running]
    if waiting and indices is None:
        words.append(f"{user} has deleted job {number}")
    elif len(waiting) == 1:
        words.append(f"{user} has deleted job-array task {number}.{waiting[0]}")
    elif waiting:
        numbers = sorted(map(int, waiting))
        listed = f"{numbers[0]}-{numbers[-1]}:1" if len(numbers) > 2 else ",".join(map(str, numbers))
        words.append(f"{user} has deleted job-array tasks {listed} of job {number}")
    if not words:
        return [f'job "{number}" task "{index}" does not exist' for index in indices or []], 1
    return words, 0


def qacct(fake, argv):
    """Tell what the accounting knows: ended tasks that had started."""
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    wanted, only = options.get("-j", "*"), options.get("-t")
    with fake.state(change=False) as known:
        records = [
            _record(job, index, task)
            for job in known["jobs"].values()
            if known["settings"]["accounting"]
            and (str(job["id"]) == wanted or (not wanted.isdigit() and fnmatch.fnmatch(job["name"], wanted)))
            for index, task in sorted(job["tasks"].items(), key=lambda item: item[1]["ended"])
            if task["state"] == "ended" and (only is None or index in _task_list(only))
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
