"""The outbox writes to the socket directly, past the transport, but never out of order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from relay import limits
from relay.server.worker.delivery.batch import Batch
from relay.server.worker.delivery.outbox import FLUSHES_PER_CLOCK, SHORT_BYTES, Flusher, Outbox
from relay.server.worker.delivery.rush import Rush
from relay.server.worker.delivery.stalled import StalledConnections
from relay.server.worker.delivery.stream import Stream
from relay.server.worker.wakeup import Wakeup
from relay.wire import packing
from relay.wire.envelopes import Left
from relay.wire.events import ApplicationData
from tests.support.cluster import DEADLINE_S
from tests.support.pair import Pair, established

CONTENT = bytes(range(256)) * 200
"""More than a socket takes at once, after some of them."""


class Owner:
    """The owner of a stream."""

    name = "reader"

    def __init__(self) -> None:
        self.empty = asyncio.Event()
        self.then: Callable[[], None] = lambda: None
        """Called when the transport has nothing left."""

    def connected(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def ended_by_peer(self) -> None: ...

    def writable(self) -> None:
        self.empty.set()
        self.then()

    def lost(self) -> None: ...

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None: ...


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection to this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def _outbox(pair: Pair, sock: socket.socket) -> tuple[Outbox, Owner, Stream]:
    loop = asyncio.get_running_loop()
    owner = Owner()
    stream = Stream("test", StalledConnections(loop.time, 60.0))
    flusher = Flusher(loop.time, Wakeup(loop.call_soon), Rush())
    outbox = flusher.outbox(pair.server.connection, stream)
    stream.attach(owner, owner, outbox)
    stream.own(sock)
    await loop.create_connection(lambda: stream, sock=sock)
    return outbox, owner, stream


async def _received(pair: Pair, sock: socket.socket) -> list[bytes]:
    """Return the contents of the records that the next bytes complete."""
    client = pair.client.connection
    client.receive_data(await asyncio.get_running_loop().sock_recv(sock, 1 << 20), 0.0)
    contents = []
    for event in client.events():
        assert isinstance(event, ApplicationData)
        contents.append(event.content)
    return contents


async def test_records_stay_in_order_when_the_kernel_takes_a_part(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """What the socket did not take goes through the transport, and nothing overtakes it."""
    ours, theirs = sockets
    pair = established()
    outbox, owner, stream = await _outbox(pair, ours)
    sent = 0
    while not outbox.paused:
        outbox.put(sent.to_bytes(4, "big") + CONTENT)
        outbox.flush(0.0)
        sent += 1
    for number in range(sent, sent + 3):  # owed while the transport holds a part of a record
        outbox.put(number.to_bytes(4, "big"))
        outbox.flush(0.0)
    assert len(outbox.items) == 3
    got: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(got) < sent + 1:
            got += [int.from_bytes(one[:4], "big") for one in await _received(pair, theirs)]
            if len(got) == sent:
                await owner.empty.wait()
                outbox.flush(0.0)
    assert got == list(range(sent + 1))
    assert not outbox.items, "what waited left as one record"
    stream.abort()


async def test_short_answers_that_nobody_reads_take_little_more_than_their_bytes(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """The limit for unread answers is one of bytes, and the peer chooses how long they are."""
    ours, theirs = sockets
    pair = established()
    outbox, owner, stream = await _outbox(pair, ours)
    before = b""
    while not outbox.paused:
        outbox.put(CONTENT)
        outbox.flush(0.0)
        before += CONTENT
    answers = [packing.pack(Left(number, "a")) for number in range(12_000)]
    gc.collect()
    tracemalloc.start()
    try:
        begin, _ = tracemalloc.get_traced_memory()
        for answer in answers:
            outbox.answer(bytes(bytearray(answer)))  # an object of its own
            outbox.flush(0.0)
        held = tracemalloc.get_traced_memory()[0] - begin
    finally:
        tracemalloc.stop()
    assert outbox.answers == outbox.size == sum(map(len, answers))
    assert held < 1.5 * outbox.answers
    owner.then = lambda: outbox.flush(0.0)
    got = b""
    async with asyncio.timeout(DEADLINE_S):
        while len(got) < len(before) + sum(map(len, answers)):
            got += b"".join(await _received(pair, theirs))
    assert got == before + b"".join(answers)
    stream.abort()


async def test_a_transport_without_a_descriptor_gets_whole_records(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """A WebSocket must frame each record: neither the outbox nor the session need to know it."""
    ours, theirs = sockets
    pair = established()
    outbox, _, stream = await _outbox(pair, ours)
    outbox.fd = -1  # as a stream leaves it that cannot be written past
    async with asyncio.timeout(DEADLINE_S):
        for number in range(3):
            outbox.put(CONTENT[:number] + b".")
            outbox.flush(0.0)
            while not (got := await _received(pair, theirs)):
                pass  # a part of the record
            assert got == [CONTENT[:number] + b"."]
    stream.abort()


async def test_nothing_is_written_after_the_end(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """The descriptor may be another connection's by then."""
    ours, theirs = sockets
    outbox, _, stream = await _outbox(established(), ours)
    outbox.close()
    outbox.answer(b"too late")
    outbox.flush(0.0)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    stream.abort()


