"""Bytes that a worker has received and not processed, over all its connections. Decides alone."""

from __future__ import annotations

from collections.abc import Callable


class HeldBytes:
    """What one connection makes the worker hold: half a record, records and requests that wait."""

    __slots__ = ("_received", "count", "shed")

    def __init__(self, received: ReceivedBytes, shed: Callable[[], None]) -> None:
        """Begin with nothing.

        Args:
            received: of the worker.
            shed: ends the connection, which then holds nothing any more.
        """
        self._received = received
        self.shed = shed
        self.count = 0

    def forget(self) -> None:
        """The connection is gone: keep nothing of it."""
        self.shed = _nothing

    def set(self, count: int) -> None:
        """It holds so many now. If all together hold too much, those that hold most go."""
        if count != self.count:
            self._received.change(self, count)


class ReceivedBytes:
    """All of a worker."""

    __slots__ = ("_held", "bytes_max", "total")

    def __init__(self, bytes_max: int) -> None:
        """Begin with none.

        Args:
            bytes_max: of all together.
        """
        self._held: set[HeldBytes] = set()
        """Those with any."""
        self.bytes_max = bytes_max
        self.total = 0

    def change(self, held: HeldBytes, count: int) -> None:
        """Count what a connection holds now. See ``HeldBytes.set``."""
        self.total += count - held.count
        held.count = count
        if count:
            self._held.add(held)
        else:
            self._held.discard(held)
        while self.total > self.bytes_max:
            largest = max(self._held, key=lambda held: held.count)
            largest.shed()
            largest.set(0)


def _nothing() -> None:
    """Who is gone holds nothing."""
