"""The tables of docs/protocol.md, generated from the code.

``python -m relay.wire.tables docs/protocol.md`` updates them. Each is between a ``<!-- begin NAME
-->`` and an ``<!-- end NAME -->`` line; a test checks that they are up to date. Of some only the
column of the fields is generated: what a request does is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from relay.chat.accounts import requests as account_requests
from relay.chat.rooms import events as room_events
from relay.chat.rooms import requests as room_requests
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
            for at in {first, first + shape.earlier}:
                fields[at] = f"*or nothing more, or* {fields[at]}"
        lines.append(f"| {int(number)} | `{Op(number).name}` | {' · '.join(fields)} |")
    return "\n".join(lines)


def with_fields(table: str, shapes: Mapping[int, Shape]) -> str:
    """Return a table with the fields of these requests or events in its third column.

    Args:
        table: with their numbers in the first column: one, or several with the same fields.
        shapes: by number; each has its row.

    Raises:
        ValueError: a number has no row, or several, or no shape; or two in one row differ.
    """
    left = dict(shapes)
    lines = table.splitlines()
    for at, line in enumerate(lines[2:], 2):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = [int(number) for number in cells[0].split(", ")]
        try:
            fields = {_fields(left.pop(number)) for number in numbers}
        except KeyError as error:
            raise ValueError(f"a row for {error} too many") from None
        if len(fields) != 1:
            raise ValueError(f"{numbers} have different fields: a row for each, please")
        cells[2] = fields.pop()
        lines[at] = "|".join(["", *(f" {cell} " if cell else " " for cell in cells), ""])
    if left:
        raise ValueError(f"no row for {sorted(left)}")
    return "\n".join(lines)


def _fields(shape: Shape) -> str:
    """Return the fields of a request or an event, without ``seen``, which all requests have."""
    fields = zip(shape.field_names, shape.checks, strict=True)
    kind = shape.type.__name__
    return " · ".join(
        f"{_NAMES.get((kind, name)) or _NAMES.get(('', name), name)}: {check.__doc__}"
        for name, check in fields
        if name != "seen"
    )


_NAMES: Final = {("", "handle"): "name", ("NameDevice", "name"): "label"}
"""The page's names of fields that the code calls otherwise: (type, or empty for all, and name)."""


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
TABLES: Final[dict[str, Callable[[str], str]]] = {
    "phases": lambda _: phases(),
    "client operations": lambda _: operations(CLIENT_SHAPES),
    "server operations": lambda _: operations(SERVER_SHAPES),
    "account requests": lambda table: with_fields(table, account_requests.OF_CLIENTS),
    "room events": lambda table: with_fields(table, room_events.SHAPES),
    "room requests": lambda table: with_fields(table, room_requests.OF_CLIENTS),
    "close codes": lambda _: close_codes(),
    "error codes": lambda _: error_codes(),
}
"""By name: what a table becomes."""


def filled(page: str) -> str:
    """Return a page with every marked table generated from the code.

    Raises:
        ValueError: a table has no place, or several; or a row is missing whose text is not in the
            code.
    """
    for name, updated in TABLES.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page has no place (or several) for the table {name!r}")
        before, _, rest = page.partition(begin)
        table, _, after = rest.partition(end)
        page = f"{before}{begin}{updated(table)}{end}{after}"
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    page = filled(target.read_text(encoding="utf-8"))
    target.write_text(page, encoding="utf-8", newline="\n")
