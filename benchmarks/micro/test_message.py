"""The cost of each step of a message, and of the sleep of a worker before it.

    pytest benchmarks/micro/test_message.py

A whole worker runs in this process: the real hub, store, sessions and sockets, and a real client.
The steps are those that the event loop would call: ``receive`` (open the record, check the
envelope, submit) and ``turn`` (commit, acknowledge, seal, write). Nobody follows the log.

*Rested* is how long the process slept before: meanwhile its data and code were evicted from the
caches, and a virtual processor that was halted starts with cold ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure.scale import Scale
from relay.server.worker.delivery.stream import Stream
from relay.wire.envelopes import Send
from relay.wire.packing import pack
from tests.support.workers import Cluster, TestClient

BODY = bytes(200)
ROUNDS = 400
RESTED = {"not rested": 0.0, "1 ms": 0.001, "10 ms": 0.010}


class OneWorker:
    """A worker, and a client that sends."""

    def __init__(self, directory: Path) -> None:
        self._loop = uvloop.new_event_loop()
        self._cluster = Cluster(directory, 1)
        self._counter = self._acknowledged = 0
        self._loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        await self._cluster.__aenter__()
        self._worker = self._cluster.workers[0]
        self._worker.stop_periodic_work()  # nothing but messages from here on
        self._guest = await TestClient.login(self._worker, "sender")

    @property
    def stream(self) -> Stream:
        return self._cluster.session("sender").stream

    def record(self) -> bytes:
        """The next message, as it comes from the socket."""
        self._counter += 1
        return self._guest.sealed(pack(Send("lobby", self._counter, 0, "", BODY)))

    def turn(self) -> None:
        """The worker's turn, as the loop would call it."""
        self._worker.parts.turn.run()

    def settle(self) -> None:
        """Let the loop run until the client has read the acknowledgement of what it sent."""
        if self._acknowledged < self._counter:
            self._loop.run_until_complete(self._guest.acked("lobby", self._counter))
            self._guest.received.clear()
            self._acknowledged = self._counter

    def close(self) -> None:
        self._loop.run_until_complete(self._cluster.__aexit__())
        self._loop.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    one = OneWorker(tmp_path_factory.mktemp("message"))
    yield one
    one.close()


@pytest.mark.parametrize("rested", RESTED)
@pytest.mark.parametrize("step", ["receive", "turn"])
def test_message(
    benchmark: BenchmarkFixture, worker: OneWorker, scale: Scale, step: str, rested: str
) -> None:
    benchmark.group = "one message through a worker, by how long it had slept"
    stream = worker.stream
    asyncio.set_event_loop(worker._loop)

    def before_receive() -> tuple[tuple[bytes], dict[str, object]]:
        worker.turn()
        worker.settle()
        record = worker.record()
        time.sleep(RESTED[rested])
        return (record,), {}

    def before_turn() -> None:
        worker.settle()
        stream.data_received(worker.record())
        time.sleep(RESTED[rested])

    rounds = 3 if scale.quick else ROUNDS
    if step == "receive":
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            stream.data_received, setup=before_receive, rounds=rounds
        )
        worker.turn()
    else:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            worker.turn, setup=before_turn, rounds=rounds
        )
    worker.settle()
