"""The users of the moderated rooms of a torture run: they do all that there is to do in a room, and
note what they are shown.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from relay.chat.rooms.requests import ANYTHING_SEEN
from relay.client.account_calls import Devices
from relay.client.aio import Client
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
from relay.client.refusals import NoSuchRoom, Refused
from tests.torture import rights

ROOM: Final = "lobby"
SQUARE: Final = "square"
"""The room that is deleted and created again; its home is another one."""
MODERATOR: Final = "alice"
DEEDS = ("send", "edit", "react", "erase", "page", "topic"), (6, 2, 2, 1, 1, 1)
"""What a user does, and how often: a change of the topic has a commit of its own."""
BURST: Final = 8
"""Messages of a visitor at once."""


class Person:
    """A user who follows a room whenever allowed, does all that there is to do in it, and reads the
    chain.
    """

    def __init__(self, name: str, address: str, acknowledged: Callable[[], int]) -> None:
        """Begin; ``acknowledged``: how many links of the moderator's chain are acknowledged
        by now.
        """
        self.name = name
        self.room = ROOM
        self._address = address
        self._acknowledged = acknowledged
        self._chance = random.Random(name)
        self._others: deque[Message] = deque(maxlen=8)
        """Seen last, of others."""
        self._own: deque[Message] = deque(maxlen=8)
        self._meant = ""
        """Which of the rooms of the name has been joined: a part of all that is written there."""
        self.seen: list[int] = []
        self._live: list[int] = []
        self._answers: list[list[int]] = []
        self._stays: list[tuple[int, list[int]]] = []
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
        async with Client(self._address, name=self.name) as client:
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
    def is_in(self) -> bool:
        """True once a join was answered, until the program has lost the room."""
        return bool(self._meant)

    @property
    def got(self) -> rights.Seen:
        """What this user got of the room."""
        return rights.Seen(self.seen, self._live, self._answers, self._stays)

    async def _follow(self, client: Client) -> None:
        self._meant = ""  # until the answer has come it may be either room
        try:
            joined = await client.join(self.room, last=5)
        except Refused as error:
            self.refused[type(error).__name__] += 1
            return
        self._meant = rights.meaning(joined.head.seq)
        live, together, stay = False, list[int](), list[int]()
        self._answers.append(together)
        self._stays.append((joined.head.seq, stay))
        async for event in client:
            if isinstance(event, LogEntry | RoomChanged):
                self.seen.append(event.seq)
                together.append(event.seq)
                stay.append(event.seq)
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
        text = f"{self.name} {random.random()} {self._meant}"
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
                self.chains.append((least, found.links, active(found)))
            await asyncio.sleep(0.05)


class Visitor(Person):
    """One who is in the room that is deleted and created again and again, and writes faster than
    answers come.
    """

    def __init__(self, name: str, address: str, acknowledged: Callable[[], int]) -> None:
        super().__init__(name, address, acknowledged)
        self.room = SQUARE

    async def _do_something(self, client: Client) -> None:
        if self._meant:
            text = f"{self.name} {self._meant}"
            posts = [await client.post(self.room, text) for _ in range(BURST)]
            await asyncio.wait(posts)
            for post in posts:
                if isinstance(error := post.exception(), Refused):
                    self.refused[type(error).__name__] += 1
        await super()._do_something(client)


def active(found: Devices) -> frozenset[str]:
    return frozenset(one.key for one in found.devices if not one.removed)
