"""What a message costs in turns, records and writes; and that nothing runs inside its caller."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay import limits
from relay.bus.link import Link, Port
from relay.bus.messages import Acks, Submit, Subscribe
from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.server.worker.home.committing.commits import COMMITS_S
from relay.server.worker.home.submissions import ALONE_UNITS, GROUP_MIN, SHARE, Waiting
from relay.wire.envelopes import Ack, EntryMessage, Join, Joined, Live, Roster, Send
from relay.wire.packing import unpack_entry
from tests.support.cluster import DEADLINE_S, until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
COUNT = limits.LOGS_PER_CONNECTION_MAX
QUIET_ITERATIONS = 20
"""Loop iterations without a turn after which a worker counts as idle."""


@contextmanager
def _turns(worker: Worker) -> Iterator[list[None]]:
    """Count the turns of a worker."""
    counted: list[None] = []
    run = worker.parts.turn.run

    def counting() -> None:
        counted.append(None)
        run()

    worker.parts.wakeup.bind(counting)
    yield counted
    worker.parts.wakeup.bind(run)


async def _at_rest(worker: Worker) -> None:
    """Wait until a worker has no turn due for some consecutive loop iterations."""
    quiet = 0
    async with asyncio.timeout(DEADLINE_S):
        while quiet < QUIET_ITERATIONS:
            quiet = 0 if worker.parts.wakeup.scheduled else quiet + 1
            await asyncio.sleep(0)


async def test_a_send_to_the_own_home_is_one_turn_and_one_record(single: Cluster) -> None:
    """The acknowledgement and the sender's own delivery leave together, at once."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    await client.join(LOG)
    await client.expect(Roster)  # the last record of a join
    await _at_rest(worker)
    # the flusher pauses after the roster, if the machine was slow to write it
    feed = worker.feed(LOG)
    await until(lambda: feed.paused_until <= time.monotonic(), "the room to have rested")
    worker.sweeps = False  # they request a turn, too
    records = client.records
    with _turns(worker) as turns:
        client.send(LOG, 1)
        await client.acked(LOG, 1)
        await client.has(LOG, 1)
        await _at_rest(worker)
    assert client.records - records == 1
    assert len(turns) == 1


