"""The invariant "Once, in order" as a decision: the meaning of a counter, given the last one.

Counters of one producer in one log are consecutive from 1, so it is known without a lookup whether
one was used. Which entry has it, and whether the content is the same, must be looked up.
"""

from __future__ import annotations

from enum import Enum, auto

from relay import limits


class Place(Enum):
    """The relation of a counter to the last one."""

    NEXT = auto()
    """It is to be appended."""
    USED = auto()
    """Already used; with the same content, this is a repeat."""
    USED_LONG_AGO = auto()
    """Already used, too long ago to look for the entry."""
    SKIPPED = auto()
    """Earlier counters are missing: all from ``last + 1`` on must be sent again."""
    UNKNOWN = auto()
    """The log does not know this producer (any more), and this is not its first message."""


def place(counter: int, last: int) -> Place:
    """Return the relation of a counter to the last one.

    Args:
        counter: at least 1.
        last: the last counter that the producer has used in this log; 0: unknown.
    """
    if counter == last + 1:
        return Place.NEXT
    if counter > last:
        return Place.SKIPPED if last else Place.UNKNOWN
    if last - counter >= limits.REPEATS_BACK_MAX:
        return Place.USED_LONG_AGO
    return Place.USED
