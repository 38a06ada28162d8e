"""Short measurements of one server that ``benchmarks.paired`` repeats: figure to cost.

The numbers at the figures' beginnings are those of the targets in docs/benchmarks.md. Each scene
starts a server of its own; a figure is always a cost, so that less is better.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.load import publishers
from benchmarks.load.fanout import Fanout, Offered
from benchmarks.load.flood import flood, log_in_each_partition
from benchmarks.load.publishers import RoomsPublisher
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays
from benchmarks.measure.machine import HOST
from benchmarks.servers.relay import MeasuredRelay
from tests.support.raw import RawClient

SAMPLE: Final = 5
WARM_UP_LOGINS: Final = 20
ROOM_MEMBERS: Final = 10
ROOM_RATE: Final = 5.0
ACK_RATE: Final = 100.0
BUSY_RATES: Final = (30.0, 100.0, 300.0, 1000.0, 2000.0, 0.0)
SETTINGS: Final[dict[str, object]] = {
    # The swarm answers no ping while it connects, and a busy machine may take minutes for that.
    "server.keepalive_s": 3600,
    "server.worker_timeout_s": 60,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    logins: int = 300
    early: int = 100
    """Members before memory is measured: they pay for what is allocated once."""
    members: int = 1000
    rooms: int = 200
    slow_s: float = 4.0
    """Of a load of some messages a second."""
    fast_s: float = 2.0
    """Of a load without pauses."""
    idle: bool = True
    """Whether the server has ended its start, the spare process's too, where it is to be idle."""


QUICK: Final = Scale(logins=10, early=2, members=10, rooms=4, slow_s=0.3, fast_s=0.2, idle=False)


def serve(source: Path, data: Path, workers: int) -> MeasuredRelay:
    """Return a server of the package in ``source``: one worker has a core to itself."""
    cores = machine.SERVER_CORES if workers == 1 else machine.ALL_CORES
    return MeasuredRelay(data, workers=workers, cores=cores, settings=SETTINGS, source=source)


def crowd(source: Path, data: Path, scale: Scale) -> dict[str, float]:
    """Log in, fill a room, and send messages to it. Targets 1, 8 and 11."""
    costs: dict[str, float] = {}
    with serve(source, data, workers=1) as server:
        for number in range(scale.logins + WARM_UP_LOGINS):
            if number == WARM_UP_LOGINS:
                before = server.processes()
            RawClient(HOST, server.port, "visitor", registered=number > 0).close()
        costs["8 full handshake and login, CPU µs"] = (
            1e6 * (server.processes() - before) / scale.logins
        )
        with Swarm(server.join("early", prefix="early"), scale.early, sample=1):
            held = server.processes.memory()["pss"]
            with (
                Swarm(server.join("lobby"), scale.members, sample=SAMPLE) as swarm,
                closing(server.publisher("lobby")) as publisher,
            ):
                grown = server.processes.memory()["pss"] - held
                costs["11 memory per idle connection, KiB"] = grown / 1024 / scale.members
                fanout = Fanout(publisher, swarm, server.processes)
                for rate in (30, 100):
                    fanout.begin()
                    figures = fanout.run(Offered(rate, 1, scale.slow_s))
                    name = f"1 fan-out 1 → {scale.members}, {rate} msg/s, CPU µs per delivery"
                    costs[name] = figures.cpu_us_per_delivery
    return costs


def rooms(source: Path, data: Path, scale: Scale) -> dict[str, float]:
    """Send messages to many small rooms that are in use. Target 4."""
    logs = tuple(f"room{number}" for number in range(scale.rooms))
    with (
        serve(source, data, workers=1) as server,
        Swarm(server.join(*logs), scale.rooms * ROOM_MEMBERS, sample=SAMPLE) as swarm,
        closing(RoomsPublisher(server.publisher(logs[0]), logs, 0.95 / ROOM_RATE)) as publisher,
    ):
        fanout = Fanout(publisher, swarm, server.processes)
        # The first one begins the rooms: an entry in each, which is forced to the disk.
        for seconds in (1 / ROOM_RATE, scale.slow_s):
            fanout.begin()
            figures = fanout.run(Offered(ROOM_RATE, 1, seconds))
    name = f"4 {scale.rooms} rooms × {ROOM_MEMBERS}, {ROOM_RATE:g} msg/s each, CPU µs per delivery"
    return {name: figures.cpu_us_per_delivery}


def busy_room(source: Path, data: Path, scale: Scale) -> dict[str, float]:
    """Send messages to one large room at several rates, and without pauses. Targets 1, 2,
    3 and 6.
    """
    costs: dict[str, float] = {}
    with (
        serve(source, data, workers=1) as server,
        Swarm(server.join("lobby"), scale.members, sample=SAMPLE) as swarm,
        closing(server.publisher("lobby")) as publisher,
    ):
        fanout = Fanout(publisher, swarm, server.processes)
        for rate in BUSY_RATES:
            for seconds in (scale.fast_s / 4, scale.fast_s * 2):  # the first one warms up
                fanout.begin()
                figures = fanout.run(Offered(rate, 1, seconds))
            name = f"1 → {scale.members}, {_rate(rate)}"
            costs[f"{name}: CPU µs per delivery"] = figures.cpu_us_per_delivery
            costs[f"{name}: p50, ms"] = figures.delays.figures()["p50_us"] / 1000
            costs[f"{name}: p99, ms"] = figures.delays.figures()["p99_us"] / 1000
    return costs


def _rate(rate: float) -> str:
    """Return how a rate is named in a figure."""
    return f"{rate:g} msg/s" if rate else "saturated"


def way_in(source: Path, data: Path, scale: Scale) -> dict[str, float]:
    """Get messages acknowledged: one at a time, and as many as possible. Targets 5 and 7."""
    costs: dict[str, float] = {}
    with serve(source, data, workers=2) as server:
        log = server.log_at_home_on(0)
        count = round(ACK_RATE * scale.slow_s)
        if scale.idle:
            server.wait_for_spare()
        with closing(server.publisher_on(1, log)) as publisher:
            for delays in (Delays(), Delays()):  # the first one warms up
                publisher.delays = delays
                publishers.at_rate(publisher, 1, count, ACK_RATE, 1, lambda: count)
                publisher.drain()
        found = delays.figures()
        for percentile in ("p50", "p99"):
            costs[f"5 send → ack, other worker, {percentile}, µs"] = found[f"{percentile}_us"]
        for logs, where in (
            (["lobby"], "one partition"),
            (log_in_each_partition(), "all partitions"),
        ):
            before = server.processes()
            # At least one: a machine that is busy otherwise may accept none in so short a time.
            accepted = max(flood(server.port, logs, scale.fast_s, where.split()[0]), 1)
            spent = server.processes() - before
            costs[f"7 accepted, {where}, µs per message"] = 1e6 * scale.fast_s / accepted
            costs[f"7 accepted, {where}, CPU µs per message"] = 1e6 * spent / accepted
    return costs


Scene: TypeAlias = Callable[[Path, Path, Scale], dict[str, float]]
SCENES: Final[dict[str, Scene]] = {
    "crowd": crowd, "busy-room": busy_room, "rooms": rooms, "way-in": way_in,
}  # fmt: skip
"""Each takes where the package ``relay`` is, a data directory to make, and how much to do."""
