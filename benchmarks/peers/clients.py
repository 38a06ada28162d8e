"""Subscribers and publishers of the peers, as the swarm and the fan-out want them."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass

from benchmarks.load.tally import TLS_RECORDS, Framing, Tally
from benchmarks.peers.protocols import Dialect
from benchmarks.peers.tls import RECORD_OVERHEAD


class PeerSubscriber:
    """A subscriber of a peer. See ``benchmarks.subscribers.Subscriber``."""

    behind = 0

    def __init__(self, dialect: Dialect, port: int, tls: bool, name: str) -> None:
        self.framing: Framing | None = TLS_RECORDS if tls else None
        self._dialect = dialect
        self._stream = dialect.connect(port, tls, name)
        dialect.subscribe(self._stream)
        self._rest = b""

    @property
    def socket(self) -> socket.socket:
        """The raw socket."""
        return self._stream.socket

    def refresh(self) -> bool:
        """Nothing: keepalives are disabled in the peers."""
        return False

    def decode(self, data: bytes) -> list[bytes]:
        """Return the bodies in bytes of the stream."""
        found, self._rest = self._dialect.bodies(self._rest + self._stream.open(data))
        return found

    def received(self, tally: Tally) -> int | None:
        """Return how many messages were in what was counted: all have one and the same size."""
        content = tally.size - RECORD_OVERHEAD * tally.frames if self.framing else tally.size
        return content // self._dialect.unit

    def close(self) -> None:
        """End the connection."""
        self._stream.socket.close()


@dataclass(frozen=True, slots=True)
class PeerConnect:
    """Connects a swarm to a peer."""

    dialects: tuple[Dialect, ...]
    """Subscriber n follows the topic of the one at n modulo their number."""
    port: int
    tls: bool
    prefix: str

    def __call__(self, index: int) -> PeerSubscriber:
        """Return subscriber number ``index``."""
        dialect = self.dialects[index % len(self.dialects)]
        return PeerSubscriber(dialect, self.port, self.tls, f"{self.prefix}{index}")


class PeerPublisher:
    """Publishes to a peer; answers are read and discarded."""

    def __init__(self, dialects: dict[str, Dialect], port: int, tls: bool) -> None:
        self._dialects = dialects
        self._first, dialect = next(iter(dialects.items()))
        self._stream = dialect.connect(port, tls, "publisher")
        dialect.prepare(self._stream, tuple(dialects))

    def publish(self, bodies: list[bytes]) -> None:
        """Send messages to the first topic, with one write."""
        self.publish_to(self._first, bodies)

    def publish_to(self, log: str, bodies: list[bytes]) -> None:
        """Send messages to a topic, with one write."""
        self._stream.write(b"".join(map(self._dialects[log].message, bodies)))

    def await_ack(self, body: bytes) -> bool:
        """Send one message to the first topic, and wait until it is acknowledged.

        Returns:
            False: this protocol acknowledges nothing, and nothing was sent.
        """
        dialect = self._dialects[self._first]
        message = dialect.asking(body)
        if message is None:
            return False
        self._stream.write(message)
        answer = self._stream.read()
        while not dialect.acknowledged(answer):
            answer += self._stream.read()
        return True

    def collect(self, timeout_s: float) -> None:
        """Take answers for at most so long."""
        if select.select([self._stream.socket], [], [], max(timeout_s, 0.0))[0]:
            self._stream.read()

    def close(self) -> None:
        """End the connection."""
        self._stream.socket.close()
