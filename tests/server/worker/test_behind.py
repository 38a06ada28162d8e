"""Invariants "Falling behind" and "Catching up is rationed": bounded memory, nothing lost, nobody
else slowed.
"""

from __future__ import annotations

import asyncio

import pytest

from relay import limits
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.delivery import stalled
from relay.wire.codes import CloseCode
from relay.wire.envelopes import (
    Ack,
    Behind,
    EntryMessage,
    Error,
    History,
    Join,
    Joined,
    Leave,
    Left,
    Live,
    Members,
    Page,
    Who,
)
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
OTHER = "hall"


async def _stall(client: TestClient) -> None:
    """Let a client stop reading."""
    client.transport.pause_reading()


async def _shown(worker: Worker, seq: int) -> None:
    """Wait until a worker has distributed an entry to its live members."""
    await until(lambda: worker.feed(LOG).seq == seq, f"entry {seq} on the worker")


async def _flood(writer: TestClient, logs: list[str], first: int, last: int) -> None:
    """Send more than the kernel, transport and outbox of one connection hold."""
    for counter in range(first, last + 1):
        for log in logs:
            writer.send(log, counter, size=20_000)
        if counter % 20 == 0:
            for log in logs:
                await writer.acked(log, counter)


async def test_a_stalled_reader_falls_behind_and_loses_nothing(cluster: Cluster) -> None:
    """In all its logs at once; another reader on the same worker gets everything meanwhile."""
    worker = cluster.other(LOG)
    slow = await TestClient.login(worker, "slow")
    quick = await TestClient.login(worker, "quick")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    for client in (slow, quick):
        await client.join(LOG)
        await client.join(OTHER)
    await _stall(slow)
    await _flood(writer, [LOG, OTHER], 1, 300)
    await quick.has(LOG, 300)
    await quick.has(OTHER, 300)
    session = cluster.session("slow")
    held = session.outbox.size + session.stream.buffered
    assert held <= limits.CONNECTION_BYTES_MAX, "more is buffered for a stalled reader"
    assert not worker.feed(LOG).subscriptions[session.subscriptions].live
    assert not worker.feed(OTHER).subscriptions[session.subscriptions].live
    assert worker.parts.stalled.fell_behind >= 1
    slow.transport.resume_reading()
    for log in (LOG, OTHER):
        await slow.has(log, 300)
        assert slow.seqs(log) == list(range(1, 301))
        assert quick.seqs(log) == list(range(1, 301))
    await slow.expect(Live, lambda e: e.log == LOG and e.seq == 300)
    assert worker.feed(LOG).subscriptions[session.subscriptions].live


async def test_what_a_reader_is_told_when_behind_is_where_it_is(cluster: Cluster) -> None:
    """BEHIND has the last entry that came before it: the cursors of client and worker agree."""
    slow = await TestClient.login(cluster.other(LOG), "slow")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await slow.join(LOG)
    for round_ in range(3):
        await _stall(slow)
        await _flood(writer, [LOG], round_ * 250 + 1, round_ * 250 + 250)
        slow.transport.resume_reading()
        await slow.has(LOG, (round_ + 1) * 250)
    assert [e for e in slow.received if isinstance(e, Behind)], "it never fell behind"
    last = 0
    for envelope in slow.received:
        if isinstance(envelope, EntryMessage):
            assert envelope.prev == last
            last = envelope.seq
        elif isinstance(envelope, Behind | Live):
            assert envelope.seq == last


async def test_catching_up_under_traffic_reaches_live(cluster: Cluster) -> None:
    """The log grows while a reader of all its history catches up; it still becomes live."""
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await _flood(writer, [LOG], 1, 200)
    reader = await TestClient.login(cluster.other(LOG), "reader")
    reader.send_envelopes(Join(1, LOG, None, 0, 10_000))
    writer.send(LOG, 201, 600)
    await writer.acked(LOG, 600)
    await reader.has(LOG, 600)
    await reader.expect(Live)
    assert reader.seqs(LOG) == list(range(1, 601))


async def test_leaving_with_batches_queued(cluster: Cluster) -> None:
    """Batches queued for an ended membership do not move the cursor of the next one."""
    worker = cluster.other(LOG)
    slow = await TestClient.login(worker, "slow")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await slow.join(LOG)
    await slow.join(OTHER)
    session = cluster.session("slow")
    await _stall(slow)
    counter = 0
    while not session.outbox.paused or session.outbox.size < 60_000:
        counter += 1
        writer.send(LOG, counter, size=20_000)
        await writer.acked(LOG, counter)
        await _shown(worker, counter)
    assert worker.feed(LOG).subscriptions[session.subscriptions].live, "not behind yet"
    slow.send_envelopes(Leave(2, LOG), Join(3, LOG, None, 0, 0))
    await until(
        lambda: worker.feed(LOG).subscriptions[session.subscriptions].seq == counter,
        "the new membership",
    )
    await _flood(writer, [OTHER], 1, 20)  # it falls behind now, in the new membership
    slow.transport.resume_reading()
    await slow.has(OTHER, 20)
    joined = await slow.expect(Joined, lambda e: e.request == 3)
    after = slow.received[slow.received.index(joined) :]
    assert joined.start_seq == counter
    assert [e.seq for e in after if isinstance(e, EntryMessage) and e.log == LOG] == []
    assert all(e.seq >= counter for e in after if isinstance(e, Behind) and e.log == LOG)
    assert [e.request for e in slow.received if isinstance(e, Left)] == [2]


