"""What a request is charged grows with what it reads, whichever request it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from relay.chat.entries import Kind, Submission
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind as RoomKind
from relay.chat.rooms.events import Role, RoleSet
from relay.limit_settings import Limits
from relay.server.worker.connection.requests.charges import FOUND_PER_UNIT
from relay.server.worker.connection.requests.search import READ_PER_TURN
from relay.server.worker.home.rooms.entries import entry_of
from relay.wire.envelopes import (
    Ack,
    Chain,
    ClientEnvelope,
    Devices,
    Done,
    Error,
    Found,
    History,
    Join,
    Page,
    Room,
    Search,
    Send,
)
from tests.server.worker.test_rooms import done
from tests.support.cluster import until
from tests.support.logs import NOW_MS, stored
from tests.support.logs import messages as messages_of
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient

ROOM = "lobby"
PER_S = 10_000
MANY = 300
ANSWERS = Page | Found | Chain | Done | Error | Ack


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    given = msgspec.convert({"loopback_exempt": False, "work_per_s_per_user": PER_S}, Limits)
    needs: dict[str, object] = {"clock": StandingClock()}  # no charge is paid back
    async with Cluster(tmp_path, 1, limits=given, needs=needs, rights=True) as running:
        yield running


async def charged(cluster: Cluster, client: TestClient, envelope: ClientEnvelope) -> float:
    """Make a request; return what it took from the account's budget, in units."""
    spending = cluster.session(client.name).sends._spending
    assert spending is not None
    bucket = spending._work(0.0)[-1].bucket
    before = bucket._level
    client.received.clear()
    client.send_envelopes(envelope)
    await client.until(
        lambda: any(isinstance(one, ANSWERS) for one in client.received), "the answer"
    )
    return before - bucket._level


def append(cluster: Cluster, batch: list[Submission]) -> int:
    """Store something as the home of its log; return its last seq."""
    log = batch[0].log
    partition = cluster.home(log).parts.home.partitions.partition(partition_of(log))
    return [stored(outcome).seq for outcome in partition.append(batch, NOW_MS)][-1]


def chain(handle: str, count: int) -> list[Submission]:
    """Make control entries of an account, of which each request for its devices reads all."""
    return [
        one._replace(kind=int(Kind.SYSTEM), content_type="application/x-unknown", body=bytes(200))
        for one in messages_of(1, count, log=INBOX_PREFIX + handle)
    ]


async def test_history(cluster: Cluster) -> None:
    """By rows, each of which is checked: it does not matter what this worker has checked before."""
    ann = await TestClient.login(cluster.workers[0], "ann")
    for counter in range(1, MANY + 1):
        ann.send(ROOM, counter)
    await ann.acked(ROOM, MANY)
    bob = await TestClient.login(cluster.workers[0], "bob")
    await bob.join(ROOM)
    known = cluster.workers[0].parts.member.catchup.checked
    entries = known.entries
    few = await charged(cluster, bob, History(1, ROOM, False, 0, 2))
    many = await charged(cluster, bob, History(2, ROOM, False, 0, MANY))
    again = await charged(cluster, bob, History(3, ROOM, False, 0, MANY))
    some = await charged(cluster, bob, History(4, ROOM, False, 100, 50))
    assert few < some < many == again
    assert known.entries == entries, "an old page does not take the place of what all readers need"


async def test_a_search(cluster: Cluster) -> None:
    """By the messages that it has found, whether or not they are a whole number of steps."""
    ann = await TestClient.login(cluster.workers[0], "ann")
    counts = [1, READ_PER_TURN - 1, READ_PER_TURN, READ_PER_TURN + 9, 3 * READ_PER_TURN - 1]
    ann.send_envelopes(*(Send(ROOM, n, 0, "text/plain", b"tea") for n in range(1, counts[-1] + 1)))
    await ann.acked(ROOM, counts[-1])
    bob = await TestClient.login(cluster.workers[0], "bob")
    await bob.join(ROOM)
    indexing = cluster.workers[0]._stores.indexing
    await until(lambda: indexing.entries >= counts[-1] and not indexing.behind, "the index")
    nothing = await charged(cluster, bob, Search(2, ROOM, "milk", 0, 100))
    for number, count in enumerate(counts, 3):
        some = await charged(cluster, bob, Search(number, ROOM, "tea", 0, count))
        assert some - nothing == count // FOUND_PER_UNIT


@pytest.mark.parametrize("kind", ["devices", "room"])
async def test_whoever_names_an_account_pays_for_its_chain(cluster: Cluster, kind: str) -> None:
    ann = await TestClient.login(cluster.workers[0], "ann")
    append(cluster, chain("few", 2))
    append(cluster, chain("many", MANY))

    def asking(name: str) -> ClientEnvelope:
        if kind == "devices":
            return Devices(7, name, 0)
        return Room(7, ROOM, requests.pack(requests.SetRole(name, Role.MEMBER), 0))

    few = await charged(cluster, ann, asking("few"))
    many = await charged(cluster, ann, asking("many"))
    assert many > few + MANY * 200 // 4096


async def test_the_state_of_a_room(cluster: Cluster) -> None:
    """By the size of the answer: the home has unpacked and packed as much."""
    ann = await TestClient.login(cluster.workers[0], "ann")
    ann.send(ROOM, 1)
    await ann.acked(ROOM, 1)
    show = Room(7, ROOM, requests.pack(requests.Show(), 0))
    few = await charged(cluster, ann, show)
    version = 1
    for n in range(MANY):
        event = RoleSet(f"user{n}", bytes(32), Role.MEMBER)
        version = append(cluster, [entry_of(ROOM, version, event, "ann", b"")])
    many = await charged(cluster, ann, show)
    assert many > few


def give_roles(cluster: Cluster) -> None:
    """Let many people have a role in the room, of which nobody is told."""
    partitions = cluster.home(ROOM).parts.home.partitions
    version = states.unpack(partitions.state(ROOM)).version
    for n in range(MANY):
        event = RoleSet(f"user{n}", bytes(32), Role.MEMBER)
        version = append(cluster, [entry_of(ROOM, version, event, "ann", b"")])


async def test_a_join_that_may_have_been_allowed_just_now(cluster: Cluster) -> None:
    """A stranger pays for the state that is read; nothing, if nothing has changed."""
    ann = await TestClient.login(cluster.workers[0], "ann")
    eve = await TestClient.login(cluster.workers[0], "eve")
    await done(ann, requests.Create(RoomKind.PRIVATE), log=ROOM)
    await ann.join(ROOM)
    plain = await charged(cluster, eve, Join(7, ROOM, None, 0, 0))
    give_roles(cluster)
    assert await charged(cluster, eve, Join(7, ROOM, None, 0, 0)) > plain + MANY * 40 // 4096


async def test_a_mark_that_goes_back(cluster: Cluster) -> None:
    """By the state of its room, which decides whether there is an end of it to compare with."""
    ann = await TestClient.login(cluster.workers[0], "ann")
    eve = await TestClient.login(cluster.workers[0], "eve")
    ann.send(ROOM, 1)
    await ann.acked(ROOM, 1)

    def mark(counter: int, seq: int) -> Send:
        return Send("@eve", counter, int(Kind.MARK), "", ROOM.encode(), bytes(8), seq)

    await charged(cluster, eve, mark(1, 2**50))
    few = await charged(cluster, eve, mark(2, 1))
    give_roles(cluster)
    await charged(cluster, eve, mark(3, 2**51))
    assert await charged(cluster, eve, mark(4, 1)) > few + MANY * 40 // 4096
