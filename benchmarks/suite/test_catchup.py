"""A reader far behind: how fast it catches up, and the cost for the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load import payload
from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.machine import HOST
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from relay import limits
from relay.wire.envelopes import EntryMessage, Join, Live
from tests.support.processes import Processes
from tests.support.raw import RawClient

PER_WRITE = 100
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


def test_catch_up(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    """Join with history, and read until live. The reader decrypts and checks all of it."""
    count = scale.pick(limits.HISTORY_ON_JOIN_MAX, 1000)
    benchmark.group = f"catch up on {count} messages of 200 B, one reader"
    data = tmp_path_factory.mktemp("catchup") / "data"
    took: list[tuple[float, float]] = []
    with MeasuredRelay(data, workers=1, cores=machine.SERVER_CORES) as server:
        watch(server.processes)
        with closing(server.publisher("lobby")) as publisher:
            for first in range(0, count, PER_WRITE):
                publisher.publish([payload.make(first + n, 0) for n in range(PER_WRITE)])
                publisher.drain()
        names = iter(range(10**6))

        def read() -> None:
            with closing(RawClient(HOST, server.port, f"reader{next(names)}")) as reader:
                before, began = server.processes(), time.monotonic()
                reader.send_envelopes(Join(1, "lobby", None, 0, count))
                due = 0
                live = False
                while not live:
                    for envelope in reader.read():
                        if isinstance(envelope, EntryMessage):
                            assert payload.check(envelope.body).number == due
                            due += 1
                        live = live or isinstance(envelope, Live)
                assert due == count
                took.append((server.processes() - before, time.monotonic() - began))

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            read, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds
        )
    cpu_s, elapsed_s = sorted(took[-scale.rounds :])[scale.rounds // 2]
    benchmark.extra_info |= {
        "cpu_us_per_message": round(cpu_s / count * 1e6, 3),
        "messages_per_s": round(count / elapsed_s),
    }
