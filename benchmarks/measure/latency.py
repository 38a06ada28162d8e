"""Delays in µs, in a HdrHistogram: exact to two digits from 1 µs to 5 minutes."""

from __future__ import annotations

from typing import Final

from hdrh.histogram import HdrHistogram

PERCENTILES: Final = ((50.0, "p50_us"), (90.0, "p90_us"), (99.0, "p99_us"), (99.9, "p999_us"))
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 300_000_000, 3


class Delays:
    """A distribution of delays. Record from the *intended* moment: no coordinated omission."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)

    def record_ns(self, delay_ns: int) -> None:
        """Add one delay, given in ns."""
        self._histogram.record_value(max(delay_ns // 1000, _LOWEST_US))

    def add(self, encoded: bytes) -> None:
        """Add another process's ``encode``."""
        self._histogram.add(HdrHistogram.decode(encoded))

    def encode(self) -> bytes:
        """Return it as bytes."""
        encoded: bytes = self._histogram.encode()
        return encoded

    @property
    def count(self) -> int:
        """How many were recorded."""
        count: int = self._histogram.get_total_count()
        return count

    def figures(self) -> dict[str, float]:
        """Return the percentiles, the maximum and the count, for ``extra_info``."""
        if not self.count:
            return {"n": 0}
        found: dict[str, float] = {
            name: self._histogram.get_value_at_percentile(at) for at, name in PERCENTILES
        }
        return found | {"max_us": self._histogram.get_max_value(), "n": self.count}
