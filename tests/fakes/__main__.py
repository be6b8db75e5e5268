"""``python -I -S tests/fakes FOLDER COMMAND ARGUMENTS``: one call of a fake command; the wrappers on PATH do it."""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import core


def main():
    folder, command, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
    fake = core.Fake(folder)
    with open(fake.path("dialect")) as file:
        dialect = importlib.import_module(f"dialect_{file.read()}")
    if command == "runner":
        core.Runner(fake, dialect).run()
        return 0
    fake.log(command, argv)
    try:
        if core.obey_rules(fake, command, "before"):
            dialect.nobody_answers(command, argv)
        code, out, *err = getattr(dialect, command)(fake, argv)
        core.obey_rules(fake, command, "after")
    except core.Refused as refused:
        stream = sys.stdout if getattr(refused, "aloud", False) else sys.stderr
        stream.write(refused.words + ("\n" if refused.words else ""))
        return refused.code
    sys.stdout.write(out)
    sys.stderr.write("".join(err))
    return code


sys.exit(main())
