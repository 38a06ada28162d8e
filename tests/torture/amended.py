"""Users who edit, erase and react, in a room with little retention and in conversations.

Workers are killed meanwhile, so homes move, also between the two inboxes of a conversation. Late
readers read the room from its beginning repeatedly.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from relay.chat.partition import partition_of
from relay.client.aio import Client
from relay.client.events import (
    Edit,
    Gap,
    Live,
    LogEntry,
    Message,
    Reaction,
    Redaction,
    RoomChanged,
    Stored,
)
from relay.client.refusals import NoSuchEntry, NotAllowed, Refused
from relay.store.file.directory import DataDirectory
from relay.store.reading.reader import SqliteReader
from tests.support.cluster import Relay, until
from tests.torture import amendments
from tests.torture import stored as files
from tests.torture.amendments import Finding, Got, Said, Told
from tests.torture.moderated import stored

ROOM = "lobby"
PEOPLE = ("ann", "bob", "carol")
KEPT = 20
"""Messages that the room keeps."""
RECENT = 30
QUICK = "quick-retention"
ROUNDS = 12


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    findings: list[Finding] = field(default_factory=list)
    kills: int = 0
    floor: int = 0
    """How many entries of the room were removed."""
    gaps: int = 0
    """Gaps that readers got."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    """By kind, of the room and of conversations."""


class Person:
    """Sends messages, edits, reactions and redactions, in the room and to another user."""

    def __init__(self, name: str, peer: str, relay: Relay, erased: set[bytes]) -> None:
        self.name = name
        self._peer = peer
        self._relay = relay
        self._erased = erased
        """Bodies whose redaction was acknowledged, of any user."""
        self._numbers = itertools.count(1)
        self._chance = random.Random(name)
        self._recent: dict[bool, deque[LogEntry]] = {
            direct: deque(maxlen=RECENT) for direct in (False, True)
        }
        self._gone: deque[LogEntry] = deque(maxlen=RECENT)
        self.said: list[Said] = []
        """In the room."""
        self.direct: list[Said] = []
        self.there = False

    async def run(self) -> None:
        """Run until cancelled."""
        async with Client(self._relay.address, name=self.name) as client:
            await client.join("@me")
            await client.join(ROOM)
            self.there = True
            listening = asyncio.ensure_future(self._listen(client))
            try:
                while True:
                    with contextlib.suppress(NoSuchEntry, NotAllowed):
                        await self._say(client, direct=self._chance.random() < 0.4)
                    await asyncio.sleep(0.002)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, client: Client) -> None:
        async for event in client.events():
            if isinstance(event, Message | Edit | Reaction):
                direct = bool(event.to)
                if not direct or event.peer == self._peer:
                    self._recent[direct].append(event)

    async def _say(self, client: Client, *, direct: bool) -> None:
        recent = self._recent[direct]
        mine = [one for one in recent if one.sender == self.name]
        messages = [one for one in recent if isinstance(one, Message)]
        text = f"{self.name} {next(self._numbers)}."
        # Requests that must be refused are tried as often: only what the room still keeps is
        # checked.
        what = self._chance.choices(
            ("send", "edit", "react", "redact", "edit-other", "about-gone"), (8, 3, 3, 3, 3, 3)
        )[0]
        own = [one for one in mine if isinstance(one, Message)]
        foreign = [one for one in messages if one.sender != self.name]
        if what == "edit" and own:
            await self._amend(client, Edit, self._chance.choice(own), text)
        elif what == "edit-other" and foreign:
            await self._amend(client, Edit, self._chance.choice(foreign), text)
        elif what == "react" and messages:
            await self._amend(client, Reaction, self._chance.choice(messages), text)
        elif what == "redact" and mine:
            target = self._chance.choice(mine)
            recent.remove(target)
            await self._amend(client, Redaction, target, text)
            self._gone.append(target)
        elif what == "about-gone" and self._gone:
            await self._amend(client, Reaction, self._chance.choice(self._gone), text)
        else:
            stored = await client.send(f"@{self._peer}" if direct else ROOM, text)
            self._note(0, stored, 0, text, direct=direct)

    async def _amend(
        self, client: Client, kind: type[LogEntry], target: LogEntry, text: str
    ) -> None:
        direct = bool(target.to)
        if kind is Edit:
            stored = await client.edit(target, text)
            self._note(1, stored, target.seq, text, direct=direct)
        elif kind is Reaction:
            stored = await client.react(target, text)
            # An edit stands for its message: if the edit was erased, the message is still there.
            edited = target.about if isinstance(target, Edit) else None
            about = target.seq if edited is None else edited.seq
            self._note(4, stored, about, text, direct=direct)
        else:
            stored = await client.redact(target, text)
            self._note(2, stored, target.seq, text, direct=direct)
            if not direct:
                self._erased.add(target.body)

    def _note(self, kind: int, stored: Stored, about: int, text: str, *, direct: bool) -> None:
        if stored.seq:
            one = Said(self.name, kind, stored.seq, about, text.encode())
            (self.direct if direct else self.said).append(one)


class Late:
    """Reads the room from its beginning, repeatedly."""

    def __init__(self, relay: Relay, erased: set[bytes]) -> None:
        self._relay = relay
        self._erased = erased
        self.rounds = 0
        self.histories: list[list[Got | Told]] = []
        self.findings: list[Finding] = []

    async def run(self) -> None:
        """Run until cancelled."""
        async with Client(self._relay.address, name="late") as client:
            while True:
                erased = set(self._erased)
                history: list[Got | Told] = []
                with contextlib.suppress(Refused):
                    await client.join(ROOM, since=0)
                    await self._read(client, history)
                    await client.leave(ROOM)
                self.histories.append(history)
                got = [one for one in history if isinstance(one, Got)]
                self.findings += amendments.check_served("late", got, erased)
                with contextlib.suppress(Refused):
                    await self._pages(client, set(self._erased))
                self.rounds += 1

    async def _read(self, client: Client, history: list[Got | Told]) -> None:
        async for event in client.events():
            if isinstance(event, LogEntry):
                body = event.body if isinstance(event, Message | Edit) else b""
                history.append(Got(event.seq, event.prev, body))
            elif isinstance(event, RoomChanged):
                history.append(Got(event.seq, event.prev, b""))
            elif isinstance(event, Gap):
                history.append(Told(event.start.seq, event.end.seq, int(event.reason)))
            elif isinstance(event, Live):
                return

    async def _pages(self, client: Client, erased: set[bytes]) -> None:
        """A worker's cached page must not be served any more, either."""
        await client.join(ROOM)
        try:
            page = await client.history(ROOM, count=KEPT)
        finally:
            await client.leave(ROOM)
        got = [
            Got(one.seq, one.prev, one.body)
            for one in page.entries
            if isinstance(one, Message | Edit)
        ]
        self.findings += amendments.check_served("late", got, erased)


