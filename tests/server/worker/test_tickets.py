"""Attacks with tickets, over real sockets and several workers; each with its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.chat.accounts import requests
from relay.client.devices.device_key import DeviceKey
from relay.secret import Secret
from relay.server.metrics import HandshakeKind
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Account, Done, Error, Hello, Send, Welcome
from relay.wire.tickets import ClientTicket
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import device, hello, register
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


async def ticket_of(worker: Worker, name: str) -> ClientTicket:
    """Log in, wait for the ticket, disconnect."""
    client = await TestClient.login(worker, name)
    await client.until(lambda: client.tickets, "a ticket")
    client.disconnect()
    await client.gone(worker)
    return client.tickets[0]


def kinds(cluster: Cluster) -> dict[str, int]:
    """Return the handshakes of all workers, by kind."""
    total = dict.fromkeys(map(str, HandshakeKind), 0)
    for worker in cluster.workers.values():
        for kind, count in worker.parts.services.counts.kinds.items():
            total[kind] += count
    return total


def mode(client: TestClient) -> int:
    assert client.handshake is not None
    return client.handshake.mode


async def test_a_ticket_from_one_worker_is_good_at_another_and_once(cluster: Cluster) -> None:
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    back = await TestClient.login(two, "alice", ticket=ticket)
    assert mode(back) == 1
    for worker in (one, two):
        again = await TestClient.login(worker, "alice", ticket=ticket)
        assert mode(again) == 0
        assert again.handshake is not None
        assert again.handshake.fell_back
    assert kinds(cluster) == {"full": 1, "resumed": 1, "fell_back": 2}
    back.send(LOG, 1)
    await back.acked(LOG, 1)


async def test_a_handshake_is_no_useless_request(cluster: Cluster) -> None:
    """Not even one by ticket: otherwise thousands behind one address would wait when they return.

    The limit of a connection is not reached by one frame, so its state is looked at.
    """
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    back = await TestClient.login(two, "alice", ticket=ticket)
    assert mode(back) == 1
    assert cluster.session("alice").reading.wasted is None


async def test_two_who_offer_one_ticket_at_once(cluster: Cluster) -> None:
    """At two workers, concurrently: one of them resumes, and both log in."""
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    clients = await asyncio.gather(
        *(TestClient.login(worker, "alice", ticket=ticket) for worker in (one, two) * 4)
    )
    assert sorted(map(mode, clients)) == [0] * 7 + [1]


async def test_a_stolen_ticket_without_the_device_key(cluster: Cluster) -> None:
    """Only the keys are resumed: without a login no request is allowed."""
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    thief = await TestClient.connect(two, ticket=ticket)
    assert mode(thief) == 1
    stolen = DeviceKey.generate()
    thief.send_envelopes(hello(thief.connection, thief.spki, "alice", bytes(16), key=stolen))
    await thief.expect(Error, lambda e: e.code == ErrorCode.KEY_REFUSED)
    await thief.ended()

    ticket = await ticket_of(one, "alice")
    thief = await TestClient.connect(two, ticket=ticket)
    assert mode(thief) == 1
    thief.send_envelopes(Send(LOG, 1, 0, "", b"as alice"))
    await thief.ended()
    assert thief.closed is not None
    assert thief.closed.code == CloseCode.PROTOCOL

    ticket = await ticket_of(one, "alice")
    thief = await TestClient.connect(two, ticket=ticket)
    thief.send_envelopes(Hello("alice", secrets.token_bytes(16), "", "", b"", b""))
    await thief.expect(Error, lambda e: e.code == ErrorCode.KEY_REFUSED)
    assert not any(isinstance(e, Welcome) for e in thief.received)


async def test_a_ticket_is_not_bound_to_a_name(cluster: Cluster) -> None:
    """Its first user does not matter: a resumed connection proves a device, or is refused."""
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    bob = await TestClient.login(two, "bob", ticket=ticket)
    assert mode(bob) == 1
    assert bob.name == "bob"


async def test_a_login_signature_of_a_resumed_connection_is_good_for_it_alone(
    cluster: Cluster,
) -> None:
    one, two = cluster.workers.values()
    first = await TestClient.connect(two, ticket=await ticket_of(one, "alice"))
    second = await TestClient.connect(one, ticket=await ticket_of(one, "alice"))
    assert mode(first) == mode(second) == 1
    second.send_envelopes(hello(first.connection, first.spki, "alice", bytes(16)))
    await second.expect(Error, lambda e: e.code == ErrorCode.KEY_REFUSED)
    first.send_envelopes(hello(first.connection, first.spki, "alice", bytes(16)))
    await first.expect(Welcome)


async def ask(client: TestClient, number: int, name: str, request: requests.Request) -> None:
    client.send_envelopes(Account(number, name, requests.pack(request)))
    await client.expect(Done, lambda e: e.request == number)


async def test_a_disabled_user_with_a_ticket(cluster: Cluster) -> None:
    """The ticket resumes keys; the login is refused as it is without a ticket."""
    one, two = cluster.workers.values()
    boss = await an_operator(cluster)
    ticket = await ticket_of(one, "alice")
    await ask(boss, 101, "alice", requests.Disable())
    back = await TestClient.connect(two, ticket=ticket)
    assert mode(back) == 1
    back.send_envelopes(hello(back.connection, back.spki, "alice", bytes(16)))
    await back.expect(Error, lambda e: e.code == ErrorCode.DISABLED)
    await back.ended()
    assert not back.tickets


async def test_a_removed_device_with_a_ticket(cluster: Cluster) -> None:
    """Reset ends every device of the account: the ticket only gets it as far as the refusal."""
    one, two = cluster.workers.values()
    boss = await an_operator(cluster)
    ticket = await ticket_of(one, "alice")
    await ask(boss, 101, "alice", requests.Reset(secrets.token_bytes(32), 2**50))
    back = await TestClient.connect(two, ticket=ticket)
    assert mode(back) == 1
    back.send_envelopes(hello(back.connection, back.spki, "alice", bytes(16)))
    await back.expect(Error, lambda e: e.code in (ErrorCode.KEY_REFUSED, ErrorCode.NOT_REGISTERED))
    await back.ended()


async def test_changed_and_cut_tickets_cost_a_full_handshake(cluster: Cluster) -> None:
    one, two = cluster.workers.values()
    ticket, psk = await ticket_of(one, "alice")
    for bad in (ticket[:-1], ticket[:8], b"\0", ticket + b"\0", bytes(256), bytes(125)):
        client = await TestClient.login(two, "alice", ticket=ClientTicket(bad, psk))
        assert mode(client) == 0
    assert kinds(cluster)["fell_back"] == 6


async def test_a_seen_ticket_without_its_secret(cluster: Cluster) -> None:
    """An eavesdropper knows the ticket: the connection is closed, and the ticket stays valid."""
    one, two = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    with pytest.raises(AssertionError, match="the connection was lost"):
        await TestClient.connect(
            two, ticket=ClientTicket(ticket.ticket, Secret(secrets.token_bytes(32)))
        )
    assert mode(await TestClient.login(two, "alice", ticket=ticket)) == 1


async def test_no_ticket_before_the_login(cluster: Cluster) -> None:
    """A connection that registers, or is refused, gets none."""
    worker = cluster.workers[0]
    client = await TestClient.connect(worker)
    client.send_envelopes(register(client.connection, client.spki, "carol"))
    await client.expect(Done)
    assert not client.tickets
    client.send_envelopes(hello(client.connection, client.spki, "carol", bytes(16)))
    await client.expect(Welcome)
    assert len(client.tickets) == 1
    assert device("carol")


async def test_a_worker_that_was_replaced_knows_the_tickets(cluster: Cluster) -> None:
    one, _ = cluster.workers.values()
    ticket = await ticket_of(one, "alice")
    await cluster.kill(0)
    new = await cluster.start(0)
    await until(lambda: new.parts.links, "its links")
    assert mode(await TestClient.login(new, "alice", ticket=ticket)) == 1
    assert mode(await TestClient.login(new, "alice", ticket=ticket)) == 0


class Recorded(TestClient):
    """Keeps everything that it sends."""

    def __init__(self, ticket: ClientTicket | None = None) -> None:
        super().__init__(ticket)
        self.written = b""

    def _write(self) -> None:
        pending = self.connection.data_to_send()
        self.written += pending
        self.transport.write(pending)

    def sealed(self, content: bytes) -> bytes:
        record = super().sealed(content)
        self.written += record
        return record


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_recorded_session_is_replayed(cluster: Cluster, resumed: bool) -> None:
    """By an eavesdropper, at either worker: no session is established, and nothing is stored."""
    worker = cluster.workers[0]
    ticket = await ticket_of(worker, "ann") if resumed else None
    client = await Recorded.login(worker, "ann", ticket=ticket)
    assert mode(client) == int(resumed)
    client.send("lobby", 1)
    await client.acked("lobby", 1)
    client.disconnect()
    before = kinds(cluster)
    for at in cluster.workers.values():
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(client.written)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_S):
                while await reader.read(65_536):
                    pass
        writer.close()
    assert kinds(cluster) == before, "no handshake was completed"
    again = await TestClient.login(worker, "bob")
    await again.join("lobby", last=10)
    assert [entry.body for entry in again.entries("lobby")] == [b"ann 1"]
