"""Writes ``statements.sql``."""

from paraschut.store.statements import FILE, rendered

FILE.write_text(rendered(), encoding="utf-8")
