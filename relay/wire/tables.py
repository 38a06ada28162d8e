"""The tables of docs/protocol.md, generated from the code.

``python -m relay.wire.tables docs/protocol.md`` updates them. Each is between a ``<!-- begin NAME
-->`` and an ``<!-- end NAME -->`` line; a test checks that they are up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from relay.codec import Shape
from relay.wire.codes import CloseCode, ErrorCode, may_reconnect
from relay.wire.envelopes import Op
from relay.wire.packing import CLIENT_SHAPES, SERVER_SHAPES
from relay.wire.phases import LEGAL, Phase


def close_codes() -> str:
    """Return the close codes as a Markdown table."""
    lines = ["| close code | name | may reconnect | meaning |", "|---|---|---|---|"]
    lines += [
        f"| {c.value} | `{c.name}` | {'yes' if may_reconnect(c) else 'no'} | {c.explanation} |"
        for c in CloseCode
    ]
    return "\n".join(lines)


def error_codes() -> str:
    """Return the error codes as a Markdown table."""
    lines = ["| error code | name | meaning |", "|---|---|---|"]
    lines += [f"| {e.value} | `{e.name}` | {e.explanation} |" for e in ErrorCode]
    return "\n".join(lines)


def operations(shapes: dict[int, Shape]) -> str:
    """Return the operations of one direction as a Markdown table."""
    lines = ["| op | name | fields after op, in order |", "|---|---|---|"]
    for number, shape in shapes.items():
        names = shape.field_names
        checks = shape.checks + shape.optional
        fields = [f"{name}: {check.__doc__}" for name, check in zip(names, checks, strict=True)]
        if shape.optional:
            first = len(shape.checks)
            fields[first] = f"*or nothing more, or* {fields[first]}"
        lines.append(f"| {int(number)} | `{Op(number).name}` | {' · '.join(fields)} |")
    return "\n".join(lines)


def phases() -> str:
    """Return which frame is legal in which phase as a Markdown table."""
    lines = ["| phase | side: situation | legal frame | anything else |", "|---|---|---|---|"]
    for phase, legal in LEGAL.items():
        # Types are written as in section 2: ServerHello, not SERVER_HELLO.
        frames = ", ".join(frame.name.title().replace("_", "") for frame in legal)
        lines.append(
            f"| `{phase.name}` | {phase.value} | {frames or _NO_FRAME.get(phase, 'not one byte')} "
            f"| {_OTHERWISE.get(phase, 'closed, silently')} |"
        )
    return "\n".join(lines)


_OTHERWISE: Final = {
    Phase.OPEN: "a close record (`PROTOCOL`); the client closes, the server is `DRAINING`",
    Phase.CLOSING: "closed, silently: the close record was sent already",
    Phase.DRAINING: "dropped, for up to 2 s",
    Phase.CLOSED: "never read",
}
_NO_FRAME: Final = {Phase.DRAINING: "none"}
TABLES = {
    "phases": phases,
    "client operations": lambda: operations(CLIENT_SHAPES),
    "server operations": lambda: operations(SERVER_SHAPES),
    "close codes": close_codes,
    "error codes": error_codes,
}


def filled(page: str) -> str:
    """Return a page with every marked table generated from the code."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = table().replace("\\", r"\\")
        page, count = re.subn(pattern, rf"\g<1>{text}\n\g<2>", page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has no place (or several) for the table {name!r}")
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    page = filled(target.read_text(encoding="utf-8"))
    target.write_text(page, encoding="utf-8", newline="\n")
