from __future__ import annotations

import copy
import datetime as dt
import doctest
import enum
import json
import math
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from values import Colour, Point, alike, plain_values, texts, values

from paraschut import checks
from paraschut import job as jobs
from paraschut.checks import check
from paraschut.errors import JobError
from paraschut.job import REMOVED, Job, Origin, pack, shadow, unpack

GOOD = {
    "BatchID": 20260101000000,
    "JobIndex": 7,
    "priority": 0.5,
    "name": ["human", "genome_map"],
    "data_type": "foo",
    "data": None,
    "script": "echo hello",
    "queue": "short",
    "resources": {"mem": "1gb"},
    "state": "init",
}


def as_read(fields, partial=False, **columns):
    """A job as get_job_info gives it, from its own fields."""
    text, extras = pack(fields)
    origin = Origin(1, 0, columns.get("state", "init"), columns.get("priority", 1), text, extras)
    known = unpack(text, None if partial else extras)
    return Job(
        {"BatchID": 1, "JobIndex": 0, "state": origin.state, "priority": origin.priority, **known},
        origin=origin,
        partial=partial,
    )


def refusal(call, *arguments):
    """The words with which a call refuses, or None."""
    try:
        call(*arguments)
    except JobError as error:
        return str(error)
    return None


# --- check


@pytest.mark.parametrize(
    "better",
    [
        {},
        {"BatchID": 0, "JobIndex": 0},
        {"BatchID": np.int64(3), "JobIndex": np.uint8(4)},
        {"priority": np.float32(150)},
        {"priority": -1},
        {"state": "held"},
        {"state": "complete"},
        {"state": "waiting for Anna"},
        {"name": "plain"},
        {"name": ("a", "b")},
        {"name": []},
        {"script": Path("run.sh")},
        {"resources": None},
        {"vars": None},
        {"vars": {"LANG": "C", "_x1": "", "QUOTES": 'it\'s "so"\n$HOME'}},
        {"anything": object},
    ],
    ids=str,
)
def test_a_good_job_is_let_in(better):
    check({**GOOD, **better})


@pytest.mark.parametrize("field", jobs.REQUIRED)
def test_a_job_that_lacks_a_field_hears_which_and_where_all_come_from(field):
    lacking = {key: value for key, value in GOOD.items() if key != field}
    with pytest.raises(JobError, match=rf"lacks the field '{field}'.*get_job_template\(\).*resources, state"):
        check(lacking)


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"BatchID": None}, r"job None:7 has BatchID None; .* whole number .*get_job_template\(SetID=True\)"),
        ({"BatchID": "20260101000000"}, r"BatchID '20260101000000'; it must be a whole number"),
        ({"BatchID": True}, "BatchID True"),
        ({"JobIndex": None}, "job 20260101000000:None has JobIndex None; .*set_index=True numbers the jobs"),
        ({"JobIndex": -1}, "JobIndex -1; .* 0 or more"),
        ({"JobIndex": 1.0}, r"JobIndex 1\.0"),
        ({"JobIndex": 1 << 63}, "JobIndex 9223372036854775808"),
        ({"priority": "1"}, "priority '1'; it must be a finite number such as 1 or 0.5"),
        ({"priority": math.nan}, "priority nan"),
        ({"priority": math.inf}, "priority inf"),
        ({"priority": True}, "priority True"),
        ({"priority": None}, "priority None"),
        ({"priority": 1j}, "priority 1j"),
        ({"state": "run"}, "state 'run'; a job is added in 'init'.* set by submission"),
        ({"state": "submit"}, "state 'submit'"),
        ({"state": "spawn"}, "state 'spawn'"),
        ({"state": ""}, "state ''"),
        ({"state": None}, "state None"),
        ({"name": None}, "name None; it must be a string or a list of strings"),
        ({"name": ["a", 1]}, r"name \['a', 1\]"),
        ({"name": {"a"}}, "name "),
        ({"script": ""}, "script ''; it must be a command line or a file's path"),
        ({"script": " \n"}, "script"),
        ({"script": None}, "script None"),
        ({"script": ["echo", "hello"]}, r"script \['echo', 'hello'\]"),
        ({"resources": "mem=1gb"}, r"resources 'mem=1gb'; they must be a dict such as \{'mem': '1gb'\}"),
        ({"resources": 5}, "resources 5"),
        ({"vars": "A=1"}, "vars 'A=1'; they must be a dict of names and strings"),
        ({"vars": {"1A": "x"}}, "a variable named '1A'; names are letters, digits and '_'"),
        ({"vars": {"A B": "x"}}, "a variable named 'A B'"),
        ({"vars": {"A=B": "x"}}, "a variable named 'A=B'"),
        ({"vars": {"\u00e9": "x"}}, "a variable named '\u00e9'"),
        ({"vars": {3: "x"}}, "a variable named 3"),
        ({"vars": {"A": 1}}, r"the variable A = 1; values are strings without NUL: write str\(value\)"),
        ({"state": np.zeros(0)}, "has state array"),
        ({"vars": {"A": None}}, "the variable A = None"),
        ({"vars": {"A": "x\0y"}}, "the variable A = 'x"),
    ],
    ids=str,
)
def test_a_wrong_job_is_sent_back_with_its_name_and_what_is_valid(worse, words):
    with pytest.raises(JobError, match=words) as caught:
        check({**GOOD, **worse})
    assert str(caught.value).startswith("job ")


