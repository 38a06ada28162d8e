"""Rooms under torture: bans and invitations race with messages, readers and kills."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from pathlib import Path

import pytest

from relay.chat.entries import Entry, Kind
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.client.aio import Client
from relay.client.errors import Banned, MembersOnly, Refused
from relay.client.events import Message, RoomChanged, Unfollowed
from relay.store.directory import DataDirectory
from relay.store.reader import SqliteReader
from relay.wire.envelopes import EntryMessage, unpack_entry
from tests.support.cluster import Relay, until
from tests.torture import rights
from tests.torture.rights import Finding

ROOM = "lobby"
ROUNDS = 10


# --- the checker itself --------------------------------------------------------------------------
def log_of(*said: tuple[str, events.Event | None]) -> list[EntryMessage]:
    """A log of events and (None) messages."""
    found = []
    for seq, (sender, event) in enumerate(said, 1):
        kind = Kind.MESSAGE if event is None else Kind.SYSTEM
        body = b"hi" if event is None else events.pack(event)
        content_type = "" if event is None else events.CONTENT_TYPE
        found.append(
            Entry(
                ROOM, b"epoch..8", seq, seq - 1, 1, sender, b"", b"p" * 16, seq, int(kind),
                content_type, body,
            )
        )  # fmt: skip
    return found


ALICE, BOB = b"a" * 32, b"b" * 32
PRIVATE = ("alice", events.Created(events.Kind.PRIVATE, True, ALICE))
INVITED = ("alice", events.Invited("bob", BOB))
BANNED = ("alice", events.Banned("bob", BOB, 0, ""))
MESSAGE = ("alice", None)


def test_what_the_checker_finds() -> None:
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, ("bob", None), MESSAGE)
    assert list(rights.check(log, {"alice": range(1, 8)})) == [Finding("wrote", "bob", 6)]
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, MESSAGE)
    assert list(rights.check(log, {"bob": range(1, 6)})) == []
    assert list(rights.check(log, {"bob": range(1, 7)})) == [Finding("read", "bob", 6)]
    assert list(rights.check(log, {"eve": [1, 6]})) == [Finding("read", "eve", 6)]
    again = log_of(PRIVATE, INVITED, BANNED, MESSAGE, ("alice", events.Freed("bob")), INVITED)
    assert list(rights.check(again, {"bob": range(1, 7)})) == []


# --- a whole relay -------------------------------------------------------------------------------
class Person:
    """Somebody who follows the room whenever allowed, and writes all the time."""

    def __init__(self, name: str, relay: Relay) -> None:
        self.name = name
        self._relay = relay
        self.seen: list[int] = []
        self.there = False
        """True once the name is registered."""
        self.refused: defaultdict[str, int] = defaultdict(int)

    async def run(self) -> None:
        async with Client(self._relay.address, name=self.name) as client:
            self.there = True
            writing = asyncio.ensure_future(self._write(client))
            try:
                while True:
                    await self._follow(client)
                    await asyncio.sleep(0.01)
            finally:
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writing

    async def _follow(self, client: Client) -> None:
        try:
            await client.join(ROOM, last=5)
        except Refused as error:
            self.refused[type(error).__name__] += 1
            return
        async for event in client:
            if isinstance(event, Message | RoomChanged):
                self.seen.append(event.seq)
            elif isinstance(event, Unfollowed):
                return

    async def _write(self, client: Client) -> None:
        while True:
            try:
                await client.send(ROOM, f"{self.name} {random.random()}")
            except Refused as error:
                self.refused[type(error).__name__] += 1
            await asyncio.sleep(0.002)


def stored(data: Path) -> list[EntryMessage]:
    reader = SqliteReader(DataDirectory(data).partition_path(partition_of(ROOM)))
    try:
        page = reader.read(ROOM, 0, 2**40 - 1, 10**9)
        return [unpack_entry(packed) for _, packed in page.rows]
    finally:
        reader.close()


async def ran(directory: Path, fault: str = "", kills: int = 0) -> list[Finding]:
    """Let a moderator put people out and in again, while they write and workers die."""
    data = directory / "data"
    with Relay(data, workers=3, fault=fault) as relay:
        async with Client(relay.address, name="alice") as alice:
            await alice.create_room(ROOM, "private")
            people = [Person(name, relay) for name in ("bob", "carol", "eve")]
            tasks = [asyncio.ensure_future(person.run()) for person in people]
            await until(lambda: all(person.there for person in people), "everybody")
            try:
                for turn in range(ROUNDS):
                    for name in ("bob", "carol"):
                        await alice.change_room(ROOM, "unban", name)
                        await alice.change_room(ROOM, "invite", name)
                    await alice.send(ROOM, f"turn {turn}")
                    if kills and turn % 3 == 1:
                        await asyncio.to_thread(relay.kill_worker)
                    heard = [len(person.seen) for person in people[:2]]
                    await until(
                        lambda heard=heard: all(  # type: ignore[misc]
                            len(one.seen) > old for one, old in zip(people, heard, strict=False)
                        ),
                        "both to be in the room",
                    )
                    await alice.change_room(ROOM, "ban", "bob", seconds=0)
                    await alice.change_room(ROOM, "kick", "carol")
                    await alice.send(ROOM, f"between us {turn}")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            bob, carol, eve = people
            if not fault:
                assert bob.refused[Banned.__name__]
                assert carol.refused[MembersOnly.__name__]
                assert eve.refused[MembersOnly.__name__]
                assert eve.seen == []
    log = stored(data)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    return list(rights.check(log, {person.name: person.seen for person in people}))


@pytest.mark.timeout(300)
async def test_bans_invitations_and_kills(tmp_path: Path) -> None:
    """No message behind a ban, no entry at somebody who may not read."""
    assert await ran(tmp_path, kills=3) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("rights-of-a-moment-ago", "wrote"),
        ("nobody-is-put-out", "read"),
    ],
)
async def test_broken_relays_are_caught(tmp_path: Path, variant: str, found: str) -> None:
    """Each bug that a reasonable implementation might have."""
    assert found in {finding.fault for finding in await ran(tmp_path, variant)}
