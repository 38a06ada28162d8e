"""One reader that reads 10 KB a second of a busy room: the cost for the server and the others.

Rounds with and without it alternate, on one server, with the same members.
"""

from __future__ import annotations

import statistics
from contextlib import closing
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.fanout import Fanout, Figures, Offered
from benchmarks.load.slow_reader import SlowReader
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.kernel_queue import send_queue
from benchmarks.measure.machine import HOST
from benchmarks.measure.memory_watch import MemoryWatch
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from relay import limits

MEMBERS = 499
RATE, PER_WRITE, SECONDS = 2000.0, 10, 20.0
SLOW_BYTES_PER_S = 10_000
SAMPLE = 10
ROUNDS = 3
ROOM = "hall"
Round = tuple[Figures, dict[str, float]]


def test_one_slow_reader(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale
) -> None:
    members = scale.pick(MEMBERS, 50)
    benchmark.group = f"a slow reader among {members}, 200 B, 2000 msg/s in bursts of 10, 2 workers"
    load = Offered(RATE, PER_WRITE, SECONDS if not scale.quick else 1.0)
    rounds: dict[str, list[Round]] = {"calm": [], "slow": []}
    data = tmp_path_factory.mktemp("slow") / "data"
    with (
        MeasuredRelay(data, workers=2, cores=machine.ALL_CORES) as server,
        Swarm(server.join(ROOM), members, sample=SAMPLE) as swarm,
        closing(server.publisher(ROOM, "speaker")) as publisher,
    ):
        fanout = Fanout(publisher, swarm, server.processes)
        workers = server.worker_pids()

        def one_round(slow: bool, warm: bool = False) -> None:
            if slow:
                found = _with_slow_reader(server, fanout, load, f"slow{len(rounds['slow'])}")
            else:
                fanout.begin()
                with MemoryWatch(workers) as memory:
                    figures = fanout.run(load)
                found = figures, memory.figures()
            if not warm:
                rounds["slow" if slow else "calm"].append(found)

        def turns() -> None:
            for _ in range(scale.pick(ROUNDS, 1)):
                one_round(slow=False)
                one_round(slow=True)

        if not scale.quick:
            one_round(slow=False, warm=True)
        benchmark.pedantic(turns, rounds=1)  # type: ignore[no-untyped-call]
    for name, done in rounds.items():
        benchmark.extra_info |= {f"{name}_{key}": value for key, value in _summary(done).items()}
    benchmark.extra_info["connection_bytes_max"] = limits.CONNECTION_BYTES_MAX


def _with_slow_reader(server: MeasuredRelay, fanout: Fanout, load: Offered, name: str) -> Round:
    """Have a round with a slow reader, and let it read freely afterwards.

    Raises:
        AssertionError: it did not get every message, once, in order.
    """
    reader = SlowReader(HOST, server.port, name, ROOM, SLOW_BYTES_PER_S)
    with closing(reader):
        fanout.begin()
        first = fanout.next
        reader.start(first)
        with MemoryWatch(server.worker_pids()) as memory:
            figures = fanout.run(load)
        queued = send_queue(server.port, reader.port)
        got_slowly, read_slowly = reader.checked, reader.read_slowly
        caught_up_s = reader.free(fanout.next - 1)
        assert not reader.wrong, reader.wrong
        assert reader.checked == fanout.next - first
        return figures, memory.figures() | {
            "slow_reader_got_meanwhile": got_slowly,
            "slow_reader_read_bytes": read_slowly,
            "slow_reader_got": reader.checked,
            "fell_behind": reader.behind,
            "kernel_send_queue_bytes": queued,
            "caught_up_s": round(caught_up_s, 3),
        }


def _summary(rounds: list[Round]) -> dict[str, Any]:
    """Return the median of each figure, and of the latencies each round's."""
    delays = [figures.delays.figures() for figures, _ in rounds]
    summary: dict[str, Any] = {
        name: [one[name] for one in delays] for name in ("p50_us", "p99_us", "max_us")
    }
    summary["deliveries_checked"] = sum(figures.delays.count for figures, _ in rounds)
    summary["cpu_us_per_delivery"] = [round(f.cpu_us_per_delivery, 3) for f, _ in rounds]
    summary["load_share"] = [round(figures.load_share, 2) for figures, _ in rounds]
    summary["members_fell_behind"] = [figures.report.behind for figures, _ in rounds]
    for name in rounds[0][1]:
        summary[name] = statistics.median(memory[name] for _, memory in rounds)
    return summary
