"""How often a home unpacks the state of a large room; what it remembers is what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from relay.chat.rooms import events, requests
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Event, Kind, Role
from relay.chat.rooms.state import Person, Room
from relay.server.worker.home.rooms.unpacked import BYTES_MAX, BYTES_MIN, UnpackedRooms
from relay.wire.codes import ErrorCode
from tests.server.worker.test_damaged_logs import connection_of
from tests.server.worker.test_rooms import LOG, done, refused
from tests.support.workers import Cluster, TestClient, Worker

ALICE = b"\xaa" * 32
PEOPLE = 1480


def room_of(people: int) -> Room:
    """A private room of alice with so many people, a third of them banned."""
    begun = rooms.applied(Room(), events.Created(Kind.PRIVATE, True, ALICE), "alice", 1)
    others = {
        f"user-{number:05}": Person(
            number.to_bytes(32, "big"),
            Role.MEMBER if number % 3 else Role.NONE,
            banned=not number % 3,
        )
        for number in range(people)
    }
    return begun._replace(people={**begun.people, **others})


@pytest.fixture
def unpackings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The size of each large state that is unpacked, by whomever."""
    sizes: list[int] = []
    unpack = rooms.unpack

    def counted(data: bytes) -> Room:
        if len(data) >= BYTES_MIN:
            sizes.append(len(data))
        return unpack(data)

    monkeypatch.setattr(rooms, "unpack", counted)
    return iter([sizes])


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


async def grown(cluster: Cluster) -> TestClient:
    """A large room of alice, which its home has never unpacked."""
    alice = await TestClient.login(cluster.other(LOG), "alice")
    await done(alice, requests.Create(Kind.PRIVATE))
    home = cluster.home(LOG)
    begun = rooms.unpack(home.parts.home.partitions.state(LOG))
    people = {**room_of(PEOPLE).people, **begun.people}
    packed = rooms.pack(begun._replace(people=people))
    put(home, packed)
    await cluster.kill(home.index)
    await cluster.start(home.index)
    return alice


def put(home: Worker, packed: bytes) -> None:
    """Store another state of the room."""
    connection_of(home, LOG).execute(
        "UPDATE state SET packed=? WHERE log_id=(SELECT id FROM log WHERE name=?)", (packed, LOG)
    )


async def test_decisions_about_a_large_room_unpack_it_once(
    cluster: Cluster, unpackings: Iterator[list[int]]
) -> None:
    """Whatever they decide, also after changes."""
    alice = await grown(cluster)
    bob = await TestClient.login(cluster.home(LOG), "bob")
    sizes = next(unpackings)
    sizes.clear()
    for number in range(5):
        await done(alice, requests.SetTopic(f"topic {number}"))
        await done(alice, requests.Show("user-01400"))
        assert await refused(bob, requests.Show("")) == ErrorCode.MEMBERS_ONLY
        await done(alice, requests.SetTitle(f"Title {number}"))
        await done(alice, requests.Invite("bob"))
        await done(alice, requests.Kick("bob"))
        alice.send(LOG, number + 1)
        await alice.acked(LOG, number + 1)
    assert len(sizes) == 1
    home = cluster.home(LOG).parts.home
    ((packed, room),) = home.rules.unpacked._found.values()
    assert packed == home.partitions.state(LOG)
    assert room == rooms.unpack(packed)


async def test_another_state_of_the_same_version_is_not_confused(cluster: Cluster) -> None:
    """A home that has the room in memory, loses it to another one that changes it, and gets it
    back, decides on what is stored then: also if that is an older state, from a backup.
    """
    alice = await grown(cluster)
    bob = await TestClient.login(cluster.other(LOG), "bob")
    home = cluster.home(LOG)
    unpacked = home.parts.home.rules.unpacked
    await done(alice, requests.Show(""))
    before = home.parts.home.partitions.state(LOG)
    await done(alice, requests.Invite("bob"))
    await done(bob, requests.Show("user-01400"))
    put(home, before)
    opened = home.parts.home.partitions
    # as after it was closed and opened again
    for partition in opened.opened.values():
        partition._opened.committed.logs.clear()  # type: ignore[attr-defined]
    assert unpacked._found, "it is still in the cache"
    assert await refused(bob, requests.Show("")) == ErrorCode.MEMBERS_ONLY


EVENTS: list[Event] = [
    events.TopicSet("tea"),
    events.TitleSet("Tea"),
    events.KindSet(Kind.PRIVATE, False),
    events.RoleSet("user-00001", (1).to_bytes(32, "big"), Role.OWNER),
    events.RoleSet("new", b"\xbb" * 32, Role.MODERATOR),
    events.Invited("new", b"\xbb" * 32),
    events.Kicked("user-00001", "why"),
    events.Banned("user-00001", (1).to_bytes(32, "big"), 2**40, "why"),
    events.Muted("user-00001", (1).to_bytes(32, "big"), 2**40, "why"),
    events.Freed("user-00001"),
    events.Entered(ALICE),
    events.Left(),
    events.KeepSet(1, 2, 3),
    events.Closed(True),
    events.Deleted("why"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_remembered_of_a_change_is_what_is_stored(event: Event) -> None:
    """The state after a change is remembered before it was ever unpacked."""
    after = rooms.applied(room_of(100), event, "alice", 2)
    assert rooms.unpack(rooms.pack(after)) == after


def test_every_event_is_examined() -> None:
    """Except the first one, whose state is small."""
    kinds = {type(event) for event in EVENTS}
    assert kinds | {events.Created} == set(Event.__args__)


def test_it_is_bounded() -> None:
    """In bytes, and so in rooms; what was used last stays."""
    cache = UnpackedRooms()
    packed = rooms.pack(room_of(1400))
    for number in range(60):
        cache.of("used", packed)
        cache.of(f"room-{number}", packed)
    assert cache._bytes == sum(len(one) for one, _ in cache._found.values()) <= BYTES_MAX
    assert BYTES_MAX - len(packed) < cache._bytes
    assert "used" in cache._found
    small = rooms.pack(room_of(2))
    for number in range(2000):
        cache.of(f"small-{number}", small)
    assert not any(name.startswith("small") for name in cache._found)
    cache.of("used", small)
    assert "used" not in cache._found, "its earlier state is not kept"
