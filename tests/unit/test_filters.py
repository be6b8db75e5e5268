"""What a Filter finds, and what it says when it is not one."""

import json

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from paraschut.errors import FilterError, ParaschutError
from paraschut.store.filter_text import MAX_DEPTH
from paraschut.store.filters import compile_filter, unknown_fields
from paraschut.store.schema import batch, job, metadata

YANG, INGOLIA = 20200101000000, 20210215101010
BATCHES = {YANG: "Yang_2015", INGOLIA: "Ingolia_2009/rep1"}
# By JobIndex, which is unique here, so that a test can name the jobs that it expects.
JOBS = {
    1: {
        "BatchID": YANG,
        "state": "complete",
        "priority": 1,
        "metadata": {
            "data_type": "ribo",
            "size": 5,
            "done": True,
            "odd name": "x",
            "resources": {"mem": "4gb", "cpus": 2},
            "tags": ["a", "b"],
        },
    },
    2: {
        "BatchID": YANG,
        "state": "run",
        "priority": 0.5,
        "name": "Yang_2015/tail",
        "progress": 0.25,
        "progress_message": "halfway of half",
        "metadata": {"data_type": "rna", "size": 50, "done": False, "as_text": "50"},
    },
    3: {
        "BatchID": INGOLIA,
        "state": "init",
        "priority": 1,
        "metadata": {
            "data_type": "ribo",
            "size": 7.5,
            "resources": {"mem": "8gb", "cpus": 16, "deep": {"er": 1}},
        },
    },
    4: {
        "BatchID": INGOLIA,
        "state": "submit",
        "priority": 150,
        "attempt": 2,
        "failure": "vanished",
        "metadata": {"data_type": "RIBO", "size": 2**63 - 1, "größe": "Ä"},
    },
    5: {
        "BatchID": INGOLIA,
        "state": "held",
        "priority": -1,
        "metadata": {
            "size": None,
            "quote": 'it"s',
            "percent": "50%",
            "word": "under_score",
            "order": "first",
        },
    },
}
ALL = set(JOBS)


@pytest.fixture(scope="module")
def index():
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        for batch_id, name in BATCHES.items():
            connection.execute(sa.insert(batch).values(BatchID=batch_id, name=name, created=0))
        for number, fields in JOBS.items():
            row = fields | {"metadata": json.dumps(fields["metadata"], ensure_ascii=False)}
            connection.execute(sa.insert(job).values(JobIndex=number, **row))
        yield connection
    engine.dispose()


@pytest.fixture
def find(index):
    def find(text):
        chosen = sa.select(job.c.JobIndex).join(batch, batch.c.BatchID == job.c.BatchID)
        return set(index.scalars(chosen.where(compile_filter(text))))

    return find


def refusal(marked):
    """Compile a Filter in which ▲ stands before the spot; return what is wrong and what is valid."""
    text, start = marked.replace("▲", ""), marked.index("▲")
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    what, shown, caret, valid = str(caught.value).split("\n")
    assert shown == f"  {text}"
    assert caret == f"  {' ' * start}^"
    return what, valid


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_no_filter_means_all_jobs(text):
    assert compile_filter(text) is None


