"""Counts what a worker's budgets refuse and logs it at a limited rate."""

from __future__ import annotations

import logging
from typing import Final

from relay.server.metrics import Budget

LOG_EVERY_S: Final = 10.0
"""Minimum time between two log lines about the same budget, regardless of the sources."""
log = logging.getLogger("relay.worker")


class Refusals:
    """Counts and logs refusals by budget."""

    def __init__(self) -> None:
        self.counts: Final = dict.fromkeys(Budget, 0)
        """Refusals since the worker started."""
        self._logged: dict[Budget, tuple[float, int]] = {}
        """For each budget that was logged: the time and the count at that time."""
        self._unlogged: dict[Budget, str] = {}
        """For each budget with unlogged refusals: the source of the last one."""

    def count(self, budget: Budget, source: str, now: float, refused: int = 1) -> None:
        """Count a refusal.

        Args:
            budget: the budget that was exceeded.
            source: the source that exceeded it, for the log.
            now: monotonic seconds.
            refused: number of refusals.
        """
        self.counts[budget] += refused
        self._unlogged[budget] = source
        logged = self._logged.get(budget)
        if logged is None or now >= logged[0] + LOG_EVERY_S:
            self._log(budget, now)

    def add(self, budget: Budget, refused: int) -> None:
        """Count refusals without logging them here, because the cause is logged elsewhere."""
        self.counts[budget] += refused

    def sweep(self, now: float) -> None:
        """Log refusals since the last line. Called about once a second."""
        for budget in list(self._unlogged):
            if now >= self._logged[budget][0] + LOG_EVERY_S:
                self._log(budget, now)

    def _log(self, budget: Budget, now: float) -> None:
        count = self.counts[budget]
        before = self._logged[budget][1] if budget in self._logged else 0
        source = self._unlogged.pop(budget)
        self._logged[budget] = now, count
        log.warning(
            "budget_reached",
            extra={"budget": budget.value, "refused": count - before, "source": source},
        )