@contextlib.asynccontextmanager
async def _members(flusher: Flusher, count: int) -> AsyncIterator[list[Member]]:
    """Outboxes with connections of their own, and their readers."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        members: list[Member] = []
        for _ in range(count):
            theirs = stack.enter_context(socket.create_connection(listener.getsockname()))
            theirs.setblocking(False)
            ours, _ = listener.accept()
            ours.setblocking(False)
            pair = established()
            stream = Stream("test", StalledConnections(loop.time, 60.0))
            outbox = flusher.outbox(pair.server.connection, stream)
            stream.attach(owner := Owner(), owner, outbox)
            stream.own(ours)
            await loop.create_connection(partial(_same, stream), sock=ours)
            members.append(Member(pair, theirs, outbox, stream))
        try:
            yield members
        finally:
            for member in members:
                member.stream.abort()


@dataclass
class Member:
    """A connection and its reader."""

    pair: Pair
    sock: socket.socket
    outbox: Outbox
    stream: Stream

    def offer(self, flusher: Flusher, *items: Batch | bytes) -> None:
        """Add a batch, as the fan-out does."""
        if not self.outbox.items:
            flusher.dirty.append(self.outbox)
        for item in items:
            if isinstance(item, bytes):
                self.outbox.put(item)
            else:
                self.outbox.items.append(item)
                self.outbox.size += item.size

    async def records(self, count: int) -> list[bytes]:
        """Return so many received records."""
        client, loop = self.pair.client.connection, asyncio.get_running_loop()
        got: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < count:
                client.receive_data(await loop.sock_recv(self.sock, 1 << 20), 0.0)
                for event in client.events():
                    assert isinstance(event, ApplicationData)
                    got.append(event.content)
        return got


def _batch(content: bytes) -> Batch:
    return Batch("lobby", b"epoch...", 0, 1, 1, content)


async def test_each_member_gets_its_own_in_a_sweep() -> None:
    """Content that consecutive members share is encoded once, and only for those."""
    flusher = Flusher(lambda: 0.0, Wakeup(lambda _: None), Rush())
    first, second, equal = _batch(b"first"), _batch(b"second"), _batch(b"first")
    large = _batch(bytes(limits.RECORD_CONTENT_BYTES_MAX))
    owed: list[tuple[list[Batch | bytes], list[bytes]]] = [
        ([first], [b"first"]),
        ([first], [b"first"]),
        ([second], [b"second"]),
        ([first, second], [b"firstsecond"]),
        ([first, second], [b"firstsecond"]),
        ([first], [b"first"]),
        ([b"answer", first], [b"answerfirst"]),
        ([equal], [b"first"]),
        ([large, first], [large.content, b"first"]),
        ([first, second, first], [b"firstsecondfirst"]),
    ]
    async with _members(flusher, len(owed)) as members:
        for _ in range(2):  # another sweep continues where this one has ended
            for member, (items, _) in zip(members, owed, strict=True):
                member.offer(flusher, *items)
            flusher.begin(0.0)
            assert flusher.flush() is not None
            for member, (_, records) in zip(members, owed, strict=True):
                assert await member.records(len(records)) == records
                assert not member.outbox.items
                assert member.outbox.size == member.outbox.answers == 0


async def test_a_sweep_passes_by_who_takes_nothing_or_is_gone() -> None:
    flusher = Flusher(lambda: 0.0, Wakeup(lambda _: None), Rush())
    batch = _batch(b"x")
    async with _members(flusher, 4) as (one, paused, ended, last):
        for member in (one, paused, ended, last):
            member.offer(flusher, batch)
        paused.outbox.paused = True
        ended.outbox.close()
        flusher.begin(0.0)
        assert flusher.flush() is not None
        assert await one.records(1) == await last.records(1) == [b"x"]
        assert paused.outbox.items == [batch]
        paused.outbox.paused = False
        paused.outbox.flush(0.0)
        assert await paused.records(1) == [b"x"]
        with pytest.raises(BlockingIOError):
            ended.sock.recv(1)


async def test_a_record_of_a_sweep_comes_after_what_its_connection_owes_the_peer() -> None:
    """A ping, a key update: the keys of one member change in the middle of the others."""
    flusher = Flusher(lambda: 0.0, Wakeup(lambda _: None), Rush())
    batch = _batch(b"x")
    async with _members(flusher, 3) as members:
        _, pinging, old = members
        for member in members:
            member.offer(flusher, batch)
        pinging.pair.server.connection.ping(b"?", 0.0)
        send = old.pair.server.connection._send
        send.sequence, send.records_max = 0, 0
        flusher.begin(0.0)
        assert flusher.flush() is not None
        for member in members:
            assert await member.records(1) == [b"x"]
        assert b"?" not in pinging.pair.server.connection.data_to_send()
        assert old.pair.client.connection._receive._updated


def _same(stream: Stream) -> Stream:
    return stream


async def test_short_answers_do_not_wait_for_all_long_ones() -> None:
    """More outboxes have answers than a slice allows. At least every other slice is for
    short ones.
    """
    ticks = itertools.count()
    flusher = Flusher(lambda: float(next(ticks)), Wakeup(lambda _: None), Rush())
    pair, loop = established(), asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        outboxes: list[Outbox] = []
        for _ in range(5 * FLUSHES_PER_CLOCK + 1):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            ours, _ = listener.accept()
            ours.setblocking(False)
            stream = Stream("test", StalledConnections(loop.time, 60.0))
            outboxes.append(flusher.outbox(pair.server.connection, stream))
            stream.attach(owner := Owner(), owner, outboxes[-1])
            stream.own(ours)
            await loop.create_connection(partial(_same, stream), sock=ours)
            stack.callback(stream.abort)
        *many, last = outboxes
        for outbox in many:
            outbox.answer(bytes(SHORT_BYTES + 1))
        last.answer(b"x")
        flusher.flush_answers(0.0)
        assert not last.size
        assert sum(bool(outbox.size) for outbox in many) > 0, "a slice was enough for all"
        last.answer(b"x")  # now it waits with the others
        flusher.flush_answers(0.0)
        assert last.size
        assert sum(bool(outbox.size) for outbox in many) > 0


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_a_peer_that_is_gone_is_known_without_reading(family: socket.AddressFamily) -> None:
    """For any kind of socket: while nothing is read, no other event would report it."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    ours.setblocking(False)
    with ours, theirs:
        _, _, stream = await _outbox(established(), ours)
        stream.pause_reading()
        theirs.sendall(b"not read")
        assert not stream.peer_is_gone()
        theirs.close()
        async with asyncio.timeout(30):
            while not stream.peer_is_gone():
                await asyncio.sleep(0)
        stream.abort()
