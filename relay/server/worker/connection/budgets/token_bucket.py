"""A token bucket: a rate with a burst. Pure: the clock is passed in."""

from __future__ import annotations

from typing import Final

INFINITE: Final = float("inf")
BYTES_BURST_S: Final = 2.0
"""For sent bytes: how long unused tokens accumulate. The bytes are written to the shared disk."""
WORK_BURST_S: Final = 5.0
"""For requests: starting a client that follows a hundred rooms must not cause a wait."""
WASTE_BURST_S: Final = 64.0
"""For useless requests: with the default rate, all messages of a window may be refused."""
WASTE_OWED_S: Final = 60.0
"""Debt for useless requests beyond this is forgiven: no connection is throttled for longer."""
MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0


class TokenBucket:
    """Holds up to a burst of tokens and refills at a rate.

    If there is at least one token, a caller may take more than there are; the next caller waits
    until the debt is paid. So an item larger than the burst can pass, and the average rate is kept.
    """

    __slots__ = ("_at", "_burst", "_least", "_level", "_rate")

    def __init__(
        self, rate_per_s: float, burst: float, now: float, *, owed_max: float = INFINITE
    ) -> None:
        """Create a full bucket.

        Args:
            rate_per_s: tokens added per second, above 0.
            burst: capacity, at least 1.
            now: monotonic seconds.
            owed_max: the maximum debt, in tokens.
        """
        assert rate_per_s > 0
        assert burst >= 1
        self._rate = rate_per_s
        self._burst = burst
        self._level = burst
        self._least = -owed_max
        self._at = now

    def wait_s(self, now: float, enough_s: float = 0.0) -> float:
        """Return the time until there is a whole token; 0 if there is one now.

        ``enough_s``: wait in addition for the tokens of this many seconds.
        """
        self._refill(now)
        enough = max(1.0, min(enough_s * self._rate, self._burst))
        return max(0.0, (enough - self._level) / self._rate)

    def level(self, now: float) -> float:
        """Return the number of tokens; below 0: the debt."""
        self._refill(now)
        return self._level

    def take(self, count: float, now: float) -> None:
        """Take tokens, going into debt if there are too few."""
        self._refill(now)
        self._level = max(self._level - count, self._least)

    def full(self, now: float) -> bool:
        """Return True if the bucket is full."""
        return not self.full_in_s(now)

    def full_in_s(self, now: float) -> float:
        """Return the time until the bucket is full; 0 if it is full now."""
        self._refill(now)
        return (self._burst - self._level) / self._rate

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now


def token_bucket(rate_per_s: float, burst: float, now: float) -> TokenBucket | None:
    """Return a full bucket, or None for a rate of 0, which means no limit."""
    return TokenBucket(rate_per_s, burst, now) if rate_per_s else None


def of_bytes(bytes_per_s: int, now: float) -> TokenBucket | None:
    """Return a bucket for bytes sent."""
    return token_bucket(bytes_per_s, bytes_per_s * BYTES_BURST_S, now)


def of_rooms(rooms_per_minute: int, now: float) -> TokenBucket | None:
    """Return a bucket for rooms created."""
    return token_bucket(rooms_per_minute / MINUTE_S, rooms_per_minute, now)


def of_accounts(accounts_per_hour: int, now: float) -> TokenBucket | None:
    """Return a bucket for names that are registered."""
    return token_bucket(accounts_per_hour / HOUR_S, accounts_per_hour, now)


def of_waste(units_per_s: int, now: float) -> TokenBucket | None:
    """Return a bucket for useless requests."""
    if not units_per_s:
        return None
    burst = units_per_s * WASTE_BURST_S
    return TokenBucket(units_per_s, burst, now, owed_max=units_per_s * WASTE_OWED_S)


def of_work(units_per_s: int, now: float) -> TokenBucket | None:
    """Return a bucket for the cost of requests."""
    return token_bucket(units_per_s, units_per_s * WORK_BURST_S, now)
