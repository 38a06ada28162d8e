"""Decides when a worker with far more clients than the others sends some away.

New connections go to the worker with the fewest (``acceptor``), but connections last for days.
After a rolling restart one worker would have all of them, and added workers none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

SLACK: Final = 8
SLACK_RATIO: Final = 0.25
"""A worker may exceed the mean by this number, or by this share of the mean, whichever is more."""
SETTLE_S: Final = 5.0
"""Longer than clients of a worker that ended need to reconnect."""


class Balance:
    """Decides how many of a worker's clients are sent away now. Has no effects of its own."""

    def __init__(self, over_s: Callable[[], float]) -> None:
        """Create in the balanced state.

        Args:
            over_s: returns over how long a worker sends its surplus away; 0: never.
        """
        self._over_s = over_s
        self._since: float | None = None
        """Since when this worker has had far more clients than the others."""
        self._last = 0.0
        self._owed = 0.0

    @property
    def began(self) -> bool:
        """True while clients are being sent away."""
        return self._owed > 0

    def due(self, own: int, others: Sequence[int], now: float) -> int:
        """Return how many clients to send away now. Called about once a second.

        Args:
            own: connections of this worker that are logged in; no others can be sent elsewhere.
            others: connections of each other worker that accepts. Those that are logging in count:
                when thousands come back at once, a worker may be seconds ahead of the others.
            now: monotonic seconds.
        """
        over_s = self._over_s()
        mean = (own + sum(others)) / (1 + len(others))
        surplus = own - mean
        enough = surplus < 1 if self.began else surplus <= max(SLACK, SLACK_RATIO * mean)
        if not over_s or enough:
            self._since, self._owed = None, 0.0
            return 0
        if self._since is None:
            self._since = now
        if now - self._since < SETTLE_S:
            self._last = now
            return 0
        # A share of the remaining surplus: fast at first, slower as fewer are left.
        before = math.floor(self._owed)
        self._owed += max(1.0, surplus * min(1.0, (now - self._last) / over_s))
        self._last = now
        return min(math.floor(self._owed) - before, math.ceil(surplus))