def test_the_example_of_the_manual(find):
    assert find('name LIKE "%Ingolia_2009%" AND BatchID > 20210101000000 AND data_type=="ribo"') == {3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('state = "run"', {2}),
        ("state == 'run'", {2}),
        ('state != "run"', ALL - {2}),
        ('state <> "run"', ALL - {2}),
        (f"BatchID = {YANG}", {1, 2}),
        (f'BatchID = "{YANG}"', {1, 2}),
        ("JobIndex >= 4", {4, 5}),
        ("priority > 0.5", {1, 3, 4}),
        ("priority = 1", {1, 3}),
        ("priority < -.5", {5}),
        ("attempt = 2", {4}),
        ("progress = 25e-2", {2}),
        ('progress_message LIKE "HALF%"', {2}),
        ("failure IS NOT NULL", {4}),
        ("failure NOT NULL", {4}),
        ("failure NOTNULL", {4}),
        ("failure ISNULL", ALL - {4}),
        ("NOT failure IS NULL", {4}),
        ("batchid > 20210101000000", {3, 4, 5}),
        ('STATE = "run" OR [jobindex] = 1', {1, 2}),
        ('Data_Type = "rna"', {2}),
    ],
)
def test_columns(find, text, expected):
    assert find(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "Yang_2015"', {1}),
        ('name = "Yang_2015/tail"', {2}),
        ('NAME LIKE "yang%"', {1, 2}),
        ('name GLOB "yang*"', set()),
        ('name GLOB "*/rep[0-9]"', {3, 4, 5}),
        ('name NOT LIKE "Yang%"', {3, 4, 5}),
        ('name LIKE "%g%2015%" ESCAPE "g"', set()),
        ('word LIKE "under\\_%" ESCAPE "\\"', {5}),
        ('word NOT LIKE "under\\%" ESCAPE "\\"', {5}),
        ("percent LIKE \"50!%\" ESCAPE '!'", {5}),
    ],
)
def test_names_and_patterns(find, text, expected):
    assert find(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size = 5", {1}),
        ('size = "5"', set()),
        ("size > 6 AND size < 8", {3}),
        ("size = 9223372036854775807", {4}),
        ("size > 9223372036854775807", set()),
        ("size < 99999999999999999999", {1, 2, 3, 4}),
        ("size > -9223372036854775808", {1, 2, 3, 4}),
        ("size IS NULL", {5}),
        ("size = NULL", set()),
        ("missing IS NULL", ALL),
        ("done = TRUE", {1}),
        ("done = false", {2}),
        ("done IS TRUE", {1}),
        ("done IS NOT TRUE", ALL - {1}),
        ("done IS 0", {2}),
        ("size IS NOT 5", ALL - {1}),
        ('data_type COLLATE NOCASE = "ribo"', {1, 3, 4}),
        ('"odd name" = "x"', {1}),
        ("[odd name] = 'x'", {1}),
        ("`odd name` = 'x'", {1}),
        ('order = "first"', {5}),
        (
            "show IS NULL AND analyze IS NULL AND date IS NULL AND current_time IS NULL AND interval IS NULL",
            ALL,
        ),
        ('größe = "Ä"', {4}),
        ('resources.mem = "4gb"', {1}),
        ('resources."mem" = "4gb"', {1}),
        ("resources.deep.er = 1", {3}),
        ("resources . cpus > 2", {3}),
        ('json_extract(resources, "$.deep.er") = 1', {3}),
        ("json_extract(tags, '$[1]') = 'b'", {1}),
        ('tags LIKE "%b%"', {1}),
        ("size = as_text", set()),
        ("size = CAST(as_text AS INTEGER)", {2}),
    ],
)
def test_fields_of_the_user(find, text, expected):
    assert find(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('quote = "it""s"', {5}),
        ("quote = 'it\"s'", {5}),
        ('data_type = "state"', set()),
        ('data_type IN ("ribo", "state")', {1, 3}),
        ('data_type BETWEEN "rib" AND "rico"', {1, 3}),
        ('"data_type" = "ribo"', {1, 3}),
        ('"data_type" IN ("ribo")', {1, 3}),
        ('"state" LIKE "state"', set()),
        ('data_type = lower("RIBO")', {1, 3}),
        ('data_type = ("ri" || "bo")', {1, 3}),
        ('lower("data_type") = "ribo"', {1, 3, 4}),
        ('replace(name, "name", "state") = name', ALL),
        ('coalesce(data_type, "name") = "name"', {5}),
        ('state || "/" || data_type = "run/rna"', {2}),
        ('CASE state WHEN "run" THEN "name" ELSE "state" END = "name"', {2}),
        ('CASE WHEN "state" = "run" THEN "name" END = "name"', {2}),
    ],
)
def test_double_quotes_are_a_field_only_where_a_comparison_begins(find, text, expected):
    assert find(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("JobIndex = 1 OR JobIndex = 2 AND state = 'init'", {1}),
        ("(JobIndex = 1 OR JobIndex = 2) AND state = 'run'", {2}),
        ("NOT JobIndex = 1 AND NOT (JobIndex = 2 OR JobIndex = 3)", {4, 5}),
        ("NOT NOT JobIndex = 1", {1}),
        ("JobIndex IN (1, 2, NULL)", {1, 2}),
        ("JobIndex NOT IN (1, 2)", {3, 4, 5}),
        ("JobIndex IN ()", set()),
        ("JobIndex NOT IN ()", ALL),
        ("JobIndex BETWEEN 2 AND 3 AND priority = 1", {3}),
        ("JobIndex NOT BETWEEN 2 AND 4", {1, 5}),
        ("1", ALL),
        ("TRUE", ALL),
        ("NOT 0", ALL),
        ("FALSE OR JobIndex = 1", {1}),
        ("1 = 1", ALL),
        ("JobIndex - 1 - 1 = 1", {3}),
        ("JobIndex - (2 - 1) = 2", {3}),
        ("JobIndex / 2 = 1", {2, 3}),
        ("JobIndex % 2 = 0", {2, 4}),
        ("JobIndex * 2 + 1 = 7", {3}),
        ("- JobIndex = -3", {3}),
        ("- - JobIndex = 3", {3}),
        ("2 - -1 = JobIndex", {3}),
        ("+JobIndex = +3", {3}),
        ("('1' || 2) + 1 = 13", ALL),
        ("'1' || (2 + 1) = '13'", ALL),
        ("(JobIndex = 1) = (state = 'complete')", ALL),
        ("(JobIndex IN (1)) + (state = 'run') = 1", {1, 2}),
        ("abs(priority) = 1", {1, 3, 5}),
        ("upper(data_type) = 'RIBO'", {1, 3, 4}),
        ("length(state) = 4", {3, 5}),
        ("round(size) = 8", {3}),
        ("round(size / 2, 1) = 3.8", {3}),
        ("ifnull(size, 0) = 0 AND nullif(state, 'held') IS NULL", {5}),
        ("substr(state, 2, 2) = 'un' AND substr(state, -1) = 'n'", {2}),
        ("instr(name, 'tail') > 0", {2}),
        ("min(size, 6) = 6 AND max(size, 6, 7) = 50", {2}),
        ("trim('  x ') = 'x' AND trim(state, 'r') = 'un'", {2}),
        ("typeof(size) = 'real'", {3}),
        ("typeof(priority) = 'real'", {2}),
    ],
)
def test_conditions_are_those_of_sqlite(find, text, expected):
    assert find(text) == expected


