"""Sends messages to a room for as long as something takes, on a schedule that waits for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from benchmarks.load import payload
from benchmarks.load.publishers import RelayPublisher

MARKERS_MAX: Final = 20


class Talk:
    """One sender, and the numbers of its messages."""

    def __init__(self, publisher: RelayPublisher, first: int = 1) -> None:
        """Begin with message number ``first``."""
        self._publisher = publisher
        self.next = first
        """The number of the next message."""

    def flood(self, count: int, per_write: int = 100) -> None:
        """Send so many messages as fast as they are acknowledged."""
        left = count
        while left:
            now_ns = time.monotonic_ns()
            bodies = [payload.make(self.next + n, now_ns) for n in range(min(per_write, left))]
            self._publisher.publish(bodies)
            self._publisher.drain()
            self.next += len(bodies)
            left -= len(bodies)

    def until(self, done: Callable[[], bool], rate: float, deadline_s: float) -> int:
        """Send one message each 1/rate seconds until ``done``; return how many.

        The schedule waits for nobody; a message's delay counts from when it was due.

        Raises:
            TimeoutError: it does not finish.
        """
        first = self.next
        interval_ns = int(1e9 / rate)
        due_ns = time.monotonic_ns()
        deadline_ns = due_ns + int(deadline_s * 1e9)
        while not done():
            if due_ns > deadline_ns:
                raise TimeoutError(f"not within {deadline_s} s, after {self.next - first} messages")
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                self._publisher.collect(left_ns / 1e9)
            self._publisher.publish([payload.make(self.next, due_ns)])
            self.next += 1
            due_ns += interval_ns
        return self.next - first

    def for_seconds(self, seconds: float, rate: float) -> int:
        """Send one message each 1/rate seconds for so long; return how many."""
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() >= end, rate, seconds + 60)

    def mark(self, missing: Callable[[int], int]) -> int:
        """Send one message alone until nobody misses it; return how many still do in the end.

        Who only counts can tell that it has all by a message that came alone (fanout._mark).
        ``missing`` waits a little for the message of that number and returns who has not got it.
        """
        left = 0
        for _ in range(MARKERS_MAX):
            self._publisher.publish([payload.make(self.next, time.monotonic_ns())])
            self._publisher.drain()
            self.next += 1
            left = missing(self.next - 1)
            if not left:
                break
        return left
