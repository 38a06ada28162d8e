"""Servers that send much at once, or without a pause; and errors of the client itself."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path

import pytest

from relay.chat.accounts import links
from relay.client.aio import Client, transport
from relay.client.aio.transport import PIECE_BYTES
from relay.client.blocking import BlockingClient
from relay.client.closes import ServerFailed
from relay.client.devices.chain_check import LINKS_PER_TURN
from relay.client.errors import ClientError
from relay.client.events import DeviceWarning, Event, Message
from relay.client.feed import Feed
from relay.wire import device_keys
from relay.wire import envelopes as wire
from relay.wire.codes import CloseCode
from relay.wire.packing import pack
from tests.client.faces.adapters import WAIT_S, Face
from tests.client.faces.conftest import Connect
from tests.client.faces.test_false_chains import PHONE, begun
from tests.support.chains import LONGEST, grown
from tests.support.fake_server import FakeConnection, FakeServer

EPOCH = b"epoch..8"
COUNT = 400


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))


def entry(seq: int, body: bytes) -> wire.EntryMessage:
    return wire.EntryMessage(
        "lobby", EPOCH, seq, seq - 1, 1, "~bob", b"", b"p" * 16, seq, 0, "text/plain", body
    )


def join(connection: FakeConnection) -> None:
    connection.log_in()
    asked = connection.wait_for(wire.Join)
    connection.send_envelopes(
        wire.Joined(asked.request, "lobby", EPOCH, 0, EPOCH, 0), wire.Live("lobby", EPOCH, 0)
    )


def flood(connection: FakeConnection) -> None:
    """Half a megabyte in one write, and the end of the connection, with its reason."""
    join(connection)
    packed = [pack(entry(seq, b"%04d" % seq + bytes(1200))) for seq in range(1, COUNT + 1)]
    records = [b"".join(packed[first : first + 40]) for first in range(0, COUNT, 40)]
    sealed = b"".join(map(connection.seal, records))
    connection.wire.close(CloseCode.INTERNAL, 0.0)
    connection.socket.sendall(sealed + connection.wire.data_to_send())


def test_what_comes_at_once_is_received_in_order_with_its_end(
    face: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TURN_S", 0.0)
    with FakeServer(flood) as server:
        one = face(server.address, "alice", reconnect=False)
        one.connect()
        one.join("lobby")
        seen: list[int] = []
        with pytest.raises(ServerFailed):
            _take(one, seen)
    assert seen == list(range(1, COUNT + 1))


def _take(one: Face, seen: list[int]) -> None:
    while (event := one.next()) is not None:
        if isinstance(event, Message):
            seen.append(int(event.body[:4]))


async def test_the_loop_runs_between_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the connection has ended."""
    monkeypatch.setattr(transport, "TURN_S", 0.0)
    turn = 0
    fed: list[tuple[int, int]] = []
    data = Feed.data

    def counted(self: Feed, some: bytes) -> None:
        fed.append((turn, len(some)))
        data(self, some)

    monkeypatch.setattr(Feed, "data", counted)

    async def count() -> None:
        nonlocal turn
        for turn in itertools.count():  # noqa: B007
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    with FakeServer(flood) as server:
        client = Client(server.address, name="alice", reconnect=False)
        await client.connect()
        await client.join("lobby")
        fed.clear()
        with pytest.raises(ServerFailed):
            _ = [event async for event in client.events(WAIT_S)]
    counting.cancel()
    assert sum(size for _, size in fed) > COUNT * 600, "most of it"
    assert max(size for _, size in fed) <= PIECE_BYTES
    assert len({at for at, _ in fed}) == len(fed)


def shows_devices(connection: FakeConnection) -> None:
    packed = grown(begun(PHONE), PHONE, LONGEST)
    connection.log_in()
    for first in (0, 128):
        asked = connection.wait_for(wire.Devices)
        assert asked.first == first
        connection.send_envelopes(
            wire.Chain(asked.request, "alice", packed[first : first + 128], first > 0)
        )
    connection.read_to_end()


