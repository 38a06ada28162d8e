"""The only way for commands to print lines: all text is sanitised.

Labels, names and states come from a server, which may send anything. So commands use neither
``print`` nor ``click.echo`` (ruff forbids both here): lines for people are sanitised, and in JSON
everything that controls a terminal is escaped. Messages and notices use ``Screen`` instead.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from relay.terminal.size import terminal_columns
from relay.terminal.text import harmless, is_unseen
from relay.terminal.view import line_rows

INDENT: Final = "    "
"""Indent of continuation lines at a terminal: no line of ours begins with it."""


def print_line(text: str = "") -> None:
    """Print one line.

    At a terminal it is wrapped with an indent, so no part looks like a new line.
    """
    width = terminal_columns(sys.stdout.fileno()) if sys.stdout.isatty() else None
    rows = line_rows(harmless(text), width, INDENT)
    sys.stdout.write("".join(f"{row}\n" for row in rows))


def print_whole(text: str) -> None:
    """Print one line that people copy as a whole (a key, a path, TOML): it is never wrapped.

    It must not contain text that others can choose freely.
    """
    sys.stdout.write(f"{harmless(text)}\n")


def print_json(fields: Any) -> None:  # noqa: ANN401  # whatever JSON can express
    """Print a document as one line of JSON."""
    sys.stdout.write(f"{dump(fields)}\n")


def print_error_line(text: str) -> None:
    """Print one line on standard error: what was done, if standard output is for programs."""
    sys.stderr.write(f"{harmless(text)}\n")
    sys.stderr.flush()


def dump(fields: Any) -> str:  # noqa: ANN401  # whatever JSON can express
    """Return an object as one line. Terminal control characters and invisible ones are escaped."""
    text = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if is_unseen(char) else char for char in text)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"
