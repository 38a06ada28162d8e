"""The reasons for which reading from a connection is paused."""

from __future__ import annotations

from typing import Final


class Pause:
    """Reasons, as bits; plain integers, since each send checks them.

    While there is any of them, received bytes wait unprocessed, and the socket is not read (but see
    ``Reading.pause``).
    """

    NONE: Final = 0
    WINDOW: Final = 1
    """Its window of unacknowledged sends is full."""
    CREDIT: Final = 2
    """A home that it sends to cannot keep up."""
    REQUEST: Final = 4
    """An earlier operation waits for another worker; the order of operations is kept."""
    ANSWERS: Final = 8
    """It does not read the answers to its requests."""
    TURN: Final = 16
    """It has had its share of this turn: see ``schedule``."""
    WASTE: Final = 32
    """It has asked for too much that is useless: see ``waste``."""
