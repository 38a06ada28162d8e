"""Why a connection is not read from, and what of it waits."""

from __future__ import annotations

from typing import Final


class Pause:
    """Reasons, as bits. Plain integers, for each send looks at them.

    Under any of them what was received waits, as bytes, and the socket is not read (but see
    ``Reading.pause``).
    """

    NONE: Final = 0
    WINDOW: Final = 1
    """Too many of its sends are unanswered."""
    CREDIT: Final = 2
    """A home that it sends to cannot keep up."""
    REQUEST: Final = 4
    """An earlier operation waits for another worker; the order of operations is kept."""
    ANSWERS: Final = 8
    """It does not read the answers to what it asks."""
    TURN: Final = 16
    """It has had its share of this turn: see ``schedule``."""
    BUSY: Final = WINDOW | CREDIT | TURN
    """It has asked for more than is done at once."""
    WASTE: Final = 32
    """It has asked for too much that brings nothing: see ``waste``."""
