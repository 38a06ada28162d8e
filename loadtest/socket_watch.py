"""The socket of a simulated user: counts, timestamps, and breaks like a bad network."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from relay.client.address import Address

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, and drop what has not left."""


@dataclass(frozen=True, slots=True)
class Network:
    """The quality of a user's network."""

    cut_after: int | None = None
    """The connection breaks after so many bytes, in the middle of whatever is under way."""
    bytes_per_s: float | None = None
    """How fast the user reads."""
    source: str = ""
    """The address to connect from."""


GOOD: Final = Network()
SLOW_BUFFER_BYTES: Final = 4096
"""A slow reader's receive buffer: otherwise the kernel reads for it."""


class WatchedSocket(socket.socket):
    """A TCP socket that records when it last received and how much, and breaks when told to."""

    def begin(self, dialled_ns: int, network: Network) -> None:
        """Start watching."""
        self.dialled_ns = dialled_ns
        """When the connection was asked for."""
        self.received_ns = dialled_ns
        """When bytes last came, before any of our own work on them."""
        self.writes_ns: list[int] = []
        """When the first two writes left: the handshake's answer, then the login."""
        self.bytes_in = 0
        self.cut_after = network.cut_after
        """Bytes, both ways, until the connection breaks; None: it does not."""
        self.cut_answer_after: int | None = None
        """As ``cut_after``, from the end of the next write on."""
        self.bytes_per_s = network.bytes_per_s

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive; the bytes in front of a cut arrive, those behind it never do."""
        if self.bytes_per_s is not None:
            bufsize = max(1, min(bufsize, int(self.bytes_per_s / 10)))
        data = super().recv(bufsize, flags)
        self.received_ns = time.monotonic_ns()
        if self.bytes_per_s is not None:
            time.sleep(len(data) / self.bytes_per_s)
        if self.cut_after is not None:
            data = data[: self.cut_after]
            self.cut_after -= len(data)
            if self.cut_after == 0:
                self.reset()
        self.bytes_in += len(data)
        return data

    def sendall(self, data: bytes, flags: int = 0, /) -> None:  # type: ignore[override]
        """Send; of what crosses the cut only the part in front of it leaves."""
        left = self.cut_after
        if left is not None and left < len(data):
            super().sendall(data[:left], flags)
            self.cut_after = 0
            self.reset()
            raise ConnectionResetError("cut by the load generator")
        super().sendall(data, flags)
        if left is not None:
            self.cut_after = left - len(data)
        if self.cut_answer_after is not None:
            self.cut_after, self.cut_answer_after = self.cut_answer_after, None
        if len(self.writes_ns) < 2:
            self.writes_ns.append(time.monotonic_ns())

    def reset(self) -> None:
        """Break the connection at once, whatever is under way."""
        with contextlib.suppress(OSError):  # it may be over already
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.shutdown(socket.SHUT_RDWR)


def dial_watched(address: Address, timeout_s: float, network: Network = GOOD) -> WatchedSocket:
    """Connect. Raises OSError."""
    began_ns = time.monotonic_ns()
    where = (address.host, address.port)
    source = (network.source, 0) if network.source else None
    plain = socket.create_connection(where, timeout_s, source)
    watched = WatchedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    if network.bytes_per_s is not None:
        watched.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
    watched.begin(began_ns, network)
    return watched
