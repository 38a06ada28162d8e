"""Limits the received and unprocessed bytes of all connections of a worker. No I/O."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """What one connection holds: half a record, and records and requests that wait."""

    held: int
    """Number of bytes, initially 0. Only ``ReceivedBytes.change`` changes it."""

    def shed(self) -> None:
        """Close the connection, which then holds nothing."""


class ReceivedBytes:
    """The received and unprocessed bytes of a worker."""

    __slots__ = ("_holders", "bytes_max", "total")

    def __init__(self, bytes_max: int) -> None:
        """Create without bytes.

        Args:
            bytes_max: limit for all connections together.
        """
        self._holders: set[Holder] = set()
        """Connections that hold any bytes."""
        self.bytes_max = bytes_max
        self.total = 0

    def change(self, holder: Holder, count: int) -> None:
        """Record what a connection holds now. Beyond the limit, the largest holders are closed."""
        self.total += count - holder.held
        holder.held = count
        if count:
            self._holders.add(holder)
        else:
            self._holders.discard(holder)
        while self.total > self.bytes_max:
            largest = max(self._holders, key=_held)
            largest.shed()
            if largest.held:
                self.change(largest, 0)


def _held(holder: Holder) -> int:
    return holder.held
