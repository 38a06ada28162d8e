"""Removed devices: when it is "done", and what comes late of them, whichever worker is slow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from relay.bus.messages import Revoked
from relay.server.worker.home.revocations import Revocations
from relay.wire.envelopes import Refused
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
