"""A moderated room under torture: permissions, tickets and device chains, while workers are killed.

A moderator bans users and lets them in again, who write and follow all the time; her own devices
are added and removed, and every user reads her list of devices. After each kill, credentials that
were valid before it are tried: used tickets, a removed key. Violations are found by comparing what
users received with the logs at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relay.chat.accounts import events as account_events
from relay.chat.partition import partition_of
from relay.client.account_calls import Devices
from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.errors import DeviceChainError
from relay.client.events import Message, RoomChanged, Unfollowed
from relay.client.refusals import Banned, Changed, KeyRefused, MembersOnly, Refused
from relay.store.file.directory import DataDirectory
from relay.store.reading.reader import SqliteReader
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import unpack_entry
from tests.support.cluster import Relay, until
from tests.torture import rights
from tests.torture.traveller import NAME as TRAVELLER
from tests.torture.traveller import Traveller

ROOM = "lobby"
ROUNDS = 10
MODERATOR = "alice"
KEYS_PER_RUN = 60
"""Devices of the moderator: a chain has 256 links."""


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    findings: list[rights.Finding] = field(default_factory=list)
    resumed: int = 0
    """Resumed handshakes."""
    kills: int = 0
    turns: int = 0
    links: int = 0
    """Links of the moderator's chain of devices."""


class Person:
    """A user who follows the room whenever allowed, writes all the time, and reads the chain."""

    def __init__(self, name: str, relay: Relay, acknowledged: Callable[[], int]) -> None:
        """Begin; ``acknowledged``: how many links of the moderator's chain are acknowledged
        by now.
        """
        self.name = name
        self._relay = relay
        self._acknowledged = acknowledged
        self.seen: list[int] = []
        self.there = False
        """True once the name is registered."""
        self.resumed = 0
        self.chains: list[tuple[int, int, frozenset[str]]] = []
        """The moderator's chain, as this user has read it: how many links it had to have, how many
        it had, and which devices.
        """
        self.false_chains = 0
        self.refused: defaultdict[str, int] = defaultdict(int)

    async def run(self) -> None:
        """Run until cancelled."""
        async with Client(self._relay.address, name=self.name) as client:
            self.there = True
            others = [
                asyncio.ensure_future(self._write(client)),
                asyncio.ensure_future(self._read_chain(client)),
            ]
            try:
                while True:
                    await self._follow(client)
                    await asyncio.sleep(0.01)
            finally:
                self.resumed = client.statistics["resumptions"]
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)

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

    async def _read_chain(self, client: Client) -> None:
        while True:
            least = self._acknowledged()
            try:
                found = await client.devices(MODERATOR)
            except DeviceChainError:
                self.false_chains += 1
            else:
                self.chains.append((least, found.links, _active(found)))
            await asyncio.sleep(0.05)


def _active(found: Devices) -> frozenset[str]:
    return frozenset(one.key for one in found.devices if not one.removed)


def stored(data: Path, log: str = ROOM) -> list[EntryMessage]:
    """Return a log from the store's files."""
    reader = SqliteReader(DataDirectory(data).partition_path(partition_of(log)))
    try:
        page = reader.read(log, 0, 2**40 - 1, 10**9)
        return [unpack_entry(packed) for _, packed in page.rows]
    finally:
        reader.close()


