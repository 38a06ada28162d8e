"""Connections of one client instance that send HELLO in another order than they were accepted: the
latest one stays, the others end with REPLACED, and none of them is refused (attack A19).
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from relay.chat.names import INBOX_PREFIX
from relay.wire.codes import CloseCode
from relay.wire.envelopes import Error, Welcome
from relay.wire.tickets import ClientTicket
from tests.support.cluster import until
from tests.support.devices import hello
from tests.support.workers import Cluster, TestClient, Worker

NAMES = ["~alice", "alice"]
Event: TypeAlias = Callable[[Cluster, str], Awaitable[None]]


async def answered(client: TestClient) -> None:
    await until(
        lambda: client.lost or any(isinstance(e, Welcome | Error) for e in client.received),
        "an answer to HELLO",
    )


async def the_latest_stays(clients: list[TestClient]) -> None:
    """Judge connections of one instance, in the order in which they were accepted."""
    *ghosts, latest = clients
    await latest.expect(Welcome)
    for ghost in ghosts:
        await ghost.ended()
        assert not [e for e in ghost.received if isinstance(e, Error)]
        assert ghost.closed is not None
        assert ghost.closed.code == CloseCode.REPLACED
    await latest.join("lobby")
    assert latest.closed is None


async def tickets(worker: Worker, name: str, count: int) -> list[ClientTicket]:
    """Return tickets for so many connections; each can be used once."""
    found = []
    for _ in range(count):
        client = await TestClient.login(worker, name)
        await client.until(lambda client=client: client.tickets, "a ticket")  # type: ignore[misc]
        client.disconnect()
        await client.gone(worker)
        found.append(client.tickets[0])
    return found


@pytest.mark.parametrize("resumed", [False, True], ids=["full", "ticket"])
@pytest.mark.parametrize("name", NAMES)
async def test_every_order_at_every_place(cluster: Cluster, name: str, resumed: bool) -> None:
    """Three connections: all orders of their HELLOs, on the name's home and on another worker, one
    after the other and all at the same moment.
    """
    places = (cluster.home(INBOX_PREFIX + name), cluster.other(INBOX_PREFIX + name))
    for number, order in enumerate(itertools.permutations(range(3))):
        for at_once in (False, True):
            secret = secrets.token_bytes(16)
            offered = await tickets(places[0], name, 3) if resumed else [None] * 3
            clients = [
                await TestClient.connect(places[(number >> turn) & 1], ticket=offered[turn])
                for turn in range(3)
            ]
            for turn in order:
                clients[turn].hello(name, secret=secret)
                if not at_once:
                    await answered(clients[turn])
            await the_latest_stays(clients)
            clients[-1].disconnect()
            home = places[0].parts.home.names
            await until(lambda home=home: not home.online(name), "the end")  # type: ignore[misc]


async def nothing(cluster: Cluster, name: str) -> None:
    """Nothing happens between the two HELLOs."""


async def home_dies(cluster: Cluster, name: str) -> None:
    """The name's home is killed and replaced: its successor knows no session."""
    home = cluster.home(INBOX_PREFIX + name)
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await cluster.linked()


async def home_is_away(cluster: Cluster, name: str) -> None:
    """The name's home is killed; its successor starts only after the second HELLO."""
    await cluster.kill(cluster.home(INBOX_PREFIX + name).index)


async def link_is_lost(cluster: Cluster, name: str) -> None:
    """The link between the two workers breaks and is made again: sessions are reported again."""
    worker = cluster.other(INBOX_PREFIX + name)
    for link in list(worker.parts.links.values()):
        link.abort()


@pytest.mark.parametrize("second_is_older", [False, True], ids=["newer", "older"])
@pytest.mark.parametrize("event", [nothing, home_dies, home_is_away, link_is_lost])
@pytest.mark.parametrize("name", NAMES)
async def test_something_happens_between_two_hellos(
    cluster: Cluster, name: str, event: Event, second_is_older: bool
) -> None:
    """To the workers; the connections are on one that survives."""
    worker = cluster.other(INBOX_PREFIX + name)
    index = cluster.home(INBOX_PREFIX + name).index
    clients = [await TestClient.connect(worker) for _ in range(2)]
    first, second = reversed(clients) if second_is_older else clients
    secret = secrets.token_bytes(16)
    first.hello(name, secret=secret)
    await first.expect(Welcome)
    await event(cluster, name)
    second.send_envelopes(hello(second.connection, second.spki, name, secret))
    if index not in cluster.workers:
        await until(lambda: len(worker.parts.member.claims._claims) == 2, "the claim to arrive")
        await cluster.start(index)
        await cluster.linked()
    await the_latest_stays(clients)


@pytest.mark.parametrize("name", NAMES)
async def test_a_ghost_of_a_worker_that_dies(cluster: Cluster, name: str) -> None:
    """The later connection dies with its worker: the earlier one is then no ghost."""
    home, other = cluster.home(INBOX_PREFIX + name), cluster.other(INBOX_PREFIX + name)
    secret = secrets.token_bytes(16)
    older = await TestClient.connect(home)
    newer = await TestClient.connect(other)
    newer.hello(name, secret=secret)
    await newer.expect(Welcome)
    await cluster.kill(other.index)
    await cluster.start(other.index)
    await cluster.linked()
    older.hello(name, secret=secret)
    await the_latest_stays([older])


@pytest.mark.parametrize("name", NAMES)
async def test_a_ghost_whose_successor_was_replaced(cluster: Cluster, name: str) -> None:
    """HELLO of the first of three comes when the second has been replaced, or has left."""
    home, other = cluster.home(INBOX_PREFIX + name), cluster.other(INBOX_PREFIX + name)
    secret = secrets.token_bytes(16)
    clients = [await TestClient.connect(worker) for worker in (home, other, home)]
    for client in clients[1:]:
        client.hello(name, secret=secret)
        await client.expect(Welcome)
    await clients[1].ended()
    clients[0].hello(name, secret=secret)
    await the_latest_stays(clients)