def test_no_word_of_the_user_gets_into_the_sql():
    text = 'mine = "theirs" AND `odd $` IN (1234) OR lower(field.inside) LIKE "pattern%" ESCAPE "!"'
    compiled = compile_filter(text).compile(dialect=sqlite.dialect())
    for word in ("mine", "theirs", "odd", "1234", "field", "inside", "pattern", "!"):
        assert word not in str(compiled)
    assert list(compiled.params.values()) == [
        '$."mine"',
        "theirs",
        '$."odd $"',
        1234,
        "pattern%",
        '$."field"."inside"',
        "!",
    ]


def test_long_lists_and_chains_work(find):
    assert find(f"JobIndex IN ({', '.join(map(str, range(3, 800)))})") == {3, 4, 5}
    assert find(" OR ".join(f"JobIndex = {number}" for number in range(3, 400))) == {3, 4, 5}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("done", {1}),
        ("[done]", {1}),
        ("NOT done", {2}),
        ("NOT (NOT done)", {1}),
        ("done OR size > 40", {1, 2, 4}),
        ("done AND size > 40", set()),
        ("NOT done AND size > 40", {2}),
        ("size", {1, 2, 3, 4}),
        ("resources.cpus", {1, 3}),
        ("resources.deep.er AND priority = 1", {3}),
        ("word", set()),
        ("unheard_of", set()),
        ("complete_on_exit", set()),
        ("CASE WHEN done THEN 1 ELSE 2 END = 1", {1}),
        ("done = done", {1, 2}),
    ],
)
def test_a_field_of_the_users_may_stand_alone(find, text, found):
    # Was: refused, although SQLite takes it.
    assert find(text) == found


@pytest.mark.parametrize("value", [None, 5, b"state = 1", ["state = 1"]])
def test_a_filter_is_a_text(value):
    with pytest.raises(FilterError, match=f"not a value of type {type(value).__name__}") as caught:
        compile_filter(value)
    assert isinstance(caught.value, ParaschutError)


