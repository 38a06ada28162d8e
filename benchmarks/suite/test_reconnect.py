"""Clients that come back: thousands at once, far behind; and those of a worker that was killed.

The clients are the crowd's: one process with one core does all their handshakes and decrypts. At
times it, not the server, is what takes long (``crowd_cpu_s`` says how much it worked).
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.crowd import Arrive, Arrived, Crowd, Leave, Plan, Settle, names
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
OF_A_WORKER = 400
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


@pytest.mark.parametrize("home", ["killed", "elsewhere"])
def test_a_worker_is_killed(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale, home: str
) -> None:
    """Time from ``kill -9`` of a worker with 400 clients until each of them is live again."""
    clients = 2 * scale.pick(OF_A_WORKER, 20)
    benchmark.group = f"kill -9 of a worker with {clients // 2} clients, 2 workers"
    data = tmp_path_factory.mktemp("killed") / "data"
    rounds: list[dict[str, Any]] = []
    with MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server:
        room = server.log_at_home_on(0 if home == "killed" else 1)
        with (
            closing(server.publisher_on(1, room, "speaker")) as publisher,
            Crowd(Plan((HOST, server.port), room, names(clients))) as crowd,
        ):
            talk = Talk(publisher)
            talk.flood(1)

            def spread() -> None:
                """Have the clients on both workers alike: after a kill all are on the other."""
                crowd.obey(Leave())
                came = crowd.obey(Arrive())
                assert not came.missing, came

            def kill() -> None:
                publisher.delays = Delays()
                talk.for_seconds(1.0, QUIET_CHAT_PER_S)
                lost = server.connections_of(0)
                began_ns = time.monotonic_ns()
                server.kill(0)
                crowd.order(Arrive(lost=lost, since_ns=began_ns))
                talk.until(lambda: crowd.answered, QUIET_CHAT_PER_S, DEADLINE_S)
                arrived = crowd.answer()
                assert not arrived.missing, arrived
                end = _nothing_lost(crowd, talk)
                rounds.append(
                    {"lost": lost, "messages_checked": end.checked}
                    | _arrival(arrived)
                    | {"longest_acknowledgement_us": publisher.delays.figures()["max_us"]}
                )

            benchmark.pedantic(kill, setup=spread, rounds=scale.rounds)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"home": home, "rounds": rounds}


def _nothing_lost(crowd: Crowd, talk: Talk) -> Arrived:
    """Let everybody show that it has everything.

    Raises:
        AssertionError: something was lost, doubled, out of order, or does not come.
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
        AssertionError: one of the sample misses a message or got a wrong one.
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
