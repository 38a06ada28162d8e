"""A batch: entries of one log that leave together, as one piece of bytes shared by all members."""

from __future__ import annotations

from typing import Final

EVENT: Final = 0
"""``last`` of a batch that holds no entries (a roster change): no cursor moves with it."""


class Batch:
    """Immutable once made. Members' outboxes hold references, never copies."""

    __slots__ = ("content", "control", "count", "last", "log", "prev", "prev_epoch", "size")

    def __init__(
        self,
        log: str,
        prev_epoch: bytes,
        prev: int,
        last: int,
        count: int,
        content: bytes,
        control: bool = False,
    ) -> None:
        self.log = log
        self.prev_epoch = prev_epoch
        self.prev = prev
        self.last = last
        self.count = count
        self.content = content
        self.size = len(content)
        self.control = control
        """It is one control entry: others may read what follows than what was before."""
