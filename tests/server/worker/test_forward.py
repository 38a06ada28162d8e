"""Sends on their way to the home (invariants "Once, in order", "Accepted means committed" and "The
bus cannot deadlock"): in order, once, acknowledged, bounded.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from relay import limits
from relay.chat.entries import Head
from relay.chat.partition import partition_of
from relay.store.log import Outcome, Partition, Removed
from relay.wire.codes import CloseCode, ErrorCode, Survives
from relay.wire.envelopes import Ack, EntryMessage, History, Join, Page, Refused, Send, Who
from relay.wire.packing import pack
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
WHO = pack(Who(1, LOG))


async def test_the_home_is_replaced_under_load(cluster: Cluster) -> None:
    """Repeated kill -9 with sends under way: each is stored once, in each sender's order."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    writers = [await TestClient.login(other, f"writer{n}") for n in range(3)]
    reader = await TestClient.login(other, "reader")
    await reader.join(LOG)
    for kill in range(4):
        for writer in writers:
            writer.send(LOG, kill * 50 + 1, kill * 50 + 50)
        await reader.has(LOG, kill * 150 + 3)
        await cluster.kill(home.index)
        home = await cluster.start(home.index)
    for writer in writers:
        await writer.acked(LOG, 200)
    await reader.has(LOG, 600)
    assert reader.seqs(LOG) == list(range(1, 601))
    for writer in writers:
        own = [e.counter for e in reader.entries(LOG) if e.producer == writer.producer]
        assert own == list(range(1, 201))
        acks = [e.counter for e in writer.received if isinstance(e, Ack)]
        assert acks == list(range(1, 201)), "one ACK for each send, in order"
    assert other.parts.member.forward.unanswered == 0
    assert not any(other.parts.member.forward._bytes)


async def test_sends_wait_while_the_home_is_dead_and_are_bounded(cluster: Cluster) -> None:
    """Without a home, clients are stopped at their credit; what they had sent is not lost."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    other.parts.member.forward.credit_bytes = 100_000
    other.parts.member.forward.refuse_bytes = 10_000_000
    writer = await TestClient.login(other, "writer")
    writer.send(LOG, 1)
    await writer.acked(LOG, 1)
    await cluster.kill(home.index)
    writer.send(LOG, 2, 600, size=10_000)
    partition = partition_of(LOG)
    await until(
        lambda: other.parts.member.forward._bytes[partition] > 100_000, "the credit to be used"
    )
    session = cluster.session("writer")
    await until(lambda: session.reading.pauses, "the client to be stopped")
    held = other.parts.member.forward._bytes[partition]
    assert held < 1_000_000, "beyond the credit only what one read brought"
    await cluster.start(home.index)
    await writer.acked(LOG, 600)
    assert not session.reading.pauses
    assert other.parts.member.forward._bytes[partition] == 0


async def test_small_sends_use_up_the_credit_too(cluster: Cluster) -> None:
    """A client that floods with empty messages is stopped; one that writes occasionally is not."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    other.parts.member.forward.credit_bytes = 40_000
    flooding = await TestClient.login(other, "flooding")
    writer = await TestClient.login(other, "writer")
    for client in (flooding, writer):
        client.send(LOG, 1)
        await client.acked(LOG, 1)
    await cluster.kill(home.index)
    flooding.send_envelopes(*[Send(LOG, n, 0, "", b"") for n in range(2, 602)])
    session = cluster.session("flooding")
    await until(lambda: session.reading.pauses, "who floods to be stopped")
    assert session.sends.count < 300
    writer.send(LOG, 2, 20)
    await until(lambda: cluster.session("writer").sends.count == 19, "what is little to be taken")
    assert not cluster.session("writer").reading.pauses
    await cluster.start(home.index)
    await flooding.acked(LOG, 601)
    await writer.acked(LOG, 20)
    assert not session.reading.pauses


