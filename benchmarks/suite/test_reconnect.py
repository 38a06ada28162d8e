"""Clients that reconnect: thousands at once, far behind; and those of a worker that was killed.

The clients are the crowd's: one process with one core does all their handshakes and decrypts. At
times it, not the server, is what takes long (``crowd_cpu_s`` says how much it worked).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.crowd import Arrive, Arrived, Crowd, Leave, Plan, Prepare, Settle, names
from benchmarks.load.publishers import RelayPublisher
from benchmarks.load.swarm import Report, Swarm
from benchmarks.load.talk import Talk
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays
from benchmarks.measure.machine import HOST
from benchmarks.measure.memory_watch import MemoryWatch
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay

ROOM = "hall"
RETURNING, MISSED, LIVE = 2000, 1000, 200
SAMPLE = 20
CHAT_PER_S = 20.0
CALM_S = 10.0
QUIET_CHAT_PER_S = 10.0
"""Where the whole crowd decrypts everything."""
DEADLINE_S = 120.0


@pytest.mark.parametrize("handshakes", ["by ticket", "full"])
def test_many_return_far_behind(
    benchmark: BenchmarkFixture,
    tmp_path_factory: pytest.TempPathFactory,
    scale: Scale,
    handshakes: str,
) -> None:
    """Live members' latency before and during, memory, and the time until all have caught up."""
    returning, live = scale.pick(RETURNING, 40), scale.pick(LIVE, 20)
    missed = scale.pick(MISSED, 300)
    benchmark.group = f"{returning} return, {missed} behind, while {live} chat; 2 workers"
    data = tmp_path_factory.mktemp("return") / "data"
    found: dict[str, Any] = {}
    returned: list[Arrived] = []
    with (
        MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server,
        Swarm(server.join(ROOM), live, sample=SAMPLE) as swarm,
        Crowd(
            Plan(
                (HOST, server.port),
                ROOM,
                names(returning),
                counting_after_live=True,
                tickets=handshakes == "by ticket",
                niceness=10,
            )
        ) as crowd,
        closing(server.publisher(ROOM, "speaker")) as publisher,
    ):
        talk = Talk(publisher)
        swarm.begin(talk.next)
        talk.flood(1)
        came = crowd.obey(Arrive())
        assert not came.missing, came
        crowd.obey(Leave())
        crowd.obey(Prepare())
        talk.flood(missed)
        _latency(swarm, talk)

        def chat(seconds: float) -> dict[str, float]:
            swarm.begin(talk.next)
            talk.for_seconds(seconds, CHAT_PER_S)
            return _latency(swarm, talk)

        found |= _prefixed("before", chat(scale.seconds(CALM_S)))
        with MemoryWatch(server.worker_pids()) as memory:
            load_before_s = crowd.cpu_s()

            def storm() -> None:
                swarm.begin(talk.next)
                crowd.order(Arrive(since_ns=time.monotonic_ns()))
                talk.until(lambda: crowd.answered, CHAT_PER_S, DEADLINE_S)
                returned.append(crowd.answer())
                found["crowd_cpu_s"] = round(crowd.cpu_s() - load_before_s, 2)
                found.update(_prefixed("during", _latency(swarm, talk)))

            benchmark.pedantic(storm, rounds=1)  # type: ignore[no-untyped-call]
        found |= _prefixed("after", chat(scale.seconds(CALM_S)))
        end = _nothing_lost(crowd, talk)
        crowd.obey(Leave())
        found |= memory.figures() | {"uss_growth_when_they_left_mb": memory.growth_now_mb()}
    assert not returned[0].missing, returned[0]
    benchmark.extra_info |= (
        found
        | _arrival(returned[0])
        | {
            "messages_checked": end.checked,
            "refused_handshakes": returned[0].losses - came.losses,
            "resumed_handshakes": returned[0].resumed - came.resumed,
            "fell_behind": end.behind,
            "bytes_caught_up_mb": round(returning * missed * 250 / 1e6),
        }
    )


