"""Checks of the arguments of client calls: wrong use is reported before anything is sent.

A wrong type raises TypeError, a value outside its range ValueError; both name the argument, its
value, and what is allowed. Whether a *name* is valid is decided by the protocol: NameInvalid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, TypeVar

from relay import limits
from relay.chat import names
from relay.chat.entries import NO_EPOCH, Cursor
from relay.client.errors import MessageTooLong
from relay.client.refusals import refused
from relay.wire.codes import ErrorCode

SECONDS_MAX: Final = 1e8
"""Three years. Anything longer means "for ever", and would overflow the system's timers."""
QUOTED_CHARS_MAX: Final = 60
_Word = TypeVar("_Word", bound=str)


def text(name: str, value: object) -> str:
    """Return a str that can be sent: without lone surrogates."""
    if not isinstance(value, str):
        raise _wrong_type(name, value, "a str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} has half of a surrogate pair: it is not text") from None
    return value


def short_text(name: str, value: object, chars_max: int, bytes_max: int, chars_min: int = 0) -> str:
    """Return a str of limited length, in characters and in bytes of UTF-8."""
    checked = text(name, value)
    if not chars_min <= len(checked) <= chars_max or len(checked.encode()) > bytes_max:
        least = f"{chars_min} to " if chars_min else "at most "
        raise ValueError(
            f"{name} has {len(checked)} characters; allowed are {least}{chars_max}"
            f" in {bytes_max} bytes of UTF-8"
        )
    return checked


def room_name(value: object) -> str:
    """Return the canonical spelling of a room's name. Raises NameInvalid, TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"the name of a room must be a str, not {type(value).__name__}")
    room = names.normal(value)
    if names.is_room(room) or names.is_inbox(room):
        return room
    raise refused(ErrorCode.NAME_INVALID, 0, "2 to 32 characters of a-z, 0-9, _ and -")


def room_identity(name: str, value: object) -> bytes:
    """Return the identity of a room; empty: of none."""
    if not isinstance(value, bytes):
        raise _wrong_type(name, value, "bytes")
    if value and len(value) != limits.EPOCH_BYTES:
        raise ValueError(f"{name} has {len(value)} bytes; it must have {limits.EPOCH_BYTES}, or 0")
    return value


ME: Final = "@me"
"""The account's own inbox, whatever its name is."""


def own_inbox(name: str) -> str:
    """Return the log of an account's own inbox."""
    return names.INBOX_PREFIX + names.normal(name)


def message(content_type: object, body: bytes, body_bytes_max: int) -> None:
    """Check the content of a send. Raises MessageTooLong, TypeError, ValueError."""
    kind = text("content_type", content_type)
    if len(body) > body_bytes_max:
        raise MessageTooLong(
            f"a message of {len(body)} bytes; at most {body_bytes_max} are allowed"
        )
    if len(kind.encode()) > limits.CONTENT_TYPE_BYTES_MAX:
        raise MessageTooLong(f"a content type over {limits.CONTENT_TYPE_BYTES_MAX} bytes")


def body_bytes(value: object) -> bytes:
    """Return the bytes of a message's body."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return text("body", value).encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise _wrong_type(
        "body", value, "a str or bytes; encode other values first, as with json.dumps"
    )


def flag(name: str, value: object) -> bool:
    """Return a bool; other truthy values are refused: "no" would be True."""
    if not isinstance(value, bool):
        raise _wrong_type(name, value, "a bool")
    return value


def flag_or_none(name: str, value: object) -> bool | None:
    """Return a bool; None stands for a default."""
    return None if value is None else flag(name, value)


def integer(name: str, value: object, minimum: int, maximum: int) -> int:
    """Return an int in a range. A bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, value, "an int")
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} is {value}; it must be from {minimum} to {maximum}")
    return value


def word(name: str, value: object, allowed: Iterable[_Word]) -> _Word:
    """Return one of several words."""
    words = tuple(allowed)
    if not isinstance(value, str):
        raise _wrong_type(name, value, f"one of {', '.join(words)}")
    for one in words:
        if one == value:
            return one
    raise ValueError(f"{name} is {quoted(value)}; it must be one of {', '.join(words)}")


