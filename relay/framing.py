"""One splitter of byte streams into frames, for every stream here that has lengths in front.

The protocol between client and server (``wire.frames``), the bus (``bus.messages``) and the key
agent's (``server.agent.protocol``) differ in what their header holds, not in how a stream is cut.
"""

from __future__ import annotations


class FrameSplitter:
    """Splits a stream of bytes into whole frames, each a header of a fixed size and what follows.

    A subclass tells how long a frame is (``frame_bytes``), from the header alone: a bad one is
    refused before anything behind it is buffered. An offset moves over one buffer; a read that
    holds whole frames (the usual case) is not copied into one, and a frame that comes in many
    pieces is appended to, not copied with each.
    """

    __slots__ = ("_buffer", "_header_bytes", "_start")

    def __init__(self, header_bytes: int) -> None:
        self._header_bytes = header_bytes
        self._buffer: bytes | bytearray = b""
        self._start = 0

    def frame_bytes(self, header: bytes | bytearray) -> int:
        """Return the size of a frame, its header included; raise for a header that is illegal."""
        raise NotImplementedError

    @property
    def pending(self) -> int:
        """Bytes received that belong to no complete frame yet."""
        return len(self._buffer) - self._start

    def head(self, count: int = 64) -> bytes:
        """Return the first of the pending bytes."""
        return bytes(self._buffer[self._start : self._start + count])

    def feed_bytes(self, data: bytes) -> None:
        """Append received bytes."""
        if self._start == len(self._buffer):
            self._buffer = data  # nothing was left over, nothing is copied
        elif isinstance(self._buffer, bytearray) and self._start == 0:
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._start :]) + data
        self._start = 0

    def next_frame(self, skip: int = 0) -> bytes | None:
        """Return the next whole frame without its first ``skip`` bytes; None: there is none yet.

        Raises whatever ``frame_bytes`` raises.
        """
        buffer, start = self._buffer, self._start
        body = start + self._header_bytes
        if len(buffer) < body:
            return None
        end = start + self.frame_bytes(buffer[start:body])
        if len(buffer) < end:
            return None
        if isinstance(buffer, bytearray):
            frame = bytes(memoryview(buffer)[start + skip : end])
        elif start + skip == 0 and end == len(buffer):
            frame = buffer  # not copied; compiled, a slice of all of it would be
        else:
            frame = buffer[start + skip : end]
        if end == len(buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end
        return frame
