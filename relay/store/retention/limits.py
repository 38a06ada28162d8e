"""The retention limits of a log, and up to which entry they remove it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

TENTH: Final = 10
AT_ONCE: Final = 100
"""In one pass, age removes at most a tenth of a log, or this many entries: a clock that jumps must
not empty it (invariant "A clock jump expires nothing")."""


class RetentionLimits(NamedTuple):
    """Limits for a log; 0: none."""

    age_s: int = 0
    messages: int = 0
    """Only entries of kind *message*: edits, reactions and changes of a room are not counted."""
    bytes: int = 0


FOREVER: Final = RetentionLimits()


def stricter(one: RetentionLimits, other: RetentionLimits) -> RetentionLimits:
    """Return the limits that satisfy both."""
    return RetentionLimits(*(min(a or b, b or a) for a, b in zip(one, other, strict=True)))


class Excess(NamedTuple):
    """What to remove from a log."""

    upto: int
    """The last entry to remove."""
    more: bool = False
    """True if more is too old and is left for the next pass."""
    counted: bool = True
    """False if its messages are not all counted yet: ask again."""
    undated: bool = False
    """True if the age of entries up to ``upto`` is unknown because the clock was set back: remove
    them once the grace period has passed since this was determined."""


class Measured(NamedTuple):
    """The extent of a log."""

    floor: int
    head: int


def end_of_old(time_of: Callable[[int], int], log: Measured, before_ms: int) -> int:
    """Return the last entry older than a time, by bisection: times never go back in a log.

    Args:
        time_of: returns the time of an entry above the floor, by its seq.
        log: its bounds.
        before_ms: older than this.
    """
    low, high = log.floor, log.head  # low is old or removed; nothing above high is old
    while low < high:
        middle = (low + high + 1) // 2
        if time_of(middle) < before_ms:
            low = middle
        else:
            high = middle - 1
    return low


def upto(
    keep: RetentionLimits,
    log: Measured,
    *,
    now_ms: int,
    grace_ms: int,
    time_of: Callable[[int], int],
    older: Callable[[int], tuple[int, bool]],
    end_of_excess: Callable[[int], int],
) -> Excess:
    """Return what to remove. The last entry of a log always stays.

    Args:
        keep: the limits.
        log: what it contains.
        now_ms: the time.
        grace_ms: nothing younger than this is removed: it may still be on its way to readers. The
            times of a log that is ahead of the clock show no age (``Excess.undated``).
        time_of: see ``end_of_old``.
        older: returns the last entry before the newest given number of messages; False: they are
            not all counted yet.
        end_of_excess: returns the last entry to remove so that the rest fits a number of bytes.
    """
    undated = time_of(log.head) > now_ms + grace_ms
    most = log.head - 1
    if not undated:
        most = min(most, end_of_old(time_of, log, now_ms - grace_ms))
    found = log.floor
    more = False
    if most <= found:
        return Excess(found)
    counted = True
    if keep.messages and log.head - log.floor > keep.messages:
        before, counted = older(keep.messages)
        found = max(found, before)
    if keep.age_s:
        old = end_of_old(time_of, log, now_ms - keep.age_s * 1000)
        at_once = max(AT_ONCE, (log.head - log.floor) // TENTH)
        more = old > log.floor + at_once
        found = max(found, min(old, log.floor + at_once))
    if keep.bytes:
        found = max(found, end_of_excess(keep.bytes))
    return Excess(min(found, most), more, counted, undated)
