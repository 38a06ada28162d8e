"""A token bucket: a rate with a burst. Pure: the clock is passed in."""

from __future__ import annotations

from typing import Final

INFINITE: Final = float("inf")
BYTES_BURST_S: Final = 2.0
"""What was not used for so long may be used at once: it is written by everybody's disk."""
WORK_BURST_S: Final = 5.0
"""Likewise: a person who opens a program that follows a hundred rooms need not wait."""
WASTE_BURST_S: Final = 64.0
"""Likewise: with the default, all messages of a window refused."""
WASTE_OWED_S: Final = 60.0
"""What was wasted beyond it is forgiven: nobody rests longer."""
MINUTE_S: Final = 60.0


class TokenBucket:
    """Holds up to a burst of tokens and refills at a rate.

    Whoever finds a token may take more than there are: the next one waits until the debt is paid.
    So a piece that is larger than the burst passes, too, and the average stays the rate.
    """

    __slots__ = ("_at", "_burst", "_least", "_level", "_rate")

    def __init__(
        self, rate_per_s: float, burst: float, now: float, *, owed_max: float = INFINITE
    ) -> None:
        """Begin full.

        Args:
            rate_per_s: tokens that come each second, above 0.
            burst: the most that it holds, at least 1.
            now: monotonic seconds.
            owed_max: more than so many tokens nobody owes.
        """
        assert rate_per_s > 0
        assert burst >= 1
        self._rate = rate_per_s
        self._burst = burst
        self._level = burst
        self._least = -owed_max
        self._at = now

    def wait_s(self, now: float, enough_s: float = 0.0) -> float:
        """Return how long until there is a whole token; 0: there is one now.

        ``enough_s``: how long until there is also what comes in so many seconds.
        """
        self._refill(now)
        enough = max(1.0, min(enough_s * self._rate, self._burst))
        return max(0.0, (enough - self._level) / self._rate)

    def take(self, count: float, now: float) -> None:
        """Take tokens, more than there are if need be."""
        self._refill(now)
        self._level = max(self._level - count, self._least)

    def full(self, now: float) -> bool:
        """Tell whether it is as if nothing had ever been taken."""
        return not self.full_in_s(now)

    def full_in_s(self, now: float) -> float:
        """Return how long until it is as if nothing had ever been taken; 0: it is now."""
        self._refill(now)
        return (self._burst - self._level) / self._rate

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now


def token_bucket(rate_per_s: float, burst: float, now: float) -> TokenBucket | None:
    """Return a full one; None for a rate of 0: no bound."""
    return TokenBucket(rate_per_s, burst, now) if rate_per_s else None


def of_bytes(bytes_per_s: int, now: float) -> TokenBucket | None:
    """Return one for bytes that are sent."""
    return token_bucket(bytes_per_s, bytes_per_s * BYTES_BURST_S, now)


def of_rooms(rooms_per_minute: int, now: float) -> TokenBucket | None:
    """Return one for rooms that are begun."""
    return token_bucket(rooms_per_minute / MINUTE_S, rooms_per_minute, now)


def of_waste(units_per_s: int, now: float) -> TokenBucket | None:
    """Return one for what brings nothing."""
    if not units_per_s:
        return None
    burst = units_per_s * WASTE_BURST_S
    return TokenBucket(units_per_s, burst, now, owed_max=units_per_s * WASTE_OWED_S)


def of_work(units_per_s: int, now: float) -> TokenBucket | None:
    """Return one for what requests cost."""
    return token_bucket(units_per_s, units_per_s * WORK_BURST_S, now)
