"""The fake Grid Engine's qsub and qdel, and how its tasks start and end, as 8.1.9 was seen to do it."""

from __future__ import annotations

import fnmatch
import os
import time

import core
import runner
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
        job["script"] = core.keep_script(fake, job, f"{' '.join(rest)}\n" if binary else text)
        job["environment"] = _environment(fake, job, options)
    runner.start(fake)
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
        raise Refused("qsub: argument to -N option must not contain / ", 2)
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
        raise Refused("qsub: -t option only allows one range specification", 7) from None
    if last < first:
        first, last = last, first
    if first < 1:
        raise _denied("job rejected: 0 is an invalid task id")
    indices = list(range(first, last + 1, by))
    if len(indices) > limit:
        raise _denied(f"job rejected: you tried to submit a job with more than {limit} tasks")
    return indices, f"{first}-{last}:{by}"


def _fields(known, options):
    """Check the options and return what the scheduler keeps of them."""
    walltime, too_many = _resources(options.get("l", ""))
    slots, too_wide = _slots(options)
    never = too_wide or too_many
    queue = options.get("q", "all.q").partition("@")[0]
    if queue not in QUEUES:
        raise _denied(f'Job was rejected because job requests unknown queue "{queue}"')
    if "P" in options:
        raise _denied(f'job rejected: the requested project "{options["P"]}" does not exist')
    if never and options.get("w") == "e":
        raise _denied("error: no suitable queues")
    # Who is unknown, or over, is no reason to wait.
    needed = [
        job["id"]
        for name in filter(None, options.get("hold_jid", "").split(","))
        for job in known["jobs"].values()
        if core.is_live(job) and (name == str(job["id"]) or fnmatch.fnmatch(job["name"], name))
    ]
    begin = core.moment(options["a"]) if "a" in options else 0
    return {
        "walltime": walltime, "resources": options.get("l", ""), "slots": slots, "begin": begin, "queue": queue,
        "never": never, "after": [["afterany", needed]] if needed else [],
    }  # fmt: skip


def _resources(text):
    """Return the seconds of h_rt, and why no host can give what is asked."""
    walltime, never = 0, ""
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        kind = RESOURCES.get(name)
        if kind is None:
            raise _denied(f'unknown resource "{name}"')
        if kind == "time":
            try:
                length = core.seconds(value)
            except ValueError:
                raise _denied(f'attribute "{name}" is not a time value') from None
            walltime = length if name == "h_rt" else walltime
        elif kind == "memory" and not value.rstrip("kKmMgG").replace(".", "", 1).isdigit():
            raise _denied(f'attribute "{name}" is not a memory value')
        elif name == "gpu" and int(value) > GPUS:
            never = (
                f'(-l gpu={value}) cannot run at host "{HOST}" because it offers only hc:gpu={GPUS}.000000'
            )
    return walltime, never


def _slots(options):
    """Return the slots of -pe, and why no host has them."""
    if "pe" not in options:
        return 1, ""
    kind, _, count = options["pe"].partition(" ")
    if kind not in ENVIRONMENTS:
        raise _denied(f'job rejected: the requested parallel environment "{kind}" does not exist')
    slots = int(count.partition("-")[0])
    return slots, f'cannot run in PE "{kind}" because it only offers 0 slots' if slots > SLOTS else ""


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


# --- qdel ---------------------------------------------------------------------------------------------------------


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
                    indices = task_list(tasks)
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


def task_list(text):
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
