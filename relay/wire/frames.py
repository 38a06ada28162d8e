"""Framing: ``type u8, length u24, body``. Size first: a bad header is refused before it buffers.

An offset loop over one buffer, and none at all when a read holds whole frames (the usual case).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from relay import limits
from relay.errors import IllegalFrame

HEADER: Final = limits.FRAME_HEADER_BYTES


class FrameType(IntEnum):
    """The types of frames; a legal first byte cannot begin HTTP, TLS or SSH."""

    SERVER_HELLO = 1
    CLIENT_KEY = 2
    SERVER_FINISHED = 3
    CLIENT_FINISHED = 4
    RECORD = 0x10


_BOUNDS: Final[dict[int, tuple[int, int]]] = {
    FrameType.SERVER_HELLO: (1, limits.HANDSHAKE_BODY_BYTES_MAX),
    FrameType.CLIENT_KEY: (1, limits.HANDSHAKE_BODY_BYTES_MAX),
    FrameType.SERVER_FINISHED: (1, limits.HANDSHAKE_BODY_BYTES_MAX),
    FrameType.CLIENT_FINISHED: (1, limits.HANDSHAKE_BODY_BYTES_MAX),
    FrameType.RECORD: (limits.RECORD_BODY_BYTES_MIN, limits.RECORD_BODY_BYTES_MAX),
}


def header(frame_type: int, length: int) -> bytes:
    """Return the four header bytes of a frame with a body of ``length`` bytes."""
    return ((frame_type << 24) | length).to_bytes(HEADER, "big")


def frame(frame_type: FrameType, body: bytes) -> bytes:
    """Return a whole frame."""
    low, high = _BOUNDS[frame_type]
    assert low <= len(body) <= high
    return header(frame_type, len(body)) + body


class FrameReader:
    """Splits a stream of bytes into whole frames.

    ``allowed`` is set by the owner to the frame types that are legal *now*: a header of any other
    type is refused at its fourth byte, whatever would follow.
    """

    __slots__ = ("_buffer", "_start", "allowed")

    def __init__(self, allowed: tuple[FrameType, ...]) -> None:
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self.allowed = allowed

    @property
    def pending(self) -> int:
        """Bytes received that belong to no complete frame yet."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        if self._start == len(self._buffer):
            self._buffer = data  # the usual case: nothing was left over, nothing is copied
        elif isinstance(self._buffer, bytearray) and self._start == 0:
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._start :]) + data
        self._start = 0

    def next(self) -> tuple[int, bytes] | None:
        """Return the next whole frame as (type, header and body), or None.

        Raises:
            IllegalFrame: illegal type or length, known from the header alone.
        """
        buffer, start = self._buffer, self._start
        if len(buffer) - start < HEADER:
            return None
        word = int.from_bytes(buffer[start : start + HEADER], "big")
        frame_type, length = word >> 24, word & 0xFFFFFF
        if frame_type not in self.allowed:
            raise IllegalFrame(f"a frame of type {frame_type} is not legal now")
        low, high = _BOUNDS[frame_type]
        if not low <= length <= high:
            raise IllegalFrame(f"a frame of type {frame_type} with {length} bytes")
        end = start + HEADER + length
        if len(buffer) < end:
            return None
        if isinstance(buffer, bytearray):
            whole = bytes(memoryview(buffer)[start:end])
        else:
            whole = buffer[start:end]  # the same object when it is the whole buffer
        if end == len(buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end
        return frame_type, whole