@given(st.dictionaries(st.sampled_from([*GOOD, "vars", "workdir", "complete_on_exit"]), values))
def test_whatever_a_job_holds_check_answers_or_says_what_is_wrong(given_fields):
    words = refusal(check, {**GOOD, **given_fields})
    assert words is None or words.endswith(".")


# --- keeping values


@given(st.dictionaries(texts, values, max_size=4))
def test_every_value_comes_back_equal_and_of_the_same_type(fields):
    assert alike(unpack(*pack(fields)), fields)


def test_a_number_of_thousands_of_digits_is_kept_or_refused_with_its_name():
    # Was: ValueError of Python's own limit (4300 digits) instead of a JobError, or of keeping it pickled.
    words = refusal(pack, {"huge": 10**5000})
    assert "huge" in words if words else unpack(*pack({"huge": 10**5000})) == {"huge": 10**5000}


def test_two_halves_of_a_character_are_not_joined():
    # Was: JSON makes one character of a high and a low surrogate, so the text that comes back is another.
    assert alike(unpack(*pack({"half": "\ud800\udc00"})), {"half": "\ud800\udc00"})


@given(st.dictionaries(texts, values, max_size=4))
def test_the_shadow_is_strict_json_and_text_that_a_file_can_hold(fields):
    text, _ = pack(fields)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    shadows = json.loads(text, parse_constant=refuse)
    assert list(shadows) == list(fields)
    text.encode()


@given(st.dictionaries(texts, plain_values, max_size=4))
def test_plain_values_need_no_pickle(fields):
    text, extras = pack(fields)
    assert extras is None
    assert alike(json.loads(text), fields)


@given(values, values)
def test_what_json_cannot_hold_is_pickled_field_by_field(one, other):
    _, extras = pack({"one": one, "other": other})
    odd = pickle.loads(extras) if extras is not None else {}
    assert set(odd) == {name for name, value in (("one", one), ("other", other)) if not jobs.plain(value)}


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (range(3), [0, 1, 2]),
        (range(10**9), None),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(3), [0, 1, 2]),
        (np.arange(1000), None),
        (np.array([[1.5, np.nan]]), [[1.5, None]]),
        (math.nan, None),
        (math.inf, None),
        ([1, math.nan], [1, None]),
        (Path("a/b"), "a/b"),
        (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ({1: "one", "two": (2,)}, {"1": "one", "two": [2]}),
        (Colour.BLUE, 2),
        (Point(1, 2), [1, 2]),
        (object(), None),
        (b"bytes", None),
        (len, None),
    ],
    ids=repr,
)
def test_the_shadow_is_what_a_filter_would_expect(value, seen):
    assert alike(shadow(value), seen)


