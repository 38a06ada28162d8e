"""Invariant "No silent tail": what the bus loses is read from the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.bus.messages import Batch, Event
from relay.wire.envelopes import Roster
from tests.support.workers import Cluster, TestClient, drop_publishes

LOG = "lobby"


async def test_one_batch_lost_then_silence(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only batch is lost: the periodic heads reveal it."""
    reader = await TestClient.login(cluster.other(LOG), "reader")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await reader.join(LOG)
    lost: list[Batch | Event] = []

    def first_batch(message: Batch | Event) -> bool:
        if isinstance(message, Batch) and not lost:
            lost.append(message)
            return True
        return False

    drop_publishes(monkeypatch, first_batch)
    writer.send(LOG, 1)
    await reader.has(LOG, 1)
    assert lost
    assert reader.seqs(LOG) == [1]
    assert cluster.other(LOG).parts.member.repair.repaired == 1


async def test_every_third_batch_lost_under_traffic(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are lost, repairs overlap with later ones: each entry comes once, in order."""
    readers = [await TestClient.login(cluster.other(LOG), f"reader{n}") for n in range(3)]
    writers = [
        await TestClient.login(worker, f"writer{n}") for n, worker in cluster.workers.items()
    ]
    for reader in readers:
        await reader.join(LOG)
    seen = 0

    def every_third(message: Batch | Event) -> bool:
        nonlocal seen
        seen += 1
        return seen % 3 == 0

    drop_publishes(monkeypatch, every_third)
    for counter in range(1, 151):
        for writer in writers:
            writer.send(LOG, counter, size=2000)
        await asyncio.sleep(0)  # for many batches instead of one
    total = 150 * len(writers)
    for reader in readers:
        await reader.has(LOG, total)
        assert reader.seqs(LOG) == list(range(1, total + 1))
        assert [e.prev for e in reader.entries(LOG)] == list(range(total))
    assert cluster.other(LOG).parts.member.repair.repaired >= 1


async def test_repair_of_more_than_a_page(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches of a burst are lost: page after page is read from the store."""
    reader = await TestClient.login(cluster.other(LOG), "reader")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await reader.join(LOG)
    drop_publishes(monkeypatch, lambda message: isinstance(message, Batch))
    writer.send(LOG, 1, 200, size=1500)
    await writer.acked(LOG, 200)
    await reader.has(LOG, 200)
    assert reader.seqs(LOG) == list(range(1, 201))


async def test_home_killed_between_commit_and_publish(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was published and the home is dead: its successor sends the head."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    reader = await TestClient.login(other, "reader")
    writer = await TestClient.login(other, "writer")
    await reader.join(LOG)
    drop_publishes(monkeypatch, lambda message: isinstance(message, Batch))
    writer.send(LOG, 1)
    await writer.acked(LOG, 1)
    await cluster.kill(home.index)
    assert reader.entries(LOG) == []
    await cluster.start(home.index)
    await reader.has(LOG, 1)
    assert reader.seqs(LOG) == [1]


async def test_link_lost_under_traffic(cluster: Cluster) -> None:
    """The link between two live workers breaks repeatedly, and is reconnected."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    reader = await TestClient.login(other, "reader")
    writer = await TestClient.login(other, "writer")
    await reader.join(LOG)
    for cut in range(5):
        writer.send(LOG, cut * 40 + 1, cut * 40 + 40)
        await reader.has(LOG, cut * 40 + 5)
        for link in list(home.parts.member.routes._links.values()):
            link.abort()  # type: ignore[attr-defined]
    await reader.has(LOG, 200)
    await writer.acked(LOG, 200)
    assert reader.seqs(LOG) == list(range(1, 201))
    assert [e.counter for e in reader.entries(LOG)] == list(range(1, 201))


async def test_heads_are_said_while_a_commit_runs_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durability "power": a dropped batch is repaired although its partition is busy."""
    async with Cluster(tmp_path, 2, durability="power") as cluster:
        home = cluster.home(LOG)
        reader = await TestClient.login(cluster.other(LOG), "reader")
        writer = await TestClient.login(home, "writer")
        await reader.join(LOG)
        drop_publishes(monkeypatch, lambda message: isinstance(message, Batch))
        writer.send(LOG, 1)
        await writer.acked(LOG, 1)
        partitions = home.parts.home.partitions
        partitions.committing.update(range(16))
        home.parts.home.interest.send_heads(partitions.heads)
        partitions.committing.clear()
        await reader.has(LOG, 1)
        assert reader.seqs(LOG) == [1]


async def test_events_are_best_effort(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost roster change is no missing entry: it causes no repair."""
    other = cluster.other(LOG)
    reader = await TestClient.login(other, "reader")
    await reader.join(LOG)
    drop_publishes(monkeypatch, lambda message: isinstance(message, Event))
    late = await TestClient.login(cluster.home(LOG), "late")
    await late.join(LOG)
    late.send(LOG, 1)
    await reader.has(LOG, 1)
    assert not [e for e in reader.received if isinstance(e, Roster) and ["late", ""] in e.joined]
    assert other.parts.member.repair.repaired == 0


async def test_a_turn_that_fails_is_made_up_for(single: Cluster, program_errors: list[str]) -> None:
    """A bug in one turn, then no traffic: the rest of its work is done all the same."""
    parts = single.workers[0].parts
    reader = await TestClient.login(single.workers[0], "reader")
    writer = await TestClient.login(single.workers[0], "writer")
    await reader.join(LOG)
    flush_links = parts.turn.flush_links  # after the commit, before the distribution

    def failing() -> None:
        parts.turn.flush_links = flush_links
        raise RuntimeError("a bug")

    parts.turn.waiting_links = ("as if there were one",)
    parts.turn.flush_links = failing
    parts.turn.run()
    parts.turn.flush_links = failing
    writer.send(LOG, 1)
    await reader.has(LOG, 1)
    assert (await writer.acked(LOG, 1)).seq == 1
    assert ["turn_failed" in error for error in program_errors] == [True, True]
    program_errors.clear()
