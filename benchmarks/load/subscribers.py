"""What a swarm needs to know about its server, and the implementation for Relay."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Protocol

from benchmarks.load.tally import RELAY_FRAMES, Framing, Tally
from benchmarks.measure.machine import HOST
from relay.chat.entries import Kind
from relay.wire.envelopes import Behind, EntryMessage, Gap
from relay.wire.events import ApplicationData, ConnectionClosed
from relay.wire.packing import unpack_server
from tests.support.raw import RawClient


class Subscriber(Protocol):
    """One subscribed connection, after its handshake. Its socket is read by the swarm."""

    framing: Framing | None
    """None: the stream cannot be cut without decoding it."""
    behind: int
    """How often the server said that this reader was too slow."""

    @property
    def socket(self) -> socket.socket:
        """The raw socket, nothing between it and the kernel."""
        ...

    def refresh(self) -> bool:
        """Send a keepalive, so that the server keeps the connection; True: one frame answers it."""
        ...

    def decode(self, data: bytes) -> list[bytes]:
        """Return the bodies in bytes of the stream, which come whole and in order.

        Raises:
            ValueError: the server says that something is missing.
        """
        ...

    def received(self, tally: Tally) -> int | None:
        """Return how many messages a counted stream held; None: it cannot be said (yet).

        For Relay: the number of the last message, which needs the whole stream before it.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class RelaySubscriber:
    """A member of a room on a relay."""

    framing: Framing | None = RELAY_FRAMES

    def __init__(self, host: str, port: int, name: str, log: str) -> None:
        self._client = RawClient(host, port, name)
        self._client.join(log)
        self._client.align()
        self._first_record = self._client.records_received
        self.behind = 0

    @property
    def socket(self) -> socket.socket:
        """See ``Subscriber``."""
        return self._client.socket

    def refresh(self) -> bool:
        """See ``Subscriber``: a ping; the server would ping a silent client, then close it."""
        self._client.connection.ping(b"", time.monotonic())
        self._client.flush()
        return True

    def decode(self, data: bytes) -> list[bytes]:
        """See ``Subscriber``."""
        connection = self._client.connection
        connection.receive_data(data, time.monotonic())
        bodies: list[bytes] = []
        for event in connection.events():
            if isinstance(event, ConnectionClosed):
                raise ValueError(f"the server closed a subscriber: {event.code} {event.detail}")
            if isinstance(event, ApplicationData):
                for envelope in unpack_server(event.content):
                    if isinstance(envelope, EntryMessage):
                        if envelope.kind != Kind.SYSTEM:  # it tells who began the room
                            bodies.append(envelope.body)
                    elif isinstance(envelope, Gap):
                        raise ValueError(f"a gap: {envelope}")
                    elif isinstance(envelope, Behind):
                        self.behind += 1
        return bodies

    def received(self, tally: Tally) -> int | None:
        """See ``Subscriber``: decrypts the last record, which proves how many came before it."""
        if not tally.tail or tally.tail_frames != tally.frames:
            return None
        self._client.records_received = self._first_record + tally.frames - 1
        bodies = self.decode(tally.tail)
        tally.tail = b""
        return int.from_bytes(bodies[-1][:8], "big") if bodies else None

    def close(self) -> None:
        """See ``Subscriber``."""
        self._client.close()


@dataclass(frozen=True, slots=True)
class Join:
    """Connects subscriber number n of a swarm to a relay on this machine. Picklable."""

    port: int
    prefix: str
    logs: tuple[str, ...]
    """Subscriber n follows the log n modulo their number."""

    def __call__(self, index: int) -> RelaySubscriber:
        """Return it, live."""
        log = self.logs[index % len(self.logs)]
        return RelaySubscriber(HOST, self.port, f"{self.prefix}{index}", log)
