"""Invariant "One seam": a client that joins, resumes or catches up gets each entry once, in
order.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time

import pytest

from relay.bus.messages import Batch
from relay.server.worker.connection.budgets.admission import LOGINS_MANY
from relay.server.worker.delivery import outbox
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import (
    Behind,
    Error,
    Gap,
    Join,
    Joined,
    Leave,
    Left,
    Live,
    Members,
    Welcome,
    Who,
)
from relay.wire.packing import pack
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import hello
from tests.support.workers import Cluster, TestClient, drop_publishes

LOG = "lobby"


async def _traffic(writer: TestClient, count: int, size: int = 300) -> None:
    for counter in range(1, count + 1):
        writer.send(LOG, counter, size=size)
        await asyncio.sleep(0)


def _assert_whole_from_start(client: TestClient, end: int) -> None:
    joined = [e for e in client.received if isinstance(e, Joined)]
    assert not [e for e in client.received if isinstance(e, Gap)]
    assert client.seqs(LOG) == list(range(joined[-1].start_seq + 1, end + 1))


async def test_join_during_traffic_on_every_worker(cluster: Cluster) -> None:
    """Joins with and without history, at any moment: no entry is missing and none comes twice."""
    writer = await TestClient.login(cluster.home(LOG), "writer")
    clients = [
        await TestClient.login(worker, f"client{worker.index}{n}")
        for worker in cluster.workers.values()
        for n in range(10)
    ]
    traffic = asyncio.ensure_future(_traffic(writer, 600))
    for number, client in enumerate(clients):
        client.send_envelopes(Join(1, LOG, None, 0, 50 * (number % 3)))
        await client.expect(Live)
    await traffic
    await writer.acked(LOG, 600)
    for client in clients:
        await client.ends_with(LOG, 600)
        _assert_whole_from_start(client, 600)


@pytest.mark.parametrize("last", [0, 2])
async def test_live_is_no_record_of_its_own(cluster: Cluster, last: int) -> None:
    """JOINED, what was missed and LIVE are one record, if that is one page.

    An inbox, since it has no roster: the answers to JOIN are all that there is to receive.
    """
    name = next(cluster.names_of(cluster.workers[0]))
    inbox = f"@{name}"
    client = await TestClient.login(cluster.workers[0], name)
    await client.join(inbox)  # its head is known from here on
    client.send(inbox, 1, 5)
    await client.acked(inbox, 5)
    await client.has(inbox, 5)
    client.send_envelopes(Leave(2, inbox))
    await client.expect(Left)
    before = client.records
    client.received.clear()
    client.send_envelopes(Join(3, inbox, None, 0, last))
    await client.expect(Live)
    assert len(client.entries(inbox)) == last
    assert client.records == before + 1


async def test_a_return_is_answered_with_one_record(cluster: Cluster) -> None:
    """WELCOME, JOINED and LIVE: in a storm, too, a login and what came with it wait once."""
    worker = cluster.workers[0]
    name = next(cluster.names_of(worker))
    inbox = f"@{name}"
    first = await TestClient.login(worker, name)
    await first.join(inbox)
    budgets, schedule = worker.parts.services.budgets, worker.parts.services.schedule
    budgets.admission.patience_s = schedule.slice_s = DEADLINE_S  # however slow the machine is
    clients = [await TestClient.connect(worker) for _ in range(LOGINS_MANY)]
    worker.parts.turn.pace.until = time.monotonic() + 600.0
    for client in clients:
        client.name, client.secret = name, secrets.token_bytes(16)
        greeting = hello(client.connection, client.spki, name, client.secret)
        client.send_envelopes(greeting, Join(1, inbox, None, 0, 0))
    await until(lambda: schedule.waiting == len(clients), "all to wait")
    worker.parts.turn.pace.until = 0.0
    worker.parts.wakeup.request()
    for client in clients:
        await client.expect(Live)
        assert [type(one) for one in client.received] == [Welcome, Joined, Live]
        assert client.records == 1


async def test_answers_do_not_wait_for_pages_that_cannot_be_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, program_errors: list[str]
) -> None:
    """Those of many clients are written in slices, like all other answers, and an error in the
    middle holds up no others.
    """
    worker = cluster.workers[0]
    flusher = worker.parts.services.flusher
    names = [f"reader{number}" for number in range(8)]
    clients = [await TestClient.login(worker, name) for name in names]
    answering = [cluster.session(name).outbox for name in names]
    for one in answering:
        one.page_due = True  # as of a client that joins: there is no page in this turn or the next
        one.answer(pack(Error(7, ErrorCode.BUSY, 0, "")))
    flusher.flush_answers(0.0)
    assert not flusher.answering, "they wait for pages"
    # More than are written before the clock is read twice, of which each reading is a slice later.
    flusher.before_pages.extend(answering[-1:] * 2 * outbox.FLUSHES_PER_CLOCK)
    seconds = itertools.count()
    monkeypatch.setattr(flusher, "_clock", lambda: float(next(seconds)))
    connection = cluster.session(names[0]).channel.connection
    connection.close(CloseCode.INTERNAL, 0.0, 0)  # nothing can be sealed any more
    worker.parts.turn.run()
    [error] = program_errors
    assert error.startswith("turn_failed")
    program_errors.clear()
    worker.parts.turn.run()
    assert flusher.before_pages, "all in one turn"
    assert worker.parts.wakeup.scheduled
    for client in clients[1:]:
        assert (await client.expect(Error)).request == 7


async def test_leave_and_join_again_and_again_during_traffic(cluster: Cluster) -> None:
    """Each membership is complete, on a worker that may drop the feed in between."""
    writer = await TestClient.login(cluster.home(LOG), "writer")
    client = await TestClient.login(cluster.other(LOG), "client")
    traffic = asyncio.ensure_future(_traffic(writer, 400))
    for _ in range(30):
        client.received.clear()
        client.send_envelopes(Join(1, LOG, None, 0, 10))
        await client.expect(Live)
        client.send_envelopes(Leave(2, LOG))
        await client.expect(Left)
        (joined,) = [e for e in client.received if isinstance(e, Joined)]
        seqs = client.seqs(LOG)
        assert seqs == list(range(joined.start_seq + 1, joined.start_seq + 1 + len(seqs)))
        assert len(seqs) >= min(10, joined.head_seq)
    await traffic


async def test_leave_and_join_in_one_record(cluster: Cluster) -> None:
    """What was queued before LEAVE is not part of the next membership."""
    client = await TestClient.login(cluster.other(LOG), "client")
    writer = await TestClient.login(cluster.home(LOG), "writer")
    await client.join(LOG)
    for number in range(20):
        writer.send(LOG, number + 1)
        client.send_envelopes(Leave(2, LOG), Join(3, LOG, None, 0, 0))
    await client.expect(Left, count=20)
    await client.expect(Joined, count=21)
    await until(
        lambda: len(cluster.other(LOG).feed(LOG).live) == 1, "the last membership to be live"
    )
    writer.send(LOG, 21)
    await client.until(lambda: 21 in client.seqs(LOG), "the last entry")
    seqs = client.seqs(LOG)
    assert seqs == sorted(set(seqs))


async def test_resume_from_every_cursor_during_traffic(cluster: Cluster) -> None:
    """A reader that moves from worker to worker misses nothing, from any cursor."""
    writer = await TestClient.login(cluster.home(LOG), "writer")
    traffic = asyncio.ensure_future(_traffic(writer, 500))
    await writer.acked(LOG, 1)
    seen: list[int] = []
    epoch = None
    workers = [cluster.home(LOG), cluster.other(LOG)]
    for turn in range(40):
        client = await TestClient.login(workers[turn % 2], f"roamer{turn}")
        client.send_envelopes(Join(1, LOG, epoch, seen[-1] if seen else 0, 10_000))
        await client.expect(Live)
        assert not [e for e in client.received if isinstance(e, Gap)]
        seen += client.seqs(LOG)
        if seen:
            epoch = client.entries(LOG)[-1].epoch if client.entries(LOG) else epoch
        client.disconnect()
    await traffic
    await writer.acked(LOG, 500)
    client = await TestClient.login(workers[0], "last")
    client.send_envelopes(Join(1, LOG, epoch, seen[-1], 0))
    await client.expect(Live, lambda live: live.seq == 500)
    seen += client.seqs(LOG)
    assert seen == list(range(1, 501))


async def test_a_reader_that_is_ahead_of_its_new_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from a worker that was ahead: it waits for H, and gets nothing twice."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    keeper = await TestClient.login(other, "keeper")
    await keeper.join(LOG)
    writer = await TestClient.login(home, "writer")
    drop_publishes(monkeypatch, lambda message: isinstance(message, Batch))
    home.sweeps = False
    writer.send(LOG, 1, 5)
    ack = await writer.acked(LOG, 5)
    roamer = await TestClient.login(other, "roamer")
    roamer.send_envelopes(Join(1, LOG, ack.epoch, 5, 0))
    await roamer.expect(Joined)
    assert other.feed(LOG).seq == 0, "the new worker is behind"
    monkeypatch.undo()
    home.sweeps = True  # now it receives the entries
    await roamer.expect(Live, lambda live: live.seq == 5)
    writer.send(LOG, 6)
    await roamer.has(LOG, 1)
    assert roamer.seqs(LOG) == [6]
    await keeper.has(LOG, 6)
    assert keeper.seqs(LOG) == [1, 2, 3, 4, 5, 6]
    assert not [e for e in roamer.received if isinstance(e, Gap)]


async def test_join_while_the_home_is_dead(cluster: Cluster) -> None:
    """The join waits, and so do later requests of the client; then all are answered in order."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    writer = await TestClient.login(other, "writer")
    writer.send(LOG, 1, 5)
    await writer.acked(LOG, 5)
    client = await TestClient.login(other, "client")
    gone = await TestClient.login(other, "gone")
    await cluster.kill(home.index)
    client.send_envelopes(Join(7, LOG, None, 0, 3), Leave(8, LOG), Join(9, LOG, None, 0, 1))
    gone.send_envelopes(Join(7, LOG, None, 0, 3))
    feeds = other.parts.member.feeds.by_log
    await until(lambda: LOG in feeds and len(feeds[LOG].joining) == 2, "the joins to arrive")
    gone.disconnect()
    await gone.gone(other)  # noticed although nothing is read from it
    await cluster.start(home.index)
    await client.expect(Joined, lambda e: e.request == 9)
    await client.expect(Live)
    requests = [e.request for e in client.received if isinstance(e, Joined | Left)]
    assert requests == [7, 8, 9]
    assert client.seqs(LOG)[-1] == 5
    assert list(other.feed(LOG).here) == ["client"]


