from __future__ import annotations

from pathlib import Path

import pytest

from paraschut.config import parse_config
from paraschut.config_rules import FIELDS, RULES
from paraschut.errors import ConfigError

SOURCE = Path("/data/project/config.toml")


def parse(body):
    return parse_config(f"[paraschut]\n{body}\n", SOURCE)


def refusal(body):
    with pytest.raises(ConfigError) as caught:
        parse(body)
    return str(caught.value)


def test_every_example_of_a_rule_is_valid():
    for key, rule in RULES.items():
        parse(f"{key} = {rule.example}")
    for key, rule in FIELDS.items():
        parse(f"template = {{ {key} = {rule.example} }}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("local_run = 1", "true or false, without quotes"),
        ('local_run = "true"', "true or false, without quotes"),
        ("max_jobs = 0", "a whole number of 1 or more"),
        ("max_jobs = true", "a whole number of 1 or more"),
        ("max_jobs = 1.5", "a whole number of 1 or more"),
        ('max_workers = "four"', "a whole number of 0 or more"),
        ("cpus = -1", "a whole number of 0 or more"),
        ("cpus = 99999999999999999999", "a whole number of 0 or more"),
        ('mem = "lots"', "a size with its unit"),
        ("mem = true", "a size with its unit"),
        ("mem = -1", "a size with its unit"),
        ('executor = ""', "the name of an executor"),
        ('executor = "  "', "the name of an executor"),
        ("executor = 3", "the name of an executor"),
        ('job_dir = ""', "a path"),
        (
            'job_dir = "$SCRATCH/jobs"',
            "a path: absolute, relative to this file, or beginning with ~ (variables",
        ),
        ('environment = "PATH"', "a list of names of variables"),
        ('environment = ["*"]', "a list of names of variables"),
        ('environment = ["A*B"]', "a list of names of variables"),
        ("trusted_users = [1]", "a list of names of users"),
        ('journal_mode = "WAL"', '"auto", "wal" or "delete"'),
        ("journal_mode = []", '"auto", "wal" or "delete"'),
        ("lock_timeout = -1", "a number of seconds, 0 or more"),
        ("lock_timeout = nan", "a number of seconds, 0 or more"),
        ("lock_timeout = inf", "a number of seconds, 0 or more"),
        ("lock_timeout = false", "a number of seconds, 0 or more"),
        ('lock_timeout = "60"', "a number of seconds, 0 or more"),
        ("command_timeout = 0", "a number of seconds above 0"),
        ("grace = -0.1", "a number of seconds, 0 or more"),
        ("grace = 2020-01-01", "a number of seconds, 0 or more"),
        (f"grace = 1{'0' * 400}", "a number of seconds, 0 or more"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_key_and_an_example(line, expected):
    key = line.split(" = ")[0]
    message = refusal(f"# a comment: {key} =\n\n{line}")
    assert message.startswith(f"{SOURCE}, line 4: {key} = ")
    assert f"It must be {expected}" in message
    assert message.endswith(f"for example: {key} = {RULES[key].example}")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("max_job = 5", "Did you mean max_jobs?"),
        ("Executor = 'slurm'", "Did you mean executor?"),
        ("local-run = true", "Did you mean local_run?"),
        ("queue = 'short'", "put it below [paraschut.template]"),
        ("zzz = 1", "there is no setting 'zzz'. Valid are:"),
        ("source = 'x'", "there is no setting 'source'"),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(line, hint):
    message = refusal(line)
    assert message.startswith(f"{SOURCE}, line 2: there is no setting")
    assert hint in message
    assert all(key in message for key in (*RULES, "template"))


def test_an_unknown_table_is_refused():
    assert "line 2: there is no setting 'templates'. Did you mean template?" in refusal(
        "[paraschut.templates]"
    )


@pytest.mark.parametrize("key", ["BatchID", "JobIndex"])
def test_the_template_cannot_number_jobs(key):
    assert f"line 3: {key} is each job's own" in refusal(f"[paraschut.template]\n{key} = 1")


@pytest.mark.parametrize(
    "line",
    [
        "priority = 'high'",
        "priority = true",
        "priority = nan",
        "name = 5",
        "name = ['a', 1]",
        "data_type = 1",
        "script = ''",
        "queue = []",
        "resources = '-l mem=1gb'",
        "state = ''",
        "state = 'run'",
    ],
)
def test_a_wrong_field_of_the_template_is_refused(line):
    key = line.split(" = ")[0]
    message = refusal(f"[paraschut.template]\n{line}")
    assert message.startswith(f"{SOURCE}, line 3: {key} = ")
    assert message.endswith(FIELDS[key].example)


def test_a_wrong_resource_says_which():
    message = refusal("[paraschut.template]\n[paraschut.template.resources]\ncpus = 0")
    assert "line 3: resources = " in message
    assert "(resources has cpus = 0; it must be a whole number of 1 or more" in message


def test_a_template_that_is_not_a_table_is_refused():
    assert "line 2: template = 3 is not valid" in refusal("template = 3")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[paraschut]\n'max_jobs' = 0", ", line 2: "),
        ('[ paraschut ]\nmax_jobs=0 # [x]\n"cpus" = 1', ", line 2: "),
        ("paraschut.max_jobs = 0", ", line 1: "),
        ("[other]\nmax_jobs = 9\n[paraschut]\nmax_jobs = 0", ", line 4: "),
        ("[paraschut]\r\n\r\nmax_jobs = 0\r\n", ", line 3: "),
        ("paraschut = { max_jobs = 0 }", ": "),  # no line is better than a wrong one
    ],
)
def test_the_line_is_found_however_the_key_is_written(text, place):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, SOURCE)
    assert str(caught.value).startswith(f"{SOURCE}{place}max_jobs = 0 is not valid")


def test_broken_toml_is_refused_with_its_line():
    assert "line 3" in refusal("cpus = 1\nmem = = 2")
    assert "not valid TOML" in refusal(f"cpus = {'9' * 5000}")


@pytest.mark.parametrize("text", ["", "max_jobs = 5", "paraschut = 3", "[[paraschut]]"])
def test_a_file_without_our_table_is_refused_when_it_is_asked_for(text):
    with pytest.raises(ConfigError, match=r"Put a line \[paraschut\] above"):
        parse_config(text, SOURCE)
