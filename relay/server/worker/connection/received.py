"""Limits the received and unprocessed bytes of all connections of a worker. No I/O."""

from __future__ import annotations

from typing import Protocol


class Unprocessed(Protocol):
    """What one connection holds: half a record, and records and requests that wait."""

    unprocessed: int
    """Number of bytes, initially 0. Only ``ReceivedBytes.change`` changes it."""

    def shed(self) -> None:
        """Close the connection, which then holds nothing."""


class ReceivedBytes:
    """The received and unprocessed bytes of a worker."""

    __slots__ = ("_connections", "bytes_max", "total")

    def __init__(self, bytes_max: int) -> None:
        """Create without bytes.

        Args:
            bytes_max: limit for all connections together.
        """
        self._connections: set[Unprocessed] = set()
        """Connections that hold any bytes."""
        self.bytes_max = bytes_max
        self.total = 0

    def change(self, connection: Unprocessed, count: int) -> None:
        """Record what a connection holds now. Beyond the limit, the largest holders are closed."""
        self.total += count - connection.unprocessed
        connection.unprocessed = count
        if count:
            self._connections.add(connection)
        else:
            self._connections.discard(connection)
        while self.total > self.bytes_max:
            largest = max(self._connections, key=_unprocessed)
            largest.shed()
            if largest.unprocessed:
                self.change(largest, 0)


def _unprocessed(connection: Unprocessed) -> int:
    return connection.unprocessed