def test_a_long_list_of_devices(face: Connect) -> None:
    with FakeServer(shows_devices) as server:
        one = face(server.address, "reader")
        one.connect()
        if isinstance(one.client, Client):
            runner = one._runner  # type: ignore[attr-defined]
            devices = runner.run(one.client.devices("alice"))
        else:
            devices = one.client.devices("alice")
        one.close()
    assert devices.links == LONGEST


async def test_the_loop_runs_while_a_list_of_devices_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = 0
    verified: list[int] = []
    verify = device_keys.verify

    def counted(*parts: bytes) -> bool:
        verified.append(turn)
        return verify(*parts)

    monkeypatch.setattr("relay.client.devices.chain_check.verify", counted)

    async def count() -> None:
        nonlocal turn
        for turn in itertools.count():  # noqa: B007
            await asyncio.sleep(0)

    with FakeServer(shows_devices) as server:
        client = Client(server.address, name="reader")
        await client.connect()
        counting = asyncio.create_task(count())
        await client.devices("alice")
        counting.cancel()
        await client.close()
    assert len(verified) > LONGEST
    assert max(verified.count(at) for at in set(verified)) <= 2 * LINKS_PER_TURN


def test_a_server_that_sends_without_a_pause_stops_no_clock(
    face: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never answers the login: that is noticed all the same."""
    monkeypatch.setattr("relay.client.connection_deadlines.LOGIN_S", 0.2)

    def script(connection: FakeConnection) -> None:
        connection.flush()
        connection.wait_for(wire.Hello)
        while True:
            connection.send_raw(b"\x91\x63" * 100)

    with FakeServer(script) as server:
        one = face(server.address, "alice", reconnect=False)
        with pytest.raises(ClientError, match="did not answer the login"):
            one.connect(WAIT_S)


def test_an_answer_that_came_between_two_calls_is_not_overdue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A blocking client reads only in its calls: its program may have slept for a minute."""
    monkeypatch.setattr("relay.client.devices.device_queries.ANSWER_S", 0.0)
    answered = threading.Event()

    def script(connection: FakeConnection) -> None:
        join(connection)
        device = links.key_id(PHONE.public)
        connection.send_envelopes(entry(1, b"0001")._replace(sender="alice", key_id=device))
        asked = connection.wait_for(wire.Devices)
        connection.send_envelopes(
            wire.Chain(asked.request, "alice", begun(PHONE), True), entry(2, b"0002")
        )
        answered.set()
        connection.read_to_end()

    with FakeServer(script) as server, BlockingClient(server.address, name="reader") as one:
        one.join("lobby")
        seen: list[Event] = []
        for count in (1, 2):
            while len([event for event in seen if isinstance(event, Message)]) < count:
                event = one.next_event(WAIT_S)
                assert event is not None
                seen.append(event)
            assert answered.wait(WAIT_S)
    assert [event for event in seen if isinstance(event, DeviceWarning)] == []


def test_an_error_of_the_client_is_its_end(
    face: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What had arrived may be lost: no reconnect hides that, or repeats it for ever."""

    def fails(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("relay.client.receiver.decoding.as_entry", fails)

    def script(connection: FakeConnection) -> None:
        join(connection)
        connection.send_envelopes(entry(1, b"hi"))
        connection.read_to_end()

    with FakeServer(script) as server:
        one: Face = face(server.address, "alice")
        one.connect()
        one.join("lobby")
        for call in (lambda: all(iter(one.next, None)), lambda: one.send("lobby", "x")):
            with pytest.raises(
                ClientError, match="error in the client library: KeyError"
            ) as raised:
                call()
            assert isinstance(raised.value.__cause__, KeyError)
    assert server.accepted == 1
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"]


def test_so_is_one_in_what_it_sends(face: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an answer that cannot come."""

    def script(connection: FakeConnection) -> None:
        join(connection)
        connection.read_to_end()

    with FakeServer(script) as server:
        one: Face = face(server.address, "alice")
        one.connect()
        one.join("lobby")

        def fails(*_: object) -> None:
            raise KeyError("x")

        monkeypatch.setattr("relay.client.sends.Sends.transmit", fails)
        for _ in range(2):
            with pytest.raises(ClientError, match="in the client library: KeyError"):
                one.send("lobby", "x")
    assert server.accepted == 1
