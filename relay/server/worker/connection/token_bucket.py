"""A token bucket: a rate with a burst. Pure: the clock is passed in."""

from __future__ import annotations

from typing import Final

BYTES_BURST_S: Final = 2.0
"""What was not used for so long may be used at once: it is written by everybody's disk."""
WORK_BURST_S: Final = 5.0
"""Likewise: a person who opens a program that follows a hundred rooms need not wait."""
MINUTE_S: Final = 60.0


class TokenBucket:
    """Holds up to a burst of tokens and refills at a rate.

    Whoever finds a token may take more than there are: the next one waits until the debt is paid.
    So a piece that is larger than the burst passes, too, and the average stays the rate.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        """Begin full.

        Args:
            rate_per_s: tokens that come each second, above 0.
            burst: the most that it holds, at least 1.
            now: monotonic seconds.
        """
        assert rate_per_s > 0
        assert burst >= 1
        self._rate = rate_per_s
        self._burst = burst
        self._level = burst
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return how long until there is a whole token; 0: there is one now."""
        self._refill(now)
        return max(0.0, (1.0 - self._level) / self._rate)

    def take(self, count: float, now: float) -> None:
        """Take tokens, more than there are if need be."""
        self._refill(now)
        self._level -= count

    def full(self, now: float) -> bool:
        """Tell whether it is as if nothing had ever been taken."""
        self._refill(now)
        return self._level >= self._burst

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


def of_work(units_per_s: int, now: float) -> TokenBucket | None:
    """Return one for what requests cost."""
    return token_bucket(units_per_s, units_per_s * WORK_BURST_S, now)
