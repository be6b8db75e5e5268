"""The fake PBS's qsub and qdel, and how its tasks start and end, as OpenPBS 23.06.06 was seen to do it."""

from __future__ import annotations

import getopt
import os
import re
import sys
import time

import core
import runner
from core import Refused

GENTLE = True
SPLITS = False
HOST = "host"
NCPUS = 8
VERSION = "23.06.06"
QUEUES = {"workq": {}, "short": {"walltime": 600, "ncpus": 4, "mem": 8 * 2**30}}
USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version"""
NAME = re.compile(r"[A-Za-z0-9_.+-]*\Z")


def nobody_answers(command, argv):
    """Raise what a command says when no pbs_server listens."""
    if command == "qdel":
        raise Refused(f"Connection refused\nCouldn't connect to cluster: {HOST}", 162)
    if command == "qstat" and "-F" in argv:
        from pbs_words import document

        sys.stdout.write(document(None))
    code = 255 if command == "qstat" else 162
    raise Refused(f"Connection refused\n{command}: cannot connect to server {HOST} (errno=15010)", code)


# --- qsub -----------------------------------------------------------------------------------------------------


def _illegal(letter):
    return Refused(f"qsub: illegal -{letter} value\n{USAGE}", 2)


def qsub(fake, argv):
    """Submit a script, or a command after ``--``."""
    if argv == ["--version"]:
        return 0, f"pbs_version = {VERSION}\n"
    options, rest, direct = _options(argv)
    text = "" if direct else _text(rest)
    given = _options(core.directives(text, "#PBS"))[0]
    lists = {"l", "W"} & set(given) & set(options)
    options = {**given, **options, **{key: given[key] + options[key] for key in lists}}
    name = _name(options, rest, direct)
    resources = _resources(options.get("l", []))
    others = _others(options.get("W", []))
    indices, limit = _array(options)
    queue = _queue(options, resources)
    with fake.state() as known:
        too_large = indices and indices[-1] >= known["settings"]["array_limit"]
        if too_large:
            known["next"] += 1  # the number is used up all the same
        else:
            if core.over_limit(known, len(indices or [0])):
                raise Refused("qsub: would exceed complex's per-user limit of jobs in 'Q' state", 38)
            job = core.new_job(
                known, indices=indices, limit=limit, held="h" in options, name=name, queue=queue, direct=direct,
                restarts=options.get("r", "y") != "n", arguments=rest[1:] if direct else [],
                walltime=_amount("walltime", resources.get("walltime", "0")), resources=resources,
                after=others["depend"], umask=int(others["umask"], 8), cwd=os.getcwd(),
                begin=_begin(options.get("a")), keep=options.get("k", "n"), join=options.get("j", "n"),
                range=options.get("J", "").partition("%")[0], account=options.get("A"),
                submit=" ".join(argv), depend_text=others["depend_text"],
            )  # fmt: skip
            job["script"] = rest[0] if direct else core.keep_script(fake, job, text)
            for letter, kind in (("o", "OU"), ("e", "ER")):
                job[f"path_{letter}"] = _path(job, options.get(letter), letter, kind)
            job["environment"] = _environment(fake, job, options)
            holds(known, job, time.time())  # what can never run is over at once
    if too_large:
        raise Refused("qsub: Array job exceeds server or queue size limit", 3)
    runner.start(fake)
    return 0, "" if "z" in options else f"{job['id']}{'[]' if job['array'] else ''}.{HOST}\n"


def _name(options, rest, direct):
    usual = os.path.basename(rest[0]) if rest and not direct and rest != ["-"] else "STDIN"
    name = options.get("N", usual)
    if not name or not NAME.match(name):
        raise _illegal("N")
    if len(name) > 230:
        raise Refused("qsub: Job name is too long ", 2)
    return name


def _queue(options, resources):
    queue = options.get("q", "workq").partition("@")[0]
    if queue not in QUEUES:
        raise Refused("qsub: Unknown queue", 170)
    for key, most in QUEUES[queue].items():
        if _amount(key, resources.get(key, "0")) > most:
            raise Refused("qsub: Job violates queue and/or server resource limits", 188)
    return queue


def _options(argv):
    try:
        found, rest = getopt.getopt(argv, "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:zX")
    except getopt.GetoptError as error:
        raise Refused(f"qsub: invalid option -- '{error.opt}'\n{USAGE}", 2) from None
    options = {}
    for name, value in found:
        if name in ("-l", "-W"):
            options.setdefault(name[1:], []).append(value)
        else:
            options[name[1:]] = value
    used = argv[: len(argv) - len(rest)]
    direct = bool(rest) and used[-1:] == ["--"]
    if len(rest) > 1 and not direct:
        raise Refused(USAGE, 2)
    return options, rest, direct


def _text(rest):
    if not rest or rest == ["-"]:
        return sys.stdin.read()
    if os.path.isdir(rest[0]):
        raise Refused("qsub: script not a file")
    try:
        with open(rest[0], newline="") as file:
            return file.read()
    except OSError as error:
        raise Refused(f"qsub: script file:: {error.strerror}") from None


def _resources(lists):
    found = {}
    for text in lists:
        for item in text.split(",") if not text.startswith("select") else [text]:
            name, _, value = item.partition("=")
            if name == "nodes":
                raise Refused("qsub: Illegal attribute or resource value", 166)
            if name not in ("ncpus", "mem", "walltime", "select", "place", "pmem", "cput", "vmem", "pvmem", "pcput",
                            "mpiprocs", "nice", "file", "software", "arch", "host", "vnode"):  # fmt: skip
                raise Refused(f"qsub: Unknown resource Resource_List.{name}", 187)
            if not value or (name != "select" and _amount(name, value) is None):
                raise Refused(f"qsub: Illegal attribute or resource value Resource_List.{name}", 166)
            found[name] = value
    mixed = [name for name in ("ncpus", "mem", "vmem", "mpiprocs") if name in found]
    if "select" in found and mixed:
        words = f'qsub: "-lresource=" cannot be used with "select" or "place", resource is: {mixed[0]}'
        raise Refused(words, 5)
    return found


def _amount(name, text):
    """Return a number, bytes or seconds; None for what makes no sense."""
    if name in ("walltime", "cput", "pcput"):
        try:
            return None if "-" in text else core.seconds(text)
        except ValueError:
            return None
    if name in ("mem", "pmem", "vmem", "pvmem", "file"):
        match = re.match(r"(\d+)([kmgt]?)[bw]?\Z", text, re.IGNORECASE)
        return int(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ") if match else None
    if name == "ncpus":
        return int(text) if text.isdigit() else None
    return 0


def _others(lists):
    """Return what -W says: dependencies, umask."""
    found = {"depend": [], "umask": "077", "depend_text": ""}
    items = []
    for text in lists:
        for part in text.split(","):
            # A comma also stands between two kinds of dependency.
            if "=" in part or not items:
                items.append(part)
            else:
                items[-1] += f",{part}"
    for item in items:
        name, _, value = item.partition("=")
        if name == "depend":
            texts = []
            for part in value.split(","):
                kind, *ids = part.split(":")
                numbers = [re.match(r"(\d+)(\[\])?(\.[\w.-]+)?\Z", text) for text in ids]
                if kind not in ("after", "afterok", "afternotok", "afterany") or not ids or not all(numbers):
                    raise _illegal("W")
                found["depend"].append([kind, [int(match[1]) for match in numbers if match]])
                texts.append(":".join([kind, *(f"{m[1]}{m[2] or ''}.{HOST}@{HOST}" for m in numbers if m)]))
            found["depend_text"] = ",".join(texts)
        elif name == "umask":
            found["umask"] = value
        elif name not in ("block", "sandbox", "group_list", "stagein", "stageout", "run_count"):
            raise Refused("qsub: Error (15002) submitting job", 154)
    return found


def _array(options):
    """Return the indices of ``0-9:3%2``, and how many may run at once."""
    if "J" not in options:
        return None, 0
    if options.get("r") == "n":
        raise Refused(f"qsub:  cannot submit non-rerunable Array Job\n{USAGE}", 2)
    text, _, most = options["J"].partition("%")
    match = re.match(r"(\d+)-(\d+)(?::(\d+))?\Z", text)
    # One element is refused, unless the step is what leaves only one.
    if not match or int(match[1]) >= int(match[2]) or match[3] == "0" or (most and not most.isdigit()):
        raise _illegal("J")
    return list(range(int(match[1]), int(match[2]) + 1, int(match[3] or 1))), int(most or 0)


def _begin(text):
    if not text:
        return 0
    try:
        return core.moment(text)
    except ValueError:
        raise _illegal("a") from None


def _path(job, given, letter, kind):
    usual = f"{job['name']}.{letter}{job['id']}" + (".^array_index^" if job["array"] else "")
    if given is None:
        return os.path.join(job["cwd"], usual)
    if ":" in given and not given.startswith("/"):
        _, _, given = given.partition(":")
        if not given.startswith("/"):
            raise _illegal(letter)
    path = os.path.join(job["cwd"], given)
    if path.endswith("/"):
        return f"{path}{job['id']}{'[^array_index^]' if job['array'] else ''}.{HOST}.{kind}"
    return path


def _environment(fake, job, options):
    """Return the variables of the job: -V passes nothing in this release, -v changes some values."""
    kept = {}
    for item in filter(None, options.get("v", "").split(",")):
        name, is_set, value = item.partition("=")
        value = value if is_set else os.environ.get(name)
        if value is None or value.count("'") == 1 or (is_set and value.startswith("{")):
            raise Refused("qsub: cannot send environment with the job", 1)
        if value[:1] in "{[" and '"' in value:
            raise Refused("", 139)  # the real one dies of a segmentation fault
        value = value.replace("\\", "\\\\")
        kept[name] = value.replace('"', "" if is_set else "\\") if value.strip() else ""
    return {
        **kept,
        "ENVIRONMENT": "BATCH", "HOME": fake.home, "LOGNAME": job["user"], "USER": job["user"], "SHELL": "/bin/bash",
        # A job's PATH is that of the machine; here the fake commands are part of it.
        "PATH": f"{fake.path('bin')}:{core.LOGIN_PATH}", "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PBS_O_HOME": os.environ.get("HOME", ""), "PBS_O_HOST": HOST, "PBS_O_LOGNAME": job["user"],
        "PBS_O_LANG": os.environ.get("LANG", ""), "PBS_O_PATH": os.environ.get("PATH", ""), "PBS_O_QUEUE": job["queue"],
        "PBS_O_SHELL": "/bin/bash", "PBS_O_SYSTEM": "Linux", "PBS_O_WORKDIR": job["cwd"],
    }  # fmt: skip


# --- what the runner asks -------------------------------------------------------------------------------------


def holds(known, job, now):
    """Return whether the job may not start; what can never start any more is over."""
    why = core.is_held(known, job, now, unknown="drop")
    if why == "never":
        job["waiting"] = []
        job["never"] = True
        job["cancelled"] = now
    return bool(why) or int(job["resources"].get("ncpus", 1)) > NCPUS


def way(fake, job, index, task):
    """Return how a task is started."""
    name = f"{job['id']}[{index}].{HOST}" if job["array"] else f"{job['id']}.{HOST}"
    final = {letter: job[f"path_{letter}"].replace("^array_index^", index) for letter in "oe"}
    if job["join"] == "oe":
        final["e"] = final["o"]
    in_place = "d" in job["keep"]
    paths = {}
    for kind, letter in (("stdout", "o"), ("stderr", "e")):
        spool = fake.path("spool", f"{job['id']}.{index}.{letter if job['join'] != 'oe' else 'o'}")
        paths[kind] = final[letter] if in_place and letter in job["keep"] else spool
        if not in_place and letter in job["keep"]:
            paths[kind] = os.path.join(fake.home, os.path.basename(final[letter]))
            final[letter] = paths[kind]
    task.update(paths, final=final)
    scratch = fake.path("spool", f"pbs.{name}")
    os.makedirs(scratch, exist_ok=True)
    ncpus = job["resources"].get("ncpus", "1")
    environment = {
        **job["environment"],
        "NCPUS": ncpus, "OMP_NUM_THREADS": ncpus, "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_JOBCOOKIE": "0" * 16,
        "PBS_JOBDIR": fake.home, "PBS_JOBID": name, "PBS_JOBNAME": job["name"], "PBS_MOMPORT": "15003",
        "PBS_NODEFILE": fake.path("spool", "nodes"), "PBS_NODENUM": "0", "PBS_QUEUE": job["queue"],
        "PBS_TASKNUM": "1", "TMPDIR": scratch,
    }  # fmt: skip
    if job["array"]:
        environment |= {"PBS_ARRAY_INDEX": index, "PBS_ARRAY_ID": f"{job['id']}[].{HOST}"}
    return {
        "argv": [job["script"], *job["arguments"]], "cwd": fake.home, "environment": environment, **paths,
        "flags": os.O_WRONLY | os.O_CREAT | os.O_APPEND, "umask": job["umask"], "no_log": 253,
    }  # fmt: skip


def last_words(job, task):
    """Write what PBS writes into the error log of a job past its time."""
    if task["verdict"] == "TIMEOUT":
        used = int(time.time() - task["started"])
        with open(task["stderr"], "a") as log:
            log.write(f"=>> PBS: job killed: walltime {used} exceeded limit {job['walltime']}\n")


def note_end(known, job, index, task):
    """Decide Exit_status, substate and comment, and deliver the output."""
    verdict = task.get("verdict")
    died = (256 if job["direct"] else 128) + task["signal"] if task["signal"] else task["code"]
    if verdict == "TIMEOUT":
        task.update(status=-29, substate=93, words="exceeded resource walltime")
    elif verdict == "CANCELLED":
        task.update(status=task["code"] if not task["signal"] else 271, substate=91)
        task["words"] = f"terminated by {task.get('by', job['user'])}@{HOST}"
    elif verdict:
        task.update(
            status=256 + task["signal"] if task["signal"] else task["code"], substate=93, words="failed"
        )
    else:
        task.update(status=died, substate=93 if died else 92, words="failed" if died else "finished")
    for kind, letter in (("stdout", "o"), ("stderr", "e")):
        if task[kind] != task["final"][letter] and os.path.exists(task[kind]):
            try:
                with open(task[kind], "rb") as source, open(task["final"][letter], "wb") as target:
                    target.write(source.read())
                if os.path.isfile(task["final"][letter]):  # /dev/null stays everybody's
                    os.chmod(task["final"][letter], 0o666 & ~job["umask"])
            except OSError:
                continue  # what cannot be delivered is lost; the Exit_status does not say so


# --- qdel -----------------------------------------------------------------------------------------------------


def qdel(fake, argv):
    """Delete jobs and subjobs; what runs ends a moment later."""
    found, ids = getopt.getopt(argv, "W:x")
    purge = ("-x", "") in found
    if not ids:
        raise Refused(
            "usage:\n\tqdel [-W force|suppress_email=X] [-x] job_identifier...\n\tqdel --version", 2
        )
    errors, code = [], 0
    with fake.state() as known:
        for text in ids:
            words, bad = _delete(known, text, purge=purge)
            if words:
                errors.append(f"qdel: {words}")
                code = bad
    return code, "", "".join(f"{line}\n" for line in errors)


def _delete(known, text, *, purge):
    match = re.match(r"(\d+)(?:\[([\d-]*)\])?(?:\.([\w-]+))?\Z", text)
    if not match or (match[3] and match[3] != HOST):
        return f"illegally formed job identifier: {text}", 1
    job = known["jobs"].get(match[1])
    asked, full = match[2], f"{text.partition('.')[0]}.{HOST}"
    if not job or not core.remembered(known, job) or (job["array"] and asked is None):
        return f"Unknown Job Id {text}", 153
    if not core.is_live(job):
        if purge:
            del known["jobs"][match[1]]
            return "", 0
        return (
            (f"Job has finished {full}", 35)
            if known["settings"]["accounting"]
            else (f"Unknown Job Id {text}", 153)
        )
    if not asked:
        job["deleted"] = True
        core.cancel(known, job)
        return "", 0
    low, dash, high = asked.partition("-")
    indices = [str(index) for index in range(int(low), int(high if dash else low) + 1)]
    ended = [index for index in indices if job["tasks"].get(index, {}).get("state") == "ended"]
    known_indices = {*job["waiting"], *job["tasks"], *job.get("dropped", [])}
    if not set(indices) & known_indices:
        return f"Invalid request {full}", 156
    if (ended or set(indices) <= set(job.get("dropped", []))) and len(indices) == 1:
        return f"Request invalid for finished array subjob {full}", 55
    core.cancel(known, job, indices)
    return "", 0
