"""The cost of idle members: of a server that does nothing, and of a busy room beside them. Target
14.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

IDLE = 2000
BUSY_MEMBERS = 100
SECONDS = 4.0
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


@pytest.mark.parametrize("idle", [0, IDLE])
def test_idle_rooms(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch, idle: int,
) -> None:  # fmt: skip
    """100 msg/s to 100 members, beside as many rooms of one idle member each."""
    there, busy = min(idle, scale.pick(IDLE, 50)), scale.pick(BUSY_MEMBERS, 20)
    seconds = scale.seconds(SECONDS)
    benchmark.group = f"beside idle rooms: 1 → {busy}, 200 B, 100 msg/s, 1 worker"
    data = tmp_path_factory.mktemp("idle") / "data"
    rounds: list[Figures] = []
    with (
        MeasuredRelay(data, workers=1, cores=machine.SERVER_CORES) as server,
        ExitStack() as stack,
    ):
        watch(server.processes)
        if there:
            rooms = [f"quiet{number}" for number in range(there)]
            stack.enter_context(Swarm(server.join(*rooms, prefix="idle"), there, sample=1))
        swarm = stack.enter_context(Swarm(server.join("lobby"), busy, sample=5))
        publisher = stack.enter_context(closing(server.publisher("lobby")))
        before, began = server.processes(), time.monotonic()
        time.sleep(seconds)
        resting_share = (server.processes() - before) / (time.monotonic() - began)
        fanout = Fanout(publisher, swarm, server.processes)
        load = Offered(100, 1, seconds)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: rounds.append(fanout.run(load)),
            setup=fanout.begin,
            rounds=scale.rounds,
            warmup_rounds=scale.warmup_rounds,
        )
    costs = sorted(one.cpu_us_per_delivery for one in rounds[-scale.rounds :])
    benchmark.extra_info |= {
        "idle_rooms": there,
        "resting_cpu_ms_per_s": round(resting_share * 1000, 2),
        "cpu_us_per_delivery": round(costs[scale.rounds // 2], 3),
        "cpu_us_per_delivery_all": [round(cost, 3) for cost in costs],
    }
