"""The user's Filter, a SQLite condition over the queue, as an expression that can only read.

`Rewriter` takes the text apart and writes it anew, with a number for each name, text and number: ``name LIKE "%a"
AND BatchID > 5`` becomes ``leaf_0 LIKE leaf_1 AND leaf_2 > leaf_3``. sqlglot says how that is built, and `_Compiler`
makes a SQLAlchemy expression of the nodes that it knows, and refuses all others.

So no word of the user's gets into SQL: texts, numbers and the paths of fields are bound, columns are those of the
schema, operators and functions those of the tables below. And each leaf tells where in the text it stood.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import Grouping
from sqlglot import exp

from paraschut.errors import FilterError
from paraschut.job import OPTIONAL, REQUIRED, RUNTIME, STATES
from paraschut.store.filter_text import EXAMPLE, FUNCTIONS, NAMES, Rewriter, Token, refusal, too_deep, words
from paraschut.store.schema import batch, job, metadata

_WRITTEN = 'Write it as in CAST(size AS REAL) > 0.5 or json_extract(resources, "$.mem") = "4gb".'
_COLUMNS = ("BatchID", "JobIndex", "state", "priority", "failure", "progress", "progress_message", "attempt")
_COLUMN_NAMES = {name.lower() for name in (*_COLUMNS, "name")}
_FIELDS = {name.lower(): name for name in REQUIRED + OPTIONAL}
_FILLED_IN = {name.lower() for name in RUNTIME}
_SQL_TYPES: dict[str, Any] = {"INTEGER": sa.Integer, "NUMERIC": sa.Numeric, "REAL": sa.REAL, "TEXT": sa.Text}

#: What sqlglot calls the operators, and what SQLite does.
_COMPARE = {"eq": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_COMPARE |= {"like": "LIKE", "glob": "GLOB", "is": "IS", "nullsafeeq": "IS", "nullsafeneq": "IS NOT"}
_COMBINE = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "dpipe": "||"}
_BINDS = {"add": 1, "sub": 1, "mul": 2, "div": 2, "mod": 2, "dpipe": 3}
_CONDITIONS = words("in between escape not and or") | _COMPARE.keys()
_ARGUMENTS = words("this expression expressions low high ifs true default negate safe typed")

_JSON_PATH = re.compile(r"""\$((\.[^\W\d]\w*|\."[^"\\\x00-\x1f]+"|\[[0-9]{1,9}\])*)""")
_MOST_DIGITS = 19


def compile_filter(text: str) -> ColumnElement[bool] | None:
    """Turn a Filter into a condition over `job`, which the caller joins to `batch` on BatchID.

    Parameters
    ----------
    text : str
        A SQLite condition, such as ``name LIKE "%2009%" AND BatchID > 20210101000000 AND data_type=="ribo"``.
        What is in double quotes is a field where a comparison begins, and a text everywhere else. A field is
        written as in the job, ``resources.mem`` is inside of one; columns and known fields in any case. A field of
        the user's alone is a condition too: it holds for True and for numbers other than 0.

    Returns
    -------
    ColumnElement or None
        None if the text is empty: then all jobs are meant.

    Raises
    ------
    FilterError
        If it is not a condition. The message shows the Filter, points at the spot and says what is valid.
    """
    if not isinstance(text, str):
        kind = type(text).__name__
        raise FilterError(f"A Filter is a text, not a value of type {kind}. Write one such as '{EXAMPLE}'.")
    if not text.strip():
        return None
    try:
        rewriter = Rewriter(text)
        condition = _Compiler(text, rewriter.leaves).condition(rewriter.tree())
        _try(text, condition)
    except RecursionError:
        raise too_deep(text, 0) from None
    return condition


def unknown_fields(connection: Connection, text: str) -> list[str]:
    """Return a sentence for each field of a Filter that no job has: why it may have found nothing."""
    rewriter = Rewriter(text)
    compiler = _Compiler(text, rewriter.leaves)
    compiler.condition(rewriter.tree())
    asked = compiler.fields.difference(_FIELDS.values())
    if not asked:
        return []
    keys = sa.func.json_each(job.c.metadata).table_valued("key", joins_implicitly=True)
    there = set(connection.execute(sa.select(keys.c.key).select_from(job, keys).distinct()).scalars())
    known = list(dict.fromkeys([*_COLUMNS, *_FIELDS.values(), *sorted(there)]))
    near = {name: get_close_matches(name, known, 1, 0.7) for name in sorted(asked - there)}
    return [
        f"No job has a field {name} that a Filter can see{f'; is {meant[0]} meant?' if meant else '.'}"
        for name, meant in near.items()
    ]


