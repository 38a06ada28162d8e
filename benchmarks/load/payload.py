"""The message that every contender carries: number, time, its own size, filler.

The number tells loss, repeats and disorder; the time is ``time.monotonic_ns`` of the *intended*
moment, so that a server which stalls the sender does not hide its delay (coordinated omission);
the size tells a message that was cut short.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

SIZE_BYTES: Final = 200
_HEAD: Final = struct.Struct(">QQI")
_FILLER: Final = bytes(33 + n % 90 for n in range(65_536))


class Stamp(NamedTuple):
    """What a body carries."""

    number: int
    intended_ns: int
    size: int


def make(number: int, intended_ns: int, size: int = SIZE_BYTES) -> bytes:
    """Return the body of a message."""
    return _HEAD.pack(number, intended_ns, size) + _FILLER[: size - _HEAD.size]


def check(body: bytes) -> Stamp:
    """Return what a body carries.

    Raises:
        ValueError: it is not, byte for byte, a body that ``make`` made.
    """
    if len(body) >= _HEAD.size:
        stamp = Stamp._make(_HEAD.unpack_from(body))
        if len(body) == stamp.size and body[_HEAD.size :] == _FILLER[: stamp.size - _HEAD.size]:
            return stamp
    raise ValueError("a message was damaged")


def intended_ns(body: bytes) -> int:
    """Return when a body was meant to be sent."""
    return Stamp._make(_HEAD.unpack_from(body)).intended_ns
