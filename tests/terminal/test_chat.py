"""Chats with a malicious server."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay.chat.accounts import chain, links
from relay.client.aio import Client
from relay.client.events import LogEntry
from relay.terminal.chat import Chat
from relay.wire import envelopes as wire
from relay.wire.codes import CloseCode, ErrorCode
from tests.support.cluster import run_relay
from tests.support.fake_server import WAIT_S, FakeConnection, FakeServer
from tests.support.pair import server_key
from tests.vectors.accounts import key, signed

EPOCH = b"e" * 8
FAR = 10**15


class Notices:
    """A screen that records what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.came = asyncio.Event()

    async def message(self, message: LogEntry, label: str = "") -> None:
        """Record the sender."""
        self.notice(label)

    def notice(self, text: str) -> None:
        """Record it."""
        self.told.append(text)
        self.came.set()

    def talk_to(self, target: str) -> None:
        """Ignore it."""

    def pending(self, waiting: list[str]) -> None:
        """Ignore it."""


async def test_a_false_list_of_devices_ends_no_chat() -> None:
    """The user gets a warning, and the chat goes on."""

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
    assert screen.told[-1].startswith("the server sent a false list of devices")


async def test_another_roster_again_and_again_is_one_question() -> None:
    """Each requires a WHO, which this server does not answer until the end."""
    asked: list[wire.Who] = []

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        first = connection.wait_for(wire.Who)
        for number in range(1, 501):
            connection.send_envelopes(wire.Roster("lobby", number, 1, 0, [], []))
        connection.send_envelopes(wire.Invited("other", "bob"))
        sent = connection.wait_for(wire.Send)  # the user has seen the last of them
        connection.send_envelopes(wire.Ack("lobby", sent.counter, EPOCH, 1))
        asked.append(first)
        asked.extend(one for one in connection.heard if isinstance(one, wire.Who))
        connection.send_envelopes(
            wire.Members(first.request, "lobby", 500, 2, 2, [["bob", "", 1], ["carol", "", 1]])
        )
        again = connection.wait_for(wire.Who)
        asked.append(again)
        connection.send_envelopes(
            wire.Members(again.request, "lobby", 500, 3, 1, [["dora", "", 1]])
        )
        connection.read_to_end()

    async def typed() -> AsyncIterator[str]:
        for waited_for, line in (("bob", "hello"), ("dora is here", "")):
            async with asyncio.timeout(WAIT_S):
                while not any(waited_for in one for one in screen.told):
                    screen.came.clear()
                    await screen.came.wait()
            yield line
        yield "/quit"

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    assert len(asked) == 2


async def test_whoever_lost_their_connection_too_has_not_left() -> None:
    """A server that restarts: it is asked who is here again, before anybody is reported."""
    connections = 0

    def script(connection: FakeConnection) -> None:
        nonlocal connections
        connections += 1
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        who = connection.wait_for(wire.Who)
        here = [[name, "", 1] for name in ("bob", "carol")]
        connection.send_envelopes(wire.Members(who.request, "lobby", connections, 1, 2, here))
        if connections == 1:
            connection.send_envelopes(wire.Roster("lobby", 1, 2, 1, [], ["bob"]))
            connection.wire.close(CloseCode.GOING_AWAY, time.monotonic())
            connection.flush()
            connection.read_to_end()
            return
        connection.send_envelopes(
            wire.Roster("lobby", 2, 2, 3, [["dora", ""]], []), wire.Invited("other", "bob")
        )
        connection.read_to_end()

    async def typed() -> AsyncIterator[str]:
        async with asyncio.timeout(WAIT_S):
            while not any("other" in one for one in screen.told):
                screen.came.clear()
                await screen.came.wait()
        yield "/quit"

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    presence = [one for one in screen.told if re.search("left|also here|is here", one)]
    assert presence == ["also here: bob, carol", "dora is here"]


