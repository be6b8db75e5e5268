"""Templates, scripts, data: what is made for a job before it is added."""

from __future__ import annotations

import datetime as dt
import os
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import BATCH
from values import alike
from verbs import ask

import paraschut as psu
from paraschut import prepare
from paraschut.errors import JobError, NotFoundError, ScriptError, StoreError, TrustError

FIELDS = [
    "BatchID",
    "JobIndex",
    "priority",
    "name",
    "data_type",
    "data",
    "script",
    "queue",
    "resources",
    "state",
]


def job(**fields):
    return {**psu.get_job_template(), "BatchID": BATCH, "JobIndex": 7, **fields}


def write(home, name, text, mode=0o644):
    path = home / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


# --- templates


def test_a_template_has_exactly_the_promised_fields(home):
    template = psu.get_job_template()
    assert list(template) == FIELDS
    assert (template["BatchID"], template["JobIndex"], template["state"]) == (None, None, "init")
    assert not (home / "jobs").exists()


def test_a_template_is_fresh_each_time(home):
    psu.get_job_template()["resources"].clear()
    assert psu.get_job_template()["resources"]


def test_a_template_has_what_the_configuration_adds(home):
    (home / "config.toml").write_text('[paraschut]\n[paraschut.template]\nsubject = "S01"\npriority = 0.5\n')
    template = psu.get_job_template()
    assert (template["subject"], template["priority"]) == ("S01", 0.5)


def test_a_number_is_the_second_and_when_it_is_taken_runs_ahead_of_the_clock(home, monkeypatch):
    now = dt.datetime(2026, 12, 31, 23, 59, 58, tzinfo=dt.UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)
    numbers = [psu.get_job_template(SetID=True)["BatchID"] for _ in range(4)]
    assert numbers == [20261231235958, 20261231235959, 20270101000000, 20270101000001]


def test_numbers_are_unique_even_when_eight_processes_ask_at_once(index):
    program = (
        "import sys, paraschut as psu\nsys.stdin.read()\n"
        "for _ in range(5): print(psu.get_job_template(SetID=True)['BatchID'])"
    )
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for asker in askers:
        asker.stdin.close()
    lines = [line for asker in askers for line in asker.stdout.read().split()]
    assert [asker.wait(60) for asker in askers] == [0] * 8
    for asker in askers:
        asker.stdout.close()
    assert len(set(lines)) == 40
    for line in lines:
        dt.datetime.strptime(line, "%Y%m%d%H%M%S")
    assert ask(index, "SELECT count(*) FROM batch") == [(40,)]


# --- scripts: command lines


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("echo {JobIndex}", "echo 7"),
        ("echo {JobIndex:03d} {priority}", "echo 007 1"),
        ("python x.py --mem {resources[mem]}", "python x.py --mem 1gb"),
        ("echo {name} {BatchID}", f"echo human/genome_map {BATCH}"),
        ("awk '{{print $1}}' {{}}", "awk '{print $1}' {}"),
        ("echo no fields", "echo no fields"),
        ("echo {mine!r}", 'echo "it\'s; mine"'),
        ("echo {data}", "echo None"),
    ],
)
def test_fields_are_filled_in(home, template, filled):
    made = job(script=template, mine="it's; mine")
    assert psu.generate_script(made) is made
    assert made["script"] == filled


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ("echo {subject}", "'subject'"),
        ("awk '{print $1}'", "'print $1'"),
        ("echo ${HOME}", "'HOME'"),
        ("echo {resources[gpus]}", "'gpus'"),
        ("echo {0}", ""),
        ("echo {}", ""),
        ("echo {data[0]}", ""),
        ("echo {data.path}", "path"),
    ],
)
def test_a_field_that_the_job_does_not_have_is_named_with_those_that_it_has(home, template, field):
    made = job(script=template)
    with pytest.raises(
        ScriptError, match=r"which the job does not have\. It has: BatchID, JobIndex, priority"
    ) as caught:
        psu.generate_script(made)
    assert field in str(caught.value)
    assert f"job {BATCH}:7" in str(caught.value)
    assert "{{" in str(caught.value)
    assert made["script"] == template


@pytest.mark.parametrize(
    "template", ["echo {", "echo }", "echo {JobIndex", "echo {JobIndex!x}", "echo {name:>x}"]
)
def test_braces_that_name_no_field_are_explained(home, template):
    with pytest.raises(ScriptError, match=r"has braces that name no field: .*written \{\{ and \}\}"):
        psu.generate_script(job(script=template))


@pytest.mark.parametrize("script", ["train.py", "/no/such/file.sh", "~/missing.sh", "mytool", ""])
def test_a_script_that_does_not_exist_is_said_with_where_it_was_looked_for(home, script):
    # Was (with ~): it is taken for a command line, because of the ~.
    with pytest.raises(ScriptError, match=r"does not exist in .*python train\.py") as caught:
        psu.generate_script(job(script=script))
    assert repr(script) in str(caught.value)
    assert str(home) in str(caught.value)


@pytest.mark.parametrize("script", ["true", "ls", "pwd", "./x.sh; true", "sleep 1", "a=b"])
def test_what_is_a_command_need_not_be_a_file(home, script):
    assert psu.generate_script(job(script=script))["script"] == script


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_any_text_is_a_command_line_or_a_script_error(text):
    made = {"BatchID": 1, "JobIndex": 0, "script": text, "workdir": "/"}
    try:
        psu.generate_script(made)
    except ScriptError:
        return
    assert isinstance(made["script"], str)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_what_is_in_a_field_is_never_taken_for_a_field_itself(value):
    made = {"BatchID": 1, "JobIndex": 0, "script": "echo {value} {{x}}", "value": value, "workdir": "/"}
    assert psu.generate_script(made)["script"] == f"echo {value} {{x}}"


