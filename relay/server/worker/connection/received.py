"""Bytes that a worker has received and not processed, over all its connections. Decides alone."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """What one connection makes the worker hold: half a record, records and requests that wait."""

    held: int
    """How many bytes, at first none. Changed by ``ReceivedBytes.change`` alone."""

    def shed(self) -> None:
        """End the connection, which then holds nothing any more."""


class ReceivedBytes:
    """All of a worker."""

    __slots__ = ("_holders", "bytes_max", "total")

    def __init__(self, bytes_max: int) -> None:
        """Begin with none.

        Args:
            bytes_max: of all together.
        """
        self._holders: set[Holder] = set()
        """Those with any."""
        self.bytes_max = bytes_max
        self.total = 0

    def change(self, holder: Holder, count: int) -> None:
        """Note what a connection holds now. If all hold too much, those that hold most go."""
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
