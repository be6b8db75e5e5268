"""The text of a Filter, taken apart and written anew for sqlglot, with a number for each name, text and number.

``name LIKE "%a" AND BatchID > 5`` becomes ``leaf_0 LIKE leaf_1 AND leaf_2 > leaf_3``, and each leaf tells where in the
text it stood. What cannot be part of a Filter is refused here, with the spot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from paraschut.errors import FilterError

#: How many parentheses, functions and NOTs fit in one another. SQLite's own limit may be lower: see `_try`.
MAX_DEPTH = 25


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


EXAMPLE = 'state = "run" OR state = "complete"'
_OPERATORS = "= == != <> < <= > >= LIKE GLOB IS IN BETWEEN AND OR + - * / % ||"
_JOINED = f"Values are joined by one of {_OPERATORS}; a text has quotes around it."
_ARITIES = {
    "abs length lower typeof upper": (1, 1),
    "round trim": (1, 2),
    "cast ifnull instr json_extract nullif": (2, 2),
    "substr": (2, 3),
    "replace": (3, 3),
    "coalesce max min": (2, 99),
}
FUNCTIONS = {name: arity for names, arity in _ARITIES.items() for name in names.split()}
TYPES = ("INTEGER", "NUMERIC", "REAL", "TEXT")

#: A value has to stand before these, and behind those, except in these pairs.
_AFTER_VALUE = words(f"{_OPERATORS} ) , WHEN THEN ELSE END ISNULL NOTNULL COLLATE ESCAPE AS") - {"+", "-"}
_BEFORE_VALUE = words(f"{_OPERATORS} ( , NOT CASE WHEN THEN ELSE") | {""}
_PAIRS = {("(", ")"), ("CASE", "WHEN"), ("NOT", "LIKE"), ("NOT", "GLOB"), ("NOT", "IN"), ("NOT", "BETWEEN")}
_STATEMENT = words("SELECT WITH VALUES EXISTS UNION INTERSECT EXCEPT DROP DELETE INSERT UPDATE PRAGMA")
NAMES = ("word", "quoted", "name")

NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[^\W\d]\w*")
_CLOSED = re.compile(
    r"""('[^']*'|"[^"]*"|`[^`]*`|\[[^]]*]|/\*.*?\*/|--[^\n]*|[^'"`[/]|/(?!\*))*""", re.DOTALL
)
_WIDTH = 50


def refusal(text: str, start: int, what: str, valid: str) -> FilterError:
    """Say what is wrong, show where, and say what is valid."""
    begin = text.rfind("\n", 0, start) + 1
    line = "".join(letter if letter.isprintable() else " " for letter in text[begin:].split("\n", 1)[0])
    at = start - begin
    if at > _WIDTH:  # the spot has to be seen in a narrow window too
        line, at = "…" + line[at - _WIDTH :], _WIDTH + 1
    if len(line) > at + _WIDTH:
        line = line[: at + _WIDTH] + "…"
    return FilterError(f"{what}\n  {line}\n  {' ' * at}^\n{valid}")


def too_deep(text: str, start: int) -> FilterError:
    """Say that a Filter is nested too deeply."""
    what = f"This Filter has more than {MAX_DEPTH} things in one another."
    return refusal(text, start, what, "Nest less; a long list of values goes into IN (…).")


class Token(NamedTuple):
    """A piece of a Filter; as a leaf of the tree, a value in it."""

    kind: str  # text, quoted, name (in brackets or backticks), number, word or sign; of a leaf also call or type
    raw: str  # as it was written; a word in capitals
    value: str
    start: int
    path: tuple[str, ...] = ()  # of a leaf: its value, or those between the dots