def quoted(value: str) -> str:
    """Quote a text for an error, truncated: its length is not known."""
    return repr(value if len(value) <= QUOTED_CHARS_MAX else f"{value[:QUOTED_CHARS_MAX]}...")


def number(name: str, value: object, maximum: float) -> float:
    """Return an int or float from 0 to a maximum."""
    given = _number(name, value, "a number")
    if not 0 <= given <= maximum:
        raise ValueError(f"{name} is {given}; it must be from 0 to {maximum}")
    return given


def _number(name: str, value: object, wanted: str) -> float:
    """Return an int or float. A bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(name, value, wanted)
    return value


def bounds(name: str, value: object) -> tuple[int, int, int]:
    """Return limits for keeping messages: seconds, messages, bytes."""
    if not isinstance(value, tuple | list):
        raise _wrong_type(name, value, "a tuple of seconds, messages and bytes")
    if len(value) != 3:
        raise ValueError(f"{name} has {len(value)} numbers; it must be seconds, messages and bytes")
    age, messages, size = (integer(name, one, 0, limits.U63_MAX) for one in value)
    return age, messages, size


def several(name: str, value: object) -> tuple[object, ...]:
    """Return the elements of a collection. A str is one element, not its characters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise _wrong_type(name, value, "several names, as in a list")
    return tuple(value)


def seconds(name: str, value: object) -> float:
    """Return a time in seconds, 0 or more."""
    given = _number(name, value, "a number of seconds")
    if math.isnan(given) or given < 0:
        raise ValueError(f"{name} is {given}; it must be 0 or more seconds")
    return min(float(given), SECONDS_MAX)


def seconds_or_none(name: str, value: object) -> float | None:
    """Return a time in seconds; None stands for no limit."""
    return None if value is None else seconds(name, value)


def join_start(last: object, since: object, cursor: object) -> tuple[Cursor | None, int]:
    """Return (the cursor that a join starts after or None, the number of last entries)."""
    count = integer("last", last, 0, limits.HISTORY_ON_JOIN_MAX)
    if (count > 0) + (since is not None) + (cursor is not None) > 1:
        raise ValueError("only one of last, since and cursor can be given")
    if since is not None:
        return Cursor(NO_EPOCH, integer("since", since, 0, limits.U63_MAX)), 0
    return (None, count) if cursor is None else (place("cursor", cursor), 0)


def place(name: str, cursor: object) -> Cursor:
    """Return a cursor."""
    if not isinstance(cursor, tuple) or len(cursor) != 2 or not isinstance(cursor[0], bytes):
        raise _wrong_type(name, cursor, "a Cursor(epoch: bytes, seq: int)")
    if len(cursor[0]) != limits.EPOCH_BYTES:
        raise ValueError(f"{name}.epoch has {len(cursor[0])} bytes; it must have 8")
    return Cursor(cursor[0], integer(f"{name}.seq", cursor[1], 0, limits.U63_MAX))


def page_start(before: object, after: object, count: object) -> tuple[bool, int, int]:
    """Return (forward, seq, count) of a history request; by default back from the newest."""
    checked = integer("count", count, 1, limits.PAGE_ENTRIES_MAX)
    if before is not None and after is not None:
        raise ValueError("only one of before and after can be given")
    if after is not None:
        return True, integer("after", after, 0, limits.U63_MAX), checked
    seq = 0 if before is None else integer("before", before, 0, limits.U63_MAX)
    return False, seq, checked


def search(words: object, before: object, count: object) -> tuple[str, int, int]:
    """Return (the search text, before, count) of a search."""
    checked = text("text", words)
    length = len(checked.encode())
    if not 1 <= length <= limits.SEARCH_BYTES_MAX:
        raise ValueError(f"text has {length} bytes; it must have 1 to {limits.SEARCH_BYTES_MAX}")
    number = 0 if before is None else integer("before", before, 1, limits.U63_MAX)
    return checked, number, integer("count", count, 1, limits.SEARCH_COUNT_MAX)


def _wrong_type(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")