async def test_feeds_of_the_gone_are_dropped(cluster: Cluster) -> None:
    """Without followers, neither the worker nor its home keeps any state of a log."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    client = await TestClient.login(other, "client")
    for number in range(50):
        await client.join(f"room{number}")
    await client.join(LOG)
    assert LOG in home.parts.home.interest.logs
    client.disconnect()
    await client.gone(other)
    both = (home.parts, other.parts)
    assert not any(parts.member.feeds.by_log for parts in both)
    await until(lambda: not any(parts.home.interest.logs for parts in both), "the interest to end")
    await until(lambda: not any(parts.home.rosters._logs for parts in both), "the rosters to end")
    assert not any(logs for parts in both for logs in parts.home.rosters._of_port.values())


async def test_stored_state_that_went_back_ends_the_members(
    cluster: Cluster, program_errors: list[str]
) -> None:
    """A head below what was distributed: the store lost data. Members reconnect, and get
    the gap.
    """
    other = cluster.other(LOG)
    client = await TestClient.login(other, "client")
    writer = await TestClient.login(other, "writer")
    await client.join(LOG)
    writer.send(LOG, 1, 3)
    await client.has(LOG, 3)
    other.parts.member.feeds.on_head(LOG, client.entries(LOG)[-1].epoch, 1)
    await client.gone(other)
    assert "log_went_back" in program_errors.pop()
    assert client.closed is not None
    assert client.closed.code == CloseCode.INTERNAL
    again = await TestClient.login(other, "again")
    await again.join(LOG, last=10)
    assert again.seqs(LOG) == [1, 2, 3]


async def test_joins_that_are_refused(single: Cluster) -> None:
    """A refusal leaves no trace of a membership."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.send_envelopes(Join(1, "No Room!", None, 0, 0), Join(2, "@other", None, 0, 0))
    client.send_envelopes(Join(3, LOG, None, 0, 10_001), Leave(4, LOG))
    await client.expect(Error, count=4)
    assert [e.request for e in client.received if isinstance(e, Error)] == [1, 2, 3, 4]
    assert not worker.parts.member.feeds.by_log
    await client.join(LOG)
    client.send_envelopes(Join(5, LOG, None, 0, 0))
    await client.expect(Error, count=5)
    assert len(worker.feed(LOG).subscriptions) == 1
    assert not [e for e in client.received if isinstance(e, Behind)]