def _tokens(text: str) -> Iterator[Token]:
    """Take the text apart."""
    spot = re.search("[\x00\ud800-\udfff]", text)
    if spot:
        what = f"A Filter cannot have the character U+{ord(spot[0]):04X}."
        raise refusal(text, spot.start(), what, "Remove it: no field of a job has it either.")
    try:
        # Behind something, because sqlglot takes a first word such as replace for a statement of its own.
        _, *tokens = sqlglot.tokenize(f"({text}", read="sqlite")
    except TokenError:
        opened = len(text) - len(_CLOSED.sub("", text, count=1))
        what, valid = "This is never closed.", "Close it; a quote that is part of a text is doubled."
        raise refusal(text, opened, what, valid) from None
    end = 0
    for start, stop in [*((token.start - 1, token.end) for token in tokens), (len(text), len(text))]:
        # sqlglot passes over comments without a word, and takes more for comments than SQLite does.
        gap = text[end:start]
        if gap.strip():
            comment = start - len(gap.lstrip())
            raise refusal(text, comment, "A Filter has no comments.", "Remove it, and write --x as -(-x).")
        if text[start:stop] == ";":
            what = "A Filter is one condition, and ; ends it."
            raise refusal(text, start, what, "Remove it; join conditions with AND or OR.")
        if start < stop:
            yield _token(text[start:stop], start)
        end = stop


def _token(raw: str, start: int) -> Token:
    quote = raw[0]
    if quote == "[":
        return Token("name", raw, raw[1:-1], start)
    if quote in "'\"`":
        kind = {"'": "text", '"': "quoted", "`": "name"}[quote]
        return Token(kind, raw, raw[1:-1].replace(quote * 2, quote), start)
    if _WORD.fullmatch(raw):
        return Token("word", raw.upper() if raw.isascii() else raw, raw, start)
    return Token("number" if NUMBER.fullmatch(raw) else "sign", raw, raw, start)


