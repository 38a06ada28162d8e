"""A moderated room under torture: permissions, tickets and device chains, while workers are killed.

The owner of a private room bans, removes and mutes users and lets them in again, and makes one of
them a moderator and a member again. All of them write, edit, react, erase, change the topic, follow
and read pages all the time, whether or not they may. Another room is deleted and created again, and
all that is written there names the room that its sender had joined; one of those who write there is
cut off meanwhile.
The owner's devices are added and removed, and every user reads her list of devices. After each
kill, credentials that were valid before it are tried: used tickets, a removed key. Violations are
found by comparing what users received with the logs at the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from relay.chat.accounts import events as account_events
from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.errors import DeviceChainError
from relay.client.refusals import (
    Banned,
    Changed,
    KeyRefused,
    MembersOnly,
    Muted,
    NotAllowed,
)
from relay.store.file.directory import DataDirectory
from relay.store.reading.reader import SqliteReader
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import unpack_entry
from tests.support.cluster import COMMAND_S, Relay, until
from tests.torture import rights
from tests.torture.moderated_people import MODERATOR, ROOM, SQUARE, Person, Visitor
from tests.torture.proxy import Gate
from tests.torture.traveller import NAME as TRAVELLER
from tests.torture.traveller import Traveller

ROUNDS = 10
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
        async with (
            Client(relay.address, name=MODERATOR, retry_timeout_s=COMMAND_S) as alice,
            Gate() as gate,
        ):
            await alice.create_room(ROOM, "private")
            await alice.create_room(SQUARE)
            own = await alice.devices(MODERATOR)
            devices = _Devices(own.devices[0].key)
            people = [
                Person(name, relay.address, lambda: len(devices.lists))
                for name in ("bob", "carol", "eve", "dave", "mona")
            ]
            gate.target = relay.port
            address = relay.address.replace(f":{relay.port}", f":{gate.port}")
            vera = Visitor("vera", relay.address, lambda: len(devices.lists))
            viola = Visitor("viola", address, lambda: len(devices.lists))
            people += [vera, viola]
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
                    await until(lambda: viola.is_in, "somebody who is cut off")
                    gate.shut()
                    await alice.change_room(SQUARE, "delete")
                    await alice.send(ROOM, f"between us {turn}")
                    if not fault:
                        await until(vera.is_refused, "somebody to miss the other room")
                    await alice.create_room(SQUARE)
                    gate.open.set()
                    for name in ("vera", "viola"):
                        await alice.change_room(SQUARE, "role", name, role="moderator")
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
            bob, carol, eve, dave, mona, *_ = people
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
