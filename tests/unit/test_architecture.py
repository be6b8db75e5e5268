"""Who may know whom, what is public, and what an import costs: the rules of ARCHITECTURE.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from pathlib import Path

import pytest

import paraschut
from paraschut.command import job_variables
from paraschut.errors import ParaschutError

PACKAGE = Path(paraschut.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "__pycache__" not in path.parts
}

#: From the ground up: a module imports from its own floor and those below it.
FLOORS = {
    "ground": {
        "progress",
        "errors",
        "values",
        "job",
        "checks",
        "bulk",
        "config",
        "config_rules",
        "resources",
        "process",
        "command",
        "paths",
        "retry",
        "after",
        "why",
        "look.runs",
    },
    "rooms": {"plan", "reconcile", "executors", "store"},
    "agent and evidence": {"agent", "fold", "queues"},
    "verbs": {
        "submitting",
        "dispatch",
        "handover",
        "prepare",
        "scripts",
        "change",
        "look.summary",
        "look.render",
        "look.texts",
        "look.lines",
    },
    "what is shown": {
        "look.figures",
        "look.render_html",
        "look.snapshot",
        "look.screen",
        "look.logs",
        "look.histories",
        "look.terminal",
    },
    "inside and outside of jobs": {"desk", "spawn", "checkpoint", "runtime", "look", "submitter", "closer"},
    "functions as jobs": {"_run", "functions"},
    "on top": {"cli", "__main__", "__init__", "demo"},
}
#: Rooms of one floor that never look into one another.
ROOMS = FLOORS["rooms"]
#: Upwards, or from room to room: only inside a function, so that nothing needs it to be imported.
DOORS = {
    # The agent makes passes when jobs end.
    ("agent", "dispatch"),
    # What it forks for function jobs makes calls.
    ("agent", "_run"),
    # The local machine as a cluster is run by the agent, and woken in its folder.
    ("executors.local", "agent.limits"),
    ("executors.local", "store.engine"),
    # What a zygote forks runs the calls of function jobs, and does with the index what jobs do.
    ("agent.zygote", "_run"),
    ("agent.worker", "_run"),
    ("agent.worker", "desk"),
    # A job shows itself in a notebook.
    ("job", "look.render_html"),
    ("job", "look.texts"),
}


def room_of(module):
    return module.split(".")[0]


def floor_of(module):
    for name in (module, room_of(module)):
        for number, rooms in enumerate(FLOORS.values()):
            if name in rooms:
                return number
    raise AssertionError(f"{module} is on no floor: say in FLOORS where it belongs")


def imports(module):
    """Return the modules of ours that a module imports, and whether that happens inside a function."""
    found = set()

    def target(base, name):
        full = f"{base}.{name}".strip(".")
        if full in MODULES or f"{full}.__init__" in MODULES:
            return full
        return base or "__init__"

    def visit(node, lazy):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            inner = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: imports are absolute"
                if (child.module or "").split(".")[0] == "paraschut":
                    base = child.module.removeprefix("paraschut").strip(".")
                    found.update((target(base, alias.name), inner) for alias in child.names)
            elif isinstance(child, ast.Import):
                ours = [alias.name for alias in child.names if alias.name.split(".")[0] == "paraschut"]
                found.update(
                    (name.removeprefix("paraschut").strip(".") or "__init__", inner) for name in ours
                )
            visit(child, inner)

    visit(ast.parse(MODULES[module].read_text("utf-8")), lazy=False)
    return found


def foreign(module, *, lazy=True):
    """Return the packages of others that a module imports."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    nodes = ast.walk(tree) if lazy else ast.iter_child_nodes(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


# --- who may know whom


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_only_what_is_below_it(module):
    for other, lazy in imports(module):
        if lazy and any((source, other) in DOORS for source in (module, room_of(module))):
            continue
        assert floor_of(other) <= floor_of(module), f"{module} imports {other}, which is above it"
        if {room_of(module), room_of(other)} <= ROOMS:
            assert room_of(module) == room_of(other), (
                f"{module} imports {other}: they meet in dispatch and agent"
            )


@pytest.mark.parametrize(
    "module",
    [
        "plan",
        "reconcile",
        "retry",
        "after",
        "why",
        "errors",
        "values",
        "paths",
        "process",
        "command",
        "store.schema",
    ],
)
def test_what_is_pure_or_at_the_very_bottom_knows_none_of_us(module):
    assert {other for other, _ in imports(module)} <= {"errors"}


def test_the_launcher_is_a_program_of_its_own():
    assert imports("agent.launcher") == set()


@pytest.mark.parametrize(
    "module", ["look.render", "look.render_html", "look.summary", "look.snapshot", "look.texts"]
)
def test_what_is_shown_knows_no_store_and_no_executor(module):
    assert {other for other, _ in imports(module)} <= {
        "errors",
        "job",
        "values",
        "look.texts",
        "look.summary",
        "look.render",
        "look.render_html",
    }


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) == "executors"])
def test_executors_speak_no_sql_and_know_no_pass(module):
    known = {room_of(other) for other, _ in imports(module)}
    assert not known & {"dispatch", "prepare", "change", "fold", "plan", "reconcile", "runtime"}


