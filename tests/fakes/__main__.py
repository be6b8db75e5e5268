"""``python -I -S tests/fakes FOLDER COMMAND ARGUMENTS``: one call of a fake command; the wrappers on PATH do it."""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import core
import runner


def main():
    folder, command, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
    fake = core.Fake(folder)
    with open(fake.path("dialect")) as file:
        kind = file.read()
    jobs = importlib.import_module(f"{kind}_jobs")
    if command == "runner":
        runner.Runner(fake, jobs).run()
        return 0
    fake.log(command, argv)
    try:
        if core.obey_rules(fake, command, "before"):
            jobs.nobody_answers(command, argv)
        works = getattr(jobs, command, None) or getattr(importlib.import_module(f"{kind}_words"), command)
        code, out, *err = works(fake, argv)
        core.obey_rules(fake, command, "after")
    except core.Refused as refused:
        stream = sys.stdout if getattr(refused, "aloud", False) else sys.stderr
        stream.write(refused.words + ("\n" if refused.words else ""))
        return refused.code
    sys.stdout.write(out)
    sys.stderr.write("".join(err))
    return code


sys.exit(main())
