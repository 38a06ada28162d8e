"""How many messages a second are accepted: committed and acknowledged. Target 7.

Nobody follows the logs: only the path of sending is measured. The publishers run in processes of
their own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.flood import PER_WRITE, flood, log_in_each_partition
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

SECONDS = 4.0
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


def test_accepted_in_one_partition(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    run(benchmark, tmp_path_factory, scale, watch, ["lobby"])


def test_accepted_in_all_partitions(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    run(benchmark, tmp_path_factory, scale, watch, log_in_each_partition())


def run(
    benchmark: BenchmarkFixture, directories: pytest.TempPathFactory, scale: Scale, watch: Watch,
    logs: list[str],
) -> None:  # fmt: skip
    """Have several connections send into these logs, each into one of them at a time."""
    benchmark.group = f"accepted messages, 200 B, 2 workers, {PER_WRITE} per write"
    seconds = scale.seconds(SECONDS)
    data = directories.mktemp("accepted") / "data"
    rates: list[tuple[float, float]] = []
    with MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server:
        watch(server.processes)
        rounds = iter(range(10**6))

        def one_round() -> None:
            before = server.processes()
            accepted = flood(server.port, logs, seconds, f"round{next(rounds)}")
            spent = server.processes() - before
            rates.append((accepted / seconds, spent / accepted * 1e6))

        benchmark.pedantic(one_round, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds)  # type: ignore[no-untyped-call]
    rate, cost = sorted(rates[-scale.rounds :])[scale.rounds // 2]
    benchmark.extra_info |= {
        "logs": len(logs),
        "accepted_per_s": round(rate),
        "cpu_us_per_message": round(cost, 2),
        "filesystem": machine.filesystem(data.parent),
    }
