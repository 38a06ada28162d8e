"""The cost of a scrape of ``/metrics`` for workers with many connections, and for the control
process.
"""

from __future__ import annotations

import time
import urllib.request
from contextlib import ExitStack
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.idlers import Idlers
from benchmarks.measure import machine
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import cpu_ns

CONNECTIONS, ROOMS = 10_000, 100
WINDOW_S = 5.0
SCRAPES_PER_S = 10
TIMEOUT_S = 10.0


def test_scrape(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale
) -> None:
    """The workers' CPU time in windows with ten scrapes a second, alternating with
    windows without.
    """
    there = scale.pick(CONNECTIONS, 50)
    window_s = scale.seconds(WINDOW_S)
    benchmark.group = f"a scrape beside {there} idle connections, 2 workers"
    data = tmp_path_factory.mktemp("scrape") / "data"
    settings = {"control.bind": "127.0.0.1:0", "server.max_connections": 2 * CONNECTIONS}
    with (
        MeasuredRelay(data, workers=2, cores=machine.SERVER_CORES, settings=settings) as server,
        ExitStack() as stack,
    ):
        control, address = server.control()
        url = f"http://{address}/metrics"
        rooms = server.join(*(f"quiet{number}" for number in range(min(ROOMS, there))))
        half = there // 2
        for first in (0, half):
            stack.enter_context(Idlers(rooms, first, half))
        workers = server.worker_pids()

        def spent(scrapes_per_s: int) -> tuple[float, float]:
            """Return the workers' share of a core, and the seconds of the control process."""
            before, control_before = sum(map(cpu_ns, workers)), cpu_ns(control)
            began = time.monotonic()
            for number in range(int(window_s * scrapes_per_s)):
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                    assert b"relay_connections" in answer.read()
                time.sleep(max(0.0, began + (number + 1) / scrapes_per_s - time.monotonic()))
            time.sleep(max(0.0, began + window_s - time.monotonic()))
            took_s = time.monotonic() - began
            share = (sum(map(cpu_ns, workers)) - before) / 1e9 / took_s
            return share, (cpu_ns(control) - control_before) / 1e9

        pairs: list[tuple[float, float, float]] = []

        def pair() -> None:
            without, resting = spent(0)
            beside, busy = spent(SCRAPES_PER_S)
            scrapes = int(window_s * SCRAPES_PER_S)
            pairs.append((without, beside, (busy - resting) / max(1, scrapes)))

        benchmark.pedantic(pair, rounds=scale.rounds)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {
        "connections": there,
        "workers_ms_per_s_without": round(median(one[0] for one in pairs) * 1000, 2),
        "workers_ms_per_s_scraped": round(median(one[1] for one in pairs) * 1000, 2),
        "ratio": round(median(_ratio(one) for one in pairs), 3),
        "ratio_all": [round(_ratio(one), 3) for one in pairs],
        "control_ms_per_scrape": round(median(one[2] for one in pairs) * 1000, 2),
    }


def _ratio(one: tuple[float, float, float]) -> float:
    """Of the workers' time with scrapes to that without: in a short window there may be none."""
    return one[1] / one[0] if one[0] else float("inf")
