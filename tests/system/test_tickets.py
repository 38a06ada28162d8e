"""Clients that resume by ticket at a real relay after its processes were killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient, Client
from tests.support.cluster import Relay, until
from tests.support.raw import RawClient
from tests.support.watching import ON_A_FREE_PORT, Watcher


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay of two workers."""
    with Relay(tmp_path / "data", workers=2, settings=ON_A_FREE_PORT) as running:
        yield running


def kinds(watcher: Watcher) -> list[float]:
    name = "relay_handshake_kinds_total"
    return [watcher.total(name, kind) for kind in ("full", "resumed", "fell_back")]


async def test_asyncio_clients_of_a_killed_worker(relay: Relay) -> None:
    """They resume at new workers without the RSA operation; what they send is stored."""
    watcher = Watcher(relay)
    async with Client(relay.address, name="alice", register=True) as client:
        for times in (1, 2):
            counted = [1, times - 1, 0]
            await until(lambda n=counted: kinds(watcher) == n, "the handshake to be counted")  # type: ignore[misc]
            await asyncio.to_thread(relay.kill_workers)
            await until(lambda n=times: client.statistics["logins"] == n + 1, "alice is back")  # type: ignore[misc]
            assert client.statistics["resumptions"] == times
            await client.send("lobby", f"back {times}")


def test_blocking_clients_of_a_killed_worker(relay: Relay) -> None:
    with BlockingClient(relay.address, name="alice", register=True) as client:
        for times in (1, 2):
            relay.kill_workers()
            client.send("lobby", f"back {times}")
            assert client.statistics["logins"] == times + 1
            assert client.statistics["resumptions"] == times


def test_tickets_through_the_death_of_the_key_agent(relay: Relay) -> None:
    """A new agent gets the ticket keys of the previous one, and new workers get them as well."""
    watcher = Watcher(relay)
    clients = [RawClient("127.0.0.1", relay.port, f"visitor{n}") for n in range(2)]
    tickets = [client.ticket for client in clients]
    relay.kill_agent()
    back = RawClient("127.0.0.1", relay.port, "visitor0", registered=True, ticket=tickets[0])
    assert back.resumed, "the workers kept the key"
    relay.kill_workers()
    watcher.sees("/readyz", 200, warnings=[])
    late = RawClient("127.0.0.1", relay.port, "visitor1", registered=True, ticket=tickets[1])
    assert late.resumed, "the key was lost with the agent and the workers"
    again = RawClient("127.0.0.1", relay.port, "visitor1", registered=True, ticket=late.ticket)
    assert again.resumed
    for client in (*clients, back, late, again):
        client.close()


def test_a_server_that_was_started_again_knows_no_ticket(tmp_path: Path) -> None:
    """Its keys were in memory only: the client does a full handshake, without an error."""
    data = tmp_path / "data"
    with Relay(data) as first:
        visitor = RawClient("127.0.0.1", first.port, "visitor")
        ticket, bind = visitor.ticket, f"127.0.0.1:{first.port}"
        visitor.close()
    assert ticket is not None
    with Relay(data, bind=bind) as second:
        back = RawClient("127.0.0.1", second.port, "visitor", registered=True, ticket=ticket)
        assert not back.resumed
        back.close()
    for path in data.rglob("*"):
        if path.is_file():
            assert ticket.ticket[:8] not in path.read_bytes(), f"a ticket key's id in {path}"
