"""An invited user is told at once, wherever they are connected; over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.bus.messages import Tell
from relay.chat.accounts import requests as of_accounts
from relay.chat.rooms import requests
from relay.chat.rooms.events import Kind, Role
from relay.wire.envelopes import Account, Done, Invited, Room, Welcome
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient

ROOM = "den"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


def ask(client: TestClient, number: int, request: requests.Request) -> None:
    content = requests.pack(request, requests.ANYTHING_SEEN)
    client.send_envelopes(Room(number, ROOM, content))


async def done(client: TestClient, number: int, request: requests.Request) -> None:
    ask(client, number, request)
    await client.expect(Done, lambda e: e.request == number)


def told(client: TestClient) -> list[Invited]:
    return [e for e in client.received if isinstance(e, Invited)]


async def owner(cluster: Cluster) -> TestClient:
    """Alice, with a private room of hers."""
    alice = await TestClient.login(cluster.home(ROOM), "alice")
    await done(alice, 1, requests.Create(Kind.PRIVATE))
    return alice


async def test_every_session_of_who_is_invited_is_told(cluster: Cluster) -> None:
    """On each worker, and nobody else; once, before the inviting user gets the answer."""
    alice = await owner(cluster)
    bobs = [await TestClient.login(worker, "bob") for worker in cluster.workers.values()]
    carol = await TestClient.login(cluster.other(ROOM), "carol")
    await done(alice, 2, requests.Invite("bob"))
    for bob in bobs:
        assert await bob.expect(Invited) == Invited(ROOM, "alice")
    await done(alice, 3, requests.SetTopic("tea"))  # outsiders do not get this one
    await done(alice, 4, requests.Invite("carol"))
    await carol.expect(Invited)
    assert [len(told(client)) for client in (*bobs, carol, alice)] == [1, 1, 1, 0]


async def test_nobody_is_told_by_whom_they_have_blocked(cluster: Cluster) -> None:
    """The answer is the same: it does not reveal who is blocked."""
    alice, carol = await owner(cluster), await TestClient.login(cluster.other(ROOM), "carol")
    await done(alice, 2, requests.Invite("carol"))
    bob = await TestClient.login(cluster.home(ROOM), "bob")
    root = (await alice.expect(Welcome)).root
    bob.send_envelopes(Account(5, "", of_accounts.pack(of_accounts.Block("alice", root))))
    await bob.expect(Done, lambda e: e.request == 5)
    await done(alice, 3, requests.Invite("bob"))
    await done(alice, 4, requests.SetRole("carol", Role.MODERATOR))
    await done(carol, 5, requests.Kick("bob"))
    await done(carol, 6, requests.Invite("bob"))
    await bob.expect(Invited)
    assert told(bob) == [Invited(ROOM, "carol")]


async def test_the_home_of_the_name_dies_before_it_tells(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next home sends the invitation; the answer comes then."""
    for name in ("bob", "barb", "bill", "ben", "bess", "bart"):
        if cluster.home(f"@{name}") is not cluster.home(ROOM):
            break
    alice = await owner(cluster)
    bob = await TestClient.login(cluster.home(ROOM), name)
    victim = cluster.home(f"@{name}")
    asked = asyncio.Event()
    monkeypatch.setattr(victim.parts.home.accounts, "ask", lambda *_: asked.set())
    ask(alice, 2, requests.Invite(name))
    await asyncio.wait_for(asked.wait(), 30)
    assert not told(bob)
    await cluster.kill(victim.index)
    await cluster.start(victim.index)
    await alice.expect(Done, lambda e: e.request == 2)
    assert await bob.expect(Invited) == Invited(ROOM, "alice")


async def test_asked_again_it_is_told_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home of the room may have died after the commit and before the invitation was sent."""
    alice = await owner(cluster)
    bob = await TestClient.login(cluster.other(ROOM), "bob")
    with monkeypatch.context() as patch:
        for worker in cluster.workers.values():
            patch.setattr(worker.parts.home.accounts, "tell", lambda *_: None)
        await done(alice, 2, requests.Invite("bob"))
    await done(alice, 3, requests.Invite("bob"))
    await bob.expect(Invited)
    assert len(told(bob)) == 1


async def test_who_reads_nothing_is_not_kept_invitations(cluster: Cluster) -> None:
    """Unsolicited messages take a bounded amount of memory."""
    bob = await TestClient.login(cluster.home(ROOM), "bob")
    session = cluster.session("bob")
    bob.transport.pause_reading()
    (claim,) = [
        c for c in cluster.home(ROOM).parts.member.claims._claims.values() if c.name == "bob"
    ]
    for _ in range(200):
        await asyncio.sleep(0)  # a turn
        for _ in range(100):
            cluster.home(ROOM).parts.member.claims.on_tell(None, Tell(claim.tag, bytes(1024)))  # type: ignore[arg-type]
    assert session.outbox.answers < 1_000_000
    bob.disconnect()
    await until(lambda: not cluster.home(ROOM).parts.connections.sessions, "the end")
