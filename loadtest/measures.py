"""What one process has measured: histograms in microseconds and exact counts, mergeable.

Locust keeps whole milliseconds, and an event per delivery would cost more than the delivery. So
deliveries are recorded here, and shipped from Locust's workers to its master with their reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from hdrh.histogram import HdrHistogram

LONGEST_US: Final = 600_000_000
DIGITS: Final = 3
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
VIOLATION: Final = "violation "
"""Counts whose names begin so are of broken promises."""
EXAMPLES_MAX: Final = 20
"""Texts of violations that are kept; the counts are exact."""


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, LONGEST_US, DIGITS)


class Measures:
    """Histograms by name, counts by name, peaks by name, and examples of violations."""

    def __init__(self) -> None:
        self.histograms: dict[str, HdrHistogram] = {}
        self.counts: Counter[str] = Counter()
        self.peaks: dict[str, float] = {}
        self.examples: list[str] = []

    def record(self, name: str, microseconds: float) -> None:
        """Record one latency."""
        histogram = self.histograms.get(name)
        if histogram is None:
            histogram = self.histograms[name] = _histogram()
        histogram.record_value(min(max(1, round(microseconds)), LONGEST_US))

    def peak(self, name: str, value: float) -> None:
        """Keep the highest value."""
        self.peaks[name] = max(value, self.peaks.get(name, value))

    def example(self, text: str) -> None:
        """Keep the detail of a violation, if there is room."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(text)

    def take(self) -> dict[str, Any]:
        """Return everything in a form for the wire, and begin anew."""
        taken = {
            "histograms": {name: h.encode().decode() for name, h in self.histograms.items()},
            "counts": dict(self.counts),
            "peaks": self.peaks,
            "examples": self.examples,
        }
        self.reset()
        return taken

    def merge(self, taken: Mapping[str, Any]) -> None:
        """Add what another process has taken."""
        for name, encoded in taken["histograms"].items():
            if name not in self.histograms:
                self.histograms[name] = _histogram()
            self.histograms[name].decode_and_add(encoded)
        self.counts.update(taken["counts"])
        for name, value in taken["peaks"].items():
            self.peak(name, value)
        for text in taken["examples"]:
            self.example(text)

    def reset(self) -> None:
        """Forget everything."""
        self.histograms, self.counts, self.peaks, self.examples = {}, Counter(), {}, []

    def percentile_us(self, name: str, percentile: float) -> int:
        """Return a percentile in µs; 0 when nothing was recorded."""
        histogram = self.histograms.get(name)
        if histogram is None or not histogram.get_total_count():
            return 0
        return int(histogram.get_value_at_percentile(percentile))

    def latencies(self) -> dict[str, dict[str, int]]:
        """Return for each name the number of values and the percentiles in µs."""
        return {
            name: {"count": int(histogram.get_total_count())}
            | {key: int(histogram.get_value_at_percentile(p)) for key, p in PERCENTILES.items()}
            for name, histogram in sorted(self.histograms.items())
        }

    @property
    def violation_counts(self) -> dict[str, int]:
        """How many promises were broken, by kind."""
        return {name: n for name, n in self.counts.items() if name.startswith(VIOLATION)}

    @property
    def violations(self) -> int:
        """How many promises were broken."""
        return sum(self.violation_counts.values())
