"""Publishers: at a fixed rate, or as fast as the subscribers receive."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, Protocol

from benchmarks.load import payload
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays
from relay.wire.envelopes import Ack, Refused, Send
from relay.wire.packing import pack
from tests.support.raw import RawClient

WINDOW: Final = 400
"""Messages ahead of the pacer, saturated: it bounds what is queued anywhere, for every server. So
many fit the outbox that a relay has for a member: it delivers live, and nobody falls behind."""
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


class RoomPublisher(Publisher, Protocol):
    """One that can send to any room."""

    def publish_to(self, log: str, bodies: list[bytes]) -> None:
        """Send messages into a room, with one write."""
        ...

    def await_ack(self, body: bytes) -> bool:
        """Send one message, and wait until it is acknowledged. False: nothing ever is."""
        ...


class RelayPublisher:
    """Sends into logs of a relay, and notes when each message was acknowledged."""

    def __init__(self, host: str, port: int, name: str, log: str) -> None:
        self._client = RawClient(host, port, name)
        self._log = log
        self._counters: dict[str, int] = {}
        self._intended: dict[tuple[str, int], int] = {}
        self.acknowledged = 0
        self.delays = Delays()
        """From the intended moment of sending to the acknowledgement."""

    @property
    def port(self) -> int:
        """Of this end of the connection."""
        return self._client.port

    @property
    def unacknowledged(self) -> int:
        """Messages sent and not acknowledged yet."""
        return len(self._intended)

    def publish(self, bodies: list[bytes]) -> None:
        """See ``Publisher``: one record."""
        self.publish_to(self._log, bodies)

    def publish_to(self, log: str, bodies: list[bytes]) -> None:
        """Send messages into a log, with one write."""
        parts: list[bytes] = []
        counter = self._counters.get(log, 0)
        for body in bodies:
            counter += 1
            parts.append(pack(Send(log, counter, 0, "", body)))
            self._intended[log, counter] = payload.intended_ns(body)
        self._counters[log] = counter
        self._client.send_content(b"".join(parts))

    def collect(self, timeout_s: float) -> None:
        """See ``Publisher``."""
        if not select.select([self._client.socket], [], [], max(timeout_s, 0.0))[0]:
            return
        for envelope in self._client.read():
            if isinstance(envelope, Ack):
                intended_ns = self._intended.pop((envelope.log, envelope.counter))
                self.delays.record_ns(time.monotonic_ns() - intended_ns)
                self.acknowledged += 1
            elif isinstance(envelope, Refused):
                raise ConnectionError(f"refused: {envelope}")

    def await_ack(self, body: bytes) -> bool:
        """See ``RoomPublisher``."""
        self.publish([body])
        self.drain()
        return True

    def drain(self) -> None:
        """Wait until everything is acknowledged."""
        deadline = time.monotonic() + STALLED_S
        while self._intended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._intended)} messages stay unacknowledged")
            self.collect(0.1)

    def close(self) -> None:
        """See ``Publisher``."""
        self._client.close()


class RoomsPublisher:
    """Sends each message into many rooms, one after another, evenly spread over some time."""

    def __init__(self, publisher: RoomPublisher, logs: tuple[str, ...], over_s: float) -> None:
        self._publisher = publisher
        self._logs = logs
        self._step_ns = int(over_s * 1e9 / len(logs))

    def publish(self, bodies: list[bytes]) -> None:
        """See ``Publisher``: blocks for as long as the sending is spread over."""
        (body,) = bodies
        number, due_ns, size = payload.check(body)
        for log in self._logs:
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                self.collect(left_ns / 1e9)
            self._publisher.publish_to(log, [payload.make(number, due_ns, size)])
            due_ns += self._step_ns

    def collect(self, timeout_s: float) -> None:
        """See ``Publisher``."""
        self._publisher.collect(timeout_s)

    def close(self) -> None:
        """See ``Publisher``."""
        self._publisher.close()


def at_rate(
    publisher: Publisher,
    first: int,
    count: int,
    rate: float,
    per_write: int,
    progress: Callable[[], int],
    window: int = WINDOW,
    size: int = payload.SIZE_BYTES,
) -> int:
    """Send ``count`` messages, numbered from ``first``, on a fixed schedule.

    The schedule does not wait for the server: a message that is late is sent at once, and its
    delay counts from when it was due. With ``per_write`` > 1 bursts of so many share a due time.
    A server that cannot keep up is sent at most ``window`` messages more than the pacer has, and
    nothing after the time is over.

    Returns:
        How many were sent: fewer than ``count`` when the server does not keep up.
    """
    interval_ns = int(1e9 * per_write / rate)
    due_ns = time.monotonic_ns()
    end_ns = due_ns + int(1e9 * count / rate)
    with machine.exact_timers():
        for number in range(first, first + count, per_write):
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                publisher.collect(left_ns / 1e9)
            while number + per_write - progress() > window:
                publisher.collect(0.0005)
                if time.monotonic_ns() > end_ns:
                    return number - first
            numbers = range(number, min(number + per_write, first + count))
            publisher.publish([payload.make(each, due_ns, size) for each in numbers])
            due_ns += interval_ns
    return count


def saturated(
    publisher: Publisher,
    first: int,
    seconds: float,
    per_write: int,
    progress: Callable[[], int],
    window: int = WINDOW,
    size: int = payload.SIZE_BYTES,
) -> int:
    """Send as fast as the pacer receives, at most ``window`` messages ahead of it.

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
        if number + per_write - got > window:
            publisher.collect(0.0005)
            continue
        now_ns = time.monotonic_ns()
        publisher.publish([payload.make(number + n, now_ns, size) for n in range(per_write)])
        number += per_write
        publisher.collect(0)
    return number - first
