"""Fan-out: one publisher, one room, many members. Targets 1, 2, 3 and 12.

The clock of these benchmarks is the CPU time of all server processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.publishers import WINDOW, Publisher
from benchmarks.load.swarm import Connect, Swarm
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from benchmarks.servers.floor import Floor
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

AT_30, AT_100, AT_1000 = Offered(30, 1, 5), Offered(100, 1, 5), Offered(1000, 1, 3)
BURSTS, AT_3000 = Offered(1000, 10, 3), Offered(3000, 1, 3)
SATURATED, IN_64S = Offered(0, 1, 3), Offered(0, 64, 3)
ONE, TWO, FLOOR = "relay, 1 worker", "relay, 2 workers", "floor"
ALL = (AT_30, AT_100, AT_1000, BURSTS, AT_3000, SATURATED, IN_64S)
CROWDS: dict[tuple[str, int], tuple[Offered, ...]] = {
    (ONE, 10): (AT_100, AT_1000, AT_3000, SATURATED, IN_64S),
    (ONE, 100): (AT_30, AT_100, AT_1000, AT_3000, SATURATED, IN_64S),
    (ONE, 1000): ALL,
    (TWO, 1000): ALL,
    # One call for each message and member: at higher rates it cannot keep up.
    (FLOOR, 1000): (AT_30, AT_100),
    (ONE, 5000): (AT_30, AT_100, AT_1000, SATURATED, IN_64S),
}
"""(contender, members): what they are offered."""
MEMBERS_QUICK = 20
SAMPLE = 5
FLOOR_WINDOW = 64

pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]
Stage = tuple[Fanout, Processes, dict[str, Any]]


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, scale: Scale, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A server with its members and a publisher."""
    directory = tmp_path_factory.mktemp("fanout")
    contender, wanted = request.param
    members = scale.pick(wanted, MEMBERS_QUICK)
    facts: dict[str, Any] = {"contender": contender, "members": wanted}
    with ExitStack() as stack:
        connect: Connect
        publish: Callable[[], Publisher]
        window = WINDOW
        if contender == FLOOR:
            floor = stack.enter_context(Floor(directory, members))
            floor.processes.pin(machine.SERVER_CORES)
            facts["language"] = floor.language
            window = FLOOR_WINDOW
            processes, connect, publish = floor.processes, floor.join(), floor.publisher
        else:
            server = relay_server(directory, 1 if contender == ONE else 2)
            stack.enter_context(server)
            facts["filesystem"] = machine.filesystem(directory)
            processes, connect = server.processes, server.join("lobby")
            publish = partial(server.publisher, "lobby")
        swarm = stack.enter_context(Swarm(connect, members, sample=SAMPLE))
        publisher = stack.enter_context(closing(publish()))
        yield Fanout(publisher, swarm, processes, window), processes, facts


def relay_server(directory: Path, workers: int) -> MeasuredRelay:
    """One worker has the server's core; several need all there are."""
    cores = machine.SERVER_CORES if workers == 1 else machine.ALL_CORES
    return MeasuredRelay(directory / "data", workers=workers, cores=cores)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Combine numbers of members with loads; for a smoke test a part is enough."""
    if "offered" not in metafunc.fixturenames:
        return
    quick = Scale(bool(metafunc.config.getoption("benchmark_disable"))).quick
    cases = [
        pytest.param(crowd, offered, id=f"{crowd[0]}, {crowd[1]} members, {offered}")
        for crowd, loads in CROWDS.items()
        if not quick or crowd[1] == 1000
        for offered in ((loads[0], loads[-1]) if quick else loads)
    ]
    metafunc.parametrize(("stage", "offered"), cases, indirect=["stage"], scope="module")


def test_fanout(benchmark: Any, stage: Stage, offered: Offered, scale: Scale, watch: Watch) -> None:  # noqa: ANN401
    """Server CPU per delivery, deliveries per second, and whether it keeps up."""
    fanout, processes, facts = stage
    watch(processes)
    benchmark.group = f"fan-out 1 → {facts['members']}, 200 B, {offered}"
    load = Offered(offered.rate, offered.per_write, scale.seconds(offered.seconds))
    rounds: list[Figures] = []
    benchmark.pedantic(
        lambda: rounds.append(fanout.run(load)),
        setup=fanout.begin,
        rounds=scale.rounds,
        warmup_rounds=scale.warmup_rounds,
    )
    benchmark.extra_info |= facts | median(rounds[-scale.rounds :])


def median(rounds: list[Figures]) -> dict[str, Any]:
    """Return the figures of the median round, with the spread of all."""
    costs = sorted(figures.cpu_us_per_delivery for figures in rounds)
    middle = statistics.median_low(costs)
    chosen = next(figures for figures in rounds if figures.cpu_us_per_delivery == middle)
    return chosen.extra() | {"cpu_us_per_delivery_all": [round(cost, 4) for cost in costs]}
