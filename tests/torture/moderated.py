"""A moderated room under torture: permissions, tickets and device chains, while workers are killed.

The owner of a private room bans, removes and mutes users and lets them in again, and makes one of
them a moderator and a member again. All of them write, edit, react, erase, change the topic, follow
and read pages all the time, whether or not they may. Another room is deleted and created again.
The owner's devices are added and removed, and every user reads her list of devices. After each
kill, credentials that were valid before it are tried: used tickets, a removed key. Violations are
found by comparing what users received with the logs at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relay.chat.accounts import events as account_events
from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.chat.rooms.requests import ANYTHING_SEEN
from relay.client.account_calls import Devices
from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.errors import DeviceChainError
from relay.client.events import (
    Behind,
    Gap,
    Live,
    LogEntry,
    Message,
    RoomChanged,
    StateChanged,
    Unfollowed,
)
from relay.client.refusals import (
    Banned,
    Changed,
    KeyRefused,
    MembersOnly,
    Muted,
    NoSuchRoom,
    NotAllowed,
    Refused,
)
from relay.store.file.directory import DataDirectory
from relay.store.reading.reader import SqliteReader
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import unpack_entry
from tests.support.cluster import COMMAND_S, Relay, until
from tests.torture import rights
from tests.torture.traveller import NAME as TRAVELLER
from tests.torture.traveller import Traveller

ROOM = "lobby"
SQUARE = "square"
"""The room that is deleted and created again; its home is another one."""
ROUNDS = 10
MODERATOR = "alice"
DEEDS = ("send", "edit", "react", "erase", "page", "topic"), (6, 2, 2, 1, 1, 1)
"""What a user does, and how often: a change of the topic has a commit of its own."""
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
    kinds: Counter[Kind] = field(default_factory=Counter)
    """Kinds of the entries of both rooms."""


class Person:
    """A user who follows a room whenever allowed, does all that there is to do in it, and reads the
    chain.
    """

    def __init__(self, name: str, relay: Relay, acknowledged: Callable[[], int]) -> None:
        """Begin; ``acknowledged``: how many links of the moderator's chain are acknowledged
        by now.
        """
        self.name = name
        self.room = ROOM
        self._relay = relay
        self._acknowledged = acknowledged
        self._chance = random.Random(name)
        self._others: deque[Message] = deque(maxlen=8)
        """Seen last, of others."""
        self._own: deque[Message] = deque(maxlen=8)
        self.seen: list[int] = []
        self._live: list[int] = []
        self._answers: list[list[int]] = []
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
                asyncio.ensure_future(self._act(client)),
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

    def is_refused(self) -> bool:
        """Return True once something was refused since the last look because there is no room."""
        return self.refused.pop(NoSuchRoom.__name__, 0) > 0

    @property
    def got(self) -> rights.Seen:
        """What this user got of the room."""
        return rights.Seen(self.seen, self._live, self._answers)

    async def _follow(self, client: Client) -> None:
        try:
            await client.join(self.room, last=5)
        except Refused as error:
            self.refused[type(error).__name__] += 1
            return
        live, together = False, list[int]()
        self._answers.append(together)
        async for event in client:
            if isinstance(event, LogEntry | RoomChanged):
                self.seen.append(event.seq)
                together.append(event.seq)
                if live:
                    self._live.append(event.seq)
                if isinstance(event, Message):
                    (self._own if event.sender == self.name else self._others).append(event)
            elif isinstance(event, Live):
                live = True
            elif isinstance(event, Behind | StateChanged | Gap):
                live, together = False, []  # what follows is read from the log
                self._answers.append(together)
            elif isinstance(event, Unfollowed):
                return

    async def _act(self, client: Client) -> None:
        while True:
            try:
                await self._do_something(client)
            except Refused as error:
                self.refused[type(error).__name__] += 1
            await asyncio.sleep(0.002)

    async def _do_something(self, client: Client) -> None:
        text = f"{self.name} {random.random()}"
        match self._chance.choices(*DEEDS)[0]:
            case "edit" if self._own:
                await client.edit(self._own[-1], text)
            case "react" if self._others:
                await client.react(self._others[-1], "+1")
            case "erase" if self._others:
                await client.redact(self._others[-1])
            case "topic":
                await client.change_room(self.room, "topic", text=text, seen=ANYTHING_SEEN)
            case "page":
                page = await client.history(self.room, count=10)
                self._answers.append([entry.seq for entry in page.entries])
                self.seen += self._answers[-1]
            case _:
                await client.send(self.room, text)

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


class Visitor(Person):
    """One who is in the room that is deleted and created again and again."""

    def __init__(self, name: str, relay: Relay, acknowledged: Callable[[], int]) -> None:
        super().__init__(name, relay, acknowledged)
        self.room = SQUARE


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
    wanted: str = "",
) -> Outcome:
    """Let a moderator ban users and let them in again, while they write and workers are killed.

    Args:
        directory: an empty one.
        fault: planted in the relay.
        turns: how often both are let in and banned.
        kills_every: a worker is killed in each so many turns, while rights are changed; 0: none.
        workers: of the relay; with one, each kill interrupts all of them.
        wanted: the run ends after the turn that shows this fault; "": after all turns.
    """
    data = directory / "data"
    outcome = Outcome()
    with Relay(data, workers=workers, fault=fault) as relay:
        # Her requests race with kills, on a machine that may take long to replace a worker.
        async with Client(relay.address, name=MODERATOR, retry_timeout_s=COMMAND_S) as alice:
            await alice.create_room(ROOM, "private")
            await alice.create_room(SQUARE)
            own = await alice.devices(MODERATOR)
            devices = _Devices(own.devices[0].key)
            people = [
                Person(name, relay, lambda: len(devices.lists))
                for name in ("bob", "carol", "eve", "dave", "mona")
            ]
            people.append(Visitor("vera", relay, lambda: len(devices.lists)))
            traveller = Traveller(relay.port, MODERATOR)
            tasks = [asyncio.ensure_future(person.run()) for person in people]
            await until(lambda: all(person.there for person in people), "everybody")
            for name in ("dave", "mona"):
                await alice.change_room(ROOM, "invite", name)
            try:
                for turn in range(turns):
                    for name in ("bob", "carol"):
                        await alice.change_room(ROOM, "unban", name)
                        await alice.change_room(ROOM, "invite", name)
                    await alice.change_room(ROOM, "unmute", "dave")
                    await alice.change_room(ROOM, "role", "mona", role="moderator")
                    await alice.send(ROOM, f"turn {turn}")
                    await devices.change(alice)
                    await asyncio.to_thread(traveller.visit, len(devices.lists))
                    heard = [len(person.seen) for person in people[:2]]
                    await until(
                        lambda heard=heard: all(  # type: ignore[misc]
                            len(one.seen) > old for one, old in zip(people, heard, strict=False)
                        ),
                        "both to be in the room",
                    )
                    killing: asyncio.Future[None] | None = None
                    if kills_every and turn % kills_every == 1:
                        kill = asyncio.to_thread(relay.kill_worker, outcome.kills % workers)
                        killing = asyncio.ensure_future(kill)
                        outcome.kills += 1
                    await alice.change_room(ROOM, "ban", "bob", seconds=0)
                    await alice.change_room(ROOM, "kick", "carol")
                    await alice.change_room(ROOM, "mute", "dave")
                    await alice.change_room(ROOM, "role", "mona", role="member")
                    await alice.change_room(SQUARE, "delete")
                    await alice.send(ROOM, f"between us {turn}")
                    if not fault:
                        await until(people[-1].is_refused, "somebody to miss the other room")
                    await alice.create_room(SQUARE)
                    if killing is not None:
                        await killing
                        await asyncio.to_thread(traveller.come_after_a_kill, len(devices.lists))
                        await devices.come_after_a_kill(relay)
                    outcome.turns += 1
                    if wanted:
                        found = _findings(data, people, devices, traveller)
                        if wanted in {finding.fault for finding in found}:
                            outcome.findings = found
                            break
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            outcome.resumed = sum(one.resumed for one in people) + alice.statistics["resumptions"]
            bob, carol, eve, dave, mona, _ = people
            if not fault:
                assert bob.refused[Banned.__name__]
                assert carol.refused[MembersOnly.__name__]
                assert eve.refused[MembersOnly.__name__]
                assert eve.seen == []
                assert dave.refused[Muted.__name__]
                assert mona.refused[NotAllowed.__name__]
    logs = {room: stored(data, room) for room in (ROOM, SQUARE)}
    holes = None in rights.with_holes(logs[ROOM])
    assert not holes, "nothing was removed but what was in a deleted room"
    for log in logs.values():
        outcome.kinds.update(Kind(entry.kind) for entry in log)
    outcome.links = len(devices.lists)
    outcome.findings += _findings(data, people, devices, traveller)
    return outcome


def _findings(
    data: Path, people: list[Person], devices: _Devices, traveller: Traveller
) -> list[rights.Finding]:
    """Compare what everybody has received with what is stored before that, if the relay runs."""
    found = devices.check(people, data)
    for room in (ROOM, SQUARE):
        got = {person.name: person.got for person in people if person.room == room}
        found += rights.check(rights.with_holes(stored(data, room)), got)
    found += [rights.Finding("ticket", TRAVELLER, 0)] * traveller.twice
    return found + [rights.Finding("chain", TRAVELLER, count) for count in traveller.went_back]
