"""Bytes that a worker has received and not processed, over all its connections. Decides alone."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """A connection: a session."""

    def shed(self) -> None:
        """End, and hold nothing any more."""


class ReceivedBytes:
    """How many each connection makes the worker hold: half a record, or records that wait."""

    __slots__ = ("_by_holder", "bytes_max", "total")

    def __init__(self, bytes_max: int) -> None:
        """Begin with none.

        Args:
            bytes_max: of all together; ``largest`` tells who has to go beyond it.
        """
        self._by_holder: dict[Holder, int] = {}
        self.bytes_max = bytes_max
        self.total = 0

    def hold(self, holder: Holder, count: int) -> None:
        """A connection makes the worker hold so many now."""
        self.total += count - self._by_holder.get(holder, 0)
        if count:
            self._by_holder[holder] = count
        else:
            self._by_holder.pop(holder, None)

    @property
    def exceeded(self) -> bool:
        """True when somebody has to go."""
        return self.total > self.bytes_max

    def largest(self) -> Holder:
        """Return who holds most. Only when anybody holds anything."""
        return max(self._by_holder, key=self._by_holder.__getitem__)
