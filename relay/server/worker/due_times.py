"""What is to be looked at at some time, and not before: until then nothing is done for it.

Times are whole seconds, so that what is due about the same time is found together.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class DueTimes(Generic[Item]):
    """See the module's docstring. Holds each item until it is due, or removed."""

    def __init__(self) -> None:
        """Begin with none."""
        self._second_of: dict[Item, int] = {}
        self._items_of: dict[int, dict[Item, None] | None] = {}
        """None: all were removed. They stay until their time, for the heap has them."""
        self._seconds: list[int] = []
        """A heap: each key of ``_items_of`` once."""

    def __len__(self) -> int:
        return len(self._second_of)

    def put(self, item: Item, when: float) -> None:
        """Have an item due within the second of a time, whenever it was due before."""
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
        """Forget an item, if it is there."""
        second = self._second_of.pop(item, None)
        if second is not None:
            self._leave(item, second)

    def take(self, now: float) -> list[Item]:
        """Remove what is due, or is within this second, and return it: the earliest first."""
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