def _try(text: str, condition: ColumnElement[bool]) -> None:
    """Let SQLite read it over an empty queue: its limits differ from version to version."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            metadata.create_all(connection, tables=[batch, job])
            # Inside another query, to leave room for the words that the caller adds.
            found = sa.exists().where(job.c.BatchID == batch.c.BatchID, condition)
            connection.execute(sa.select(sa.literal(1)).where(found))
    except DBAPIError as error:
        what = f"SQLite cannot read this Filter: {error.orig}."
        raise refusal(text, 0, what, "Nest less, or write IN (…) for many ORs.") from None
    finally:
        engine.dispose()


class _Compiler:
    """Makes a SQLAlchemy expression of the nodes that it knows; `text` says that double quotes hold a text."""

    def __init__(self, text: str, leaves: dict[str, Token]) -> None:
        self.text = text
        self.leaves = leaves
        #: Those that are in the metadata of jobs.
        self.fields: set[str] = set()

    def _refuse(self, node: exp.Expr, what: str, valid: str) -> FilterError:
        names = (part.name for part in node.walk())
        starts = [self.leaves[name].start for name in names if name in self.leaves]
        return refusal(self.text, min(starts, default=0), what, valid)

    def _known(self, node: exp.Expr) -> exp.Expr:
        """Take the parentheses off, and refuse what a newer sqlglot may say about a node that we would miss."""
        while node.key == "paren":
            node = node.this
        if any(value and name not in _ARGUMENTS for name, value in node.args.items()):
            raise self._refuse(node, "This is not known in a Filter.", f"Write one such as {EXAMPLE}.")
        return node

    def condition(self, node: exp.Expr) -> ColumnElement[bool]:
        """Compile what is true or false."""
        node = self._known(node)
        kind = node.key
        if kind in ("and", "or"):
            parts = []
            while node.key == kind:
                parts.append(node.expression)
                node = node.this
            compiled = [self.condition(part) for part in (node, *reversed(parts))]
            return sa.and_(*compiled) if kind == "and" else sa.or_(*compiled)
        if kind == "not":
            return sa.not_(self.condition(node.this))
        if kind in _CONDITIONS:
            return self._comparison(node)
        leaf = self.leaves.get(node.name)
        if leaf and leaf.raw in ("TRUE", "FALSE", "1", "0") and len(leaf.path) == 1:
            return sa.literal_column(leaf.raw, sa.Boolean)
        if leaf and node.key == "column" and leaf.kind in ("word", "name") and _may_stand_alone(leaf):
            # As SQLite takes a value for a condition: a comparison with 0 or 1 would be true of other values.
            alone = self._column(leaf).bool_op("AND")(sa.literal_column("1"))
            return Grouping(alone)
        what = "This is a value, not a condition."
        raise self._refuse(node, what, f"Compare it with something, as in {EXAMPLE}.")

    def _comparison(self, node: exp.Expr) -> ColumnElement[bool]:
        made: ColumnElement[bool]
        if node.key == "escape" and node.this.key == "like":
            escape, node = self.leaves[node.expression.name].path[0], self._known(node.this)
            value, pattern = self._operand(node.this), self._right(node, node.expression)
            made = sa.func.like(pattern, value, sa.literal(escape), type_=sa.Boolean)
        elif node.key == "in":
            made = self._operand(node.this).in_([self._right(node, item) for item in node.expressions])
        elif node.key == "between":
            low, high = (self._right(node, node.args[end]) for end in ("low", "high"))
            made = self._operand(node.this).between(low, high)
        elif node.key in _COMPARE:
            made = self._operand(node.this).bool_op(_COMPARE[node.key])(self._right(node, node.expression))
        else:
            raise self._refuse(node, "ESCAPE goes only with LIKE.", "Remove it: GLOB has [*] for a plain *.")
        return sa.not_(made) if node.args.get("negate") else made

    def _right(self, comparison: exp.Expr, node: exp.Expr) -> ColumnElement[Any]:
        left, right = self.leaves.get(comparison.this.name), self.leaves.get(node.name)
        if left and right and left.raw == "STATE" and right.kind == "word" and right.value.lower() in STATES:
            what = f"{right.value} without quotes is the name of a field."
            raise self._refuse(node, what, f'Write state = "{right.value}".')
        return self._operand(node, text=True)

    def _operand(self, node: exp.Expr, *, text: bool = False) -> ColumnElement[Any]:
        if node.key in _CONDITIONS:
            valid = "Compare two things at a time, as in 1 < priority AND priority < 5, or use parentheses."
            raise self._refuse(node, "This compares more than two things.", valid)
        return self.value(node, text=text)

    def value(self, node: exp.Expr, *, text: bool) -> ColumnElement[Any]:
        """Compile what can be compared."""
        node = self._known(node)
        if node.key in _COMBINE:
            binds = _BINDS[node.key]
            if _BINDS.get(node.this.key, 9) < binds or _BINDS.get(node.expression.key, 9) <= binds:
                # Some of sqlglot's versions read a || b + c as other databases do, and not as SQLite does.
                raise self._refuse(node, "Parentheses are missing here.", "Write it as in (a || b) + c.")
            left = self._operand(node.this, text=text)
            right = self._operand(node.expression, text=text or node.key == "dpipe")
            return left.op(_COMBINE[node.key])(right)
        if node.key == "collate" and node.expression.name == "NOCASE":
            return self._operand(node.this, text=text).op("COLLATE")(sa.literal_column("NOCASE"))
        makers = {"column": self._plain, "neg": self._negative, "case": self._case, "anonymous": self._call}
        if node.key in makers:
            return makers[node.key](node, text=text)
        if node.key == "null":
            return sa.null()
        if node.key in _CONDITIONS:
            return Grouping(self.condition(node))
        raise self._refuse(node, "This is a list.", 'It goes behind IN, as in state IN ("init", "run").')

    def _negative(self, node: exp.Expr, *, text: bool) -> ColumnElement[Any]:
        leaf = self.leaves.get(self._known(node.this).name)
        if leaf and leaf.kind == "number":
            return sa.literal(_number(f"-{leaf.path[0]}"))
        # Not with SQLAlchemy's minus: two of them in a row would begin a comment.
        return sa.literal_column("0").op("-")(self._operand(node.this, text=text))

    def _case(self, node: exp.Expr, *, text: bool) -> ColumnElement[Any]:
        subject, default = node.args.get("this"), node.args.get("default")
        whens = []
        for when in node.args["ifs"]:
            test = self.value(when.this, text=True) if subject else self.condition(when.this)
            whens.append((test, self.value(when.args["true"], text=True)))
        return sa.case(
            *whens,
            value=self.value(subject, text=text) if subject else None,
            else_=self.value(default, text=True) if default else None,
        )

    def _call(self, node: exp.Expr, *, text: bool) -> ColumnElement[Any]:
        name, arguments = self.leaves[node.name].path[0], node.expressions
        least, most = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            what = f"{name} takes {wanted} values, and has {len(arguments)} here."
            raise self._refuse(node, what, "A Filter looks at one job at a time.")
        if name in ("cast", "json_extract"):
            first, second = (self.leaves.get(argument.name) for argument in arguments)
            if name == "cast" and second and second.kind == "type":
                return sa.cast(self.value(arguments[0], text=text), _SQL_TYPES[second.path[0]])
            path = _JSON_PATH.fullmatch(second.path[0]) if second else None
            if name == "json_extract" and path and first and first.kind in NAMES:
                return self._column(first, path[1])
            raise self._refuse(node, f"{name} is not written so.", _WRITTEN)
        values = [self.value(argument, text=text or place > 0) for place, argument in enumerate(arguments)]
        function: ColumnElement[Any] = getattr(sa.func, name)(*values)
        return function

    def _plain(self, node: exp.Expr, *, text: bool) -> ColumnElement[Any]:
        leaf = self.leaves[node.name]
        word = leaf.path[0]
        if leaf.kind == "number":
            return sa.literal(_number(word))
        if leaf.kind == "text" or (leaf.kind == "quoted" and text):
            if len(leaf.path) > 1:
                raise self._refuse(node, "This is a text, and has a dot behind it.", "Join texts with ||.")
            return sa.literal(word)
        if leaf.raw in ("NULL", "TRUE", "FALSE") and len(leaf.path) == 1:
            return sa.literal_column(leaf.raw)
        return self._column(leaf)

    def _column(self, leaf: Token, inside: str = "") -> ColumnElement[Any]:
        """Find a column of the index, or a field in the metadata, of which `inside` can be a part."""
        first, *rest = leaf.path
        columns: dict[str, ColumnElement[Any]] = {name.lower(): job.c[name] for name in _COLUMNS}
        columns["name"] = sa.func.coalesce(job.c.name, batch.c.name)
        column = columns.get(first.lower())
        what = ""
        if column is not None and (rest or inside):
            what, valid = f"{first} has nothing inside of it.", f"Compare {first} itself."
        elif first.lower() in _FILLED_IN:
            what = f"{first} is filled in when a job is read, and cannot be looked for."
            valid = f"Valid are name, {', '.join(_COLUMNS)} and all fields that you gave to the job."
        elif leaf.kind == "type":
            what, valid = "AS is only part of CAST.", _WRITTEN
        elif any(not part or re.search(r'["\\\x00-\x1f]', part) for part in leaf.path):
            what, valid = "This name cannot be looked for.", "Names have no quotes and backslashes."
        if what:
            raise refusal(self.text, leaf.start, what, valid)
        if column is not None:
            return column
        known = _FIELDS.get(first.lower(), first) if leaf.kind == "word" else first
        self.fields.add(known)
        path = "".join(f'."{part}"' for part in (known, *rest))
        return sa.func.json_extract(job.c.metadata, sa.literal(f"${path}{inside}"))


def _may_stand_alone(leaf: Token) -> bool:
    """Return whether a name is that of a field which may be true or false: one of the user's, or a flag of ours."""
    first = leaf.path[0].lower()
    if len(leaf.path) > 1:
        return True
    return first not in {*_COLUMN_NAMES, *_FILLED_IN, *_FIELDS, *STATES, "null"} - {"complete_on_exit"}


def _number(raw: str) -> float:
    """Read a number as SQLite does: a whole one of more than 64 bits is a real."""
    if raw.lstrip("-").isdigit() and len(raw.lstrip("-")) <= _MOST_DIGITS and -(2**63) <= int(raw) < 2**63:
        return int(raw)
    return float(raw)
