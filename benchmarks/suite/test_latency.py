"""How long a message takes: to its own acknowledgement, and to 1000 members. Targets 5 and 6.

Every delay counts from the moment when the message was *due*, by a schedule that waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load import publishers
from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.latency import Delays
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

RATE = 100.0
BUSY_RATE = 2000.0
"""About half of what saturates one worker with 1000 members."""
MEMBERS = 1000
SECONDS = 10.0
SAMPLE = 10
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredRelay]:
    """A relay with two workers, wherever the kernel runs them."""
    data = tmp_path_factory.mktemp("latency") / "data"
    with MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server:
        yield server


@pytest.mark.parametrize("home", ["same worker", "other worker"])
def test_acknowledgement(
    benchmark: BenchmarkFixture, server: MeasuredRelay, home: str, scale: Scale, watch: Watch
) -> None:
    """Publish to own acknowledgement, which means committed; the server has nothing else to do."""
    watch(server.processes)
    benchmark.group = "publish → acknowledgement, 200 B, 100 msg/s, idle server, 2 workers"
    log = server.log_at_home_on(0)
    worker = 0 if home == "same worker" else 1
    count = round(RATE * scale.seconds(SECONDS))
    with closing(server.publisher_on(worker, log, home.split()[0])) as publisher:

        def run() -> None:
            publisher.delays = Delays()
            publishers.at_rate(publisher, 1, count, RATE, 1, lambda: count)
            publisher.drain()

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            run, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds
        )
        assert publisher.delays.count == count
        benchmark.extra_info |= {"home": home} | publisher.delays.figures()


@pytest.mark.parametrize("rate", [RATE, BUSY_RATE])
def test_delivery(
    benchmark: BenchmarkFixture, server: MeasuredRelay, rate: float, scale: Scale, watch: Watch
) -> None:
    """Publish to delivery, every member of the sample counted.

    The members' one process reads its sockets in turn: its own queue is part of the figure.
    """
    watch(server.processes)
    members = scale.pick(MEMBERS, 40)
    benchmark.group = f"publish → delivery, 200 B, 1 → {members}, 2 workers"
    load = Offered(rate, 1, scale.seconds(SECONDS))
    rounds: list[Figures] = []
    log = server.log_at_home_on(0, f"hall{rate:.0f}-")
    with (
        Swarm(server.join(log, prefix=f"at{rate:.0f}-"), members, sample=SAMPLE) as swarm,
        closing(server.publisher(log, f"speaker{rate:.0f}")) as publisher,
    ):
        fanout = Fanout(publisher, swarm, server.processes)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: rounds.append(fanout.run(load)),
            setup=fanout.begin,
            rounds=scale.rounds,
            warmup_rounds=scale.warmup_rounds,
        )
    all_rounds = [figures.delays.figures() for figures in rounds]
    middle = sorted(all_rounds, key=lambda one: one["p99_us"])[len(all_rounds) // 2]
    extra: dict[str, Any] = {
        "rate": rate,
        "load_share": round(max(one.load_share for one in rounds), 3),
    }
    benchmark.extra_info |= extra | middle