async def test_a_home_that_is_away_for_long_is_busy(cluster: Cluster) -> None:
    """Beyond the bound a send is refused with a time to retry; sent again, it is stored once."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    writer = await TestClient.login(other, "writer")
    writer.send(LOG, 1)
    await writer.acked(LOG, 1)
    await cluster.kill(home.index)
    forward = other.parts.member.forward
    forward.refuse_bytes, usual = 100_000, forward.refuse_bytes
    writer.send(LOG, 2, 20, size=10_000)
    first = await writer.expect(Refused)
    assert (first.code, first.arg) == (ErrorCode.BUSY, limits.RETRY_MS)
    assert 2 < first.counter < 20, "sends within the bound wait for the home"
    await writer.expect(Refused, count=21 - first.counter)
    forward.refuse_bytes = usual
    writer.received[:] = [e for e in writer.received if not isinstance(e, Refused)]
    await cluster.start(home.index)
    await writer.acked(LOG, first.counter - 1)
    writer.send(LOG, first.counter, 20, size=10_000)
    await writer.acked(LOG, 20)
    acks = [(e.counter, e.seq) for e in writer.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in range(1, 21)]


async def test_a_home_that_cannot_keep_up_is_busy(cluster: Cluster) -> None:
    """It holds a bounded number for its next commit, and answers BUSY beyond; no count is left
    behind.
    """
    writer = await TestClient.login(cluster.other(LOG), "writer")
    queues = cluster.home(LOG).parts.home.queues
    queues.queued_bytes_max, usual = 5_000, queues.queued_bytes_max
    writer.send(LOG, 1, size=10_000)
    refused = await writer.expect(Refused)
    assert (refused.code, refused.arg) == (ErrorCode.BUSY, limits.RETRY_MS)
    queues.queued_bytes_max = usual
    writer.received.clear()
    writer.send(LOG, 1, size=10_000)
    assert (await writer.acked(LOG, 1)).seq == 1
    assert not any(waiting.bytes for waiting in cluster.home(LOG).parts.home.queues.by_partition)


async def test_the_window_of_one_connection(cluster: Cluster) -> None:
    """More sends than the window: all are acknowledged, and the connection is read from again."""
    writer = await TestClient.login(cluster.other(LOG), "writer")
    content = [Send(LOG, n, 0, "", b"x") for n in range(1, 5001)]
    for start in range(0, 5000, 1000):
        writer.send_envelopes(*content[start : start + 1000])
    await writer.acked(LOG, 5000)
    session = cluster.session("writer")
    assert not session.reading.pauses
    assert session.sends.count == session.sends.bytes == 0


async def test_repeats_and_skips_over_workers(cluster: Cluster) -> None:
    """The message id decides, whichever worker a send comes through."""
    first = await TestClient.login(cluster.home(LOG), "alice")
    first.send(LOG, 1, 3)
    ack = await first.acked(LOG, 3)
    second = await TestClient.login(cluster.other(LOG), "alice", secret=first.secret)
    second.send(LOG, 1, 4)
    assert (await second.acked(LOG, 3))[2:] == ack[2:]
    assert (await second.acked(LOG, 4)).seq == 4
    second.send_envelopes(Send(LOG, 6, 0, "", b"skipped"), Send(LOG, 2, 0, "", b"another"))
    refused = [await second.expect(Refused, count=n) for n in (1, 2)]
    assert {(e.counter, e.arg) for e in refused} == {(6, 5), (2, 2)}


async def test_a_sender_that_goes_away(cluster: Cluster) -> None:
    """Sends of an ended connection are committed; nothing of it is kept."""
    other = cluster.other(LOG)
    reader = await TestClient.login(other, "reader")
    await reader.join(LOG)
    writer = await TestClient.login(other, "writer")
    writer.send(LOG, 1, 50)
    await reader.has(LOG, 1)
    writer.disconnect()
    await writer.gone(other)
    await until(lambda: other.parts.member.forward.unanswered == 0, "all answers")
    assert reader.seqs(LOG) == list(range(1, len(reader.entries(LOG)) + 1))
    assert not any(other.parts.member.forward._paused)


class FailsOnce:
    """A partition whose first append fails."""

    def __init__(self, partitions: dict[int, Partition], index: int) -> None:
        self._partitions, self._index = partitions, index
        self._partition = partitions[index]
        self.commits_blocked = self.checkpointing = False
        partitions[index] = self

    def append_lone(self, *_: object) -> None:
        self.append()

    def append(self, *_: object) -> list[Outcome]:
        self._partitions[self._index] = self._partition
        raise RuntimeError("a bug")

    begin = append

    def in_use(self, log: str) -> bool:
        return self._partition.in_use(log)

    def head(self, log: str) -> Head:
        return self._partition.head(log)

    def state(self, log: str) -> bytes:
        return self._partition.state(log)

    def due(self, now_ms: int) -> list[str]:
        return self._partition.due(now_ms)

    def pending(self) -> list[tuple[str, int, str]]:
        return self._partition.pending()

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        self._partition.confirm(delivered)

    def note_seen(self, seen: list[tuple[str, int]]) -> None:
        self._partition.note_seen(seen)

    def note_folds(self, folds: list[tuple[str, int, bytes]]) -> None:
        self._partition.note_folds(folds)

    def prove(self) -> None:
        self._partition.prove()

    def remove(self, log: str, upto: int, controls_upto: int) -> Removed:
        return self._partition.remove(log, upto, controls_upto)

    def refuse(self, reason: str) -> None:
        self._partition.refuse(reason)

    def close(self) -> None:
        self._partition.close()


async def test_a_commit_that_fails_in_an_unforeseen_way(single: Cluster) -> None:
    """Its senders are refused, and the partition goes on."""
    writer = await TestClient.login(single.workers[0], "writer")
    FailsOnce(single.workers[0].parts.home.partitions.opened, partition_of(LOG))
    writer.send(LOG, 1)
    assert (await writer.expect(Refused)).counter == 1
    writer.received.clear()
    writer.send(LOG, 1)
    assert (await writer.acked(LOG, 1)).seq == 1


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_entries_are_shown_only_when_committed(tmp_path: Path, durability: str) -> None:
    """Whatever a reader or a sender has received is in the store, whichever process dies."""
    async with Cluster(tmp_path, 2, durability=durability) as cluster:
        home, other = cluster.home(LOG), cluster.other(LOG)
        reader = await TestClient.login(other, "reader")
        writer = await TestClient.login(other, "writer")
        await reader.join(LOG)
        writer.send(LOG, 1, 300)
        await reader.has(LOG, 20)
        shown = {e.seq: e for e in reader.entries(LOG)}
        acks = {e.seq for e in writer.received if isinstance(e, Ack)}
        survives = {e.durability for e in writer.received if isinstance(e, Ack)}
        assert survives <= {Survives[durability.upper()]}
        await cluster.kill(home.index)
        stored = other.parts.services.reader_of(LOG).read(LOG, 0, 10_000, 10_000_000)
        seqs = {seq for seq, _ in stored.rows}
        assert set(shown) <= seqs
        assert acks <= seqs
        await cluster.start(home.index)
        await writer.acked(LOG, 300)
        reader.send_envelopes(History(1, LOG, True, 0, 1000))
        page = await reader.expect(Page)
        assert [e.counter for e in page.entries] == list(range(1, 301))
        assert all(shown[e.seq] == e for e in page.entries if e.seq in shown)


async def test_ends_in_the_middle_of_anything(single: Cluster) -> None:
    """Requests, a violation and the peer's close in one read: no traceback, nothing left behind."""
    worker = single.workers[0]

    async def end_in(number: int, mistake: bytes) -> None:
        client = await TestClient.login(worker, f"client{number}")
        await client.join(LOG)
        records = [client.sealed(WHO) for _ in range(3)]
        records.append(client.sealed(mistake))
        records.append(client.close_record())
        client.transport.write(b"".join(records))
        await client.gone(worker)

    # Concurrently: the server lets each linger for two seconds.
    mistakes = [b"\xc1", b"", b"\x91\x05", b"\x90"]
    await asyncio.gather(*(end_in(*each) for each in enumerate(mistakes)), _end_in_hello(worker))
    client = await TestClient.login(worker, "joiner")
    client.send_envelopes(Join(1, LOG, None, 0, 100))
    client.disconnect()
    await until(lambda: not worker.parts.connections.sessions, "all sessions gone")
    await until(lambda: not worker.parts.member.feeds.by_log, "all feeds gone")
    parts = worker.parts
    assert parts.services.budgets.admission.authenticated == 0
    assert not parts.member.claims._claims
    assert not parts.home.names._holders
    await until(lambda: not parts.home.rosters._logs, "the roster to end")
    assert not parts.member.queries._pending


