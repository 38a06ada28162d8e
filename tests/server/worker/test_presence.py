"""Presence while users come and go, connections break and the room's home dies repeatedly.

Clients that stay must not list users who are gone (invariant "Presence is derived"), and get no
notice about a user who neither came nor left: a home's death causes no storm of notices. Both are
checked by the view of clients that follow the protocol; and relays that break either rule are
detected.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from relay.chat.partition import partition_of
from relay.server.worker.home.followers.rosters import Rosters
from relay.wire.envelopes import Leave, Members, Roster, Who
from tests.support.cluster import DEADLINE_S
from tests.support.workers import Cluster, TestClient

WORKERS: Final = 3
HOME: Final = 1
"""The slot whose workers are killed; no watcher is connected there."""
ROOM: Final = next(name for n in range(99) if partition_of(name := f"room{n}") % WORKERS == HOME)
SETTLED_S: Final = DEADLINE_S


class Watcher:
    """A client that stays, and its view of who is in the room."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.believed: set[str] = set()
        self.named: list[str] = []
        """Names that it got a notice for, as having come or left."""
        self._place = (-1, 0)
        self._taken = 0
        self._asked = 0
        self._answered = 0

    def take(self) -> None:
        """Process what has arrived, and send WHO where the protocol requires it."""
        received = self.client.received
        for envelope in received[self._taken :]:
            if isinstance(envelope, Roster):
                self._roster(envelope)
            elif isinstance(envelope, Members):
                self._answered = envelope.request
                self.believed = {str(name) for name, *_ in envelope.names}
                self._place = envelope.incarnation, envelope.version
        self._taken = len(received)

    def _roster(self, told: Roster) -> None:
        joined = [name for name, _ in told.joined]
        self.named += [*joined, *told.left]
        incarnation, version = self._place
        if told.incarnation == incarnation and told.version <= version:
            return  # older than the answer
        self._place = told.incarnation, told.version
        if (told.incarnation, told.version) != (incarnation, version + 1) or not (
            joined or told.left
        ):
            self._ask()
            return
        self.believed = (self.believed | set(joined)) - set(told.left)

    def _ask(self) -> None:
        self._asked += 1
        self.client.send_envelopes(Who(self._asked, ROOM))

    @property
    def waits(self) -> bool:
        return self._answered != self._asked

    async def begin(self) -> None:
        """Follow the room, and ask who is in it."""
        await self.client.join(ROOM)
        self._ask()

    async def hears_of(self, name: str) -> None:
        """Wait for the notice that a user has come."""
        async with asyncio.timeout(SETTLED_S):
            self.take()
            while name not in self.named:
                self.client._changed.clear()
                await self.client._changed.wait()
                self.take()


