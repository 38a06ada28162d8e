"""The only owner of a client's socket: reads, writes, options, and the kernel's state of it.

Everything above sees bytes in and bytes out. Another transport for the same records, such as a
WebSocket behind TLS, would be a subclass, created where ``Connections.admit`` creates this one.
Where there is no socket to write a record to as it is, the sink's ``fd`` stays -1: ``write_past``
then accepts nothing, and ``write_rest`` gets every record whole. ``own``, ``connection_made``,
``write``, ``connected`` and ``peer_is_gone`` assume a socket.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Final, Protocol, cast

from relay import limits

if TYPE_CHECKING:
    from relay.server.worker.delivery.stalled import StalledConnections

TCP_NOTSENT_LOWAT: Final = 25
TCP_CLOSE: Final = 7
TCP_CLOSE_WAIT: Final = 8
"""States in TCP_INFO (linux/tcp_states.h): the peer has reset or ended the connection."""


class Receiver(Protocol):
    """The session that owns a stream."""

    @property
    def name(self) -> str:
        """The client's name; empty before the login."""

    def connected(self) -> None:
        """The stream can be written to."""

    def ended_by_peer(self) -> None:
        """The peer sends no more; the socket is closed after this returns."""

    def writable(self) -> None:
        """The kernel has accepted everything that was pending."""

    def lost(self) -> None:
        """The socket is closed. This is the last call."""

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """End the connection with a close code."""


class Reader(Protocol):
    """What takes the bytes for a receiver."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""


class Sink:
    """The state of a stream that its frequent writer accesses directly: see ``Outbox``.

    The writer then needs to touch neither the stream nor its transport: in a fan-out to a thousand
    connections these objects are in none of the CPU's caches (docs/performance.md).
    """

    __slots__ = ("fd", "paused")

    def __init__(self) -> None:
        self.fd = -1
        """The stream's socket; -1 before it is connected and after the end."""
        self.paused = True
        """True while the transport holds anything, before it is connected, and after the end."""


def write_past(fd: int, record: bytes) -> int:
    """Write to the socket of a sink that is not ``paused``. Return how many bytes were accepted.

    The rest must be passed to ``Stream.write_rest`` at once. The transport holds nothing, so the
    order of bytes is kept.
    """
    try:
        return os.write(fd, record)
    except OSError:
        return 0  # nothing accepted now, or an error, which the transport will see and report


class Stream(asyncio.Protocol):
    """The protocol of one accepted connection."""

    __slots__ = (
        "_reader", "_receiver", "_sink", "_socket", "_stalled", "_transport", "_unwanted", "peer",
    )  # fmt: skip
    __deletable__ = ("_reader", "_receiver")  # required by mypyc: see ``connection_lost``

    _reader: Reader
    _receiver: Receiver
    _sink: Sink

    def __init__(self, peer: str, stalled: StalledConnections) -> None:
        """Create unconnected; ``attach`` and ``own`` follow before the transport is created.

        Args:
            peer: the peer's address, for logs and budgets.
            stalled: notified when the kernel accepts no more.
        """
        self.peer = peer
        self._stalled = stalled
        self._socket: socket.socket | None = None
        """None before ``own``, and after the end."""
        self._transport: asyncio.Transport | None = None
        """None until the loop has connected it, which takes long on a busy machine."""
        self._unwanted = False
        """True if it was ended before that."""

    def attach(self, receiver: Receiver, reader: Reader, sink: Sink) -> None:
        """Set the receiver of all events, what takes its bytes, and the sink to update."""
        self._receiver = receiver
        self._reader = reader
        self._sink = sink

    def own(self, sock: socket.socket) -> None:
        """Set the accepted socket, and what the kernel holds of it. Raises OSError.

        Not in ``connection_made``: the object by which a transport shows its socket costs several
        system calls. uvloop sets TCP_NODELAY itself.
        """
        try:
            sock.setsockopt(
                socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, limits.KERNEL_NOTSENT_LOWAT_BYTES
            )
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a Unix-domain socket
                raise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.KERNEL_NOTSENT_LOWAT_BYTES)
        self._socket = sock

    @property
    def receiver(self) -> Receiver:
        """The session that owns the stream."""
        return self._receiver

    # --- asyncio.Protocol ---------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit what the transport holds."""
        # uvloop does not register its class as a subclass
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        if self._unwanted:
            transport.close()
            return
        # Paused while the transport holds anything at all. So ``StalledConnections`` sees
        # everything that readers leave pending, a reader that is behind gets no page on top of the
        # previous one, and writes may bypass the transport whenever it is not paused.
        transport.set_write_buffer_limits(high=0)
        assert self._socket is not None, "a transport is created for a socket"
        assert self._sink.fd < 0, "a sink has one owner"
        self._sink.fd = self._socket.fileno()
        self._sink.paused = False
        self._receiver.connected()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._reader.received(data)

    def eof_received(self) -> bool:
        """The peer sends no more."""
        self._receiver.ended_by_peer()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Never use the socket again: its number will belong to another connection."""
        self._sink.paused = True
        self._sink.fd = -1
        self._socket = None
        self._sink = Sink()  # the owner of the sink refers to this stream: avoid a reference cycle
        self._stalled.remove(self)
        self._receiver.lost()
        del self._receiver, self._reader  # they refer to this object: avoid a reference cycle

    def pause_writing(self) -> None:
        """The kernel accepts no more, and the transport holds the rest."""
        self._sink.paused = True
        self._stalled.add(self)

    def resume_writing(self) -> None:
        """The transport has become empty."""
        self._sink.paused = False
        self._stalled.remove(self)
        self._receiver.writable()

    # --- writing ------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Write, buffering what the kernel does not accept. No effect after the end."""
        sink = self._sink
        if sink.paused:
            if sink.fd >= 0:
                self.write_rest(data)
            return
        sent = write_past(sink.fd, data)
        if sent < len(data):
            self.write_rest(data[sent:])

    def write_rest(self, data: bytes) -> None:
        """Let the transport write what ``write_past`` has left."""
        assert self._transport is not None, "a sink with a socket is connected"
        self._transport.write(data)

    @property
    def connected(self) -> bool:
        """True from the time when it can be written to until it is closed."""
        return self._sink.fd >= 0

    @property
    def buffered(self) -> int:
        """Sealed bytes that wait in the transport."""
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()

    # --- reading ------------------------------------------------------------------------------
    def pause_reading(self) -> None:
        """Stop reading from the socket: the peer's bytes wait in the kernel."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def peer_is_gone(self) -> bool:
        """Return True if the peer has closed or reset the connection.

        Works while reading is paused.
        """
        sock = self._socket
        if self._transport is None or sock is None:
            return False
        if sock.family == socket.AF_UNIX:
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLRDHUP)
            return bool(poll.poll(0))
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (TCP_CLOSE, TCP_CLOSE_WAIT)

    # --- the end ------------------------------------------------------------------------------
    @property
    def closing(self) -> bool:
        """True once ``close``, ``abort`` or the peer has ended it."""
        transport = self._transport
        return self._unwanted if transport is None else transport.is_closing()

    def close(self) -> None:
        """Close after the buffered bytes are sent; if it is not connected yet, as soon as it is."""
        if self._transport is None:
            self._unwanted = True
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once; if it is not connected yet, as soon as it is."""
        if self._transport is None:
            self._unwanted = True
        else:
            self._transport.abort()