@pytest.mark.parametrize(
    "text",
    [
        "▲state",
        "▲5",
        '▲"run"',
        "▲NULL",
        "▲priority - 5",
        "▲lower(name)",
        'state = "run" OR ▲"complete"',
        "NOT ▲complete",
        '▲"done"',
        "▲name AND done",
        "done AND ▲queue",
        "CASE WHEN ▲run THEN 1 END = 1",
    ],
)
def test_a_value_is_not_a_condition(text):
    what, valid = refusal(text)
    assert what == "This is a value, not a condition."
    assert valid == 'Compare it with something, as in state = "run" OR state = "complete".'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1=1▲; DROP TABLE job", "one condition, and ; ends it"),
        ("1=1▲; REPLACE INTO job VALUES (1)", "one condition, and ; ends it"),
        ("1=1▲;", "one condition, and ; ends it"),
        ("a = (▲SELECT 1)", "SELECT belongs to a statement"),
        ("▲EXISTS (SELECT 1)", "EXISTS belongs to a statement"),
        ("a = 1 ▲union select 2", "union belongs to a statement"),
        ("▲DELETE FROM job", "DELETE belongs to a statement"),
        ("a = ▲?", "stands for a value that is not given"),
        ("a = ▲:x", "stands for a value that is not given"),
        ("a = ▲@x", "stands for a value that is not given"),
        ("a = ▲$x", "stands for a value that is not given"),
        ("a = 1 ▲-- AND b = 2", "no comments"),
        ("a = 1 ▲/* b */ AND b = 2", "no comments"),
        ("▲{# b #} a = 1", "no comments"),
        ("a ▲& 1 = 1", "& means nothing"),
        ("a ▲-> 'b' = 1", "-> means nothing"),
        ("a = ▲x'00'", "x'00' means nothing"),
        ("a = ▲0x10", "0x10 means nothing"),
        ("▲{{ a }} = 1", "{ means nothing"),
        ("▲count(*) = 1", "no function count"),
        ("▲load_extension('x') = 1", "no function load_extension"),
        ("▲row_number() OVER () = 1", "no function row_number"),
        ("max(a, b) ▲OVER () = 1", "no function OVER"),
        ("▲max(a) = 1", "max takes 2 to 99 values, and has 1"),
        ("▲lower(a, b) = 1", "lower takes 1 values, and has 2"),
        ("lower(DISTINCT ▲a) = 1", "a is not expected"),
        ("CAST(a AS ▲BLOB) = 1", "does not go with AS"),
        ("coalesce(a AS ▲TEXT) = 1", "AS is only part of CAST"),
        ("▲CAST(a, TEXT) = 1", "cast is not written so"),
        ("▲json_extract(a, b) = 1", "json_extract is not written so"),
        ("▲json_extract(a, 'b') = 1", "json_extract is not written so"),
        ("json_extract(▲name, '$.b') = 1", "name has nothing inside"),
        ("a COLLATE ▲RTRIM = 'b'", "does not go with COLLATE"),
        ("a LIKE 'b' ESCAPE ▲'cc'", "does not go with ESCAPE"),
        ("▲a GLOB 'b' ESCAPE 'c'", "ESCAPE goes only with LIKE"),
        ("(▲a, b) = (1, 2)", "This is a list"),
        ("a IN ▲job", "IN needs a list"),
        ("a IN (1,▲)", "A value is missing before )"),
        ("▲ClusterID = 5", "ClusterID is filled in when a job is read"),
        ("▲state.x = 1", "state has nothing inside"),
        ('▲"a""b" = 1', "This name cannot be looked for"),
        ('▲"" = 1', "This name cannot be looked for"),
        ('a = ▲"b"."c"', "has a dot behind it"),
        ("state = ▲run", "run without quotes is the name of a field"),
        ("state IN ('init', ▲run)", "run without quotes is the name of a field"),
    ],
)
def test_what_is_not_part_of_a_filter_is_refused(text, words):
    what, valid = refusal(text)
    assert words in what
    assert valid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a =▲", "A value is missing before the end."),
        ("a = 1 AND▲", "A value is missing before the end."),
        ("▲= 1", "A value is missing before =."),
        ("a = ▲= 1", "A value is missing before =."),
        ("▲* = 1", "A value is missing before *."),
        ("a = 1 or ▲or b = 1", "A value is missing before or."),
        ("▲(a = 1", "This is never closed."),
        ("▲(a = 1 AND (b = 1)", "This is never closed."),
        ("a = 1▲)", ") closes nothing."),
        ("a = 1 ▲END", "END closes nothing."),
        ('a = ▲"b', "This is never closed."),
        ("a = ▲\"it's", "This is never closed."),
        ("a = ▲[b", "This is never closed."),
        ("a = 1 ▲/* b", "This is never closed."),
        ("state ▲run", "run is not expected here."),
        ("a = 'b' ▲'c'", "'c' is not expected here."),
        ('"lower"▲(a) = 1', "( is not expected here."),
        ("resources.lower ▲(a) = 1", "( is not expected here."),
        ("a = 1▲, b = 2", ", is not expected here."),
        ("a BETWEEN ▲1", "BETWEEN lacks its AND."),
        ("▲CASE a END = 1", "This CASE is not complete."),
        ("▲CASE WHEN a = 1 END = 1", "This CASE is not complete."),
        ("▲1 < a < 5", "This compares more than two things."),
        ("a = ▲b LIKE c", "This compares more than two things."),
        ("a = NOT ▲b", "This compares more than two things."),
        ("a▲\0 = 1", "A Filter cannot have the character U+0000."),
        ("a = '▲\ud800'", "A Filter cannot have the character U+D800."),
    ],
)
def test_a_slip_is_pointed_at(text, words):
    if words.startswith("A Filter cannot"):
        with pytest.raises(FilterError) as caught:
            compile_filter(text.replace("▲", ""))
        what, shown, caret, _ = str(caught.value).split("\n")
        assert shown.isprintable()
        assert caret == f"  {' ' * text.index('▲')}^"
    else:
        what, _ = refusal(text)
    assert what == words