async def run(
    directory: Path, fault: str = "", *, rounds: int = ROUNDS, kept: int = KEPT
) -> Outcome:
    """Let users chat while workers are killed, and check the result.

    Args:
        directory: an empty one.
        fault: planted in the relay.
        rounds: a worker is killed in every third one.
        kept: messages that the room keeps.
    """
    data, outcome, erased = directory / "data", Outcome(), set[bytes]()
    with Relay(data, workers=3, fault=",".join(filter(None, (QUICK, fault)))) as relay:
        people = [
            Person(name, peer, relay, erased)
            for name, peer in zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True)
        ]
        # Two write to each other; the third writes to the first.
        people[1] = Person("bob", "ann", relay, erased)
        async with Client(relay.address, name="opal") as owner:
            await owner.create_room(ROOM)
            for name in PEOPLE:
                async with Client(relay.address, name=name):
                    pass  # messages to a name that does not exist are refused
            await owner.change_room(ROOM, "keep", keep=(0, kept, 0))
            late = Late(relay, erased)
            tasks = [asyncio.ensure_future(person.run()) for person in people]
            tasks.append(asyncio.ensure_future(late.run()))
            await until(lambda: all(person.there for person in people), "everybody")
            try:
                for turn in range(rounds):
                    heard = [len(person.said) + len(person.direct) for person in people]
                    seen = late.rounds
                    if turn % 3 == 1:
                        await asyncio.to_thread(relay.kill_worker, turn % 3)
                        outcome.kills += 1
                    await until(
                        lambda heard=heard, seen=seen: (  # type: ignore[misc]
                            (
                                late.rounds > seen
                                and all(
                                    len(one.said) + len(one.direct) > old + 15
                                    for one, old in zip(people, heard, strict=True)
                                )
                            )
                            or any(task.done() for task in tasks)
                        ),
                        "more to be said and read",
                    )
                    for task in tasks:
                        if task.done():
                            await task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not files.pending(data), "all copies")
    said = [one for person in people for one in person.said]
    outcome.floor = _floor(data)
    outcome.gaps = sum(isinstance(one, Told) for history in late.histories for one in history)
    for one in (*said, *(one for person in people for one in person.direct)):
        kind = str(one.kind)
        outcome.acknowledged[kind] = outcome.acknowledged.get(kind, 0) + 1
    outcome.findings = [
        *late.findings,
        *amendments.check_log(stored(data), outcome.floor, said),
        *itertools.chain(
            *(amendments.check_reader("late", one, outcome.floor, kept) for one in late.histories)
        ),
    ]
    inboxes = {name: stored(data, f"@{name}") for name in PEOPLE}
    for person in people:
        talk = [e for e in inboxes[person.name] if e.sender == person.name and e.to]
        outcome.findings += amendments.check_log(talk, 0, person.direct)
    for a, b in itertools.combinations(PEOPLE, 2):
        outcome.findings += amendments.check_conversation(a, inboxes[a], b, inboxes[b])
    return outcome


def _floor(data: Path) -> int:
    path = DataDirectory(data).partition_path(partition_of(ROOM))
    with contextlib.closing(SqliteReader(path)) as reader:
        return reader.floor(ROOM)