def test_nobody_imports_in_a_circle():
    above = {module: {other for other, lazy in imports(module) if not lazy} for module in MODULES}
    finished = set()

    def visit(module, path):
        assert module not in path, " -> ".join((*path, module))
        if module not in finished and module in above:
            for other in above[module]:
                visit(other, (*path, module))
            finished.add(module)

    for module in above:
        visit(module, ())


def test_only_the_store_speaks_sql():
    for module in MODULES:
        speaks = foreign(module) & {"sqlalchemy", "sqlite3"}
        # The agent keeps a connection, and this names its type.
        allowed = (
            {"sqlalchemy", "sqlite3"}
            if room_of(module) == "store"
            else {"sqlite3"}
            if module == "agent.link"
            else set()
        )
        assert speaks <= allowed, module


def test_only_the_modules_of_the_filter_read_what_a_user_filters_by():
    assert [module for module in MODULES if "sqlglot" in foreign(module)] == [
        "store.filter_text",
        "store.filters",
    ]


@pytest.mark.parametrize(
    "heavy",
    [
        "cloudpickle",
        "psutil",
        "sqlglot",
        "tabulate",
        "tqdm",
        "numpy",
        "sklearn",
        "matplotlib",
        "platformdirs",
    ],
)
def test_heavy_libraries_are_imported_where_they_are_used(heavy):
    # These are imported only when there is no way around them.
    for module in MODULES:
        if (heavy, module) in {
            ("psutil", "executors.file"),
            ("sqlglot", "store.filters"),
            ("sqlglot", "store.filter_text"),
        } or room_of(module) == "demo":
            continue
        assert heavy not in foreign(module, lazy=False), module


def test_only_what_promises_text_prints():
    printing = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printing.add(module)
    assert printing <= {
        "dispatch",
        "submitting",
        "look.dashboard",
        "look.logs",
        "look.screen",
        "look.watching",
        "cli.change",
        "cli.job",
        "cli.look",
        "cli.main",
        "cli.parts",
        *(module for module in MODULES if room_of(module) == "demo"),
    }


# --- what is public

PREPARING = {
    "get_job_template",
    "generate_script",
    "generate_data",
    "load_data",
    "add_batch_to_queue",
    "add_job_to_queue",
}
SUBMITTING = {
    "submit_jobs",
    "submit_one_batch",
    "submit_one_job",
    "periodic_submitter",
    "qdel_batch",
    "qdel_job",
}
WATCHING = {
    "explain",
    "plot_resources",
    "plot_timeline",
    "report",
    "get_queue",
    "history",
    "print_log",
    "get_job_info",
    "get_qstat",
    "watch",
}
CHANGING = {
    *("set_job_field", "set_batch_field", "update_job", "remove_batch", "remove_batch_by_state"),
    "boost_batch_priority",
}
INSIDE = {
    *("set_complete", "set_progress", "ClusterID", "on_warning", "requeue"),
    *("spawn_submit", "spawn_complete", "spawn_resubmit", "spawn_get_info"),
}
FUNCTIONS = {"persist", "persist_map", "readmgr", "BatchExecutor"}
EXECUTORS = {"LocalJobExecutor", "FileJobExecutor", "PBSJobExecutor", "SGEJobExecutor", "SlurmJobExecutor"}
ERRORS = {
    name
    for name, one in vars(importlib.import_module("paraschut.errors")).items()
    if isinstance(one, type) and issubclass(one, ParaschutError)
}
PUBLIC = (
    PREPARING | SUBMITTING | WATCHING | CHANGING | INSIDE | FUNCTIONS | EXECUTORS | ERRORS | {"__version__"}
)
DOCUMENTED = sorted(PUBLIC - ERRORS - {"ClusterID", "__version__"})


def test_what_is_promised_is_public_and_nothing_else():
    assert set(paraschut.__all__) == PUBLIC
    assert len(paraschut.__all__) == len(PUBLIC)
    assert dir(paraschut) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"ClusterID"}))
def test_every_public_name_is_there(name):
    assert getattr(paraschut, name) is not None


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'paraschut' has no attribute 'spawn_everything'"):
        _ = paraschut.spawn_everything


def test_a_type_checker_sees_the_names_that_python_does():
    tree = ast.parse(MODULES["__init__"].read_text("utf-8"))
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    seen |= {node.target.id for node in block.body if isinstance(node, ast.AnnAssign)}
    assert seen == PUBLIC - {"__version__"}


