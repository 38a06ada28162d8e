"""Framing: ``type u8, length u24, body``. A bad header is refused before anything is buffered."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from relay import limits
from relay.errors import IllegalFrame
from relay.framing import FrameSplitter

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


class FrameReader(FrameSplitter):
    """Splits a stream of bytes into whole frames.

    The owner sets ``allowed`` to the frame types that are legal *now*: a header of any other type
    is refused at its fourth byte, whatever would follow. So is a body longer than
    ``body_bytes_max``, which the owner may lower and raise.
    """

    __slots__ = ("allowed", "body_bytes_max")

    def __init__(
        self,
        allowed: tuple[FrameType, ...],
        body_bytes_max: int = limits.RECORD_BODY_BYTES_MAX,
    ) -> None:
        super().__init__(HEADER)
        self.allowed = allowed
        self.body_bytes_max = body_bytes_max

    def frame_bytes(self, header: bytes | bytearray) -> int:
        """See ``FrameSplitter``.

        Raises:
            IllegalFrame: illegal type or length.
        """
        frame_type = header[0]
        if frame_type not in self.allowed:
            raise IllegalFrame(f"a frame of type {frame_type} is not legal now")
        length = int.from_bytes(header, "big") & 0xFFFFFF
        low, high = _BOUNDS[frame_type]
        if not low <= length <= high or length > self.body_bytes_max:
            raise IllegalFrame(f"a frame of type {frame_type} with {length} bytes")
        return HEADER + length

    def close(self) -> None:
        """Drop what was received, and take no frame any more."""
        self.drop()
        self.allowed = ()

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self.feed_bytes(data)

    def next(self) -> tuple[int, bytes] | None:
        """Return the next whole frame as (type, header and body), or None.

        Raises:
            IllegalFrame: illegal type or length, known from the header alone.
        """
        frame = self.next_frame()
        return None if frame is None else (frame[0], frame)