class Rewriter:
    """Writes the text anew with leaves in place of values, and lets sqlglot say how it is built."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.leaves: dict[str, Token] = {}
        self.open: list[Token] = []
        self.prefixes = 0
        self.at = 0
        self.last = ""

    def tree(self) -> exp.Expr:
        """Return what sqlglot makes of it."""
        plain, starts = "", {}
        while self.at < len(self.tokens):
            token = self._near(0)
            self._check_place(token)
            starts[len(plain)] = token
            self.last = token.raw
            plain += self._rewrite(token) + " "
            self.at += 1
        self._check_place(Token("sign", "", "the end", len(self.text.rstrip())))
        if self.open:
            left = self.open[-1]
            raise self._refuse(left.start, "This is never closed.", "Close it with ) or END.")
        try:
            return sqlglot.parse_one(plain, read="sqlite", into=exp.Condition)
        except ParseError as error:
            raise self._unexpected(error, starts) from None

    def _refuse(self, start: int, what: str, valid: str) -> FilterError:
        return refusal(self.text, start, what, valid)

    def _unexpected(self, error: ParseError, starts: dict[int, Token]) -> FilterError:
        spot = error.errors[0]
        token = starts.get(spot["col"] - len(spot["highlight"]), self.tokens[0])
        what = f"{token.value if token.kind == 'word' else token.raw} is not expected here."
        valid = _JOINED
        if "'high'" in spot["description"]:
            what, valid = "BETWEEN lacks its AND.", "Write it as in priority BETWEEN 1 AND 5."
        elif "CASE" in spot["description"] or "'ifs'" in spot["description"]:
            what, valid = "This CASE is not complete.", "Write CASE WHEN state = 'run' THEN 1 ELSE 2 END."
            token = next(token for token in self.tokens if token.raw == "CASE")
        return self._refuse(token.start, what, valid)

    def _near(self, by: int) -> Token:
        inside = 0 <= self.at + by < len(self.tokens)
        return self.tokens[self.at + by] if inside else Token("", "", "", len(self.text))

    def _check_place(self, token: Token) -> None:
        needs = not token.raw or token.raw in _AFTER_VALUE
        if needs and self.last in _BEFORE_VALUE and (self.last, token.raw) not in _PAIRS:
            what = f"A value is missing before {token.value}."
            raise self._refuse(token.start, what, f"A Filter is a condition, such as {EXAMPLE}.")
        if token.raw in (")", "END"):
            opening = "(" if token.raw == ")" else "CASE"
            if not self.open or self.open.pop().raw != opening:
                raise self._refuse(token.start, f"{token.value} closes nothing.", "Remove it, or open it.")
        elif token.raw in ("(", "CASE"):
            if self.last == "a value":
                raise self._refuse(token.start, f"{token.value} is not expected here.", _JOINED)
            self.open.append(token)
        self.prefixes = self.prefixes + 1 if token.raw in ("NOT", "-", "+") else 0
        if len(self.open) + self.prefixes > MAX_DEPTH:
            raise too_deep(self.text, token.start)

    def _rewrite(self, token: Token) -> str:
        after = self._near(1)
        if token.raw in ("COLLATE", "ESCAPE", "AS"):
            return self._clause(token, after)
        if token.raw == "IN" and after.raw != "(":
            raise self._refuse(after.start, "IN needs a list.", 'Write it as in state IN ("init", "run").')
        not_null = token.raw == "NULL" and self._near(-1).raw == "NOT" and self._near(-2).raw != "IS"
        if not_null or token.raw in _BEFORE_VALUE | _AFTER_VALUE:
            return token.raw
        if token.raw == "." and NUMBER.fullmatch(f".{after.raw}"):
            self.at += 1
            token = token._replace(kind="number", value=f".{after.raw}")
        if token.kind == "sign" or token.raw in _STATEMENT:
            raise self._meaningless(token)
        if token.kind == "word" and after.raw == "(":
            return self._call(token)
        path = [token.value]
        while token.kind in NAMES and self._near(1).raw == "." and self._near(2).kind in NAMES:
            path.append(self._near(2).value)
            self.at += 2
        return self._leaf(token, token.kind, *path)

    def _leaf(self, token: Token, kind: str, *path: str) -> str:
        key = f"leaf_{len(self.leaves)}"
        self.leaves[key] = token._replace(kind=kind, path=path)
        self.last = "a value"
        return key

    def _clause(self, token: Token, after: Token) -> str:
        self.at += 1
        if token.raw == "COLLATE" and after.raw == "NOCASE":
            return "COLLATE NOCASE"
        if token.raw == "ESCAPE" and after.kind in ("text", "quoted") and len(after.value) == 1:
            return f"ESCAPE '{self._leaf(after, 'text', after.value)}'"
        if token.raw == "AS" and after.raw in TYPES:
            return f", {self._leaf(after, 'type', after.raw)}"
        valid = f"Valid are COLLATE NOCASE, ESCAPE with one quoted letter, CAST(x AS {'/'.join(TYPES)})."
        raise self._refuse(after.start, f"This does not go with {token.value}.", valid)

    def _call(self, token: Token) -> str:
        name = token.value.lower()
        if name not in FUNCTIONS:
            near = "".join(f" Is {close} meant?" for close in get_close_matches(name, FUNCTIONS, 1, 0.75))
            valid = f"Functions, each of one job, are {', '.join(sorted(FUNCTIONS))}.{near}"
            raise self._refuse(token.start, f"A Filter has no function {token.value}.", valid)
        key = self._leaf(token, "call", name)
        self.last = "a call"
        return key

    def _meaningless(self, token: Token) -> FilterError:
        what, valid = f"{token.value} means nothing in a Filter.", f"Operators are {_OPERATORS} NOT."
        if token.raw in _STATEMENT:
            what = f"A Filter is a condition, and {token.value} belongs to a statement."
            valid = f"Write one such as {EXAMPLE}. A field of that name goes into [ ]."
        elif token.raw[0] in "?:@$#":
            what, valid = f"{token.raw[0]} stands for a value that is not given.", "Write the value itself."
        return self._refuse(token.start, what, valid)
