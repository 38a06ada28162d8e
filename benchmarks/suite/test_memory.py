"""The memory of one more idle, subscribed connection. Target 11."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay

FIRST, MORE = 500, 2000


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    workers: int,
) -> None:  # fmt: skip
    """The growth of all server processes, from the first members on.

    The first ones pay for what is allocated once; they are not counted. ``pss`` counts a page
    shared by n processes as 1/n for each; the kernel's socket buffers are not included.
    """
    first, more = scale.pick(FIRST, 20), scale.pick(MORE, 100)
    benchmark.group = f"memory of {more} idle members in one room"
    data = tmp_path_factory.mktemp("memory") / "data"
    grown: dict[str, int] = {}
    with (
        MeasuredRelay(data, workers=workers, cores=machine.ALL_CORES) as server,
        Swarm(server.join("lobby", prefix="early"), first, sample=1),
    ):
        before = server.processes.memory()

        def connect() -> None:
            with Swarm(server.join("lobby", prefix="late"), more, sample=1):
                after = server.processes.memory()
                grown.update({kind: after[kind] - before[kind] for kind in after})

        benchmark.pedantic(connect, rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"workers": workers, "connections": more} | {
        f"{kind}_bytes_per_connection": round(size / more) for kind, size in grown.items()
    }
