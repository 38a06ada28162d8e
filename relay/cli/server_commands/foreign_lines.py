"""Messages in files: our JSON lines, and the logs of irssi and weechat. Pure."""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from relay import limits
from relay.chat.names import is_handle
from relay.errors import UsageError

TEXT: Final = "text/plain"
_IRSSI_DAY: Final = re.compile(r"--- (?:Log opened|Day changed) (.*)")
_IRSSI_LINE: Final = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?\s+<[ @+%&~]?([^>\s]+)> (.*)")
_IRSSI_ACTION: Final = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?\s+\* (\S+) (.*)")
_IRSSI_DATES: Final = ("%a %b %d %H:%M:%S %Y", "%a %b %d %Y")
FUTURE_MS: Final = 24 * 3600 * 1000
"""How far a file's times may be in the future: its clock or time zone may be ahead of ours."""
_WINDOWS: Final = {
    byte: char
    for byte in range(0x80, 0xA0)
    if (char := bytes([byte]).decode("cp1252", errors="ignore"))
}
"""The characters of Windows-1252 that are control characters in Latin-1."""
_WEECHAT_MARKS: Final = frozenset({"", "-->", "<--", "--", "=!="})


class Read(NamedTuple):
    """One message of a file."""

    room: str
    time_ms: int
    sender: str
    content_type: str
    body: bytes


def decoded(lines: Iterable[bytes], *, mixed: bool) -> Iterator[str]:
    """Decode the lines of a file, without their ends.

    Args:
        lines: of the file.
        mixed: lines that are not UTF-8 are Windows-1252, which includes Latin-1: many programs on
            IRC have sent, and logged, both.

    Raises:
        UsageError: one is not UTF-8: with other characters in its place it would be another text.
    """
    for number, line in enumerate(lines, 1):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        content = content.rstrip(b"\r\n")
        try:
            yield content.decode()
        except UnicodeDecodeError:
            if not mixed:
                raise UsageError(f"line {number}: not UTF-8") from None
            yield "".join(_WINDOWS.get(byte, chr(byte)) for byte in content)


def json_lines(lines: Iterable[str], room: str | None, now_ms: int) -> Iterator[Read]:
    """Parse the output of ``relay data export`` and ``relay tail --json``.

    Gaps, direct messages, and entries about other messages are left out.

    Args:
        lines: of the file.
        room: the room for all of it; None: the room of each line.
        now_ms: milliseconds since 1970.

    Raises:
        UsageError: a line has another format; the message names the line.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _object(json.loads(line))
            if "gap" in found or "kind" in found or "to" in found:
                continue
            body = _text(found["body"])
            raw = _decoded(body, found.get("encoding"))
            read = Read(
                room or _text(found["room"]),
                _ms(datetime.fromisoformat(found["time"])),
                _text(found["sender"]),
                _text(found.get("content_type", TEXT)),
                raw,
            )
            read.content_type.encode()  # half of a surrogate pair is not valid text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise UsageError(f"line {number}: not a message as JSON ({why})") from None
        yield _checked(number, read, now_ms)


def irssi(lines: Iterable[str], room: str, now_ms: int) -> Iterator[Read]:
    """Parse a log of irssi: messages and actions; joins and the like are left out.

    Raises:
        UsageError: a message comes before the first date, or has an invalid time; or it is another
            kind of file.
    """
    day: datetime | None = None
    number = 0
    for number, line in enumerate(lines, 1):
        if opened := _IRSSI_DAY.match(line):
            day = _date(opened[1].strip()) or day
            continue
        message, action = _IRSSI_LINE.match(line), _IRSSI_ACTION.match(line)
        found = message or action
        if found is None:
            continue
        if day is None:
            raise UsageError(f'line {number}: no line "--- Log opened" tells which day it is')
        hour, minute, second, sender, text = found.groups()
        try:
            time_ms = _ms(day.replace(hour=int(hour), minute=int(minute), second=int(second or 0)))
        except ValueError:
            raise UsageError(f"line {number}: expected a time, not {line[:8]!r}") from None
        text = text if message else f"* {sender} {text}"
        yield _checked(number, Read(room, time_ms, sender, TEXT, text.encode()), now_ms)
    if number and day is None:
        raise UsageError('not an irssi log: no line "--- Log opened"')


def weechat(lines: Iterable[str], room: str, now_ms: int) -> Iterator[Read]:
    """Parse a log of weechat: messages and actions; joins and the like are left out.

    Raises:
        UsageError: a line has no date, or it is another kind of file.
    """
    number = seen = 0
    for number, line in enumerate(lines, 1):
        when, tab, rest = line.rstrip("\n").partition("\t")
        sender, tab2, text = rest.partition("\t")
        if not tab or not tab2:
            continue
        try:
            time_ms = _ms(datetime.strptime(when, "%Y-%m-%d %H:%M:%S"))  # noqa: DTZ007
        except ValueError:
            raise UsageError(f"line {number}: expected a date, not {when[:40]!r}") from None
        seen += 1
        sender = sender.strip()
        if sender in _WEECHAT_MARKS:
            continue
        if sender == "*":
            sender, _, _ = text.partition(" ")
            text = f"* {text}"
        sender = sender.lstrip("@+%&~ ")
        yield _checked(number, Read(room, time_ms, sender, TEXT, text.encode()), now_ms)
    if number and not seen:
        raise UsageError("not a weechat log: no line has a date, a name and a text between tabs")


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object. Raises TypeError: it is something else, which is no message."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {type(value).__name__}")
    return value


def _decoded(body: str, encoding: object) -> bytes:
    """Return a body. Raises ValueError: its encoding is unknown, or it is not encoded so."""
    if encoding == "base64":
        return base64.b64decode(body, validate=True)
    if encoding is not None:
        raise ValueError(f"the encoding {encoding!r} is unknown")
    return body.encode()


def _text(value: object) -> str:
    """Return a text. Raises TypeError: it is something else, which would not be what was meant."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, not {type(value).__name__}")
    return value


def _ms(moment: datetime) -> int:
    """Return a time as ms since 1970. Raises ValueError if it does not exist."""
    try:
        return int(moment.timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _date(text: str) -> datetime | None:
    for form in _IRSSI_DATES:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007  # the log is in local time
        except ValueError:
            continue
    return None


def _checked(number: int, read: Read, now_ms: int) -> Read:
    if not is_handle(read.room):
        raise UsageError(f"line {number}: invalid room name {read.room[:40]!r}; give --room")
    if not 0 <= read.time_ms <= limits.U63_MAX:
        raise UsageError(f"line {number}: a time before 1970")
    if read.time_ms > now_ms + FUTURE_MS:
        # Times in a room never go back: every later message would have this time.
        raise UsageError(f"line {number}: a time in the future")
    if len(read.body) > limits.BODY_BYTES_MAX:
        raise UsageError(
            f"line {number}: {len(read.body)} bytes; a message has {limits.BODY_BYTES_MAX} at most"
        )
    if len(read.content_type.encode()) > limits.CONTENT_TYPE_BYTES_MAX:
        raise UsageError(f"line {number}: the content type is too long")
    return read
