"""The cost of the bus: on a message's way in, and on its way out.

Two workers. The difference between "at home" and "elsewhere" is the bus, both ends of it: for a
message that is forwarded to its home and acknowledged, and for a batch that a home publishes to
another worker, where any number of members share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load import publishers
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from tests.support.processes import Processes

RATE, SECONDS = 200.0, 4.0
HOME, OTHER = 0, 1
PLACES = {
    "sender at home, no member": (HOME, None),
    "sender elsewhere, no member": (OTHER, None),
    "sender at home, member at home": (HOME, HOME),
    "sender at home, member elsewhere": (HOME, OTHER),
}
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredRelay]:
    data = tmp_path_factory.mktemp("bus") / "data"
    with MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server:
        yield server


@pytest.mark.parametrize("places", PLACES)
def test_bus_cost(
    benchmark: BenchmarkFixture, server: MeasuredRelay, places: str, scale: Scale, watch: Watch
) -> None:
    """Server CPU per message at 200 messages a second, one per write."""
    sender_at, member_at = PLACES[places]
    number = list(PLACES).index(places)
    log = server.log_at_home_on(HOME, f"bus{number}-")
    count = round(RATE * scale.seconds(SECONDS))
    benchmark.group = "server CPU per message, 200 B, 200 msg/s, 2 workers"
    watch(server.processes)
    spent: list[float] = []
    with ExitStack() as stack:
        sender = stack.enter_context(
            closing(server.publisher_on(sender_at, log, f"sender{number}-"))
        )
        member = None
        if member_at is not None:
            member = stack.enter_context(
                closing(server.member_on(member_at, log, f"member{number}-"))
            )

        publishers.at_rate(sender, 0, 1, RATE, 1, lambda: 1)  # which begins the room
        sender.drain()
        if member is not None:
            member.read_entries(2)

        def send() -> None:
            before = server.processes()
            publishers.at_rate(sender, 1, count, RATE, 1, lambda: count)
            sender.drain()
            spent.append(server.processes() - before)
            if member is not None:
                assert len(member.read_entries(count)) == count

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            send, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds
        )
    middle = sorted(spent[-scale.rounds :])[scale.rounds // 2]
    benchmark.extra_info |= {"cpu_us_per_message": round(middle / count * 1e6, 1)}