class _Devices:
    """The moderator's devices, as far as changes were acknowledged."""

    def __init__(self, first: str) -> None:
        self.lists = [frozenset({first})]
        """Each acknowledged one, by the number of its last link."""
        self.stale = 0
        """Times that the moderator got a list other than the last one."""
        self.removed: DeviceKey | None = None
        """The last device whose removal was acknowledged."""
        self.let_in = 0
        """Times that it could log in all the same."""

    async def change(self, client: Client) -> None:
        """Add a device and remove it again."""
        if len(self.lists) >= 2 * KEYS_PER_RUN:
            return
        key = DeviceKey.generate()
        try:
            await client.add_device(key)
            self.lists.append(self.lists[-1] | {public_text(key.public)})
            await client.remove_device(public_text(key.public))
            self.lists.append(self.lists[-1] - {public_text(key.public)})
            self.removed = key
        except (DeviceChainError, Changed):
            self.stale += 1

    async def come_after_a_kill(self, relay: Relay) -> None:
        """Try to log in with a removed device."""
        if self.removed is None:
            return
        try:
            async with Client(relay.address, name=MODERATOR, key=self.removed):
                self.let_in += 1
        except KeyRefused:
            return

    def check(self, people: list[Person], data: Path) -> list[rights.Finding]:
        """Compare what users read with what was acknowledged, and the log with both."""
        found = [rights.Finding("chain", MODERATOR, 0)] * self.stale
        found += [rights.Finding("device", MODERATOR, 0)] * self.let_in
        for person in people:
            if person.false_chains:
                found.append(rights.Finding("chain", person.name, 0))
            before = 0
            for least, count, devices in person.chains:
                known = self.lists[count - 1] if count <= len(self.lists) else None
                if devices != known or count < max(least, before):
                    found.append(rights.Finding("chain", person.name, count))
                before = count
        links = [
            event
            for entry in stored(data, f"@{MODERATOR}")
            if entry.content_type == account_events.CONTENT_TYPE
            and isinstance(
                event := account_events.unpack(entry.body),
                account_events.Created | account_events.Linked,
            )
        ]
        if len(links) != len(self.lists):
            found.append(rights.Finding("chain", MODERATOR, len(links)))
        return found


async def run(
    directory: Path,
    fault: str = "",
    *,
    turns: int = ROUNDS,
    kills_every: int = 0,
    workers: int = 3,
) -> Outcome:
    """Let a moderator ban users and let them in again, while they write and workers are killed.

    Args:
        directory: an empty one.
        fault: planted in the relay.
        turns: how often both are let in and banned.
        kills_every: a worker is killed in each so many turns; 0: none.
        workers: of the relay; with one, each kill interrupts all of them.
    """
    data = directory / "data"
    outcome = Outcome(turns=turns)
    with Relay(data, workers=workers, fault=fault) as relay:
        async with Client(relay.address, name=MODERATOR) as alice:
            await alice.create_room(ROOM, "private")
            own = await alice.devices(MODERATOR)
            devices = _Devices(own.devices[0].key)
            people = [
                Person(name, relay, lambda: len(devices.lists)) for name in ("bob", "carol", "eve")
            ]
            traveller = Traveller(relay.port, MODERATOR)
            tasks = [asyncio.ensure_future(person.run()) for person in people]
            await until(lambda: all(person.there for person in people), "everybody")
            try:
                for turn in range(turns):
                    for name in ("bob", "carol"):
                        await alice.change_room(ROOM, "unban", name)
                        await alice.change_room(ROOM, "invite", name)
                    await alice.send(ROOM, f"turn {turn}")
                    if kills_every and turn % kills_every == 1:
                        await asyncio.to_thread(relay.kill_worker)
                        outcome.kills += 1
                        await asyncio.to_thread(traveller.come_after_a_kill, len(devices.lists))
                        await devices.come_after_a_kill(relay)
                    await devices.change(alice)
                    await asyncio.to_thread(traveller.visit, len(devices.lists))
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
            outcome.resumed = sum(one.resumed for one in people) + alice.statistics["resumptions"]
            bob, carol, eve = people
            if not fault:
                assert bob.refused[Banned.__name__]
                assert carol.refused[MembersOnly.__name__]
                assert eve.refused[MembersOnly.__name__]
                assert eve.seen == []
    log = stored(data)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    outcome.links = len(devices.lists)
    outcome.findings = [
        *rights.check(log, {person.name: person.seen for person in people}),
        *devices.check(people, data),
        *[rights.Finding("ticket", TRAVELLER, 0)] * traveller.twice,
        *[rights.Finding("chain", TRAVELLER, count) for count in traveller.went_back],
    ]
    return outcome
