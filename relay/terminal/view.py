"""Formats messages and notices as lines of text. Pure functions; all results are sanitised.

A message is ``HH:MM sender| text``; its further lines are indented, so they cannot look like a
message or a notice. A notice begins with ``-!-``, which neither a time nor a sender can; its
further lines are indented, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.terminal.text import (
    CUT,
    DISPLAY_LINES_MAX,
    columns,
    harmless,
    harmless_name,
    wrapped,
)

if TYPE_CHECKING:  # commands that print need no client
    from relay.client.events import LogEntry, RoomChanged

NOTICE: Final = "-!- "
_NOTICE_INDENT: Final = " " * len(NOTICE)
_HEAD_INDENT: Final = "  ... "
"""Before the rest of a head that is wider than the terminal."""
_TEXT_COLUMNS_MIN: Final = 20
"""If fewer columns are left beside the sender, the text begins on a new line."""
_TIME_MS_MAX: Final = 253_402_214_400_000
"""One day before the year 10000, which datetime cannot express in any time zone."""


class Line(NamedTuple):
    """One line to show: ``head`` (time and sender, or the indentation) may be coloured."""

    head: str
    text: str


def message_lines(
    stamp: str, sender: str, text: str, width: int | None = None, label: str = ""
) -> list[Line]:
    """Return the lines of a message.

    Args:
        stamp: its time, as formatted by ``clock`` or ``day_and_clock``.
        sender: who sent it, according to the server.
        text: the text as received.
        width: columns of the terminal: lines are wrapped to it, and limited to
            ``DISPLAY_LINES_MAX``. None: not for a terminal; one line for each line of the text.
        label: instead of the sender's name alone; already sanitised.
    """
    head = f"{stamp} {label or harmless_name(sender)}| "
    indent = " " * (columns(head) - 2) + "| "
    lines = harmless(text, allow="\n\t").split("\n")
    if width is None:
        return [Line(head if n == 0 else indent, line) for n, line in enumerate(lines)]
    shown: list[Line] = []
    if width - columns(head) < _TEXT_COLUMNS_MIN:
        # A label quotes what another user wrote: it must not begin a row.
        shown += [Line(row, "") for row in line_rows(head.rstrip(), width, _HEAD_INDENT)]
        head = indent = "  | "
    pieces = _cut(lines, max(width - columns(head), 1))
    shown += [Line(head if n == 0 else indent, piece) for n, piece in enumerate(pieces)]
    return shown


def notice_lines(text: str, width: int | None = None) -> list[Line]:
    """Return the lines of a notice of our own. What it quotes may be anything.

    Only the first begins with ``NOTICE``: a quoted text, wrapped at the right place, could
    otherwise fake a notice.
    """
    text = harmless(text)
    if width is None:
        return [Line(NOTICE, text)]
    pieces = _cut([text], max(width - len(NOTICE), 1))
    return [Line(_NOTICE_INDENT if n else NOTICE, piece) for n, piece in enumerate(pieces)]


def line_rows(text: str, width: int | None, indent: str) -> list[str]:
    """Return a sanitised line of our own as terminal rows; all after the first are indented.

    If the terminal wrapped it, the second row could begin with quoted text where a line begins.
    ``width``: columns of the terminal; None: not a terminal, and the line stays whole.
    """
    if width is None or columns(text) <= width:
        return [text]
    pieces = _cut([text], max(width - len(indent), 1))
    return [f"{indent}{piece}" if n else piece for n, piece in enumerate(pieces)]


def notice_line(text: str, width: int) -> str:
    """Return a notice of our own as a single line; if too long, it ends with an ellipsis."""
    room = max(width - len(NOTICE), 2)
    shown = harmless(text, allow="\n").replace("\n", " ")
    if columns(shown) > room:
        shown = next(wrapped(shown, room - 1)) + "…"
    return NOTICE + shown


def _cut(lines: list[str], width: int) -> Iterator[str]:
    pieces = (piece for line in lines for piece in wrapped(line, width))
    yield from islice(pieces, DISPLAY_LINES_MAX)
    if next(pieces, None) is not None:
        yield CUT


def body_text(content_type: str, body: bytes) -> str:
    r"""Return a body as text: as it is, or a description if it is not text.

    Bytes that are not UTF-8 become visible escapes such as ``\xff``.
    """
    if not content_type.startswith("text/"):
        return f"[{content_type or 'no content type'}, {len(body)} bytes]"
    return body.decode("utf-8", "backslashreplace")


def sender_of(entry: LogEntry | RoomChanged) -> str:
    """Return the author of an entry, and that this is unverified, if so."""
    who = harmless_name(entry.sender)
    return f"{who} (unverified)" if entry.doubt else who


def _local(pattern: str, time_ms: int) -> str:
    """Return a server's time in local time. ``datetime`` refuses some valid values of TZ."""
    return time.strftime(pattern, time.localtime(min(time_ms, _TIME_MS_MAX) // 1000))


def clock(time_ms: int) -> str:
    """Return ``HH:MM``, local time."""
    return _local("%H:%M", time_ms)


def day(time_ms: int) -> str:
    """Return ``YYYY-MM-DD``, local time."""
    return _local("%Y-%m-%d", time_ms)


def day_and_minute(time_ms: int) -> str:
    """Return ``YYYY-MM-DD HH:MM``, local time."""
    return _local("%Y-%m-%d %H:%M", time_ms)


def day_and_clock(time_ms: int) -> str:
    """Return ``YYYY-MM-DD HH:MM:SS``, local time."""
    return _local("%Y-%m-%d %H:%M:%S", time_ms)


def rfc3339(time_ms: int) -> str:
    """Return ``YYYY-MM-DDTHH:MM:SS.mmmZ``."""
    moment = datetime.fromtimestamp(min(time_ms, _TIME_MS_MAX) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


assert columns(NOTICE) == len(NOTICE)