class Town:
    """Watchers, and users who come and go."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.people: dict[str, tuple[TestClient, int]] = {}
        self.watchers: list[Watcher] = []
        self.moved: set[str] = set()
        """Users who have come, left, or lost a connection so far."""

    @property
    def here(self) -> set[str]:
        return {*self.people, *(watcher.client.name for watcher in self.watchers)}

    async def begin(self) -> None:
        for number, slot in enumerate((0, 2)):
            client = await TestClient.login(self.cluster.workers[slot], f"watcher{number}")
            self.watchers.append(Watcher(client))
        for number in range(9):
            await self.comes(f"person{number}", number % WORKERS)
        for watcher in self.watchers:
            await watcher.begin()
        await self.settled()
        # An answer to WHO overtakes what was published before it: once this notice is here, so is
        # that.
        await self.comes("person9", HOME)
        for watcher in self.watchers:
            await watcher.hears_of("person9")
        await self.settled()
        self.moved.clear()
        for watcher in self.watchers:
            watcher.named.clear()

    async def comes(self, name: str, slot: int) -> None:
        client = await TestClient.login(self.cluster.workers[slot], name)
        await client.join(ROOM)
        self.people[name] = client, slot
        self.moved.add(name)

    def goes(self, name: str) -> None:
        client, _ = self.people.pop(name)
        self.moved.add(name)
        if self.chance.random() < 0.5:
            client.send_envelopes(Leave(9, ROOM))
        else:
            client.disconnect()

    async def home_dies(self) -> None:
        """Its clients reconnect to other workers, most of them."""
        lost = [name for name, (_, slot) in self.people.items() if slot == HOME]
        await self.cluster.kill(HOME)
        for name in lost:
            del self.people[name]
            self.moved.add(name)
        await self.cluster.start(HOME)
        for name in lost:
            if self.chance.random() < 0.7:
                await self.comes(name, self.chance.randrange(WORKERS))

    async def settled(self) -> str:
        """Wait until all watchers have the true view; return the differences if that does not
        happen.
        """
        for watcher in self.watchers:
            try:
                async with asyncio.timeout(SETTLED_S):
                    while True:
                        watcher.take()
                        if not watcher.waits and watcher.believed == self.here:
                            break
                        watcher.client._changed.clear()
                        await watcher.client._changed.wait()
            except TimeoutError:
                ghosts = sorted(watcher.believed - self.here)
                return f"ghosts {ghosts}, unknown {sorted(self.here - watcher.believed)}"
        return ""

    def storm(self) -> set[str]:
        """Return the names in notices to watchers that have neither come nor left."""
        return {name for one in self.watchers for name in one.named} - self.moved


async def _run(directory: Path, seed: int, rounds: int = 4) -> tuple[str, set[str]]:
    chance = random.Random(seed)
    async with Cluster(directory, WORKERS) as cluster:
        town = Town(cluster, chance)
        await town.begin()
        for number in range(rounds):
            for _ in range(chance.randrange(4)):
                absent = [f"person{n}" for n in range(12) if f"person{n}" not in town.people]
                if town.people and chance.random() < 0.5:
                    town.goes(chance.choice(sorted(town.people)))
                elif absent:
                    await town.comes(chance.choice(absent), chance.randrange(WORKERS))
            if number % 2:
                await town.home_dies()
            wrong = await town.settled()
            if wrong or town.storm():
                return wrong, town.storm()
        return "", set()


@pytest.mark.parametrize("seed", range(2))
async def test_no_ghosts_and_no_storms(tmp_path: Path, seed: int) -> None:
    assert await _run(tmp_path, seed) == ("", set())


def _keeps_those_of_the_dead(patch: pytest.MonkeyPatch) -> None:
    """A lost connection is still listed: the notice of its worker is ignored."""
    usual = Rosters._went

    def went(self: Rosters, log: str, roster: object, name: str) -> None:
        usual(self, log, roster, name)  # type: ignore[arg-type]
        self._departures.clear()

    patch.setattr(Rosters, "_went", went)


def _tells_of_everybody_again(patch: pytest.MonkeyPatch) -> None:
    """A new home announces all that workers report, as if they had just come."""
    patch.setattr(Rosters, "_settle", lambda *_: None)


def _says_nothing_of_another_home(patch: pytest.MonkeyPatch) -> None:
    """A new home assumes that members know who is there."""
    usual = Rosters._settle

    def settle(self: Rosters, log: str, roster: object) -> None:
        usual(self, log, roster)  # type: ignore[arg-type]
        self._settling.clear()

    patch.setattr(Rosters, "_settle", settle)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (_keeps_those_of_the_dead, "ghosts"),
        (_says_nothing_of_another_home, "ghosts"),
        (_tells_of_everybody_again, "storm"),
    ],
)
async def test_broken_relays_are_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
    found: str,
) -> None:
    broken(monkeypatch)
    monkeypatch.setitem(globals(), "SETTLED_S", 3.0)
    for seed in range(3):
        directory = tmp_path / str(seed)
        directory.mkdir()
        wrong, storm = await _run(directory, seed)
        if storm if found == "storm" else wrong:
            return
    raise AssertionError(f"no {found} were found")
