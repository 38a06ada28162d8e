"""Finds the capacity: how many users until the p99 objective fails. No I/O, no Locust.

First the users double until a step fails; then the range between the last good and the first bad
number is halved until it is narrow. A step that fails is measured once more: one hiccup of the
machine is not the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROWTH: Final = 2.0
PRECISION: Final = 0.1
"""The search ends when the first bad number is at most this much above the last good one."""
USERS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step's measurement."""

    users: int
    p99_ms: float
    messages_per_s: float
    deliveries_per_s: float
    saturated: bool
    """The load generator was: its latencies do not count."""
    fell_behind: bool = False
    """Over 1 % of the deliveries were caught up on, which are not timed: the p99 hides them."""

    def good(self, objective_ms: float) -> bool:
        """True if the objective was met, and the load generator was not the bottleneck.

        Without a timed delivery (p99 0) it was not met.
        """
        return 0 < self.p99_ms <= objective_ms and not self.saturated and not self.fell_behind


class Finder:
    """Says how many users the next step has."""

    def __init__(self, first_users: int, objective_ms: float) -> None:
        self.users = first_users
        """Of the running step."""
        self.best: Step | None = None
        """The good step with the most users; None: there was none."""
        self.worst: Step | None = None
        """The bad step with the fewest users; None: none was bad."""
        self.steps: list[Step] = []
        self._objective_ms = objective_ms
        self._doubtful = False
        """True after a bad measurement that is being repeated."""

    def measured(self, step: Step) -> bool:
        """Take the running step's measurement and choose the next. Returns False at the end."""
        self.steps.append(step)
        if step.good(self._objective_ms):
            self._doubtful = False
            self.best = step
        elif not self._doubtful:
            self._doubtful = True
            return True
        else:
            self._doubtful = False
            self.worst = step
        self.users = self._next()
        return self.users > 0

    def _next(self) -> int:
        low = self.best.users if self.best is not None else 0
        if self.worst is None:
            return min(int(low * GROWTH), USERS_MAX) if low < USERS_MAX else 0
        high = self.worst.users
        if high - low <= max(1.0, low * PRECISION):
            return 0
        return (low + high) // 2
