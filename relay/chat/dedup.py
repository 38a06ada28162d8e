"""The invariant "Once, in order" as a decision: what a counter means, given the last one.

Counters of one producer in one log are consecutive from 1, so whether one was used is known without
looking anything up. Which entry has it, and whether it has the same content, must be looked up.
"""

from __future__ import annotations

from enum import Enum, auto

from relay import limits


class Place(Enum):
    """Where a counter stands."""

    NEXT = auto()
    """It is to be appended."""
    USED = auto()
    """It has been used; if for the same content, this is a repeat."""
    USED_LONG_AGO = auto()
    """It has been used, too long ago to look for the entry."""
    SKIPPED = auto()
    """Counters before it are missing: all from ``last + 1`` on must be sent again."""
    UNKNOWN = auto()
    """The log knows nothing of this producer (any more), and this is not its first message."""


def place(counter: int, last: int) -> Place:
    """Return where a counter stands.

    Args:
        counter: at least 1.
        last: the last counter that the producer has used in this log; 0: none is known.
    """
    if counter == last + 1:
        return Place.NEXT
    if counter > last:
        return Place.SKIPPED if last else Place.UNKNOWN
    if last - counter >= limits.REPEATS_BACK_MAX:
        return Place.USED_LONG_AGO
    return Place.USED
