"""Counting what a subscriber receives, at the least cost: bytes and frames of its raw socket.

The load shares the machine with the server, so a counting subscriber decrypts nothing. It follows
frame headers through the stream, lets the kernel throw large bodies away (``MSG_TRUNC``: no copy),
and keeps the last small frame: with the number of frames before it, that frame can be decrypted.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

LOOK_BYTES: Final = 4096
"""Read to look at: holds small frames whole; of a large one only this much is copied."""
DISCARD_BYTES: Final = 1 << 20
_look: Final = memoryview(bytearray(LOOK_BYTES))
_discard: Final = memoryview(bytearray(DISCARD_BYTES))


@dataclass(frozen=True, slots=True)
class Framing:
    """How a stream is cut: a header whose last ``length_bytes`` are the size of the body."""

    header_bytes: int
    length_bytes: int


RELAY_FRAMES: Final = Framing(4, 3)
TLS_RECORDS: Final = Framing(5, 2)


class Closed(ConnectionError):
    """The server closed a subscriber's connection."""


class Tally:
    """Counts one socket, or only its bytes where there is no framing."""

    __slots__ = ("_framing", "_head", "_need", "_socket", "frames", "size", "tail", "tail_frames")

    def __init__(self, sock: socket.socket, framing: Framing | None) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._framing = framing
        self._head = b""
        self._need = 0
        self.size = 0
        """Bytes so far."""
        self.frames = 0
        """Whole frames so far."""
        self.tail = b""
        """The last frame that came whole in one look."""
        self.tail_frames = 0
        """``frames`` when it was complete: it is the last frame while the two agree."""

    def read(self) -> None:
        """Take what is there, one read. Call when the socket is readable.

        Raises:
            Closed: the stream has ended.
        """
        framing = self._framing
        try:
            if framing is None:
                self._took(self._socket.recv_into(_discard, DISCARD_BYTES, socket.MSG_TRUNC))
            elif self._need > LOOK_BYTES:
                room = min(self._need, DISCARD_BYTES)
                got = self._took(self._socket.recv_into(_discard, room, socket.MSG_TRUNC))
                self._need -= got
                self.frames += not self._need
            else:
                self._walk(self._took(self._socket.recv_into(_look)), framing)
        except BlockingIOError:
            return

    def _took(self, got: int) -> int:
        if not got:
            raise Closed("the server closed a subscriber's connection")
        self.size += got
        return got

    def _walk(self, end: int, framing: Framing) -> None:
        at = 0
        data: memoryview | bytes = _look
        if self._need:
            if end < self._need:
                self._need -= end
                return
            at, self._need = self._need, 0
            self.frames += 1
        if self._head:
            data = self._head + bytes(_look[at:end])
            at, end, self._head = 0, len(data), b""
        header, length = framing.header_bytes, framing.length_bytes
        last = -1
        while at < end:
            if end - at < header:
                self._head = bytes(data[at:end])
                break
            body = at + header
            size = header + int.from_bytes(data[body - length : body], "big")
            if at + size > end:
                self._need = at + size - end
                break
            self.frames += 1
            last = at
            at += size
        if last >= 0:
            self.tail = bytes(data[last:at])
            self.tail_frames = self.frames