def test_the_shadow_of_a_word_of_an_enumeration_is_the_word():
    # Was: str(value) of a member is "Mood.HAPPY"; json, and a user with a Filter, see "happy".
    class Mood(str, enum.Enum):  # noqa: UP042 - most such enumerations are older than StrEnum
        HAPPY = "happy"

    assert shadow(Mood.HAPPY) == "happy"


def test_functions_and_classes_of_a_notebook_are_kept():
    factor = 3

    class Model:
        def score(self, x):
            return factor * x

    kept = unpack(*pack({"call": lambda x: x + factor, "model": Model()}))
    assert kept["call"](1) == 4
    assert kept["model"].score(2) == 6


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (n for n in range(3)), sys._getframe()],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_pickled_is_named_with_a_way_out(value):
    with pytest.raises(
        JobError, match=r"The field 'mine' cannot be kept: TypeError: .*a path, the arguments"
    ):
        pack({"mine": {"deep": [value]}})


def test_a_value_that_contains_itself_is_refused():
    knot = {}
    knot["knot"] = knot
    with pytest.raises(JobError, match="contains itself"):
        pack({"mine": knot})


def test_a_field_whose_name_is_no_string_is_refused():
    with pytest.raises(JobError, match="a field named 3; names of fields are strings"):
        pack({3: 1})


@settings(max_examples=50)
@given(st.integers(1, 3000))
@example(900)
@example(2000)
def test_what_is_nested_too_deeply_is_refused_and_all_else_can_be_read_again(depth):
    nest = []
    for _ in range(depth):
        nest = [nest]
    words = refusal(pack, {"nest": nest})
    assert words is None or "nested too deeply" in words
    if words is None:
        again = unpack(*pack({"nest": nest}))["nest"]
        while again:
            (again,) = again
            depth -= 1
        assert depth == 0


@given(st.dictionaries(texts, values, max_size=3), st.dictionaries(texts, values, max_size=3), st.data())
def test_merging_changes_what_was_changed_and_nothing_else(before, changed, data):
    removed = data.draw(st.sets(st.sampled_from(sorted(before)))) if before else set()
    removed -= set(changed)
    text, extras = pack(before)
    merged = jobs.merge(text, extras, {**changed, **dict.fromkeys(removed, REMOVED)})
    expected = {key: value for key, value in {**before, **changed}.items() if key not in removed}
    found = unpack(*merged)
    assert set(found) == set(expected)
    assert all(alike(found[key], expected[key]) for key in expected)
    kept, was = jobs.split(*merged), jobs.split(text, extras)
    for untouched in set(before) - set(changed) - removed:
        assert kept[untouched] == was[untouched]


def test_merging_keeps_the_pickles_of_what_was_not_touched_byte_by_byte():
    text, extras = pack({"odd": {1, 2}, "even": 2})
    merged, more = jobs.merge(text, extras, {"even": 4})
    assert pickle.loads(more)["odd"] == pickle.loads(extras)["odd"]
    assert json.loads(merged) == {"odd": [1, 2], "even": 4}


# --- the memory of a job


@given(st.dictionaries(texts.filter(lambda name: name not in jobs._NOT_METADATA), values, max_size=4))
@example({"tags": {"anna", "ben", "carl", "dora", "emil"}})
@example({"part": np.arange(12)[::2]})
@example({"twice": ("spam eggs", "spam " + "eggs")})
def test_a_job_that_was_only_read_has_no_changes(fields):
    # Was: fields are compared as pickles, and the pickle of what was loaded may differ from what it was loaded from.
    assert jobs.changes(as_read(fields)) == {}


