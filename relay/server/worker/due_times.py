"""A set of items, each with the time at which it is due.

An item costs nothing until it is due. Times are rounded to whole seconds, so that items due at
about the same time are returned together.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class DueTimes(Generic[Item]):
    """Holds each item until it is due or removed."""

    def __init__(self) -> None:
        """Create an empty set."""
        self._second_of: dict[Item, int] = {}
        self._items_of: dict[int, dict[Item, None] | None] = {}
        """Items by the second in which they are due. None: all of them were removed; the key stays
        until its time because the heap still contains it."""
        self._seconds: list[int] = []
        """A heap that contains each key of ``_items_of`` once."""

    def __len__(self) -> int:
        return len(self._second_of)

    def put(self, item: Item, when: float) -> None:
        """Schedule an item for the second that contains ``when``; replaces an earlier schedule."""
        second = int(when)
        before = self._second_of.get(item)
        if before == second:
            return
        if before is not None:
            self._leave(item, before)
        self._second_of[item] = second
        items = self._items_of.get(second)
        if items is None:
            if second not in self._items_of:
                heapq.heappush(self._seconds, second)
            items = self._items_of[second] = {}
        items[item] = None

    def remove(self, item: Item) -> None:
        """Remove an item if it is present."""
        second = self._second_of.pop(item, None)
        if second is not None:
            self._leave(item, second)

    def take(self, now: float) -> list[Item]:
        """Remove and return the items that are due by the end of this second, earliest first."""
        taken: list[Item] = []
        while self._seconds and self._seconds[0] <= now:
            items = self._items_of.pop(heapq.heappop(self._seconds)) or {}
            for item in items:
                del self._second_of[item]
            taken += items
        return taken

    def _leave(self, item: Item, second: int) -> None:
        items = self._items_of[second]
        assert items is not None, "it has this item"
        del items[item]
        if not items:
            self._items_of[second] = None
