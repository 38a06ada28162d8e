"""How much a benchmark does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGER: Final = (1.0, 5.0, 25.0)
"""Seconds of a search that must see something of everything: more on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: the full load, or (``--benchmark-disable``) enough to show that
    it works.
    """

    quick: bool

    @property
    def rounds(self) -> int:
        """Measured rounds; the figures are those of the median one."""
        return 1 if self.quick else 3

    @property
    def warmup_rounds(self) -> int:
        """Rounds before them."""
        return 0 if self.quick else 1

    def pick(self, full: int, quick: int) -> int:
        """Return the one or the other."""
        return quick if self.quick else full

    def seconds(self, full: float) -> float:
        """Return how long a round of load lasts."""
        return 0.5 if self.quick else full
