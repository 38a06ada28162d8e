"""A splitter of byte streams into frames, for every stream with length prefixes.

The protocol between client and server (``wire.frames``), the bus (``bus.messages``) and the key
agent's (``server.agent.protocol``) differ in their headers, not in how a stream is split.
"""

from __future__ import annotations


class FrameSplitter:
    """Splits a stream of bytes into whole frames, each a header of a fixed size and what follows.

    A subclass determines the size of a frame (``frame_bytes``) from the header alone: a bad one is
    refused before anything after it is buffered. An offset moves over one buffer. A read that
    contains whole frames (the usual case) is not copied into one, and a frame that arrives in many
    pieces is appended to, not copied with each.
    """

    __slots__ = ("_buffer", "_header_bytes", "_start", "pending")

    def __init__(self, header_bytes: int) -> None:
        self._header_bytes = header_bytes
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self.pending = 0
        """Bytes received that do not belong to a complete frame yet."""

    def frame_bytes(self, header: bytes | bytearray) -> int:
        """Return the size of a frame, including its header; raise for an illegal header."""
        raise NotImplementedError

    def head(self, count: int = 64) -> bytes:
        """Return the first of the pending bytes."""
        return bytes(self._buffer[self._start : self._start + count])

    def feed_bytes(self, data: bytes) -> None:
        """Append received bytes."""
        if not self.pending:
            self._buffer = data  # nothing was left over, nothing is copied
        elif isinstance(self._buffer, bytearray) and self._start == 0:
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._start :]) + data
        self._start = 0
        self.pending += len(data)

    def drop(self) -> None:
        """Drop what was received."""
        self._buffer, self._start, self.pending = b"", 0, 0

    def next_frame(self, skip: int = 0) -> bytes | None:
        """Return the next whole frame without its first ``skip`` bytes; None: there is none yet.

        Raises whatever ``frame_bytes`` raises.
        """
        if self.pending < self._header_bytes:
            return None
        buffer, start = self._buffer, self._start
        size = self.frame_bytes(buffer[start : start + self._header_bytes])
        if self.pending < size:
            return None
        end = start + size
        self.pending -= size
        if isinstance(buffer, bytearray):
            frame = bytes(memoryview(buffer)[start + skip : end])
        elif start + skip == 0 and end == len(buffer):
            frame = buffer  # not copied; compiled, a slice of all of it would be
        else:
            frame = buffer[start + skip : end]
        if self.pending:
            self._start = end
        else:
            self._buffer, self._start = b"", 0
        return frame
