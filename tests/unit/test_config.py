from __future__ import annotations

import dataclasses
import doctest
import errno
import os
import pickle
import tomllib
from pathlib import Path

import pytest

import paraschut.config
from paraschut.config import ENVIRONMENT, Config, find_config, load_config, parse_config, write_config
from paraschut.config_rules import RULES
from paraschut.errors import ConfigError

ROOT = Path(__file__).parents[2]
SOURCE = Path("/data/project/config.toml")
TEMPLATE = {
    "priority": 1,
    "name": ["human", "genome_map"],
    "data_type": "foo",
    "data": None,
    "script": "my_template_script.sh",
    "queue": "tamirs3",
    "resources": {"cput": "04:59:00", "mem": "1gb", "pmem": "1gb", "pvmem": "3gb", "vmem": "3gb"},
    "state": "init",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without settings, so that those of whoever runs the tests do not matter."""
    for name, folder in (("HOME", ""), ("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", ".local/share")):
        monkeypatch.setenv(name, str(tmp_path / "home" / folder))
    for name in ("PARASCHUT_CONFIG", "PARASCHUT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a b'; echo c"
    (folder / "deep" / "down").mkdir(parents=True)
    return folder


def put(folder, text="[paraschut]\n"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.toml"
    path.write_text(text, "utf-8")
    return path


def parse(body):
    return parse_config(f"[paraschut]\n{body}\n", SOURCE)


# --- the defaults


def test_without_a_file_everything_works_on_this_machine(home, project):
    config = load_config(start=project)
    assert config == Config()
    assert config.source is None
    assert config.job_dir == home / ".local/share/paraschut/jobs"
    assert config.index == config.job_dir / "index.db"
    assert (config.executor, config.executor_name, config.max_jobs) == ("local", "local", 1000)
    assert config.template == TEMPLATE
    assert list(config.template) == list(TEMPLATE)


def test_settings_cannot_be_changed_and_can_be_pickled_and_hashed():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.executor = "slurm"
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(Config())


def test_a_new_job_is_a_copy_of_the_template():
    config = Config()
    config.fresh_template()["resources"].clear()
    assert config.fresh_template() == TEMPLATE
    assert Config().template is not config.template


def test_each_job_has_its_own_temporary_folder_and_cards():
    assert not {"TMPDIR", "CUDA_VISIBLE_DEVICES", "CUDA*", "SLURM*"} & set(ENVIRONMENT)


def test_local_run_turns_the_machine_into_the_cluster():
    assert parse('executor = "slurm"').executor_name == "slurm"
    assert parse('executor = "slurm"\nlocal_run = true').executor_name == "local"


# --- the example


def test_the_example_in_the_repository_is_what_init_writes(tmp_path):
    written = write_config(tmp_path / "config.toml").read_bytes()
    assert written == (ROOT / "config.toml").read_bytes()


def test_the_example_is_the_defaults():
    text = (ROOT / "config.toml").read_text("utf-8")
    assert parse_config(text, SOURCE) == parse("")
    assert parse_config(text, SOURCE).job_dir == SOURCE.parent / "jobs"


def test_the_example_shows_every_setting_with_its_default_and_a_comment():
    lines = (ROOT / "config.toml").read_text("utf-8").splitlines()
    # A setting is commented out as "#key", a sentence as "# words".
    bare = [
        line[1:] if (line[:1] == "#" and line[1:2] not in ("", " ")) or line[:3] == "#  " else line
        for line in lines
    ]
    table = tomllib.loads("\n".join(bare))["paraschut"]
    assert list(table) == [*RULES, "template"]
    assert set(table) == {field.name for field in dataclasses.fields(Config)} - {"source", "index"}
    assert dataclasses.replace(parse_config("\n".join(bare), SOURCE), grace=None) == parse("")
    for number, line in enumerate(bare):
        if line.split(" = ")[0] in RULES:
            assert lines[number - 1].startswith("# "), line
    assert {**table["template"], "data": None} == TEMPLATE


# --- reading


def test_all_settings_are_read():
    config = parse(
        """
        job_dir = "../elsewhere"
        executor = "my_cluster"
        local_run = false
        max_jobs = 5
        max_workers = 2
        cpus = 3
        mem = "16gb"
        environment = ["PATH", "MY_*"]
        trusted_users = ["alice"]
        journal_mode = "delete"
        lock_timeout = 5
        command_timeout = 0.5
        grace = 0
        [paraschut.template]
        priority = 0.5
        queue = "short"
        resources = { mem = "2gb" }
        subject = "S01"
        [somebody.else]
        key = 1
        """
    )
    assert config == Config(
        source=SOURCE,
        job_dir=Path("/data/project/../elsewhere"),
        executor="my_cluster",
        max_jobs=5,
        max_workers=2,
        cpus=3,
        mem=16 * 1024**3,
        environment=("PATH", "MY_*"),
        trusted_users=("alice",),
        journal_mode="delete",
        lock_timeout=5.0,
        command_timeout=0.5,
        grace=0.0,
        template={
            **TEMPLATE,
            "priority": 0.5,
            "queue": "short",
            "resources": {"mem": "2gb"},
            "subject": "S01",
        },
    )
    assert type(config.lock_timeout) is float
    assert type(config.grace) is float


def test_paths_are_relative_to_the_file():
    assert parse("").index == Path("/data/project/jobs/index.db")
    assert parse('job_dir = "x"').index == Path("/data/project/x/index.db")


def test_a_path_may_begin_at_home(home):
    assert parse('job_dir = "~/jobs"').job_dir == home / "jobs"


def test_sizes_may_be_numbers():
    assert parse("mem = 1024").mem == 1024


# --- finding


def test_the_nearest_file_holds(project):
    outer, inner = put(project), project / "deep" / "down"
    assert find_config(inner, {}) == outer
    nearer = put(project / "deep")
    assert find_config(inner, {}) == nearer
    assert load_config(start=inner, environ={}).job_dir == project / "deep" / "jobs"


def test_the_search_begins_in_the_current_folder(project, monkeypatch):
    ours = put(project)
    monkeypatch.chdir(project / "deep")
    assert find_config() == ours
    assert load_config().source == ours


@pytest.mark.parametrize("foreign", ["[other]\nkey = 1", "this = = is broken", "paraschut = 3", ""])
def test_files_of_others_are_skipped(project, foreign):
    ours = put(project)
    put(project / "deep", foreign)
    assert find_config(project / "deep", {}) == ours


def test_folders_pipes_and_other_encodings_of_that_name_are_skipped(project):
    ours = put(project)
    os.mkfifo(project / "deep" / "config.toml")
    (project / "deep" / "down" / "config.toml").mkdir()
    assert find_config(project / "deep" / "down", {}) == ours
    (project / "deep" / "config.toml").unlink()
    (project / "deep" / "config.toml").write_bytes(b"\xff\xfe\x00 key")
    assert find_config(project / "deep", {}) == ours


def test_a_broken_file_of_ours_is_an_error_and_not_skipped(project):
    put(project)
    broken = put(project / "deep", "[paraschut]\nmem = = 2\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        load_config(start=project / "deep", environ={})
    assert str(broken) in str(caught.value)


def test_the_environment_names_the_file(project):
    put(project)
    named = put(project / "deep" / "down")
    assert find_config(project, {"PARASCHUT_CONFIG": str(named)}) == named
    assert find_config(project, {"PARASCHUT_CONFIG": ""}) == project / "config.toml"


@pytest.mark.parametrize("name", ["missing.toml", "deep"])
def test_a_missing_file_in_the_environment_is_an_error(project, name):
    with pytest.raises(ConfigError, match=r"PARASCHUT_CONFIG names .*, which is not a file"):
        load_config(environ={"PARASCHUT_CONFIG": str(project / name)})


def test_a_missing_file_is_an_error(project):
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: No such file"):
        load_config(project / "config.toml")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_server_that_stumbles_does_not_make_us_use_other_settings(project, home, monkeypatch, number):
    def stumble(self, **_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", stumble)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_config(project, {})


def test_a_folder_above_that_may_not_be_read_is_skipped(project, monkeypatch):
    ours, closed, look = put(project), put(project / "deep"), Path.stat

    def refuse(self, **options):
        if self == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert find_config(project / "deep", {}) == ours


def test_a_file_that_is_not_text_is_an_error(project):
    path = project / "config.toml"
    path.write_bytes(b"[paraschut]\nexecutor = '\xe9'\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(start=project)


def test_the_mark_that_some_editors_put_first_is_fine(project):
    path = put(project, "\ufeff[paraschut]\ncpus = 2\n")
    assert load_config(path).cpus == load_config(start=project).cpus == 2


def test_the_users_own_file_comes_last_and_keeps_jobs_out_of_its_folder(home, project):
    own = put(home / ".config" / "paraschut", '[paraschut]\nexecutor = "slurm"\n')
    config = load_config(start=project)
    assert (config.source, config.executor) == (own, "slurm")
    assert config.job_dir == home / ".local/share/paraschut/jobs"
    nearer = put(project)
    assert find_config(project) == nearer


def test_a_current_folder_that_was_removed_is_said(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current folder no longer exists"):
        find_config()


def test_a_job_has_the_index_that_it_is_of(project):
    path = put(project, '[paraschut]\njob_dir = "x"\ncpus = 2\n')
    config = load_config(path, environ={"PARASCHUT_INDEX": "/data/jobs/other.db"})
    assert (config.index, config.job_dir) == (Path("/data/jobs/other.db"), Path("/data/jobs"))
    assert config.cpus == 2
    assert load_config(start=project.parent, environ={"PARASCHUT_INDEX": "/d/i.db"}).job_dir == Path("/d")
    assert load_config(path, environ={"PARASCHUT_INDEX": ""}).index == project / "x" / "index.db"


def test_a_file_that_others_can_write_cannot_say_whom_to_trust(project):
    path = put(project, '[paraschut]\ntrusted_users = ["mallory"]\n')
    assert load_config(start=project, environ={}).trusted_users == ("mallory",)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others can write this file"):
        load_config(start=project, environ={})
    # Naming it is knowing it.
    assert load_config(start=project, environ={"PARASCHUT_CONFIG": str(path)}).trusted_users == ("mallory",)
    assert load_config(path, environ={}).trusted_users == ("mallory",)


# --- writing


def test_the_example_is_written_to_a_folder_or_a_new_one(tmp_path):
    assert write_config(tmp_path) == tmp_path / "config.toml"
    new = write_config(tmp_path / "new" / "config.toml")
    assert load_config(new).job_dir == tmp_path / "new" / "jobs"


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    mine = put(tmp_path, "mine")
    for path in (tmp_path, mine):
        with pytest.raises(ConfigError, match=r"config\.toml exists already and is left as it is"):
            write_config(path)
    assert mine.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file exists already"):
        write_config(tmp_path / "file" / "config.toml")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        write_config(tmp_path / "file" / "x" / "config.toml")


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(paraschut.config).failed == 0
