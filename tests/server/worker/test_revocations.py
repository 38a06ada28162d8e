"""Removed devices: when it is "done", and what comes late of them, whichever worker is slow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from relay.bus.messages import Revoked
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.server.worker.home.revocations import Revocations
from relay.wire.envelopes import Done, Error, Refused, Room
from tests.support.cluster import until
from tests.support.devices import device
from tests.support.workers import Cluster, TestClient

LOG = "lobby"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


class Way:
    """To a worker: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


def started(ways: list[Way]) -> tuple[Revocations, list[str]]:
    done: list[str] = []
    revocations = Revocations(lambda: cast("Any", ways))
    revocations.start(
        "bob", [bytes(16)], by_operator=False, lifted=False, done=lambda: done.append("done")
    )
    return revocations, done


def confirm(revocations: Revocations, way: Way) -> None:
    revocations.confirmed(cast("Any", way), Revoked(way.sent[0].tag))


def test_it_is_done_when_all_live_workers_have_confirmed() -> None:
    """Not with the first one, and once; who confirms twice counts once."""
    one, two, three = ways = [Way(), Way(), Way()]
    revocations, done = started(ways)
    assert all(len(way.sent) == 1 for way in ways)
    confirm(revocations, one)
    confirm(revocations, one)
    confirm(revocations, two)
    assert not done
    confirm(revocations, three)
    assert done == ["done"]
    confirm(revocations, three)
    assert done == ["done"]


def test_nobody_waits_for_a_worker_that_died() -> None:
    one, two = ways = [Way(), Way()]
    revocations, done = started(ways)
    revocations.drop(cast("Any", one))
    assert not done
    confirm(revocations, two)
    assert done == ["done"]


async def test_a_home_stores_nothing_more_of_a_removed_device(cluster: Cluster) -> None:
    """What its worker had sent on the way before it was told comes after the home was."""
    phone = await TestClient.login(cluster.other(LOG), "bob")
    phone.send(LOG, 1)
    await phone.acked(LOG, 1)
    home = cluster.home(LOG).parts.home
    home.revoke("bob", [device("bob").key_id], lifted=False)  # and the other worker knows nothing
    phone.send(LOG, 2)
    await phone.expect(Refused)
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await alice.join(LOG, last=10)
    await alice.has(LOG, 1)
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    await alice.has(LOG, 2)
    assert [(e.sender, e.counter) for e in alice.entries(LOG)] == [("bob", 1), ("alice", 1)]


async def test_a_change_of_a_room_that_goes_with_its_device_holds_up_no_other(
    single: Cluster,
) -> None:
    """Changes of a room are decided one after the other: each has an end."""
    worker = single.workers[0]
    alice, bob = [await TestClient.login(worker, name) for name in ("alice", "bob")]
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)
    alice.send(LOG, 1)
    ack = await alice.acked(LOG, 1)
    parts = worker.parts
    index = partition_of(LOG)
    await until(lambda: parts.partitions.begin_removal(index) is not None, "no commit under way")
    ask_room(alice, 1, requests.Redact(ack.seq, ""))
    await until(lambda: LOG in parts.rooms._by_log, "a change that waits for its commit")
    parts.home.revoke("alice", [single.session("alice").key_id], lifted=False)
    parts.partitions.end_removal(index)
    ask_room(bob, 2, requests.SetTopic("tea"))
    await bob.until(
        lambda: any(isinstance(e, Done | Error) and e.request == 2 for e in bob.received),
        "an answer to somebody else",
    )


def ask_room(client: TestClient, number: int, request: requests.Request) -> None:
    client.send_envelopes(Room(number, LOG, requests.pack(request, requests.ANYTHING_SEEN)))
