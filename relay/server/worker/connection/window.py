"""The sends of one connection that are not answered: beyond a window its socket is not read."""

from __future__ import annotations

from relay import limits


class SendWindow:
    """Counts sends and the bytes of their bodies."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0

    def add(self, size: int) -> bool:
        """Count a send. Returns True when the window is full."""
        self.count += 1
        self.bytes += size
        return (
            self.count >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        )

    def remove(self, size: int) -> None:
        """A send was answered."""
        self.count -= 1
        self.bytes -= size

    @property
    def half_empty(self) -> bool:
        """True when it is worth reading on."""
        return (
            self.count <= limits.SENDS_UNACKNOWLEDGED_MAX // 2
            and self.bytes <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 2
        )
