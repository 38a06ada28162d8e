"""A chat whose server lies to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.client.aio import Client
from relay.client.events import LogEntry
from relay.terminal.chat import Chat
from relay.wire import envelopes as wire
from tests.support.cluster import run_relay
from tests.support.fake_server import WAIT_S, FakeConnection, FakeServer

EPOCH = b"e" * 8
FAR = 10**15


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


def nothing_for_ever(connection: FakeConnection) -> None:
    """Each page is a little below the one before, and has nothing."""
    connection.log_in()
    join = connection.wait_for(wire.Join)
    connection.send_envelopes(
        wire.Joined(join.request, join.log, EPOCH, FAR, EPOCH, FAR), wire.Live(join.log, EPOCH, FAR)
    )
    while True:
        if not connection.read():
            return
        for asked in connection.heard:
            if isinstance(asked, wire.Search):
                lower = (asked.before or FAR) - 1
                found = wire.Found(asked.request, asked.log, lower, False, FAR, [])
                connection.send_envelopes(found)
            elif isinstance(asked, wire.History):
                lower = (asked.seq or FAR) - 1
                page = wire.Page(asked.request, asked.log, lower, False, [])
                connection.send_envelopes(page)
        connection.heard.clear()


@pytest.mark.parametrize("words", [["--search", "tea"], []])
def test_pages_without_end(words: list[str]) -> None:
    """A command that reads them ends, and tells how far it came."""
    with FakeServer(nothing_for_ever) as server:
        found = run_relay("history", server.address, "lobby", *words, "--name", "~alice")
    assert found.returncode == 1
    assert "nothing was found in 200 pages" in found.stderr
    assert f"--before {FAR - 200} goes on" in found.stderr


async def test_a_search_without_end() -> None:
    """In a chat it is over, too, and can go on."""
    screen = Notices()

    async def typed() -> AsyncIterator[str]:
        for line in ("/history 5", "/search tea", "/search"):
            screen.told.clear()
            yield line
            async with asyncio.timeout(WAIT_S):
                while not any("200 pages" in one or "no earlier" in one for one in screen.told):
                    screen.came.clear()
                    await screen.came.wait()

    with FakeServer(nothing_for_ever) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    assert any(f"before number {FAR - 400} " in one for one in screen.told)
