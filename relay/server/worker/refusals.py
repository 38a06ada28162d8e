"""Counts what the budgets of a worker have refused, and logs it at most once in a while."""

from __future__ import annotations

import logging
from typing import Final

from relay.server.metrics import Budget

LOG_EVERY_S: Final = 10.0
"""Of one budget, whoever reaches it and however often."""
log = logging.getLogger("relay.worker")


class Refusals:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.counts: Final = dict.fromkeys(Budget, 0)
        """Since the worker began."""
        self._told: dict[Budget, tuple[float, int]] = {}
        """Of budgets that were logged: when, and the count then."""
        self._untold: dict[Budget, str] = {}
        """The last source of what was refused since."""

    def count(self, budget: Budget, source: str, now: float, refused: int = 1) -> None:
        """Note that something was refused.

        Args:
            budget: which.
            source: whose it was, for the log.
            now: monotonic seconds.
            refused: how many.
        """
        self.counts[budget] += refused
        self._untold[budget] = source
        told = self._told.get(budget)
        if told is None or now >= told[0] + LOG_EVERY_S:
            self._tell(budget, now)

    def add(self, budget: Budget, refused: int) -> None:
        """Count without a line: what is the matter is logged elsewhere."""
        self.counts[budget] += refused

    def sweep(self, now: float) -> None:
        """Log what was refused since the last line. Called about once a second."""
        for budget in list(self._untold):
            if now >= self._told[budget][0] + LOG_EVERY_S:
                self._tell(budget, now)

    def _tell(self, budget: Budget, now: float) -> None:
        count = self.counts[budget]
        before = self._told[budget][1] if budget in self._told else 0
        source = self._untold.pop(budget)
        self._told[budget] = now, count
        log.warning(
            "budget_reached",
            extra={"budget": budget.value, "refused": count - before, "source": source},
        )
