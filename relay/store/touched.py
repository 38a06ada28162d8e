"""Which logs commits have changed, for a follower of the partition (``search``)."""

from __future__ import annotations

from typing import final


@final
class Touched:
    """Ids of changed logs: added by commits, in any thread, and taken by the follower."""

    __slots__ = ("later", "soon")

    def __init__(self) -> None:
        """Begin with none."""
        self.soon: set[int] = set()
        self.later: set[int] = set()
        """Logs with new entries that contain nothing to be found: those of accounts."""

    @property
    def some(self) -> bool:
        """True if there are any."""
        return bool(self.soon or self.later)

    def take(self, count: int) -> list[int]:
        """Take up to so many."""
        taken: list[int] = []
        for ids in (self.soon, self.later):
            while ids and len(taken) < count:
                taken.append(ids.pop())  # one at a time: commits add to it meanwhile
        return taken

    def clear(self) -> None:
        """Forget all."""
        self.soon.clear()
        self.later.clear()