@dataclass(frozen=True, slots=True)
class Hall:
    """A relay of two workers, a room, and clients in it."""

    server: MeasuredRelay
    publisher: RelayPublisher
    crowd: Crowd
    talk: Talk

    @classmethod
    @contextmanager
    def of(cls, data: Path, clients: int, home: int) -> Iterator[Self]:
        """Start it; a worker that dies is replaced by a spare then."""
        with MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server:
            room = server.log_at_home_on(home)
            with (
                closing(server.publisher_on(1, room, "speaker")) as publisher,
                Crowd(Plan((HOST, server.port), room, names(clients))) as crowd,
            ):
                talk = Talk(publisher)
                talk.flood(1)
                server.wait_for_spare()
                yield cls(server, publisher, crowd, talk)

    def spread(self) -> None:
        """Have the clients on both workers alike: after a kill all are on the other."""
        self.crowd.obey(Leave())
        came = self.crowd.obey(Arrive())
        assert not came.missing, came
        self.crowd.obey(Prepare())

    def kill(self) -> dict[str, Any]:
        """Kill a worker; return when its clients were live again, and what others noticed."""
        self.publisher.delays = Delays()
        self.talk.for_seconds(1.0, QUIET_CHAT_PER_S)
        lost = self.server.connections_of(0)
        began_ns, load_before_s = time.monotonic_ns(), self.crowd.cpu_s()
        self.server.kill(0)
        self.crowd.order(Arrive(lost=lost, since_ns=began_ns))
        self.talk.until(lambda: self.crowd.answered, QUIET_CHAT_PER_S, DEADLINE_S)
        arrived = self.crowd.answer()
        assert not arrived.missing, arrived
        load_s = round(self.crowd.cpu_s() - load_before_s, 2)
        end = _nothing_lost(self.crowd, self.talk)
        longest = self.publisher.delays.figures()["max_us"]
        return {
            "lost": lost,
            "messages_checked": end.checked,
            "crowd_cpu_s": load_s,
            **_arrival(arrived),
            "longest_acknowledgement_us": longest,
        }


@pytest.mark.parametrize(
    ("of_a_worker", "home", "again"),
    [
        (30, "killed", "alone"),
        (100, "killed", "alone"),
        (100, "killed", "in a row"),
        (400, "killed", "alone"),
        (400, "elsewhere", "alone"),
    ],
)
def test_a_worker_is_killed(
    benchmark: BenchmarkFixture,
    tmp_path_factory: pytest.TempPathFactory,
    scale: Scale,
    of_a_worker: int,
    home: str,
    again: str,
) -> None:
    """Time from ``kill -9`` of a worker until each of its clients is live again.

    Either each kill is the first one of a relay, with a spare that waits; or they come one after
    the other: then the next spare may still load, and the third one waits (``backoff_s``).
    """
    clients = 2 * scale.pick(of_a_worker, 20)
    benchmark.group = f"kill -9 of a worker with {clients // 2} clients, 2 workers, {again}"
    rounds: list[dict[str, Any]] = []
    halls: list[Hall] = []
    with ExitStack() as stack:

        def arrange() -> None:
            if again == "alone" or not halls:
                stack.close()
                data = tmp_path_factory.mktemp("killed") / "data"
                halls.append(
                    stack.enter_context(Hall.of(data, clients, 0 if home == "killed" else 1))
                )
            halls[-1].spread()

        def kill() -> None:
            rounds.append(halls[-1].kill())

        benchmark.pedantic(kill, setup=arrange, rounds=scale.rounds)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"home": home, "again": again, "rounds": rounds}


def _nothing_lost(crowd: Crowd, talk: Talk) -> Arrived:
    """Let every client prove that it has everything.

    Raises:
        AssertionError: something was lost, duplicated, out of order, or does not arrive.
    """
    answers: list[Arrived] = []

    def missing(last: int) -> int:
        answers.append(crowd.obey(Settle(last, 10.0)))
        return answers[-1].missing

    assert not talk.mark(missing), answers[-1]
    assert not answers[-1].wrong, answers[-1].wrong
    return answers[-1]


def _latency(swarm: Swarm, talk: Talk) -> dict[str, float]:
    """Take the live members' delays since ``begin``.

    Raises:
        AssertionError: a sampled subscriber misses a message or received a wrong one.
    """
    report: Report = swarm.settle(talk.next - 1, everybody=False, deadline_s=DEADLINE_S)
    assert not report.missing, report
    assert not report.wrong, report
    delays = Delays()
    delays.add(report.delays)
    return delays.figures() | {"members_fell_behind": report.behind}


def _prefixed(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}_{key}": value for key, value in figures.items()}


def _arrival(arrived: Arrived) -> dict[str, Any]:
    delays = Delays()
    delays.add(arrived.delays)
    return {"all_live_again_s": round(arrived.elapsed_s, 3)} | _prefixed(
        "live_again", delays.figures()
    )
