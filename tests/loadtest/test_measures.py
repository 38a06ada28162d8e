from __future__ import annotations

import json

from loadtest.measures import EXAMPLES_MAX, LONGEST_US, Measures


def test_what_processes_measured_is_added_up() -> None:
    total = Measures()
    for process in range(3):
        here = Measures()
        for value in range(1, 101):
            here.record("login", value + 100 * process)
        here.counts["seen"] += 2
        here.peak("cpu", 10.0 * process)
        here.example(f"from {process}")
        # What Locust sends between processes must be plain data.
        total.merge(json.loads(json.dumps(here.take())))
        assert not here.histograms
        assert not here.counts
    assert total.latencies()["login"] == {
        "count": 300, "p50": 150, "p90": 270, "p99": 297, "p99.9": 300, "max": 300,
    }  # fmt: skip
    assert total.counts["seen"] == 6
    assert total.peaks == {"cpu": 20.0}
    assert total.examples == ["from 0", "from 1", "from 2"]


def test_parts_of_a_millisecond_are_kept_and_extremes_are_clipped() -> None:
    measures = Measures()
    for value in (0.2, 312.4, 10.0 * LONGEST_US):
        measures.record("deliver", value)
    assert measures.percentile_us("deliver", 1.0) == 1
    assert measures.percentile_us("deliver", 50.0) == 312
    assert measures.percentile_us("deliver", 100.0) >= LONGEST_US
    assert measures.percentile_us("nothing", 99.0) == 0


def test_violations_are_counted_and_few_are_told() -> None:
    measures = Measures()
    measures.counts["violation Missing"] += 3
    measures.counts["violation Doubled"] += 4
    measures.counts["other"] += 5
    assert measures.violations == 7
    for number in range(EXAMPLES_MAX + 5):
        measures.example(str(number))
    assert len(measures.examples) == EXAMPLES_MAX
