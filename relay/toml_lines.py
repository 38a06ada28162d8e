"""The line of each key in a TOML file, which ``tomllib`` does not provide."""

from __future__ import annotations

import tomllib
from typing import Any, Final

_STATEMENT_LINES_MAX: Final = 200
"""A longer statement (a list, a multi-line text) is not examined: each line of it is parsed
together with all lines before it."""


def lines_of(text: str) -> dict[str, int]:
    """Return the line (from 1) on which each key and each table begins, by its dotted path.

    The parser itself determines where a statement ends: a part of one is never a valid document.
    Keys in an invalid part have no line.
    """
    found: dict[str, int] = {}
    table: tuple[str, ...] = ()
    pending: list[str] = []
    began = 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not pending:
            began = number
        pending.append(line)
        try:
            parsed = tomllib.loads("\n".join(pending))
        except (ValueError, RecursionError):
            if len(pending) >= _STATEMENT_LINES_MAX:
                break
            continue
        header = line.lstrip().startswith("[") and len(pending) == 1
        pending.clear()
        if header:
            table = _only_path(parsed)
            found.setdefault(".".join(table), began)
            continue
        for path in _paths(parsed, table):
            found.setdefault(path, began)
    return found


def _only_path(parsed: dict[str, Any]) -> tuple[str, ...]:
    """Return the path of a document that consists only of a header."""
    path: list[str] = []
    inner: Any = parsed
    while isinstance(inner, dict) and inner:
        key, inner = next(iter(inner.items()))
        path.append(key)
    return tuple(path)


def _paths(parsed: dict[str, Any], table: tuple[str, ...]) -> list[str]:
    """Return every path of a statement, including those of tables on the way."""
    found = []
    for key, value in parsed.items():
        path = (*table, key)
        found.append(".".join(path))
        if isinstance(value, dict):
            found += _paths(value, path)
    return found