async def test_a_send_to_another_home_is_one_write_each_way(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SUBMIT there; acknowledgement and batch back, together."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    client = await TestClient.login(other, "client")
    await client.join(LOG)
    await client.expect(Roster)
    for worker in (home, other):
        await _at_rest(worker)
    feed = other.feed(LOG)  # as above
    await until(lambda: feed.paused_until <= time.monotonic(), "the room to have rested")
    writes: list[int] = []
    flush = Link.flush

    def counting(self: Link) -> None:
        if self._control or self._publishes:
            writes.append(self.index)
        flush(self)

    for worker in (home, other):  # heads, sent once a second, would be counted too
        worker.sweeps = False
    monkeypatch.setattr(Link, "flush", counting)
    records = client.records
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    await client.has(LOG, 1)
    for worker in (home, other):
        await _at_rest(worker)
    assert sorted(writes) == sorted([home.index, other.index])
    assert client.records - records == 1


async def test_sends_to_one_log_travel_as_one(cluster: Cluster) -> None:
    """There and back; the client's requests between them are done between them."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    client = await TestClient.login(other, "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    asked = _noted(home, Submit, Subscribe)
    answered = _noted(other, Acks)
    sends = [Send(LOG, counter, 0, "", b"x") for counter in range(2, 42)]
    client.send_envelopes(*sends[:39], Join(1, LOG, None, 0, 0), sends[39])
    await client.acked(LOG, 41)
    first, join, last = asked
    assert isinstance(first, Submit)
    assert isinstance(join, Subscribe)
    assert isinstance(last, Submit)
    assert (first.submission.counter, len(first.more)) == (2, 38)
    assert (last.submission.counter, last.more) == (41, [])
    runs = [run[2:] for acks in answered if isinstance(acks, Acks) for run in acks.acks]
    assert runs == [[2, 39], [41, 1]], "(seq, count)"
    acks = [(e.counter, e.seq) for e in client.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in range(1, 42)]


async def test_acknowledgements_of_several_senders(cluster: Cluster) -> None:
    """One commit has the messages of many: each gets its own acknowledgements, in its order."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    clients = [await TestClient.login(other, f"client{n}") for n in range(3)]
    home.parts.home.partitions.paused = True  # all of it is one commit then
    for counter in range(1, 9):
        for client in clients:
            client.send(LOG, counter)
    await until(
        lambda: home.parts.home.queues.by_partition[partition_of(LOG)].count == 24, "all sends"
    )
    home.parts.home.partitions.paused = False
    home.parts.wakeup.request()
    for client in clients:
        await client.acked(LOG, 8)
        acks = [e for e in client.received if isinstance(e, Ack)]
        assert [e.counter for e in acks] == list(range(1, 9))
        stored = home.parts.services.reader_of(LOG).read(LOG, 0, 1000, 1_000_000)
        entries = [unpack_entry(packed) for _, packed in stored.rows]
        own = [e.seq for e in entries if e.producer == client.producer]
        assert [e.seq for e in acks] == own


def _noted(worker: Worker, *kinds: type) -> list[object]:
    """Return a list to which the worker's bus messages of these kinds are appended."""
    noted: list[object] = []
    handlers = worker.parts.dispatcher.handlers
    for kind in kinds:
        handlers[kind] = _noting(handlers[kind], noted)
    return noted


def _noting(handler: Callable[[Port, Any], None], noted: list[object]) -> Callable[..., None]:
    def noting(port: Port, message: object) -> None:
        noted.append(message)
        handler(port, message)

    return noting


async def test_as_many_joins_as_a_record_holds(single: Cluster) -> None:
    """Each is answered, in order, without a turn of its own, and others do not wait."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    bystander = await TestClient.login(worker, "bystander")
    with _turns(worker) as turns:
        client.send_envelopes(*[Join(n, f"room{n}", None, 0, 0) for n in range(1, COUNT + 1)])
        bystander.send(LOG, 1)
        await bystander.acked(LOG, 1)
        answered = len([e for e in client.received if isinstance(e, Joined)])
        await client.expect(Live, count=COUNT)
    assert answered < COUNT, "the bystander waited for all of them"
    requests = [e.request for e in client.received if isinstance(e, Joined)]
    assert requests == list(range(1, COUNT + 1))
    assert len(turns) < COUNT // 2


async def test_nothing_is_answered_inside_its_caller(single: Cluster) -> None:
    """A request to the own home is only queued: its answer comes with the turn."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    await client.join(LOG)
    session = single.session("client")
    own = worker.parts.own_home
    await _at_rest(worker)
    queries = worker.parts.member.queries
    reply = queries.who(LOG)
    assert reply is not None
    assert own.to_home.queue
    assert not own.to_member.queue
    assert queries._pending, "answered before the question was asked"
    await until(lambda: not queries._pending, "the answer")
    assert not session.ended


async def test_light_senders_are_stored_before_heavy_ones(single: Cluster) -> None:
    """However much was queued before; and all of it is stored in that turn."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    await _at_rest(worker)
    worker.parts.wakeup.bind(lambda: None)
    much, little = bytes(16), bytes([1] * 16)
    tag = 0
    for producer, count in ((much, 2 * GROUP_MIN), (little, 1)):
        for counter in range(1, count + 1):
            tag += 1
            submission = Submission(
                log=LOG, sender="somebody", key_id=b"", producer=producer, counter=counter,
                kind=0, content_type="", body=b"x",
            )  # fmt: skip
            worker.parts.own_home.to_home.submit(tag, [submission])
    # A commit may read for 5 ms by the clock, which may be over at once on a busy machine.
    worker.parts.home.writer._commits._clock_ns = lambda: time.monotonic_ns() + 60 * 10**9
    worker.parts.turn.heavy_waited()
    worker.parts.turn.run()
    assert not worker.parts.home.writer.busy
    assert worker.parts.turn.heavy_waited(), "later requests get the new state"
    assert not worker.parts.turn.heavy_waited()
    stored = worker.parts.services.reader_of(LOG).read(LOG, 1, 1000, 1_000_000)
    entries = [unpack_entry(packed) for _, packed in stored.rows]
    assert [entry.counter for entry in entries] == [1, *range(1, 2 * GROUP_MIN + 1)]


async def test_light_senders_do_not_wait_for_the_pauses_of_heavy_ones(tmp_path: Path) -> None:
    """In any partition: one commit has used all the time of a turn."""
    passed = itertools.count()
    needs: dict[str, object] = {"cpu_clock": lambda: next(passed) * COMMITS_S}
    async with Cluster(tmp_path, 1, needs=needs) as single:
        worker = single.workers[0]
        parts = worker.parts
        rooms = ["lobby", "kitchen", "garden", "cellar"]
        assert len({partition_of(room) for room in rooms}) == len(rooms)
        clients = [await TestClient.login(worker, room) for room in rooms]
        for client, room in zip(clients, rooms, strict=True):
            client.send(room, 1)
            await client.acked(room, 1)
        worker.sweeps = False  # they request turns
        parts.home.partitions.paused = True
        much, *others = clients
        much.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in range(2, 2 * SHARE)])
        for client, room in zip(others, rooms[1:], strict=True):
            client.send_envelopes(*[Send(room, n, 0, "", b"x") for n in (2, 3)])  # not alone
        waiting = parts.home.queues.by_partition
        await until(lambda: all(waiting[partition_of(room)].count for room in rooms), "all of it")
        await until(lambda: waiting[partition_of(LOG)].count > SHARE, "more than is little")
        parts.turn.pace.until = time.monotonic() + 600.0
        parts.home.partitions.paused = False
        parts.home.writer.blocked.clear()  # it is checked again soon
        parts.wakeup.request()
        for client, room in zip(others, rooms[1:], strict=True):
            await client.acked(room, 3)
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await much.acked(LOG, 2 * SHARE - 1)


async def test_a_few_expensive_submissions_of_heavy_senders_wait_for_their_pauses(
    single: Cluster,
) -> None:
    """Of direct messages and reactions, some dozen are more work than light users should share."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    (ack,) = [one for one in client.received if isinstance(one, Ack)]
    await _at_rest(worker)
    worker.parts.wakeup.bind(lambda: None)
    parts, much, little = worker.parts, bytes(16), bytes([1] * 16)
    waiting = parts.home.queues.by_partition[partition_of(LOG)]
    message = Submission(LOG, "somebody", b"", little, 1, 0, "", b"x")
    extra = Extra(about_epoch=ack.epoch, about_seq=ack.seq)
    reaction = message._replace(producer=much, kind=int(Kind.REACTION), extra=extra)
    port = parts.own_home.to_member
    count = SHARE // ALONE_UNITS + 1
    assert count + 2 < SHARE, "so many messages would fit into one commit"
    for counter in range(1, count + 1):
        parts.home.queues.submit([Waiting(port, counter, reaction._replace(counter=counter), True)])
    parts.own_home.to_home.submit(count + 1, [message, message._replace(counter=2)])
    parts.turn.pace.until = time.monotonic() + 600.0
    parts.turn.run()
    while waiting.count > count:  # on a busy machine a commit stores less (READING_S_MAX)
        parts.turn.run()
    assert waiting.count == count
    assert parts.services.reader_of(LOG).read(LOG, ack.seq, 10, 10_000).rows[-1][0] == ack.seq + 2
    while waiting.count:
        parts.turn.pace.until = 0.0
        parts.turn.run()


async def test_the_end_of_a_worker_commits_by_a_turn(single: Cluster) -> None:
    """What was submitted before it stops is committed, acknowledged and distributed."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    await client.join(LOG)
    worker.parts.wakeup.bind(lambda: None)  # no turn until the worker ends
    client.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in range(1, 51)])
    await until(lambda: worker.parts.member.forward.unanswered == 50, "the sends to arrive")
    await worker._finish_commits()
    assert not worker.parts.home.writer.busy
    await client.acked(LOG, 50)
    # If the room still rests after the roster, they are shown in a later turn.
    worker.parts.wakeup.bind(worker.parts.turn.run)
    worker.parts.turn.run()
    await client.expect(EntryMessage, count=50)
    assert [e.counter for e in client.received if isinstance(e, Ack)] == list(range(1, 51))
    assert [e.seq for e in client.received if isinstance(e, EntryMessage)] == list(range(1, 51))
