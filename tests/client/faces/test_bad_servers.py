"""Servers that break the protocol, or use another one, seen through both clients."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import pytest

from relay import limits
from relay.client.address import Address
from relay.client.aio import Client
from relay.client.aio.work import solved
from relay.client.blocking import BlockingClient
from relay.client.blocking.posts import Pending
from relay.client.closes import ProtocolViolation
from relay.client.dialling import dial_tcp
from relay.client.errors import (
    ClientError,
    ConnectFailed,
    HandshakeFailed,
    NotARelayServer,
    ServerBrokeProtocol,
)
from relay.client.events import State
from relay.wire.codes import CloseCode
from relay.wire.envelopes import Ack, Hello, Join, Send, Welcome
from relay.wire.messages import POW_BITS_MAX, Work
from relay.wire.packing import pack
from tests.client.faces.adapters import Face
from tests.support.cluster import DEADLINE_S
from tests.support.fake_server import FakeConnection, FakeServer

Connect = Callable[..., Face]
WELCOME = pack(Welcome("alice", 0, 32_768, 1024, ""))
BAD = msgpack.packb([33, "alice", "not a number", 1, 1, ""])
BAD_ENTRY = msgpack.packb([39, "room", b"e" * 8, 0, 0, 0, "al", b"", b"p" * 8, 1, 0, "", b""])


# --- the first reason is kept --------------------------------------------------------------------
@pytest.mark.parametrize(
    "contents",
    [(BAD,), (BAD, WELCOME), (WELCOME, BAD), (b"\x91\xa7WELCOME", WELCOME), (WELCOME, BAD_ENTRY)],
    ids=["bad", "bad, then right", "right, then bad", "text, then right", "an entry 0"],
)
def test_a_bad_login(face: Connect, contents: tuple[bytes, ...]) -> None:
    """``connect`` raises it, and so do later calls; the client does not reconnect."""

    def script(connection: FakeConnection) -> None:
        connection.flush()
        connection.wait_for(Hello)
        connection.send_raw(*contents)
        connection.read_to_end()
        assert connection.end is not None
        assert connection.end.code == CloseCode.PROTOCOL

    with FakeServer(script) as server:
        one = face(server.address, "alice")
        with pytest.raises(ServerBrokeProtocol):
            one.connect()
        assert one.client.state is State.CLOSED
        for call in (one.connect, lambda: one.send("room", "x"), lambda: one.join("room")):
            with pytest.raises(ServerBrokeProtocol):
                call()
    assert server.accepted == 1


def test_a_bad_answer(face: Connect) -> None:
    """Calls that wait for an answer raise the reason."""

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        connection.wait_for(Send)
        connection.send_raw(BAD_ENTRY)
        connection.read_to_end()

    with FakeServer(script) as server:
        one = face(server.address, "alice")
        one.connect()
        with pytest.raises(ServerBrokeProtocol):
            one.send("room", "x")
        with pytest.raises(ServerBrokeProtocol):
            one.send("room", "y")


# --- a close that a reset follows -----------------------------------------------------------------
def test_a_close_before_a_reset(face: Connect) -> None:
    """It is read although the client's own write has failed: final, instead of a lost
    connection.
    """
    closed = threading.Event()

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        connection.wait_for(Join)
        connection.close_and_reset(CloseCode.PROTOCOL)
        closed.set()

    with FakeServer(script) as server:
        one = face(server.address, "alice")
        one.connect()
        with pytest.raises(ProtocolViolation):
            _two_writes(one, closed)
        assert isinstance(_end(one), ProtocolViolation)
    assert server.accepted == 1


def _two_writes(one: Face, closed: threading.Event) -> None:
    """Send a request, do not read until the server has closed, and write again."""
    client = one.client
    if isinstance(client, Client):

        async def write() -> None:
            asked = asyncio.ensure_future(client.join("room"))
            await asyncio.sleep(0)
            client._pump._flush()
            assert closed.wait(60)  # blocks the loop, as a busy program does
            await client.post("room", "x")
            client._pump._flush()
            await asked

        one._run(write())  # type: ignore[attr-defined]
    else:
        client._chat.join("room", None, 0, Pending(client._pump))
        client._pump.settle()
        assert closed.wait(60)
        client.post("room", "x")
        client.flush()


def _end(one: Face) -> ClientError | None:
    return one.client._state.error


# --- other protocols ----------------------------------------------------------------------------
@contextmanager
def banner(data: bytes) -> Iterator[str]:
    """A server that begins with these bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                opened, _ = listener.accept()
            except OSError:
                return
            # A client that has seen enough resets the connection if there is more to read.
            with opened, contextlib.suppress(ConnectionError):
                opened.sendall(data)
                opened.shutdown(socket.SHUT_WR)
                opened.settimeout(60)
                opened.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"relay://{'a' * 52}@127.0.0.1:{listener.getsockname()[1]}"
        thread.join(60)


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"220 mail.example ESMTP\r\n", "SMTP"),
        (b"INFO {}\r\n", "NATS"),
        (b"\x00\x00\x00\x00", None),
        (b"\x01\x00\x00\x04HTTP", None),
        (b"\x01\xff\xff\xff", None),
        (b"OK", None),
        (b"\x10" + bytes(64), None),
    ],
)
def test_no_relay_server(face: Connect, data: bytes, protocol: str | None) -> None:
    with banner(data) as address, pytest.raises(NotARelayServer, match="is not a Relay") as caught:
        face(address, "alice").connect()
    if protocol is not None:
        assert f"it speaks {protocol}" in str(caught.value)
    assert "frame" not in str(caught.value)


