"""The reasons for which a connection is not read."""

from __future__ import annotations

from typing import Final


class Pause:
    """Reasons as bits. Plain integers, because every send tests them.

    Under each of them received bytes wait unprocessed and the socket is not read (but see
    ``Reading.pause``).
    """

    NONE: Final = 0
    WINDOW: Final = 1
    """Too many of its sends are unanswered."""
    CREDIT: Final = 2
    """A home that it sends to cannot keep up."""
    REQUEST: Final = 4
    """An earlier operation waits for another worker; operations run in order."""
    ANSWERS: Final = 8
    """The client does not read its answers."""
    TURN: Final = 16
    """It has used its share of this turn: see ``schedule``."""
    BUSY: Final = WINDOW | CREDIT | TURN
    """It has asked for more than is done at once."""
    WASTE: Final = 32
    """It has made too many useless requests: see ``waste``."""
    MUCH: Final = WINDOW | CREDIT | WASTE
    """It has sent more than a light user does."""
