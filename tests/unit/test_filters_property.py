"""Filters that nobody thought of: they only read, fail only with FilterError, and mean what SQLite means by them."""

import hashlib
import json
import re
import sqlite3

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from paraschut.errors import FilterError
from paraschut.store.filters import compile_filter
from paraschut.store.schema import batch, job, metadata

VALUES = [None, 0, 1, 2, -3, 1.5, "a", "A", "ab", "1", "", "true", "a%", True, False, 2**62]
STATES = ["run", "init", "a"]
FIELDS = ("a", "b", "c")
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}

relaxed = settings(deadline=None, max_examples=150)


def jobs():
    """Every value next to every other one, in some field of some job."""
    for number, value in enumerate(VALUES):
        for step in (1, 4, 7):
            fields = {"a": value, "b": VALUES[(number + step) % len(VALUES)], "c": VALUES[number - step]}
            yield fields if value is not None or step > 1 else {"b": 1}


@pytest.fixture(scope="module")
def index():
    """Return a connection to an index, with a view `flat` in which SQLite itself can read a Filter."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(batch).values(BatchID=1, name="ab", created=0))
        for number, fields in enumerate(jobs()):
            row = {
                "BatchID": 1,
                "JobIndex": number,
                "state": STATES[number % 3],
                "priority": number % 4 / 2,
                "name": [None, "a"][number % 2],
                "failure": [None, "a", "vanished"][number % 3],
                "metadata": json.dumps(fields),
            }
            connection.execute(sa.insert(job).values(**row))
        fields = ", ".join(f"json_extract(metadata, '$.{field}') AS {field}" for field in FIELDS)
        connection.exec_driver_sql(
            "CREATE VIEW flat AS SELECT JobIndex, state, priority, failure, coalesce(job.name, batch.name) AS name, "
            f"{fields} FROM job JOIN batch USING (BatchID)"
        )
        connection.commit()
        yield connection
    engine.dispose()


def run(index, statement):
    """Return the jobs found, or what SQLite says if it cannot compute it, as for abs(-9223372036854775808)."""
    try:
        return sorted(index.scalars(statement))
    except sa.exc.OperationalError as error:
        return str(error.orig)


def found(index, condition):
    chosen = sa.select(job.c.JobIndex).join(batch, batch.c.BatchID == job.c.BatchID)
    return run(index, chosen.where(condition))


def fingerprint(index):
    return hashlib.sha256(index.connection.driver_connection.serialize()).hexdigest()


ATOMS = "a b c state priority JobIndex failure name 1 2 0 1.5 'a' 'A' '1' 'a%' '' NULL TRUE FALSE -1"
# ¤ stands for a value and § for a condition; not always with the parentheses that hide who binds more tightly.
SHAPES = {
    "¤": [
        *(f"¤ {sign} ¤" for sign in ("+", "-", "*", "/", "%", "||")),
        *(f"{name} ( ¤ )" for name in ("abs", "lower", "upper", "length", "round", "trim", "typeof")),
        *(f"{name} ( ¤ , ¤ )" for name in ("coalesce", "ifnull", "nullif", "instr", "min", "max")),
        *(f"{name} ( ¤ , ¤ , ¤ )" for name in ("replace", "substr")),
        *(f"CAST ( ¤ AS {name} )" for name in ("INTEGER", "REAL", "TEXT", "NUMERIC")),
        *("- ¤", "( ¤ )", "( § )", "¤ COLLATE NOCASE"),
        *("CASE WHEN § THEN ¤ ELSE ¤ END", "CASE ¤ WHEN ¤ THEN ¤ END"),
    ],
    "§": [
        *(f"¤ {sign} ¤" for sign in ("=", "==", "!=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT")),
        *(f"¤ {sign} ¤" for sign in ("LIKE", "NOT LIKE", "GLOB", "NOT GLOB")),
        *(f"¤ {sign}" for sign in ("IS NULL", "IS NOT NULL", "ISNULL", "NOTNULL", "NOT NULL")),
        *("¤ IN ( ¤ )", "¤ NOT IN ( ¤ , ¤ , ¤ )", "¤ BETWEEN ¤ AND ¤", "¤ NOT BETWEEN ¤ AND ¤"),
        *("¤ LIKE ¤ ESCAPE 'a'", "¤ NOT LIKE ¤ ESCAPE 'a'"),
        *("§ AND §", "§ OR §", "NOT §", "( § )"),
    ],
}


@st.composite
def conditions(draw):
    text = "§"
    for _ in range(draw(st.integers(1, 6))):
        places = [at for at, letter in enumerate(text) if letter in SHAPES]
        at = draw(st.sampled_from(places)) if places else len(text)
        text = text[:at] + draw(st.sampled_from(SHAPES.get(text[at : at + 1], [""]))) + text[at + 1 :]
    text = re.sub("§", "¤ = ¤", text)
    return re.sub("¤", lambda _: draw(st.sampled_from(ATOMS.split())), text)


SOUP = (
    "name state BatchID a [d] `e` 'text' \"text\" 1 -2 .5 1e3 NULL TRUE = == <> < >= LIKE NOT IS IN BETWEEN AND OR ( ) "
    ", . + - * / % || CASE WHEN THEN ELSE END lower( max( coalesce( json_extract( cast( AS TEXT COLLATE NOCASE ESCAPE "
    "'!' \"$.a\" ; -- /* */ ? :a @a $a ' \" ` [ ] { } {# # \\ ! & | ~ ^ -> ->> :: := <=> SELECT FROM job UNION EXISTS "
    "DROP TABLE DELETE PRAGMA ATTACH replace( show count( * OVER FILTER load_extension( x'00'"
)
words = st.sampled_from(SOUP.split())


def spoiled(text, word, percent, dropped):
    """Put a word into a condition, in place of some letters."""
    at = len(text) * percent // 100
    return f"{text[:at]}{word}{text[at + dropped :]}"


anything = st.one_of(
    st.text(max_size=40),
    st.lists(words, max_size=12).map(" ".join),
    st.lists(words, max_size=12).map("".join),
    st.lists(st.one_of(words, st.text(max_size=3)), max_size=8).map(" ".join),
    conditions(),
    st.builds(spoiled, conditions(), words, st.integers(0, 99), st.integers(0, 5)),
)


def compiled(text):
    """Return a condition and nothing, or nothing and the words of the error."""
    try:
        return compile_filter(text), ""
    except FilterError as error:
        return None, str(error)


@given(text=anything)
@settings(relaxed, max_examples=600)
def test_any_text_is_a_condition_that_only_reads_or_a_filter_error(index, text):
    condition, refusal = compiled(text)
    if refusal:
        assert refusal.count("\n") == 3
        return
    if condition is None:
        assert not text.strip()
        return
    driver = index.connection.driver_connection
    before = fingerprint(index)
    refused = []

    def reading_only(action, *details):
        if action in READING:
            return sqlite3.SQLITE_OK
        refused.append((action, details))
        return sqlite3.SQLITE_DENY

    driver.set_authorizer(reading_only)
    try:
        found(index, condition)
    finally:
        driver.set_authorizer(None)
    assert refused == []
    assert fingerprint(index) == before


@given(text=conditions())
@settings(relaxed, max_examples=300)
def test_a_filter_finds_what_sqlite_finds(index, text):
    condition, refusal = compiled(text)
    if refusal:
        # Without parentheses, some of what is made here is a = b < c, or a || b + c (by older ones of sqlglot).
        assert refusal.startswith(("This compares more than two things.", "Parentheses are missing here."))
    else:
        assert found(index, condition) == run(index, sa.text(f"SELECT JobIndex FROM flat WHERE {text}"))


def order(value):
    """Sort as SQLite does: numbers before texts."""
    return (1, value) if isinstance(value, str) else (0, value)


def like(value, pattern):
    wanted = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(wanted, str(value), re.IGNORECASE | re.ASCII | re.DOTALL) is not None


COMPARED = {
    "=": lambda left, right: order(left) == order(right),
    "==": lambda left, right: order(left) == order(right),
    "!=": lambda left, right: order(left) != order(right),
    "<": lambda left, right: order(left) < order(right),
    "<=": lambda left, right: order(left) <= order(right),
    ">": lambda left, right: order(left) > order(right),
    ">=": lambda left, right: order(left) >= order(right),
}

plain_texts = st.text(
    st.characters(min_codepoint=32, max_codepoint=383, exclude_characters="\x7f"), max_size=4
)
literals = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-4, 4),
    st.sampled_from([0.5, 1.5, -3.0]),
    plain_texts,
    st.sampled_from([value for value in VALUES if isinstance(value, str)]),
)


def written(value):
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)


@given(field=st.sampled_from(FIELDS), operator=st.sampled_from(sorted(COMPARED)), value=literals)
@relaxed
def test_comparisons_are_those_of_python(index, field, operator, value):
    expected = [
        number
        for number, fields in enumerate(jobs())
        if fields.get(field) is not None and COMPARED[operator](fields[field], value)
    ]
    assert found(index, compile_filter(f"{field} {operator} {written(value)}")) == expected
    others = [
        number
        for number, fields in enumerate(jobs())
        if fields.get(field) is not None and number not in expected
    ]
    assert found(index, compile_filter(f"NOT {field} {operator} {written(value)}")) == others


@given(field=st.sampled_from(FIELDS), values=st.lists(literals, max_size=4), pattern=plain_texts)
@relaxed
def test_lists_ranges_and_patterns_are_those_of_python(index, field, values, pattern):
    known = [(number, fields[field]) for number, fields in enumerate(jobs()) if fields.get(field) is not None]
    listed = ", ".join(map(written, values))
    assert found(index, compile_filter(f"{field} IN ({listed})")) == [
        number for number, value in known if value in values
    ]
    low, high = [*values, 0, "a"][:2]
    assert found(index, compile_filter(f"{field} BETWEEN {written(low)} AND {written(high)}")) == [
        number for number, value in known if order(low) <= order(value) <= order(high)
    ]
    texts = [(number, value) for number, value in known if isinstance(value, str)]
    assert found(index, compile_filter(f'typeof({field}) = "text" AND {field} LIKE {written(pattern)}')) == [
        number for number, value in texts if like(value, pattern)
    ]
