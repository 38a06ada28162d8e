"""The cost of each step of a delivery: one record to each of 1000 connections.

    pytest benchmarks/micro/test_delivery.py

Each step does all that the one before does, and something more. The connections rest for 33 ms
between rounds, as between the messages of a room with 30 a second: what they need is no longer in
the inner caches then, and this is most of the cost of each step.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection as Pipe

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import machine
from benchmarks.measure.scale import Scale
from relay.bus.messages import Batch as BusBatch
from relay.chat.entries import Head
from relay.chat.rooms.refusal import Refused
from relay.chat.rooms.rights import Actor
from relay.server.scoreboard import Owner
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.delivery.outbox import Flusher, Outbox
from relay.server.worker.delivery.rush import Rush
from relay.server.worker.delivery.stalled import StalledConnections
from relay.server.worker.delivery.stream import Stream
from relay.server.worker.member.catchup import Catchup
from relay.server.worker.member.damage import DamageReports
from relay.server.worker.member.fanout import Fanout
from relay.server.worker.member.feed import Feeds
from relay.server.worker.member.pages import Pages
from relay.server.worker.member.routes import Routes
from relay.server.worker.member.subscription import Subscription
from relay.server.worker.process.messaging.own_home import LocalPort
from relay.server.worker.wakeup import Wakeup
from relay.store.log import Reader
from relay.wire.connection import Connection
from tests.support.pair import established

CONNECTIONS = 1000
REST_S = 1 / 30
ROUNDS = 40
CONTENT = bytes(264)
"""As long as the ENTRY of a 200-byte message."""
SEALED = bytes(532)
EPOCH = b"epoch..."
STEPS = ("write", "write through uvloop", "seal, write", "fan out: outbox, seal, write")
pytestmark = pytest.mark.benchmark(timer=time.thread_time)


class Hall:
    """Connections that another process reads."""

    def __init__(self, count: int) -> None:
        self.streams: list[Stream] = []
        self.transports: list[asyncio.Transport] = []
        self.sockets: list[int] = []
        self.connections: list[Connection] = []
        wakeup = Wakeup(lambda _: None)
        port = self.port = LocalPort(0, 1, wakeup)
        self.stalled = StalledConnections(time.monotonic, 60.0)
        self.flusher = Flusher(time.monotonic, wakeup, Rush())
        routes = Routes(port, lambda _: Owner(0, 1), {})
        damaged = DamagedLogs(time.monotonic)
        pages = Pages()
        self.feeds = Feeds(routes, damaged, pages)
        damage = DamageReports(routes, _no_reader, damaged)
        catchup = Catchup(
            _no_reader, lambda _: (0, 0), time.monotonic, self.stalled, wakeup, {}, damage, pages
        )
        self.fanout = Fanout(self.feeds, self.flusher, catchup)
        self.feed = self.feeds.open("lobby")
        self.feed.on_head(EPOCH, 0)
        for _ in range(count):
            self.connections.append(established().server.connection)

    def seat(self) -> Stream:
        """Take a connection in."""
        stream = Stream("127.0.0.1", self.stalled)
        connection = self.connections[len(self.streams)]
        self.streams.append(stream)
        outbox = self.flusher.outbox(connection, stream)
        owner = _Owner(self, stream)
        stream.attach(owner, owner, outbox)
        subscription = Subscription(_Subscriber(outbox), 0)
        self.feed.add(subscription, "reader", "")
        self.feed.enter_live(subscription)
        return stream

    def connected(self, stream: Stream) -> None:
        """Note a connection's transport and socket, for the steps that go past the stream."""
        assert stream._transport is not None
        self.transports.append(stream._transport)
        self.sockets.append(stream._sink.fd)

    # --- the steps ------------------------------------------------------------------------------
    def write(self) -> None:
        for fd in self.sockets:
            os.write(fd, SEALED)

    def write_through_uvloop(self) -> None:
        for transport in self.transports:
            transport.write(SEALED)

    def seal_write(self) -> None:
        for fd, connection in zip(self.sockets, self.connections, strict=True):
            os.write(fd, connection.seal(CONTENT, 0.0))

    def fan_out(self) -> None:
        seq = self.feed.received.seq
        self.feeds.on_batch(self.port, BusBatch("lobby", seq, EPOCH, seq + 1, 1, CONTENT))
        self.feed.paused_until = 0.0
        self.fanout.distribute(0.0)
        while self.flusher.flushing:
            self.fanout.flush()
        assert self.feed.head == Head(EPOCH, seq + 1)


