"""A message at a time, while the server has nothing else to do: when a member has it, and when its
publisher knows that it was taken.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from typing import Final

from benchmarks.load import payload
from benchmarks.load.publishers import RoomPublisher
from benchmarks.load.subscribers import Subscriber
from benchmarks.measure.latency import Delays
from benchmarks.peers.contenders import Running

RATE: Final = 50.0
"""Messages per second: everybody sleeps between two of them."""
COUNT: Final = 150
WARM_UP: Final = 20
PATIENCE_S: Final = 10.0
READ_BYTES: Final = 65_536


def lone(running: Running, topic: str) -> dict[str, dict[str, float]]:
    """Measure one publisher and one member.

    Returns:
        "delivery", and "acknowledgement" where there is one: percentiles in µs.

    Raises:
        ConnectionError: a message did not arrive.
    """
    found: dict[str, dict[str, float]] = {}
    with (
        contextlib.closing(running.join("lone", topic)(0)) as member,
        contextlib.closing(running.publisher(topic)) as publisher,
    ):
        delays = Delays()
        for number, body in _paced():
            publisher.publish([body])
            _arrived(member, body)
            _note(delays, number, body)
            publisher.collect(0)
        found["delivery"] = delays.figures()
    with contextlib.closing(running.publisher(topic)) as publisher:
        delays = Delays()
        if _acknowledged(publisher, delays):
            found["acknowledgement"] = delays.figures()
    return found


def _acknowledged(publisher: RoomPublisher, delays: Delays) -> bool:
    for number, body in _paced():
        if not publisher.await_ack(body):
            return False
        _note(delays, number, body)
    return True


def _paced() -> Iterator[tuple[int, bytes]]:
    """Yield (number, body), each when it is due, which its body says."""
    due_ns = time.monotonic_ns()
    for number in range(WARM_UP + COUNT):
        due_ns += int(1e9 / RATE)
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        yield number, payload.make(number, time.monotonic_ns())


def _arrived(member: Subscriber, body: bytes) -> None:
    """Wait until a member has this message."""
    while True:
        if not select.select([member.socket], [], [], PATIENCE_S)[0]:
            raise ConnectionError("a message did not arrive")
        if body in member.decode(member.socket.recv(READ_BYTES)):
            return


def _note(delays: Delays, number: int, body: bytes) -> None:
    if number >= WARM_UP:
        delays.record_ns(time.monotonic_ns() - payload.intended_ns(body))
