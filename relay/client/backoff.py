"""When to reconnect: exponential back-off with jitter, so that clients do not return at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.1
"""Short: usually one of several workers has died, and the others serve."""
MAX_S: Final = 20.0
LEAST_S: Final = 0.02
RETRY_AFTER_S_MAX: Final = 600.0
"""Limit for what a server requests: it could send a client away for 18 hours."""
STABLE_S: Final = 5.0
"""A connection that was online for this long resets the back-off; a shorter one does not."""


class Backoff:
    """Delays between attempts to connect."""

    __slots__ = ("_jitter", "_online_at", "attempts")

    def __init__(self, jitter: Callable[[], float]) -> None:
        """Take a source of numbers, evenly distributed over [0, 1)."""
        self._jitter = jitter
        self._online_at: float | None = None
        """None while not online."""
        self.attempts = 0

    def online(self, now: float) -> None:
        """The login succeeded."""
        self._online_at = now

    def next_delay(self, now: float, retry_after_s: float = 0.0) -> float:
        """Return the seconds to wait, never less than the server requested within the limit."""
        retry_after_s = min(retry_after_s, RETRY_AFTER_S_MAX)
        if self._online_at is not None and now - self._online_at >= STABLE_S:
            self.attempts = 0
        self._online_at = None
        ceiling = min(MAX_S, FIRST_S * 2.0 ** min(self.attempts, 16))
        self.attempts += 1
        # The server's request is spread as well: it sent the same to everybody.
        spread = max(ceiling, retry_after_s / 4)
        return retry_after_s + max(LEAST_S, self._jitter() * spread)
