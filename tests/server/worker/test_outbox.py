"""The outbox writes to the socket itself, behind the transport's back but never out of order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from relay.server.worker.delivery.outbox import Outbox
from relay.wire.events import ApplicationData
from tests.support.pair import Pair, established

CONTENT = bytes(range(256)) * 200
"""More than a socket takes at once, after some of them."""


class Owner(asyncio.Protocol):
    """Pauses the outbox as a session does."""

    outbox: Outbox

    def __init__(self) -> None:
        self.empty = asyncio.Event()

    def pause_writing(self) -> None:
        self.outbox.paused = True
        self.empty.clear()

    def resume_writing(self) -> None:
        self.outbox.paused = False
        self.empty.set()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def _outbox(pair: Pair, sock: socket.socket) -> tuple[Outbox, Owner, asyncio.Transport]:
    loop = asyncio.get_running_loop()
    transport, owner = await loop.create_connection(Owner, sock=sock)
    transport.set_write_buffer_limits(high=0)
    outbox = Outbox(pair.server.connection, transport, sock.fileno())
    owner.outbox = outbox
    return outbox, owner, transport


async def test_records_stay_in_order_when_the_kernel_takes_a_part(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """What the socket did not take goes through the transport; nothing overtakes it."""
    ours, theirs = sockets
    pair = established()
    outbox, owner, transport = await _outbox(pair, ours)
    sent = 0
    while not outbox.paused:
        outbox.put(sent.to_bytes(4, "big") + CONTENT)
        outbox.flush(0.0)
        sent += 1
    for number in range(sent, sent + 3):  # owed, while the transport holds a part of a record
        outbox.put(number.to_bytes(4, "big"))
        outbox.flush(0.0)
    assert len(outbox.items) == 3
    loop = asyncio.get_running_loop()
    client = pair.client.connection
    got: list[int] = []
    async with asyncio.timeout(30):
        while len(got) < sent + 1:
            client.receive_data(await loop.sock_recv(theirs, 1 << 20), 0.0)
            for event in client.events():
                assert isinstance(event, ApplicationData)
                got.append(int.from_bytes(event.content[:4], "big"))
            if len(got) == sent:
                await owner.empty.wait()
                outbox.flush(0.0)
    assert got == list(range(sent + 1))
    assert not outbox.items, "what waited left as one record"
    transport.abort()


async def test_nothing_is_written_after_the_end(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """The socket's number may be another connection's by then."""
    ours, theirs = sockets
    outbox, _, transport = await _outbox(established(), ours)
    outbox.close()
    outbox.put(b"too late")
    outbox.flush(0.0)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    transport.abort()
