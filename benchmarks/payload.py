"""The message that every contender carries: its number, when it was meant to be sent, filler.

The number tells loss, repeats and disorder; the time is ``time.monotonic_ns`` of the *intended*
moment, so that a server which stalls the sender does not hide its delay (coordinated omission).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

SIZE_BYTES: Final = 200
_HEAD: Final = struct.Struct(">QQ")
_FILLER: Final = bytes(33 + n % 90 for n in range(65_536))


class Stamp(NamedTuple):
    """What a body carries."""

    number: int
    intended_ns: int


def make(number: int, intended_ns: int, size: int = SIZE_BYTES) -> bytes:
    """Return the body of a message."""
    return _HEAD.pack(number, intended_ns) + _FILLER[: size - _HEAD.size]


def check(body: bytes, size: int = SIZE_BYTES) -> Stamp:
    """Return what a body carries.

    Raises:
        ValueError: it is not, byte for byte, a body that ``make`` made.
    """
    if len(body) != size or body[_HEAD.size :] != _FILLER[: size - _HEAD.size]:
        raise ValueError("a message was damaged")
    return Stamp._make(_HEAD.unpack_from(body))


def intended_ns(body: bytes) -> int:
    """Return when a body was meant to be sent."""
    return Stamp._make(_HEAD.unpack_from(body)).intended_ns
