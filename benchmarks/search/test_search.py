"""The measurement of searches runs, and finds what is there; nothing is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measure.scale import Scale
from benchmarks.search.run import QUERIES, lines, measure


def test_a_short_measurement(tmp_path: Path, scale: Scale) -> None:
    if not scale.quick:
        pytest.skip("a measurement needs minutes: make bench-search")
    measured = measure(tmp_path / "data", 5000, 1.0, members=20, rate=100.0)
    assert measured.archive.messages == 5000
    assert all(delays.count for delays in measured.delays.values())
    assert set(measured.pages) == set(QUERIES)
    assert len(lines(measured)) == 4 + len(QUERIES) + 1