async def test_history_is_rationed(single: Cluster) -> None:
    """A thousand requests in one record are served one page at a time; other clients go on."""
    worker = single.workers[0]
    writer = await TestClient.login(worker, "writer")
    await _flood(writer, [LOG], 1, 100)
    greedy = await TestClient.login(worker, "greedy")
    await greedy.join(LOG)
    await _stall(greedy)
    greedy.send_envelopes(*[History(n, LOG, False, 0, 1000) for n in range(1, 1001)])
    session = single.session("greedy")
    await until(lambda: session.outbox.paused, "the flood to be stuck")
    writer.send(LOG, 101, 110)
    await writer.acked(LOG, 110)
    assert session.outbox.size + session.stream.buffered <= limits.CONNECTION_BYTES_MAX
    greedy.transport.resume_reading()
    await greedy.expect(Page, count=1000)
    assert [e.request for e in greedy.received if isinstance(e, Page)] == list(range(1, 1001))


async def test_operations_that_wait_are_held_as_bytes(single: Cluster) -> None:
    """Behind a waiting operation, records stay undecoded: decoded objects take many times the
    memory.
    """
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    await client.join(LOG)
    session = single.session("client")
    session.reading.pause(Pause.REQUEST)
    for _ in range(10):
        client.send_envelopes(*[Who(n, LOG) for n in range(1, 1001)])
    session.stream.resume_reading()  # as if all of it had come in one read
    reader = session._connection.reader
    await until(lambda: reader.pending > 10 * 2000, "all records")
    assert not session.reading._pending
    session.reading.resume(Pause.REQUEST)
    await client.expect(Members, count=10_000)


async def test_one_question_at_a_time(cluster: Cluster) -> None:
    """At most one answer to WHO is under way for each connection."""
    other = cluster.other(LOG)
    client = await TestClient.login(other, "client")
    await client.join(LOG)
    client.send_envelopes(*[Who(n, LOG) for n in range(1, 1001)], Leave(1001, LOG))
    most = 0
    while not [e for e in client.received if isinstance(e, Left)]:
        most = max(most, len(other.parts.member.queries._pending))
        await asyncio.sleep(0)
    assert most == 1
    assert [e.request for e in client.received if isinstance(e, Members)] == list(range(1, 1001))


async def test_a_reader_that_takes_nothing_is_ended(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When too many bytes are buffered in a worker, a stalled reader is closed, and others catch
    up.
    """
    monkeypatch.setattr(stalled, "BUDGET_BYTES", 100_000)
    monkeypatch.setattr(stalled, "NEAR_LIMIT_BYTES", 20_000)
    monkeypatch.setattr(stalled, "NEAR_LIMIT_TIMEOUT_S", 2.0)
    worker = cluster.other(LOG)
    stuck = [await TestClient.login(worker, f"stuck{n}") for n in range(4)]
    quick = await TestClient.login(worker, "quick")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    for client in (*stuck, quick):
        await client.join(LOG)
    for client in stuck:
        await _stall(client)
    await _flood(writer, [LOG], 1, 300)
    await quick.has(LOG, 300)
    await until(lambda: worker.parts.stalled.too_slow >= 1, "the budget to be kept")
    await until(lambda: worker.parts.stalled.bytes <= 20_000, "the others to go on")
    for client in stuck:
        client.transport.resume_reading()
    kept = 0
    for client in stuck:
        await _ends_or_has_all(client)
        if client.closed is not None:
            assert client.closed.code == CloseCode.TOO_SLOW
        kept += not client.lost
    assert kept + worker.parts.stalled.too_slow == 4


async def _ends_or_has_all(client: TestClient) -> None:
    await until(lambda: client.lost or len(client.entries(LOG)) == 300, "an end, or all of it")


async def test_acknowledgements_pass_a_slow_reader(cluster: Cluster) -> None:
    """Invariant "Accepted means committed": a sender in the same room as a stalled reader gets its
    ACKs.
    """
    worker = cluster.other(LOG)
    slow = await TestClient.login(worker, "slow")
    writer = await TestClient.login(worker, "writer")
    await slow.join(LOG)
    await _stall(slow)
    await _flood(writer, [LOG], 1, 100)
    assert len([e for e in writer.received if isinstance(e, Ack)]) == 100
    assert not [e for e in writer.received if isinstance(e, Error)]
