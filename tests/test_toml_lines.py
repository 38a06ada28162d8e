"""The line of each key, as the parser counts it."""

from __future__ import annotations

import tomllib

import pytest

from relay.toml_lines import lines_of


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", {}),
        ("# a = 1\n\nb = 2 # c = 3\n", {"b": 3}),
        ("[s]\na = 1\n[t]\na = 2\n", {"s": 1, "s.a": 2, "t": 3, "t.a": 4}),
        ("[s]\r\na = 1\r\nb = 2\r\n", {"s": 1, "s.a": 2, "s.b": 3}),
        # What looks like a key or a header within a value is none.
        ('a = """\n[s]\nb = 1\n"""\nc = 1\n', {"a": 1, "c": 5}),
        ("a = [\n  1, # ]\n  2,\n]\nb = 1\n", {"a": 1, "b": 5}),
        ("s.a = 1\ns.b = 2\n", {"s": 1, "s.a": 1, "s.b": 2}),
        ("s = { a = 1, b = 2 }\n", {"s": 1, "s.a": 1, "s.b": 1}),
        ("[s.t]\na = 1\n", {"s.t": 1, "s.t.a": 2}),
        ('  [ "s" ]\n  "a" = 1', {"s": 1, "s.a": 2}),
    ],
)
def test_lines(text: str, lines: dict[str, int]) -> None:
    tomllib.loads(text)
    assert lines_of(text) == lines


def test_a_statement_without_end_costs_little() -> None:
    """It is no valid document, but parsing it must end."""
    assert lines_of("a = 1\nb = [\n" + "1,\n" * 100_000) == {"a": 1}
