"""How many messages a second are accepted: committed and acknowledged. Target 7.

Nobody follows the logs: this is the way in alone. The publishers run in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

import msgpack
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import machine, payload
from benchmarks.conftest import Scale
from benchmarks.processes import Processes, server_cpu
from benchmarks.raw import RawClient
from benchmarks.relay_server import HOST, RelayServer
from relay import codec
from relay.chat.partition import PARTITIONS, partition_of
from relay.wire.envelopes import Op

SECONDS = 4.0
PER_WRITE = 100
WINDOW = 1000
CONNECTIONS = 8
PROCESSES = 2
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


def test_accepted_in_one_partition(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    run(benchmark, tmp_path_factory, scale, watch, ["lobby"])


def test_accepted_in_all_partitions(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    by_partition = {partition_of(name): name for name in (f"room{n}" for n in range(1000))}
    assert len(by_partition) == PARTITIONS
    run(benchmark, tmp_path_factory, scale, watch, list(by_partition.values()))


def run(
    benchmark: BenchmarkFixture, directories: pytest.TempPathFactory, scale: Scale, watch: Watch,
    logs: list[str],
) -> None:  # fmt: skip
    """Have several connections send into these logs, each into one of them at a time."""
    benchmark.group = "accepted messages, 200 B, 2 workers, 100 per write"
    seconds = scale.seconds(SECONDS)
    data = directories.mktemp("accepted") / "data"
    rates: list[tuple[float, float]] = []
    with RelayServer(data, workers=2, cores=machine.ALL_CORES) as server:
        watch(server.processes)
        rounds = iter(range(10**6))

        def flood() -> None:
            before = server.processes()
            accepted = _flood(server.port, logs, seconds, next(rounds))
            spent = server.processes() - before
            rates.append((accepted / seconds, spent / accepted * 1e6))

        benchmark.pedantic(flood, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds)  # type: ignore[no-untyped-call]
    rate, cost = sorted(rates[-scale.rounds :])[scale.rounds // 2]
    benchmark.extra_info |= {
        "logs": len(logs),
        "accepted_per_s": round(rate),
        "cpu_us_per_message": round(cost, 2),
        "filesystem": machine.filesystem(data.parent),
    }


def _flood(port: int, logs: list[str], seconds: float, number: int) -> int:
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Pipe] = []
    processes = []
    for index in range(PROCESSES):
        ours, theirs = spawn.Pipe()
        arguments = (theirs, port, logs, seconds, f"round{number}process{index}")
        process = spawn.Process(target=_publish, args=arguments, daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    accepted = sum([int(pipe.recv()) for pipe in pipes])
    for process in processes:
        process.join()
    return accepted


class Flood:
    """One connection that keeps its window full, at little cost to itself.

    It checks that every message is acknowledged, once and in order, but not each ACK's form: the
    load must not be the limit, and the correctness of an ACK is the tests' concern.
    """

    def __init__(self, port: int, name: str, log: str, bodies: list[bytes]) -> None:
        self._client = RawClient(HOST, port, name)
        self._log = log
        self._bodies = bodies
        self._sent = 0
        self.acknowledged = 0

    def fileno(self) -> int:
        """Of its socket, for ``select``."""
        return self._client.socket.fileno()

    @property
    def open(self) -> bool:
        """True while something is not acknowledged."""
        return self.acknowledged < self._sent

    def fill(self) -> None:
        """Send what the window takes: ``PER_WRITE`` messages in a record and a write."""
        log, sent = self._log, self._sent
        while sent + PER_WRITE - self.acknowledged <= WINDOW:
            messages = enumerate(self._bodies, sent + 1)
            packed = [codec.pack((4, log, number, 0, "", body)) for number, body in messages]
            self._client.send_content(b"".join(packed))
            sent += PER_WRITE
        self._sent = sent

    def take(self) -> None:
        """Block for one read of acknowledgements."""
        for content in self._client.read_contents():
            acks = msgpack.Unpacker()
            acks.feed(content)
            for op, _, counter, _, _ in acks:
                if op != Op.ACK or counter != self.acknowledged + 1:
                    raise ConnectionError(f"{op} {counter} after {self.acknowledged}")
                self.acknowledged = counter

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()


def _publish(pipe: Pipe, port: int, logs: list[str], seconds: float, name: str) -> None:
    os.sched_setaffinity(0, machine.ALL_CORES)
    bodies = [payload.make(n, time.monotonic_ns()) for n in range(PER_WRITE)]
    floods = [
        Flood(port, f"{name}-{each}", logs[each % len(logs)], bodies)
        for each in range(max(CONNECTIONS, len(logs)) // PROCESSES)
    ]
    pipe.send("ready")
    pipe.recv()
    deadline = time.monotonic() + seconds
    for flood in floods:
        flood.fill()
    while time.monotonic() < deadline:
        for flood in select.select(floods, [], [], 0.1)[0]:
            flood.take()
            flood.fill()
    accepted = sum(flood.acknowledged for flood in floods)
    for flood in floods:
        while flood.open:
            flood.take()
        flood.close()
    pipe.send(accepted)
