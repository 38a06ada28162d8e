"""The one owner of a client's TCP socket: reads, writes, options, and what the kernel knows of it.

Everything above sees bytes in and bytes out. Another transport for the same records (a WebSocket)
overrides ``write`` and ``data_received``; neither session nor outbox would notice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol, cast

from relay import limits

if TYPE_CHECKING:
    from relay.server.worker.delivery.stalled import StalledConnections

TCP_NOTSENT_LOWAT: Final = 25
TCP_INFO_BYTES: Final = 136
BYTES_ACKED_OFFSET: Final = 120
"""Of tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info (linux/tcp.h)."""
TCP_CLOSE: Final = 7
TCP_CLOSE_WAIT: Final = 8
"""States in TCP_INFO (linux/tcp_states.h): the peer has reset or ended the connection."""


class Receiver(Protocol):
    """Whose stream it is: a session."""

    @property
    def name(self) -> str:
        """The client's name; empty before it has logged in."""

    def connected(self) -> None:
        """The stream may be written to."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def ended_by_peer(self) -> None:
        """The peer sends no more; the socket is closed when this returns."""

    def writable(self) -> None:
        """The kernel has taken everything that waited."""

    def lost(self) -> None:
        """The socket is closed. The last call."""

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """End the connection with a close code."""


class Stream(asyncio.Protocol):
    """See the module's docstring. The protocol of one accepted connection."""

    __slots__ = (
        "_fd", "_receiver", "_stalled", "_transport", "paused",
        "peer", "received_bytes",
    )  # fmt: skip

    _transport: asyncio.Transport
    _receiver: Receiver

    def __init__(self, peer: str, stalled: StalledConnections) -> None:
        """Begin unconnected; ``attach`` names the receiver before the transport is made.

        Args:
            peer: the peer's address, for logs and budgets.
            stalled: told when the kernel takes no more of what is written.
        """
        self.peer = peer
        self._stalled = stalled
        self._fd = -1
        self.paused = True
        """True while the transport holds anything, before it is connected, and after the end."""
        self.received_bytes = 0

    def attach(self, receiver: Receiver) -> None:
        """Name who is told of everything."""
        self._receiver = receiver

    @property
    def receiver(self) -> Receiver:
        """Whose stream it is."""
        return self._receiver

    # --- asyncio.Protocol ---------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what kernel and transport hold."""
        transport = cast("asyncio.Transport", transport)  # uvloop registers no subclass
        self._transport = transport
        # Paused while the transport holds anything at all: so all that readers leave lying is seen
        # by ``StalledConnections``, a reader that is behind gets no page on top of the one before,
        # and ``write`` may go past the transport whenever it is not paused.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, limits.KERNEL_NOTSENT_LOWAT_BYTES)
        self._fd = sock.fileno()
        self.paused = False
        self._receiver.connected()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self.received_bytes += len(data)
        self._receiver.received(data)

    def eof_received(self) -> bool:
        """The peer sends no more."""
        self._receiver.ended_by_peer()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Never touch the socket again: its number will be another connection's."""
        self.paused = True
        self._fd = -1
        self._stalled.remove(self)
        self._receiver.lost()

    def pause_writing(self) -> None:
        """The kernel takes no more, and the transport holds the rest."""
        self.paused = True
        self._stalled.add(self)

    def resume_writing(self) -> None:
        """The transport holds nothing any more."""
        self.paused = False
        self._stalled.remove(self)
        self._receiver.writable()

    # --- writing ------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Write, whether the kernel takes it now or not. Without effect after the end."""
        if not self.paused:
            self.write_now(data)
        elif self._fd >= 0:
            self._transport.write(data)

    def write_now(self, record: bytes) -> None:
        """Write to the socket itself: for a stream that is not ``paused``.

        The transport holds nothing then, so nothing is overtaken. It saves 6 % of a delivery
        (docs/performance.md): the transport's own objects of a thousand connections are not in the
        processor's caches.
        """
        try:
            sent = os.write(self._fd, record)
        except OSError:
            sent = 0  # it takes nothing now; or it failed, which the transport meets and reports
        if sent < len(record):
            self._transport.write(record[sent:])

    def byte_counts(self) -> tuple[int, int]:
        """Return how many bytes were received and sent, by the kernel's count (TCP_INFO)."""
        sock = self._transport.get_extra_info("socket")
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        acknowledged, received = struct.unpack_from("QQ", facts, BYTES_ACKED_OFFSET)
        return received, acknowledged

    @property
    def buffered(self) -> int:
        """Sealed bytes that wait in the transport."""
        return self._transport.get_write_buffer_size()

    # --- reading ------------------------------------------------------------------------------
    def pause_reading(self) -> None:
        """Read no more from the socket: the peer's bytes wait in the kernel."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def peer_is_gone(self) -> bool:
        """Tell what reading would, while reading is paused: has the peer closed or reset it?"""
        sock = self._transport.get_extra_info("socket")
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (TCP_CLOSE, TCP_CLOSE_WAIT)

    # --- the end ------------------------------------------------------------------------------
    @property
    def closing(self) -> bool:
        """True once ``close``, ``abort`` or the peer has ended it."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close once what is buffered has left."""
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()