def test_the_valid_functions_are_named():
    _, valid = refusal("▲lenght(name) > 5")
    assert valid == (
        "Functions, each of one job, are abs, cast, coalesce, ifnull, instr, json_extract, length, lower, max, "
        "min, nullif, replace, round, substr, trim, typeof, upper. Is length meant?"
    )


def test_the_valid_columns_are_named():
    _, valid = refusal("▲hostname = 'a'")
    for name in ("BatchID", "JobIndex", "name", "state", "priority", "failure"):
        assert name in valid


def test_only_the_line_with_the_spot_is_shown():
    with pytest.raises(FilterError) as caught:
        compile_filter('state = "run"\n\tAND size = = 2\nAND done = TRUE')
    assert str(caught.value).split("\n")[1:3] == ["   AND size = = 2", f"  {' ' * 12}^"]


def test_the_spot_is_seen_in_a_long_filter():
    text = "size = 1 AND " * 20 + "size 5" + " AND size = 1" * 20
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    _, shown, caret, _ = str(caught.value).split("\n")
    assert shown[caret.index("^")] == "5"
    assert len(shown) < 110
    assert shown.startswith("  …")
    assert shown.endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 200 + "a = 1" + ")" * 200,
        "NOT " * 5000 + "a = 1",
        "a = " + "- " * 5000 + "1",
        "abs(" * 300 + "a" + ")" * 300 + " = 1",
        "CASE WHEN " * 300 + "a = 1" + " THEN 1 END = 1" * 300,
        "a = " + "1 + " * 5000 + "1",
        "(a = 1 AND " * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1),
    ],
)
def test_too_deep_is_an_error_and_not_a_crash(text):
    with pytest.raises(FilterError, match=f"more than {MAX_DEPTH} things in one another"):
        compile_filter(text)


def test_what_is_too_much_for_sqlite_is_said_before_it_meets_the_index():
    with pytest.raises(FilterError, match="SQLite cannot read this Filter: Expression tree is too large"):
        compile_filter(" OR ".join(["a = 1"] * 1100))


@pytest.mark.parametrize("depth", [1, 5, 10])
def test_sensible_nesting_works(find, depth):
    assert find("(" * depth + "JobIndex = 1" + ")" * depth) == {1}
    assert find("abs(" * depth + "JobIndex" + ")" * depth + " = 1") == {1}
    assert find("NOT (state = 'run' OR " * depth + "JobIndex = 1" + ")" * depth)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("naem = 3", ["naem that a Filter can see; is name meant?"]),
        (
            "Size.x > 1 AND zebra = 1",
            ["Size that a Filter can see; is size meant?", "zebra that a Filter can see."],
        ),
        ("retries > 5 OR size = 1 OR json_extract(size, '$.x') = 1 OR state = 'naem'", []),
    ],
)
def test_what_no_job_has_is_named_with_what_may_be_meant(index, text, told):
    assert unknown_fields(index, text) == [f"No job has a field {line}" for line in told]