# --- scripts: files


def test_a_template_file_becomes_the_jobs_own_script(home):
    write(home, "my template.sh", "#!/bin/sh\n#SBATCH --mem={resources[mem]}\necho {name}; awk '{{print}}'\n")
    made = psu.generate_script(job(script="my template.sh"))
    path = home / "jobs" / str(BATCH) / "scripts" / "7.sh"
    assert made["script"] == str(path)
    assert path.read_text() == "#!/bin/sh\n#SBATCH --mem=1gb\necho human/genome_map; awk '{print}'\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["7.sh"]


def test_a_template_may_be_given_apart_and_keeps_its_kind(home):
    write(home, "t.py", "print({JobIndex})")
    assert psu.generate_script(job(), home / "t.py")["script"].endswith("/scripts/7.py")
    write(home, "bare", "echo {JobIndex}")
    assert psu.generate_script(job(), "bare")["script"].endswith("/scripts/7")
    assert psu.generate_script(job(), "echo {JobIndex}")["script"] == "echo 7"


def test_a_template_is_looked_for_in_the_folder_of_the_job(home):
    (home / "deep").mkdir()
    write(home / "deep", "t.sh", "echo")
    made = psu.generate_script(job(script="t.sh", workdir=str(home / "deep")))
    assert made["script"].endswith("/scripts/7.sh")


def test_a_file_that_names_an_unknown_field_is_named_and_nothing_is_written(home):
    path = write(home, "t.sh", "echo {nobody}")
    with pytest.raises(ScriptError, match=r"names the field 'nobody'") as caught:
        psu.generate_script(job(script="t.sh"))
    assert str(path) in str(caught.value)
    assert not (home / "jobs").exists()


def test_a_file_that_is_no_text_is_said(home):
    write(home, "t.bin", b"\xff\xfe\x00")
    with pytest.raises(ScriptError, match=r"t\.bin of job .* cannot be read"):
        psu.generate_script(job(script="t.bin"))


@pytest.mark.parametrize("field", ["BatchID", "JobIndex"])
def test_a_script_needs_a_number_for_its_name(home, field):
    write(home, "t.sh", "echo")
    with pytest.raises(ScriptError, match=f"{field} is None. .*set_index=True, build_script=True"):
        psu.generate_script(job(script="t.sh", **{field: None}))


def test_a_script_is_written_again_in_one_step(home):
    write(home, "t.sh", "echo {mine}")
    first = psu.generate_script(job(script="t.sh", mine=1))["script"]
    with open(first) as before:
        psu.generate_script(job(script="t.sh", mine=2))
        assert before.read() == "echo 1"
    with open(first) as after:
        assert after.read() == "echo 2"


def test_a_folder_that_cannot_be_written_is_said(home):
    write(home, "t.sh", "echo")
    # Was: an OSError; only what comes after the making of the folder is turned into an error of the package.
    (home / "jobs").write_text("a file is in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        psu.generate_script(job(script="t.sh"))


# --- data


@pytest.mark.parametrize(
    "data",
    [None, {"x": [1, 2, 3]}, np.arange(5), (1, {2}), lambda: 3],
    ids=["None", "dict", "array", "tuple", "lambda"],
)
def test_data_comes_back_as_it_was(home, data):
    made = job()
    assert psu.generate_data(made, data) is made
    assert made["data"] == str(home / "jobs" / str(BATCH) / "data" / "7.pkl")
    assert stat.S_IMODE(os.stat(made["data"]).st_mode) == 0o600
    again = psu.load_data(made)
    assert again() == 3 if callable(data) else alike(again, data)


def test_data_moves_with_the_index(home):
    made = psu.generate_data(job(), [1, 2])
    (home / "jobs").rename(home / "moved")
    (home / "config.toml").write_text('[paraschut]\njob_dir = "moved"\n')
    assert psu.load_data(made) == [1, 2]


def test_data_that_cannot_be_pickled_is_said_with_a_way_out(home):
    with pytest.raises(
        JobError, match=rf"The data of job {BATCH}:7 cannot be pickled: TypeError.*give the job its path"
    ):
        psu.generate_data(job(), threading.Lock())
    assert not (home / "jobs").exists()


@pytest.mark.parametrize("field", ["BatchID", "JobIndex"])
def test_data_needs_a_number_for_its_name(home, field):
    with pytest.raises(JobError, match=f"{field} is None"):
        psu.generate_data(job(**{field: None}), 1)


def test_data_that_is_not_there_is_said(home):
    with pytest.raises(NotFoundError, match="has no data; generate_data saves it"):
        psu.load_data(job())
    made = psu.generate_data(job(), 1)
    os.unlink(made["data"])
    with pytest.raises(NotFoundError, match=r"The data of job .* is not at .*7\.pkl"):
        psu.load_data(made)


def test_data_that_others_could_have_written_is_not_loaded(home):
    made = psu.generate_data(job(), 1)
    os.chmod(made["data"], 0o622)
    with pytest.raises(TrustError, match=r"7\.pkl can be written by others"):
        psu.load_data(made)


def test_the_name_of_a_number_goes_to_the_next_second():
    assert prepare._next_second(20241231235959) == 20250101000000
    assert prepare._next_second(20240228235959) == 20240229000000
