"""Who sends: at a fixed rate, or as fast as the subscribers take it."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from benchmarks import payload
from benchmarks.latency import Delays
from benchmarks.raw import RawClient
from relay.wire.envelopes import Ack, Refused, Send, pack

WINDOW: Final = 1000
"""Messages ahead of the pacer, saturated: it bounds what is queued anywhere, for every server."""
STALLED_S: Final = 30.0


class Publisher(Protocol):
    """One publishing connection."""

    def publish(self, bodies: list[bytes]) -> None:
        """Send messages with one write."""
        ...

    def collect(self, timeout_s: float) -> None:
        """Take answers for at most so long; return at once when one has come."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class RelayPublisher:
    """Sends into one log of a relay, and notes when each message was acknowledged."""

    def __init__(self, host: str, port: int, name: str, log: str) -> None:
        self._client = RawClient(host, port, name)
        self._log = log
        self._counter = 0
        self._intended: deque[int] = deque()
        self.acknowledged = 0
        self.delays = Delays()
        """From the intended moment of sending to the acknowledgement."""

    @property
    def unacknowledged(self) -> int:
        """Messages sent and not acknowledged yet."""
        return len(self._intended)

    def publish(self, bodies: list[bytes]) -> None:
        """See ``Publisher``: one record."""
        parts: list[bytes] = []
        for body in bodies:
            self._counter += 1
            parts.append(pack(Send(self._log, self._counter, 0, "", body)))
            self._intended.append(payload.intended_ns(body))
        self._client.send_content(b"".join(parts))

    def collect(self, timeout_s: float) -> None:
        """See ``Publisher``."""
        if not select.select([self._client.socket], [], [], max(timeout_s, 0.0))[0]:
            return
        for envelope in self._client.read():
            if isinstance(envelope, Ack):
                self.delays.record_ns(time.monotonic_ns() - self._intended.popleft())
                self.acknowledged += 1
            elif isinstance(envelope, Refused):
                raise ConnectionError(f"refused: {envelope}")

    def ping(self) -> None:
        """Give a sign of life."""
        self._client.connection.ping(b"", time.monotonic())
        self._client.flush()

    def close(self) -> None:
        """See ``Publisher``."""
        self._client.close()


def at_rate(publisher: Publisher, first: int, count: int, rate: float, per_write: int) -> None:
    """Send ``count`` messages, numbered from ``first``, on a fixed schedule.

    The schedule does not wait for the server: a message that is late is sent at once, and its
    delay counts from when it was due. With ``per_write`` > 1 bursts of so many share a due time.
    """
    interval_ns = int(1e9 * per_write / rate)
    due_ns = time.monotonic_ns()
    for number in range(first, first + count, per_write):
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            publisher.collect(left_ns / 1e9)
        numbers = range(number, min(number + per_write, first + count))
        publisher.publish([payload.make(each, due_ns) for each in numbers])
        due_ns += interval_ns


def saturated(
    publisher: Publisher, first: int, seconds: float, per_write: int, progress: Callable[[], int]
) -> int:
    """Send as fast as the pacer receives, at most ``WINDOW`` messages ahead of it.

    Returns:
        How many were sent.

    Raises:
        TimeoutError: nothing was delivered for ``STALLED_S``.
    """
    number = first
    began = moved = time.monotonic()
    seen = first
    while (now := time.monotonic()) - began < seconds:
        got = progress()
        if got != seen:
            seen, moved = got, now
        elif now - moved > STALLED_S:
            raise TimeoutError(f"stalled at message {seen} of {number}")
        if number + per_write - got > WINDOW:
            publisher.collect(0.0005)
            continue
        now_ns = time.monotonic_ns()
        publisher.publish([payload.make(number + n, now_ns) for n in range(per_write)])
        number += per_write
        publisher.collect(0)
    return number - first