async def test_who_is_here_is_asked_again_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there is an answer, nobody is reported to have left."""
    monkeypatch.setattr("relay.terminal.who_is_here.ASK_AGAIN_S", 0.01)

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        refused = connection.wait_for(wire.Who)
        connection.send_envelopes(wire.Error(refused.request, int(ErrorCode.NOT_ALLOWED), 0, ""))
        who = connection.wait_for(wire.Who)
        connection.send_envelopes(wire.Members(who.request, "lobby", 1, 1, 1, [["bob", "", 1]]))
        connection.read_to_end()

    async def typed() -> AsyncIterator[str]:
        async with asyncio.timeout(WAIT_S):
            while not any("also here: bob" in one for one in screen.told):
                screen.came.clear()
                await screen.came.wait()
        yield "/quit"

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)


async def test_who_is_here_is_asked_ever_less_while_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if the server makes another request necessary meanwhile, again and again."""
    monkeypatch.setattr("relay.terminal.who_is_here.ASK_AGAIN_S", 0.001)
    monkeypatch.setattr("relay.terminal.who_is_here.ASK_AGAIN_MAX_S", 0.004)
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def recorded(
        delay: float, callback: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        if getattr(callback, "__name__", "") == "_ask_again":
            delays.append(delay)
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", recorded)

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        for number in range(1, 6):
            who = connection.wait_for(wire.Who)
            rosters = [wire.Roster("lobby", 10 * number + n, 1, 1, [], []) for n in range(9)]
            connection.send_envelopes(
                wire.Error(who.request, int(ErrorCode.NOT_ALLOWED), 0, ""), *rosters
            )
        who = connection.wait_for(wire.Who)
        connection.send_envelopes(wire.Members(who.request, "lobby", 1, 1, 1, [["bob", "", 1]]))
        connection.read_to_end()

    async def typed() -> AsyncIterator[str]:
        async with asyncio.timeout(WAIT_S):
            while not any("also here: bob" in one for one in screen.told):
                screen.came.clear()
                await screen.came.wait()
        yield "/quit"

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    assert delays == [0.001, 0.002, 0.004, 0.004, 0.004]


def nothing_for_ever(connection: FakeConnection) -> None:
    """Each page is a little further back than the previous one, and empty."""
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
    """A command that reads them ends, and reports how far it came."""
    with FakeServer(nothing_for_ever) as server:
        found = run_relay("history", server.address, "lobby", *words, "--name", "~alice")
    assert found.returncode == 1
    assert "nothing was found in 200 pages" in found.stderr
    assert f"--before {FAR - 200} goes on" in found.stderr


def test_a_room_without_a_last_message() -> None:
    with FakeServer(nothing_for_ever) as server:
        read = run_relay("room", "read", server.address, "lobby", "--name", "~alice")
    assert read.returncode == 1
    assert "no message was found in 200 pages" in read.stderr


async def test_a_search_without_end() -> None:
    """It ends in a chat, too, and can be continued."""
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


async def test_devices_that_contradict_are_accepted_by_a_person(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Shown first, then accepted with the code of exactly that list; until then messages are
    marked.
    """
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))
    server_id = hashlib.sha256(server_key().spki).digest()
    phone, other = key("a"), key("b")
    before, now = (
        [signed(chain.root_body(server_id, "alice", b"n" * 16, one.public), one)]
        for one in (phone, other)
    )

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0))
        for seq, (device, packed) in enumerate(((phone, before), (other, now), (other, now)), 1):
            key_id = links.key_id(device.public)
            connection.send_envelopes(
                wire.EntryMessage(
                    "lobby", EPOCH, seq, seq - 1, 1, "alice", key_id, b"p" * 16, seq, 0,
                    "text/plain", b"hi",
                )
            )  # fmt: skip
            if seq < 3:
                asked = connection.wait_for(wire.Devices)
                connection.send_envelopes(wire.Chain(asked.request, "alice", packed, True))
        for _ in range(3):
            asked = connection.wait_for(wire.Devices)
            connection.send_envelopes(wire.Chain(asked.request, "alice", now, True))
        connection.read_to_end()

    async def until(text: str) -> str:
        async with asyncio.timeout(WAIT_S):
            while True:
                for one in screen.told:
                    if text in one:
                        return one
                screen.came.clear()
                await screen.came.wait()

    async def typed() -> AsyncIterator[str]:
        await until("alice (unverified)")
        yield "/accept @alice"
        told = await until("/accept alice ")
        yield f"/accept alice {told.rpartition(' ')[2]}"
        await until("are accepted")

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~reader") as client:
            await Chat(client, "lobby", screen).run(typed(), 0)
    assert screen.told.count("alice (unverified)") >= 2
    assert any(one.startswith("before: account") for one in screen.told)


async def after_a_refusal(code: ErrorCode, *lines: str) -> tuple[list[str], list[wire.Send], int]:
    """Type lines before the server refuses the first of them, and each other change of the room.

    Return what the user is told, what was sent, and how many changes were requested.
    """
    all_typed = threading.Event()
    sent: list[wire.Send] = []
    changes: list[wire.Room] = []

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 2))
        for seq, sender in enumerate(("~alice", "~bob"), 1):
            connection.send_envelopes(
                wire.EntryMessage(
                    "lobby", EPOCH, seq, seq - 1, 1, sender, b"", b"p" * 16, seq, 0,
                    "text/plain", b"hi",
                )
            )  # fmt: skip
        changes.append(connection.wait_for(wire.Room))
        assert all_typed.wait(WAIT_S)
        connection.send_envelopes(wire.Error(changes[0].request, code, 0, ""))
        while connection.read():
            for asked in connection.heard:
                if isinstance(asked, wire.Send):
                    sent.append(asked)
                    ack = wire.Ack(asked.log, asked.counter, EPOCH, len(sent) + 2)
                    connection.send_envelopes(ack)
                elif isinstance(asked, wire.Room):
                    changes.append(asked)
                    connection.send_envelopes(wire.Error(asked.request, code, 0, ""))
            connection.heard.clear()

    async def typed() -> AsyncIterator[str]:
        async with asyncio.timeout(WAIT_S):
            while not any("bob" in one for one in screen.told):
                screen.came.clear()
                await screen.came.wait()
        screen.told.clear()
        for line in lines:
            yield line
        all_typed.set()

    screen = Notices()
    with FakeServer(script) as server:
        async with Client(server.address, name="~alice") as client:
            chat = Chat(client, "lobby", screen)
            await chat.run(typed(), 2)
    assert chat.sending.failures == sum(one.startswith("not sent (") for one in screen.told)
    return screen.told, sent, len(changes)


@pytest.mark.parametrize(
    "line",
    ["secret", "/edit secret", "/react secret", "/reply secret", "/topic secret", "/invite carol"]
    + [f"/{command} carol secret" for command in ("kick", "ban", "mute")]
    + ["/redact 1 secret"],
)
async def test_nothing_is_said_after_a_refused_change(line: str) -> None:
    """A text for fewer users than are in the room is not sent."""
    told, sent, changes = await after_a_refusal(ErrorCode.NOT_ALLOWED, "/private", line)
    assert told[0].startswith("refused: NOT_ALLOWED")
    shown = line.removeprefix("/reply ")
    assert told[1:] == [f"not sent (the room was not changed): {shown}"]
    assert (sent, changes) == ([], 1)


async def test_what_says_nothing_is_done_after_a_refused_change() -> None:
    """Holding it back would leave more to read, or more users to read it."""
    lines = ("/kick carol", "/erase", "/ban dave")
    told, sent, changes = await after_a_refusal(ErrorCode.NOT_ALLOWED, *lines)
    assert not any(one.startswith("not sent") for one in told)
    assert (len(sent), changes) == (1, 2)


@pytest.mark.parametrize("line", ["/ban carol", "/kick carol", "/topic tea"])
async def test_a_change_of_a_room_that_is_not_there_is_refused(line: str) -> None:
    """The next line would create it, and might be about a user who was to be kept out."""
    told, sent, _ = await after_a_refusal(ErrorCode.NO_SUCH_ROOM, line, "carol lies")
    assert told[0].startswith("refused: there is no room lobby yet: ")
    if line == "/topic tea":
        assert [one.body for one in sent] == [b"carol lies"], "that keeps nobody out"
    else:
        assert (told[1:], sent) == (["not sent (the room was not changed): carol lies"], [])