async def test_ends_in_the_middle_leave_no_traceback(
    single: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A client must not be able to write to our log."""
    caplog.set_level(logging.INFO)
    worker = single.workers[0]

    async def end(number: int) -> None:
        client = await TestClient.login(worker, f"client{number}")
        await client.join(LOG)
        client.transport.write(client.sealed(WHO) + client.sealed(b"\xc1") + client.close_record())
        await client.gone(worker)

    for numbers in (range(5), range(5, 10)):
        await asyncio.gather(*map(end, numbers), *(_end_in_hello(worker) for _ in numbers))
    # The logins create accounts; a busy machine may make a turn long.
    assert {record.message for record in caplog.records} <= {"account_changed", "long_turn"}


async def _end_in_hello(worker: Worker) -> None:
    client = await TestClient.connect(worker)
    client.hello("not a name")
    client.transport.write(client.close_record())
    await client.ended()


async def test_an_operation_after_an_error_has_no_effect(single: Cluster) -> None:
    """Whatever follows a protocol error in the same record or read is ignored."""
    worker = single.workers[0]
    reader = await TestClient.login(worker, "reader")
    await reader.join(LOG)
    client = await TestClient.login(worker, "client")
    client.transport.write(client.sealed(b"\xc1") + client.sealed(pack(Send(LOG, 1, 0, "", b"x"))))
    await client.gone(worker)
    assert client.closed is not None
    assert client.closed.code == CloseCode.PROTOCOL
    reader.send(LOG, 1)
    await reader.has(LOG, 1)
    assert [e.sender for e in reader.received if isinstance(e, EntryMessage)] == ["reader"]