def test_a_set_that_was_only_read_is_no_change_in_another_process_either(python):
    # Was: the order of a set, and with it its pickle, is another in each process (hash randomisation).
    text, extras = pack({"tags": {"anna", "ben", "carl", "dora", "emil"}})
    read_and_compare = (
        f"from paraschut import job; o = job.Origin(1, 0, 'init', 1, {text!r}, {extras!r});"
        "print(job.changes(job.Job({'BatchID': 1, 'JobIndex': 0, **job.unpack(o.metadata, o.extras)}, origin=o)))"
    )
    found = {python(read_and_compare, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in range(3)}
    assert found == {"{}\n"}


@given(
    st.dictionaries(st.sampled_from("abcd"), values, max_size=4),
    st.dictionaries(st.sampled_from("abcd"), values, max_size=4),
)
def test_changes_are_what_makes_one_from_the_other(before, after):
    job = as_read(before)
    for field in set(before) - set(after):
        del job[field]
    job.update(after)
    changed = jobs.changes(job)
    assert {field for field, value in changed.items() if value is REMOVED} == set(before) - set(after)
    for field, value in after.items():
        if field not in before or not alike(before[field], value):
            assert field in changed
    merged = unpack(*jobs.merge(job.origin.metadata, job.origin.extras, changed))
    assert set(merged) == set(after)
    assert all(alike(merged[field], after[field]) for field in after)


@given(values, values)
def test_a_value_replaced_by_an_equal_one_of_another_type_is_a_change(one, other):
    assume(not alike(one, other))
    job = as_read({"mine": one})
    job["mine"] = other
    assert "mine" in jobs.changes(job)


def test_a_value_changed_in_place_is_a_change():
    job = as_read({"list": [1, 2], "array": np.zeros(3), "resources": {"mem": "1gb"}})
    job["array"][1] = 5
    assert list(jobs.changes(job)) == ["array"]
    job["resources"]["mem"] = "2gb"
    assert set(jobs.changes(job)) == {"array", "resources"}


def test_state_and_priority_are_changes_too():
    job = as_read({"a": 1}, priority=2)
    job["state"], job["priority"] = "held", 3
    assert jobs.changes(job) == {"state": "held", "priority": 3}


def test_what_is_filled_in_when_reading_is_never_a_change():
    job = as_read({"a": 1})
    job.update(ClusterID=["x.0"], hostname=["here"], stdout=["f"], progress=0.5, failure="vanished", qstat={})
    assert jobs.changes(job) == {}


def test_a_partial_job_leaves_alone_what_it_does_not_have():
    job = as_read({"odd": {1, 2}, "even": 2}, partial=True)
    assert job["odd"] == [1, 2]
    assert jobs.changes(job) == {}
    job["even"] = 4
    assert jobs.changes(job) == {"even": 4}
    job.pop("odd")
    assert jobs.changes(job) == {"even": 4}


@pytest.mark.parametrize(
    "through", [copy.copy, copy.deepcopy, Job.copy, lambda job: pickle.loads(pickle.dumps(job))]
)
def test_a_copy_of_a_job_remembers_the_same(through):
    job = as_read({"a": [1], "odd": (1,)}, partial=True)
    other = through(job)
    assert type(other) is Job
    assert (other, other.origin, other.partial) == (job, job.origin, True)
    other["a"] = [2]
    assert jobs.changes(other) == {"a": [2]}
    assert jobs.changes(job) == {}


def test_a_dict_made_by_hand_is_all_changes():
    job = Job({"BatchID": 1, "JobIndex": 0, "a": 1})
    assert job.origin is None
    assert jobs.changes(job) == {"BatchID": 1, "JobIndex": 0, "a": 1}


def test_a_job_that_was_given_another_number_has_no_memory_of_that_one():
    job = as_read({"a": 1})
    job["JobIndex"] = 5
    assert jobs.changes(job)["a"] == 1


# --- small things


def test_names_are_joined():
    assert jobs.joined_name("a") == "a"
    assert jobs.joined_name(["a", "b"]) == jobs.joined_name(("a", "b")) == "a/b"
    assert jobs.joined_name([]) == ""


@given(st.one_of(values, st.floats(), st.integers()))
def test_a_number_is_a_number_and_can_be_kept(value):
    if checks.is_number(value):
        assert type(checks.plain_number(value)) in {int, float}
        assert math.isclose(checks.plain_number(value), value)


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(jobs).failed == 0