def test_a_server_that_closes_without_a_word(face: Connect) -> None:
    """It may be a full relay: tried again until the deadline, then raised."""
    with banner(b"") as address, pytest.raises(ClientError, match="is not a Relay server"):
        face(address, "alice").connect(1.5)


# --- work ----------------------------------------------------------------------------------------
def test_work_is_done(face: Connect) -> None:
    with FakeServer(FakeConnection.log_in, pow_bits=12) as server:
        one = face(server.address, "alice")
        one.connect()
        one.close()


async def test_the_loop_runs_while_work_is_done() -> None:
    """And a cancellation ends it at once."""

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        connection.read_to_end()

    with FakeServer(script, pow_bits=POW_BITS_MAX) as server:
        client = Client(server.address)
        connecting = asyncio.create_task(client.connect())
        turns = 0
        while not connecting.done():
            await asyncio.sleep(0)
            turns += client._state.work is not None
        await connecting
        assert turns > 0  # on the loop, the work would be done before this task runs
        await client.close()

        client = Client(server.address)
        connecting = asyncio.create_task(client.connect())
        while client._state.work is None:
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_work_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many servers ask: each computing thread takes time from the loop."""
    attempt, under_way, most = Work.attempt, 0, 0

    def counted(self: Work, count: int) -> bytes | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return attempt(self, count)
        finally:
            under_way -= 1

    monkeypatch.setattr("relay.wire.messages.Work.attempt", counted)

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        connection.read_to_end()

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(FakeServer(script, pow_bits=POW_BITS_MAX)) for _ in range(4)]
        clients = [Client(server.address) for server in servers]
        await asyncio.gather(*(client.connect() for client in clients))
        for client in clients:
            await client.close()
    assert most == 1


def test_a_loop_in_which_works_waited_for_each_other_is_freed() -> None:
    async def both() -> weakref.ref[asyncio.AbstractEventLoop]:
        works = (Work(bytes(32), number, 1) for number in (b"1", b"2"))
        assert all(await asyncio.gather(*map(solved, works)))
        return weakref.ref(asyncio.get_running_loop())

    before = set(threading.enumerate())
    loop = asyncio.run(both())
    for thread in set(threading.enumerate()) - before:  # it refers to the loop until it ends
        thread.join(DEADLINE_S)
    gc.collect()
    assert loop() is None


def test_work_counts_against_the_deadline(face: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also work that never ends."""
    monkeypatch.setattr("relay.wire.messages.Work.attempt", lambda self, count: time.sleep(0.001))

    def script(connection: FakeConnection) -> None:
        connection.flush()
        connection.read_to_end()

    with FakeServer(script, pow_bits=1) as server, pytest.raises(ConnectFailed):
        face(server.address, "alice").connect(0.5)


def test_too_much_work_is_refused(face: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.wire.handshake.POW_BITS_MAX", POW_BITS_MAX + 1)

    def script(connection: FakeConnection) -> None:
        monkeypatch.undo()  # the client's own bound
        connection.flush()
        connection.read_to_end()

    server = FakeServer(script, pow_bits=POW_BITS_MAX + 1)
    with server, pytest.raises(HandshakeFailed, match="too much work"):
        face(server.address, "alice").connect()


# --- a server that does not read ------------------------------------------------------------------
async def test_what_waits_for_the_socket_is_bounded() -> None:
    """It acknowledges what it has not read, so that the window never fills."""

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        while True:
            for first in range(1, 1000, 100):
                acks = [Ack("room", first + n, b"e" * 8, first + n) for n in range(100)]
                connection.send_envelopes(*acks)

    with FakeServer(script) as server:
        client = Client(server.address)
        await client.connect()
        protocol = client._pump._protocol
        assert protocol is not None
        transport = protocol._transport
        assert transport is not None
        async with asyncio.timeout(60):
            while not protocol.congested:
                await client.post("room", bytes(32_000))
        most = transport.get_write_buffer_size()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(1000):  # 32 MB
                    await client.post("room", bytes(32_000))
                    most = max(most, transport.get_write_buffer_size())
        assert most < 4 * limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        await client.close(0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such timer")
def test_an_interrupted_write_is_the_end_of_its_connection_only() -> None:
    """A Ctrl-C comes when half a record is written: the client reconnects, and sends it whole."""
    interrupted = threading.Event()
    connections: list[FakeConnection] = []

    def script(connection: FakeConnection) -> None:
        connections.append(connection)
        connection.log_in()
        if len(connections) == 1:
            interrupted.wait(60)  # and reads nothing
            return
        for _ in range(2):
            sent = connection.wait_for(Send)
            assert len(sent.body) == 32_000
            connection.send_envelopes(Ack("room", sent.counter, b"e" * 8, sent.counter))
        connection.read_to_end()

    def dial(address: Address, timeout_s: float) -> socket.socket:
        opened = dial_tcp(address, timeout_s)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return opened

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedByTest

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with FakeServer(script, receive_buffer_bytes=4096) as server:
            client = BlockingClient(server.address, dial=dial)
            client.connect()
            client.post("room", bytes(32_000))
            client.post("room", bytes(32_000))
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(InterruptedByTest):
                client.flush()
            interrupted.set()
            client.flush()
            assert client.statistics["logins"] == 2
            client.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class InterruptedByTest(BaseException):
    """As KeyboardInterrupt, which would end the test run."""
