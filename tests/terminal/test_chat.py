"""A chat whose server lies to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from relay.client.aio import Client
from relay.client.events import LogEntry
from relay.terminal.chat import Chat
from relay.wire import envelopes as wire
from tests.support.fake_server import WAIT_S, FakeConnection, FakeServer

EPOCH = b"e" * 8


class Notices:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.came = asyncio.Event()

    async def message(self, message: LogEntry, label: str = "") -> None:
        """None comes."""

    def notice(self, text: str) -> None:
        """Keep it."""
        self.told.append(text)
        self.came.set()

    def talk_to(self, target: str) -> None:
        """Nobody is talked to."""

    def pending(self, waiting: list[str]) -> None:
        """Nobody looks."""


async def test_a_false_list_of_devices_ends_no_chat() -> None:
    """The person is told that it is false, and the chat goes on."""

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        devices = connection.wait_for(wire.Devices)
        connection.send_envelopes(wire.Chain(devices.request, "bob", [b"no link"], True))
        connection.read_to_end()

    async def typed() -> AsyncIterator[str]:
        yield "/block bob"
        async with asyncio.timeout(WAIT_S):
            while not any("list of devices" in one for one in screen.told):
                screen.came.clear()
                await screen.came.wait()

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    assert screen.told[-1].startswith("the server gave a false list of devices")