async def test_what_is_left_of_a_dropped_feed_takes_nothing_from_the_next(cluster: Cluster) -> None:
    """A request that ends late concerns a dropped feed; its log is followed again."""
    worker = cluster.other(LOG)
    first = await TestClient.login(worker, "first")
    await first.join(LOG)
    dropped = worker.feed(LOG)
    first.send_envelopes(Leave(2, LOG))
    await first.expect(Left)
    await until(lambda: LOG not in worker.parts.member.feeds.by_log, "nobody to follow it")
    second = await TestClient.login(worker, "second")
    await second.join(LOG)
    feed = worker.feed(LOG)
    assert feed is not dropped
    presence = cluster.session("second").services.following.presence
    presence.changed(dropped)
    await until(lambda: not presence.to_report, "the turn")
    assert worker.feed(LOG) is feed
    writer = await TestClient.login(cluster.home(LOG), "writer")
    writer.send(LOG, 1)
    await second.has(LOG, 1)
    second.send_envelopes(Leave(3, LOG))
    await second.expect(Left, lambda e: e.request == 3)


async def test_who_leaves_at_once_takes_the_log_from_nobody_who_joins_with_it(
    cluster: Cluster,
) -> None:
    """A client's requests after its join run before the next join that waited for the same head."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    elsewhere = next(f"room{n}" for n in range(99) if cluster.home(f"room{n}") is other)
    first = await TestClient.login(other, "first")
    second = await TestClient.login(other, "second")
    await first.join(elsewhere)
    await cluster.kill(home.index)
    first.send_envelopes(Join(7, LOG, None, 0, 0), Leave(8, LOG), Who(9, elsewhere))
    feeds = other.parts.member.feeds.by_log
    await until(lambda: LOG in feeds and len(feeds[LOG].joining) == 1, "the first join")
    second.send_envelopes(Join(7, LOG, None, 0, 0))
    await until(lambda: len(feeds[LOG].joining) == 2, "the second join")
    await cluster.start(home.index)
    await first.expect(Members, lambda e: e.request == 9)
    await second.expect(Live, lambda e: e.log == LOG)
    writer = await TestClient.login(cluster.home(LOG), "writer")
    writer.send(LOG, 1)
    await second.has(LOG, 1)
