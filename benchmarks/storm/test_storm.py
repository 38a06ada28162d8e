"""Each storm runs and reports. The figures are not judged here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.measure.scale import LONGER, Scale
from benchmarks.storm.run import DELAYS, STORMS, Load, lines, measure

SMALL = Load(
    returning=30, live=10, handshakes=200, sources=30, rate=20.0, seconds=1.0, calm_s=1.0
)  # fmt: skip


@pytest.mark.parametrize("storm", STORMS)
def test_a_small_storm(storm: str, scale: Scale) -> None:
    if not scale.quick:
        pytest.skip("a storm needs minutes: make bench-storm")
    for seconds in LONGER:
        found = measure(storm, replace(SMALL, seconds=seconds, calm_s=seconds))
        if all(found[key]["n"] for key in DELAYS):
            break
    assert all(found[key]["n"] for key in DELAYS)
    assert len(lines(storm, found)) >= 4