class _Subscriber:
    """What a connection is to the fan-out."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.actor = Actor("reader")

    def fall_behind(self) -> None:
        raise AssertionError("the readers are quick")

    def close(self, code: int, detail: str = "") -> None:
        raise AssertionError("nothing is closed")

    def remove(self, log: str, refused: Refused) -> None:
        raise AssertionError("nobody is put out")


class _Owner:
    """What a session is to its stream."""

    name = "reader"

    def __init__(self, hall: Hall, stream: Stream) -> None:
        self._hall = hall
        self._stream = stream

    def connected(self) -> None:
        self._hall.connected(self._stream)

    def received(self, data: bytes) -> None: ...

    def ended_by_peer(self) -> None: ...

    def writable(self) -> None: ...

    def lost(self) -> None: ...

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None: ...


def _no_reader(log: str | int) -> Reader:
    raise AssertionError("nobody is behind")


@pytest.fixture(scope="module")
def hall(scale: Scale) -> Iterator[Hall]:
    """A full hall; this process on the server's core, the readers on another."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, machine.SERVER_CORES)
    count = scale.pick(CONNECTIONS, 10)
    hall = Hall(count)
    loop = uvloop.new_event_loop()
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cores)
        stack.callback(loop.close)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        listener.setblocking(False)
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        port = listener.getsockname()[1]
        reader = spawn.Process(target=_read, args=(port, count, theirs), daemon=True)
        reader.start()
        stack.callback(reader.kill)
        loop.run_until_complete(_full(hall, listener, count))
        ours.recv()
        yield hall
        loop.run_until_complete(_empty(hall))


async def _full(hall: Hall, listener: socket.socket, count: int) -> None:
    async with asyncio.timeout(60):
        for _ in range(count):
            await _accept(hall, listener)


async def _accept(hall: Hall, listener: socket.socket) -> None:
    """Accept a connection as a worker does."""
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    stream = hall.seat()
    stream.own(sock)
    await loop.connect_accepted_socket(lambda: stream, sock)


async def _empty(hall: Hall) -> None:
    for transport in hall.transports:
        transport.abort()
    await asyncio.sleep(0)


def _read(port: int, count: int, pipe: Pipe) -> None:
    """Discard, in the kernel, what the connections bring."""
    os.sched_setaffinity(0, machine.LOAD_CORES)
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    pipe.send("ready")
    while True:
        for fd, _ in poll.poll():
            sockets[fd].recv(1 << 20, socket.MSG_TRUNC)


@pytest.mark.parametrize("step", STEPS)
def test_delivery(benchmark: BenchmarkFixture, hall: Hall, scale: Scale, step: str) -> None:
    """CPU of this process per delivery."""
    benchmark.group = f"one record to each of {CONNECTIONS} connections, every 33 ms"
    steps: dict[str, Callable[[], None]] = dict(
        zip(
            STEPS,
            (hall.write, hall.write_through_uvloop, hall.seal_write, hall.fan_out),
            strict=True,
        )
    )
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        steps[step],
        setup=lambda: time.sleep(REST_S),
        rounds=1 if scale.quick else ROUNDS,
        warmup_rounds=0 if scale.quick else 5,
    )
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["us_per_delivery"] = benchmark.stats.stats.median / CONNECTIONS * 1e6
