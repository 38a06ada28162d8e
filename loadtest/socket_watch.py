"""The socket under a simulated user: counts, stamps, and cuts like a bad network."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final

from relay.client.address import Address

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, and drop what has not left."""


class WatchedSocket(socket.socket):
    """A TCP socket that knows when it last received, how much, and when to break."""

    def begin(self, cut_after: int | None) -> None:
        """Start watching; break after so many more bytes in either direction (None: never)."""
        self.dialled_ns = time.monotonic_ns()
        """When the connection was asked for."""
        self.received_ns = self.dialled_ns
        """When bytes last came, before any of our own work on them."""
        self.writes_ns: list[int] = []
        """When the first two writes left: the handshake's answer, then the login."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.cut_after = cut_after

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive; the bytes in front of a cut arrive, those behind it never do."""
        left = self.cut_after
        if left is not None and left <= 0:
            self.reset()
            raise ConnectionResetError("cut by the load generator")
        data = super().recv(bufsize if left is None else min(bufsize, left), flags)
        self.received_ns = time.monotonic_ns()
        self.bytes_in += len(data)
        if left is not None:
            self.cut_after = left - len(data)
        return data

    def sendall(self, data: bytes, flags: int = 0, /) -> None:  # type: ignore[override]
        """Send; of what crosses the cut only the part in front of it leaves."""
        left = self.cut_after
        if left is not None:
            if left < len(data):
                super().sendall(data[:left], flags)
                self.cut_after = 0
                self.shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError("cut by the load generator")
            self.cut_after = left - len(data)
        super().sendall(data, flags)
        self.bytes_out += len(data)
        if len(self.writes_ns) < 2:
            self.writes_ns.append(time.monotonic_ns())

    def reset(self) -> None:
        """Break the connection at once, whatever is under way."""
        with contextlib.suppress(OSError):  # it may be over already
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.shutdown(socket.SHUT_RDWR)


def dial_watched(
    address: Address, timeout_s: float, *, cut_after: int | None = None, source: str = ""
) -> WatchedSocket:
    """Connect, from a source address if one is given. Raises OSError."""
    began_ns = time.monotonic_ns()
    where = (address.host, address.port)
    plain = socket.create_connection(where, timeout_s, (source, 0) if source else None)
    watched = WatchedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    watched.begin(cut_after)
    watched.dialled_ns = began_ns
    return watched