def test_every_error_is_drawn_in_the_tree():
    drawn = re.findall(r"[├└]── (\w+)", importlib.import_module("paraschut.errors").__doc__)
    assert sorted([*drawn, "ParaschutError"]) == sorted(ERRORS)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_says_when_it_is_raised(name):
    assert re.match(r"[A-Z].*\.", getattr(paraschut, name).__doc__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_is_documented_with_an_example(name):
    doc = inspect.getdoc(getattr(paraschut, name))
    summary, _, rest = doc.partition("\n")
    assert summary.endswith((".", ";", ":")), summary
    assert not rest or rest.startswith("\n"), "a blank line follows the first"
    example = doc.partition("Examples\n--------\n")[2]
    assert ">>> " in example
    assert name in example, "the example shows the call itself"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_argument_is_documented_or_said_to_be_that_of_another(name):
    public = getattr(paraschut, name)
    signature = inspect.signature(public)
    doc = inspect.getdoc(public)
    section = doc.partition("Parameters\n----------\n")[2]
    section = re.split(r"\n\n\w+\n-+\n", section)[0]
    told = {
        one.strip(" *")
        for line in re.findall(r"(?m)^(\*{0,2}\w[\w, *]*)(?: : .*)?$", section)
        for one in line.split(",")
    }
    elsewhere = re.search(r"\b[Aa]s (for )?``\w+``|are those of ``\w+``|as ``\w+`` does", doc)
    missing = set(signature.parameters) - told
    assert not missing or elsewhere, missing
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
    if inspect.isfunction(public):
        assert signature.return_annotation is not inspect.Signature.empty


# --- what an import costs

#: What a job must not pay for.
DEAR = {
    "sqlalchemy",
    "dataclasses",
    "inspect",
    "logging",
    "click",
    "psutil",
    "cloudpickle",
    "numpy",
    "tomllib",
    "pathlib",
}


def loaded(said):
    return {name.split(".")[0] for name in said.split()}


def test_importing_says_nothing_and_starts_nothing(python):
    program = (
        "import sys, os; before = set(os.listdir('/proc/self/fd'))\n"
        "import paraschut\n"
        "assert set(os.listdir('/proc/self/fd')) == before, 'a file stayed open'\n"
        "assert len(os.listdir('/proc/self/task')) == 1, 'a thread was started'\n"
        "assert not os.path.exists('jobs')\n"
        "import atexit; assert atexit._ncallbacks() == 0\n"
        "ours = [name for name in sys.modules if name.startswith('paraschut.')]\n"
        "assert ours == [], ours\n"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("only /proc tells")
    done = python(program)
    assert (done.stdout, done.stderr) == ("", "")


def test_nothing_is_started_by_any_module(python):
    names = [f"paraschut.{name}".removesuffix(".__init__") for name in MODULES]
    names = [name for name in names if not name.endswith("__main__") and ".demo" not in name]
    program = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert len(os.listdir('/proc/self/task')) == 1, 'a thread was started'\n"
        "assert not os.path.exists('jobs')\n"
    )
    done = python(program, *names)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.fixture
def in_environment(in_job, index):
    return job_variables(index, *in_job, "t", 0, "t.0")


def test_a_job_pays_for_nothing_that_it_does_not_need(python, in_environment):
    program = (
        "import sys; before = set(sys.modules)\n"
        "import paraschut as psu\n"
        "psu.get_job_info; psu.set_complete; psu.set_progress; psu.update_job; psu.ClusterID\n"
        "psu.get_job_info(SetID=True)\n"
        "psu.set_progress(0.5, 'half')\n"
        "psu.set_complete()\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    # NumPy is there because a field of this job holds an array; that brings the others in.
    python(
        "import paraschut as psu; job = psu.get_job_info(); del job['array']; psu.update_job(job)",
        env=in_environment,
    )
    said = python(program, env=in_environment).stdout
    assert loaded(said) & DEAR == set()
    assert {"paraschut", "sqlite3"} <= loaded(said)


def test_a_job_that_is_a_shell_script_pays_as_little(python, in_environment):
    python(
        "import paraschut as psu; job = psu.get_job_info(); del job['array']; psu.update_job(job)",
        env=in_environment,
    )
    program = (
        "import sys; before = set(sys.modules)\n"
        "from paraschut.__main__ import main\n"
        "sys.argv = ['paraschut', 'job', 'complete']\n"
        "try: main()\n"
        "except SystemExit as error: assert not error.code, error\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    said = python(program, env=in_environment).stdout.splitlines()[-1]
    assert (
        loaded(said) & {"sqlalchemy", "dataclasses", "logging", "click", "psutil", "cloudpickle", "numpy"}
        == set()
    )


def test_what_a_job_reads_comes_from_its_environment_and_no_configuration(python, in_environment, home):
    (home / "config.toml").write_text("[paraschut]\nthis is broken\n")
    python("import paraschut as psu; psu.get_job_info(SetID=True); psu.set_complete()", env=in_environment)


def test_the_interpreter_that_tests_has_not_hidden_anything():
    assert sys.version_info >= (3, 11)
