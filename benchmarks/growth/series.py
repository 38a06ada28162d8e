"""The series of ``benchmarks.growth``: what grows, at which points, and how a point is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.growth.curves import Curve, Point, Series
from benchmarks.growth.fits import choose, fit
from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.idlers import Idlers
from benchmarks.load.publishers import RoomsPublisher
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.servers.relay import MeasuredRelay

SAMPLE: Final = 5
ROOM_MEMBERS: Final = 10
ROOMS_RATE: Final = 500.0
LOW_RATE: Final = 30.0
"""So low that each message is distributed alone."""
BUSY_RATE: Final = 200.0
WORKERS_RATE: Final = 100.0
SLOW_S: Final = 4.0
"""A round's length below the low rate: it shall have some messages."""
PER_MESSAGE: Final = "server CPU, µs per message"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done, and at which points."""

    rounds: int = 3
    seconds: float = 2.0
    warm_up_s: float = 0.5
    members: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000, 2000)
    rooms: tuple[int, ...] = (1, 10, 50, 200, 400)
    idle: tuple[int, ...] = (0, 250, 500, 1000, 2000)
    sizes: tuple[int, ...] = (50, 200, 1000, 4000, 16_000, 32_000)
    sizes_members: int = 100
    workers: tuple[int, ...] = (1, 2, 4)
    crowds: tuple[int, ...] = (10, 1000)
    rates: tuple[float, ...] = (10, 30, 100, 300, 1000, 3000, 0)


QUICK: Final = Scale(
    rounds=1, seconds=0.2, warm_up_s=0, members=(1, 10), rooms=(4,), idle=(0, 20),
    sizes=(50, 32_000), sizes_members=5, workers=(2,), crowds=(10,), rates=(100, 0),
)  # fmt: skip


# --- one point ------------------------------------------------------------------------------------
def rounds_of(fanout: Fanout, offered: Offered, scale: Scale) -> list[Figures]:
    """Return some measured rounds, after one that is not."""
    if scale.warm_up_s:
        fanout.begin()
        fanout.run(replace(offered, seconds=scale.warm_up_s))
    found = []
    for _ in range(scale.rounds):
        fanout.begin()
        found.append(fanout.run(offered))
    return found


def per_message(figures: Figures, rooms: int = 1) -> float:
    """Return server CPU in µs per message; with several rooms each number is one in each."""
    return 1e6 * figures.server_cpu_s / (figures.published * rooms)


def crowd(
    server: MeasuredRelay, members: int, offered: Sequence[Offered], scale: Scale
) -> list[list[Figures]]:
    """Fill a room with members, run the rounds of each load, and wait until the members
    have left.
    """
    log = f"crowd{members}"
    with (
        Swarm(server.join(log, prefix=f"{log}-"), members, sample=SAMPLE) as swarm,
        closing(server.publisher(log)) as publisher,
    ):
        server.processes.refresh()
        fanout = Fanout(publisher, swarm, server.processes)
        found = [rounds_of(fanout, load, scale) for load in offered]
    server.wait_until_empty()
    return found


def resting_ms_per_s(server: MeasuredRelay, seconds: float) -> float:
    """Return the cost of the server when nobody sends: CPU ms per second."""
    before, began = server.processes(), time.monotonic()
    time.sleep(seconds)
    return 1000 * (server.processes() - before) / (time.monotonic() - began)


# --- series ---------------------------------------------------------------------------------------
def by_members(directory: Path, scale: Scale) -> list[Series]:
    """Let one room grow."""
    load = Offered(LOW_RATE, 1, scale.seconds)
    points = []
    with MeasuredRelay(directory, workers=1, cores=machine.SERVER_CORES) as server:
        rest_ms = resting_ms_per_s(server, scale.seconds)
        for members in scale.members:
            (rounds,) = crowd(server, members, [load], scale)
            points.append(Point.of(members, [per_message(one) for one in rounds]))
    curve = Curve("cost", points)
    return [
        Series(
            "Members of one room", "members", PER_MESSAGE,
            f"{LOW_RATE:g} messages of 200 bytes a second, 1 worker; at this rate"
            f" {1000 * rest_ms / LOW_RATE:.0f} µs of each message are the cost of the idle server"
            f" ({rest_ms:.1f} ms per second)",
            [replace(curve, fit=fit("linear", curve.xs, curve.ys))],
            each="member",
        )
    ]  # fmt: skip


def by_rooms(directory: Path, scale: Scale) -> list[Series]:
    """Spread the same messages over more and more rooms."""
    points = []
    with MeasuredRelay(directory, workers=1, cores=machine.SERVER_CORES) as server:
        for count in scale.rooms:
            logs = tuple(f"room{count}-{number}" for number in range(count))
            rate = ROOMS_RATE / count
            with (
                Swarm(
                    server.join(*logs, prefix=f"of{count}-"), count * ROOM_MEMBERS, sample=SAMPLE
                ) as swarm,
                closing(RoomsPublisher(server.publisher(logs[0]), logs, 0.95 / rate)) as publisher,
            ):
                server.processes.refresh()
                fanout = Fanout(publisher, swarm, server.processes)
                load = Offered(rate, 1, max(scale.seconds, 2 / rate))
                rounds = rounds_of(fanout, load, scale)
            server.wait_until_empty()
            points.append(Point.of(count, [per_message(one, count) for one in rounds]))
    curve = Curve("cost", points)
    return [
        Series(
            "Rooms", "rooms", PER_MESSAGE,
            f"{ROOMS_RATE:g} messages of 200 bytes a second in all, spread evenly over rooms of"
            f" {ROOM_MEMBERS} members, 1 worker",
            [replace(curve, fit=choose("log2", curve.xs, curve.ys))],
            each="doubling of the rooms",
        )
    ]  # fmt: skip


def by_idle(directory: Path, scale: Scale) -> list[Series]:
    """Add idle connections: what they cost by themselves, and what the busy ones pay for them."""
    resting, busy, gross = [], [], []
    load = Offered(BUSY_RATE, 1, scale.seconds)
    with (
        MeasuredRelay(directory, workers=1, cores=machine.SERVER_CORES) as server,
        Swarm(server.join("busy"), ROOM_MEMBERS, sample=SAMPLE) as swarm,
        closing(server.publisher("busy")) as publisher,
        ExitStack() as stack,
    ):
        fanout = Fanout(publisher, swarm, server.processes)
        rooms = server.join(*(f"idle{number}" for number in range(max(scale.idle))), prefix="idle")
        idlers: list[Idlers] = []
        there = 0
        for count in scale.idle:
            if count > there:
                idlers.append(stack.enter_context(Idlers(rooms, there, count - there)))
                there = count
            server.processes.refresh()
            rounds_of(fanout, load, replace(scale, rounds=0))  # only what is not counted
            shares = [resting_ms_per_s(server, scale.seconds) for _ in range(scale.rounds)]
            rest_ms = statistics.median(shares)
            net, raw = [], []
            for _ in range(scale.rounds):
                fanout.begin()
                began = time.monotonic()
                figures = fanout.run(load)
                rest_us = 1000 * rest_ms * (time.monotonic() - began)
                net.append(per_message(figures) - rest_us / figures.published)
                raw.append(per_message(figures))
            for group in idlers:
                group.check()
            resting.append(Point.of(count, shares))
            busy.append(Point.of(count, net))
            gross.append(statistics.median(raw))
    rest, beside = Curve("cost", resting), Curve("cost", busy)
    return [
        Series(
            "Idle connections", "idle connections", "server CPU, ms per second",
            "Each follows a room of its own and sends a message every 25 s; besides 11 connections"
            " that are idle, 1 worker",
            [replace(rest, fit=fit("linear", rest.xs, rest.ys))],
            each="connection",
        ),
        Series(
            "A busy room beside idle connections", "idle connections", PER_MESSAGE,
            f"{BUSY_RATE:g} messages of 200 bytes a second to {ROOM_MEMBERS} members; without the"
            " cost of the idle server in the same time, which is the series before",
            [replace(beside, fit=choose("linear", beside.xs, beside.ys))],
            each="connection",
            beside={"with the rest, µs": [round(one, 2) for one in gross]},
        ),
    ]  # fmt: skip


def by_size(directory: Path, scale: Scale) -> list[Series]:
    """Let the messages grow."""
    loads = [Offered(LOW_RATE, 1, scale.seconds, size) for size in scale.sizes]
    with MeasuredRelay(directory, workers=1, cores=machine.SERVER_CORES) as server:
        found = crowd(server, scale.sizes_members, loads, scale)
    points = [
        Point.of(load.size, [per_message(one) for one in rounds])
        for load, rounds in zip(loads, found, strict=True)
    ]
    curve = Curve("cost", points)
    return [
        Series(
            "Size of a message", "bytes", PER_MESSAGE,
            f"{LOW_RATE:g} messages a second to {scale.sizes_members} members, 1 worker",
            [replace(curve, fit=fit("linear", curve.xs, curve.ys))],
            each="byte",
        )
    ]  # fmt: skip


def by_workers(directory: Path, scale: Scale) -> list[Series]:
    """Use more workers on the same cores: the cost of spreading members over them."""
    load = Offered(WORKERS_RATE, 1, scale.seconds)
    points: dict[int, list[Point]] = {members: [] for members in scale.crowds}
    for workers in scale.workers:
        data = directory.with_name(f"data-{workers}")
        with MeasuredRelay(data, workers=workers, cores=machine.ALL_CORES) as server:
            for members, there in points.items():
                (rounds,) = crowd(server, members, [load], scale)
                there.append(Point.of(workers, [per_message(one) for one in rounds]))
    return [
        Series(
            "Workers", "workers", PER_MESSAGE,
            f"{WORKERS_RATE:g} messages of 200 bytes a second; every worker may use all"
            f" {len(machine.ALL_CORES)} cores, beside the load",
            [Curve(f"{members} members", there) for members, there in points.items()],
        )
    ]  # fmt: skip


def by_rate(directory: Path, scale: Scale) -> list[Series]:
    """Send faster: smart batching spreads a turn's cost over all messages of the turn."""
    members = scale.crowds[-1]
    loads = [
        Offered(rate, 1, scale.seconds if rate >= LOW_RATE or not rate else SLOW_S)
        for rate in scale.rates
    ]
    with MeasuredRelay(directory, workers=1, cores=machine.SERVER_CORES) as server:
        found = crowd(server, members, loads, scale)
    costs, half, late = [], [], []
    labels = {}
    beside: dict[str, list[float | None]] = {
        "µs per delivery": [], "messages per record": [], "kept up": [], "load, of a core": [],
    }  # fmt: skip
    for load, rounds in zip(loads, found, strict=True):
        rate = load.rate or round(_rate(rounds))
        if not load.rate:
            labels[f"{rate:g}"] = f"saturated: {rate:,}"
        point = Point.of(rate, [per_message(one) for one in rounds])
        costs.append(point)
        beside["µs per delivery"].append(round(point.median / members, 3))
        beside["messages per record"].append(_batch(rounds))
        beside["kept up"].append(round(min(one.kept_up for one in rounds), 3))
        load_share = statistics.median(one.load_share for one in rounds)
        beside["load, of a core"].append(round(load_share, 2))
        half.append(Point.of(rate, [one.delays.figures()["p50_us"] / 1000 for one in rounds]))
        late.append(Point.of(rate, [one.delays.figures()["p99_us"] / 1000 for one in rounds]))
    said = f"Messages of 200 bytes, one per write, to {members} members, 1 worker"
    axis = "messages per second"
    return [
        Series(
            "Rate", axis, PER_MESSAGE, said, [Curve("cost", costs)], labels=labels, beside=beside
        ),
        Series(
            "Delay by rate", axis, "publish → delivery, ms", said,
            [Curve("p50", half), Curve("p99", late)], labels=labels,
        ),
    ]  # fmt: skip


def _rate(rounds: Sequence[Figures]) -> float:
    """Return the messages per second that were delivered to everybody."""
    return statistics.median(one.deliveries_per_s / one.subscribers for one in rounds)


def _batch(rounds: Sequence[Figures]) -> float | None:
    """Return how many messages a record had, according to the subscribers that count records; None
    if none does.
    """
    counting = rounds[0].subscribers - SAMPLE
    frames = sum(one.report.frames for one in rounds)
    if counting <= 0 or not frames:
        return None
    return round(sum(one.published for one in rounds) * counting / frames, 2)


SERIES: Final[dict[str, Callable[[Path, Scale], list[Series]]]] = {
    "members": by_members,
    "rooms": by_rooms,
    "idle": by_idle,
    "size": by_size,
    "workers": by_workers,
    "rate": by_rate,
}
