"""Many small rooms at once. Target 4."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.publishers import RoomsPublisher
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

ROOMS, MEMBERS, RATE = 200, 10, 5.0
SECONDS = 5.0
SAMPLE = 20
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


@pytest.mark.parametrize("workers", [1, 2])
def test_rooms(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch, workers: int,
) -> None:  # fmt: skip
    """200 rooms of 10 members, 5 messages a second in each, spread evenly over the second."""
    rooms = scale.pick(ROOMS, 5)
    benchmark.group = f"{rooms} rooms × {MEMBERS} members, {RATE:g} msg/s in each, 200 B"
    logs = tuple(f"room{number}" for number in range(rooms))
    data = tmp_path_factory.mktemp("rooms") / "data"
    cores = machine.SERVER_CORES if workers == 1 else machine.ALL_CORES
    load = Offered(RATE, 1, scale.seconds(SECONDS))
    rounds: list[Figures] = []
    with (
        MeasuredRelay(data, workers=workers, cores=cores) as server,
        Swarm(server.join(*logs), rooms * MEMBERS, sample=SAMPLE) as swarm,
        closing(RoomsPublisher(server.publisher(logs[0]), logs, 0.95 / RATE)) as publisher,
    ):
        watch(server.processes)
        fanout = Fanout(publisher, swarm, server.processes)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: rounds.append(fanout.run(load)),
            setup=fanout.begin,
            rounds=scale.rounds,
            warmup_rounds=scale.warmup_rounds,
        )
    costs = sorted(rounds[-scale.rounds :], key=lambda one: one.cpu_us_per_delivery)
    benchmark.extra_info |= {"workers": workers} | costs[scale.rounds // 2].extra()
