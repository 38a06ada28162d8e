"""One seam (rule 3): whoever joins, resumes or catches up sees each entry once, in order."""

from __future__ import annotations

import asyncio

import pytest

from relay.bus.messages import Batch
from relay.wire.codes import CloseCode
from relay.wire.envelopes import Behind, Error, Gap, Join, Joined, Leave, Left, Live
from tests.support.cluster import until
from tests.support.hubs import Guest, Town, drop_publishes

LOG = "lobby"


async def _traffic(writer: Guest, count: int, size: int = 300) -> None:
    for counter in range(1, count + 1):
        writer.send(LOG, counter, size=size)
        await asyncio.sleep(0)


def _assert_whole_from_start(guest: Guest, end: int) -> None:
    joined = [e for e in guest.said if isinstance(e, Joined)]
    assert not [e for e in guest.said if isinstance(e, Gap)]
    assert guest.seqs(LOG) == list(range(joined[-1].start_seq + 1, end + 1))


async def test_join_during_traffic_on_every_worker(town: Town) -> None:
    """Joins with and without history, at any moment: no entry is missing and none comes twice."""
    writer = await Guest.arrive(town.home(LOG), "writer")
    guests = [
        await Guest.arrive(worker, f"guest{worker.index}{n}")
        for worker in town.workers.values()
        for n in range(10)
    ]
    traffic = asyncio.ensure_future(_traffic(writer, 600))
    for number, guest in enumerate(guests):
        guest.say(Join(1, LOG, None, 0, 50 * (number % 3)))
        await guest.told(Live)
    await traffic
    await writer.acked(LOG, 600)
    for guest in guests:
        await guest.ends_with(LOG, 600)
        _assert_whole_from_start(guest, 600)


async def test_leave_and_join_again_and_again_during_traffic(town: Town) -> None:
    """Each membership is whole in itself, on a worker that may drop the feed in between."""
    writer = await Guest.arrive(town.home(LOG), "writer")
    guest = await Guest.arrive(town.other(LOG), "guest")
    traffic = asyncio.ensure_future(_traffic(writer, 400))
    for _ in range(30):
        guest.said.clear()
        guest.say(Join(1, LOG, None, 0, 10))
        await guest.told(Live)
        guest.say(Leave(2, LOG))
        await guest.told(Left)
        (joined,) = [e for e in guest.said if isinstance(e, Joined)]
        seqs = guest.seqs(LOG)
        assert seqs == list(range(joined.start_seq + 1, joined.start_seq + 1 + len(seqs)))
        assert len(seqs) >= min(10, joined.head_seq)
    await traffic


async def test_leave_and_join_in_one_record(town: Town) -> None:
    """What was queued before LEAVE is no part of the next membership."""
    guest = await Guest.arrive(town.other(LOG), "guest")
    writer = await Guest.arrive(town.home(LOG), "writer")
    await guest.join(LOG)
    for number in range(20):
        writer.send(LOG, number + 1)
        guest.say(Leave(2, LOG), Join(3, LOG, None, 0, 0))
    await guest.told(Left, count=20)
    await guest.told(Joined, count=21)
    await until(lambda: len(town.other(LOG).feed(LOG).live) == 1, "the last membership to be live")
    writer.send(LOG, 21)
    await guest.until(lambda: 21 in guest.seqs(LOG), "the last entry")
    seqs = guest.seqs(LOG)
    assert seqs == sorted(set(seqs))


async def test_resume_from_every_cursor_during_traffic(town: Town) -> None:
    """A reader that goes from worker to worker misses nothing, wherever it was."""
    writer = await Guest.arrive(town.home(LOG), "writer")
    traffic = asyncio.ensure_future(_traffic(writer, 500))
    await writer.acked(LOG, 1)
    seen: list[int] = []
    epoch = None
    workers = [town.home(LOG), town.other(LOG)]
    for turn in range(40):
        guest = await Guest.arrive(workers[turn % 2], f"roamer{turn}")
        guest.say(Join(1, LOG, epoch, seen[-1] if seen else 0, 10_000))
        await guest.told(Live)
        assert not [e for e in guest.said if isinstance(e, Gap)]
        seen += guest.seqs(LOG)
        if seen:
            epoch = guest.entries(LOG)[-1].epoch if guest.entries(LOG) else epoch
        guest.leave_town()
    await traffic
    await writer.acked(LOG, 500)
    guest = await Guest.arrive(workers[0], "last")
    guest.say(Join(1, LOG, epoch, seen[-1], 0))
    await guest.told(Live, lambda live: live.seq == 500)
    seen += guest.seqs(LOG)
    assert seen == list(range(1, 501))


async def test_a_reader_that_is_ahead_of_its_new_worker(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from a worker that was further: it waits for H, and is shown nothing twice."""
    home, other = town.home(LOG), town.other(LOG)
    keeper = await Guest.arrive(other, "keeper")
    await keeper.join(LOG)
    writer = await Guest.arrive(home, "writer")
    drop_publishes(monkeypatch, lambda message: isinstance(message, Batch))
    monkeypatch.setattr(home.hub.interest, "say_heads", lambda _: None)
    writer.send(LOG, 1, 5)
    ack = await writer.acked(LOG, 5)
    roamer = await Guest.arrive(other, "roamer")
    roamer.say(Join(1, LOG, ack.epoch, 5, 0))
    await roamer.told(Joined)
    assert other.feed(LOG).seq == 0, "the new worker is behind"
    monkeypatch.undo()  # now it hears of the entries
    await roamer.told(Live, lambda live: live.seq == 5)
    writer.send(LOG, 6)
    await roamer.has(LOG, 1)
    assert roamer.seqs(LOG) == [6]
    await keeper.has(LOG, 6)
    assert keeper.seqs(LOG) == [1, 2, 3, 4, 5, 6]
    assert not [e for e in roamer.said if isinstance(e, Gap)]


async def test_join_while_the_home_is_dead(town: Town) -> None:
    """The join waits, with all that the client asks behind it; then both are answered in order."""
    home, other = town.home(LOG), town.other(LOG)
    writer = await Guest.arrive(other, "writer")
    writer.send(LOG, 1, 5)
    await writer.acked(LOG, 5)
    guest = await Guest.arrive(other, "guest")
    gone = await Guest.arrive(other, "gone")
    await town.kill(home.index)
    guest.say(Join(7, LOG, None, 0, 3), Leave(8, LOG), Join(9, LOG, None, 0, 1))
    gone.say(Join(7, LOG, None, 0, 3))
    feeds = other.hub.fanout.feeds
    await until(lambda: LOG in feeds and len(feeds[LOG].joining) == 2, "the joins to arrive")
    gone.leave_town()
    await gone.gone(other)  # noticed although nothing is read from it
    await town.start(home.index)
    await guest.told(Joined, lambda e: e.request == 9)
    await guest.told(Live)
    requests = [e.request for e in guest.said if isinstance(e, Joined | Left)]
    assert requests == [7, 8, 9]
    assert guest.seqs(LOG)[-1] == 5
    assert [session.name for session in other.feed(LOG).members] == ["guest"]


async def test_feeds_of_the_gone_are_dropped(town: Town) -> None:
    """Nobody follows a log: neither the worker nor its home remembers anything of it."""
    home, other = town.home(LOG), town.other(LOG)
    guest = await Guest.arrive(other, "guest")
    for number in range(50):
        await guest.join(f"room{number}")
    await guest.join(LOG)
    assert LOG in home.hub.interest.logs
    guest.leave_town()
    await guest.gone(other)
    hubs = (home.hub, other.hub)
    assert not any(hub.fanout.feeds for hub in hubs)
    await until(lambda: not any(hub.interest.logs for hub in hubs), "the interest to end")
    await until(lambda: not any(hub.rosters._logs for hub in hubs), "the rosters to end")
    assert not any(logs for hub in hubs for logs in hub.rosters._of_port.values())


async def test_stored_state_that_went_back_ends_the_members(town: Town) -> None:
    """A head below what was shown: the store was lost. Members come again, and learn of the gap."""
    other = town.other(LOG)
    guest = await Guest.arrive(other, "guest")
    writer = await Guest.arrive(other, "writer")
    await guest.join(LOG)
    writer.send(LOG, 1, 3)
    await guest.has(LOG, 3)
    other.hub.head_said(LOG, guest.entries(LOG)[-1].epoch, 1)
    await guest.gone(other)
    assert guest.closed is not None
    assert guest.closed.code == CloseCode.INTERNAL
    again = await Guest.arrive(other, "again")
    await again.join(LOG, last=10)
    assert again.seqs(LOG) == [1, 2, 3]


async def test_joins_that_are_refused(village: Town) -> None:
    """A refusal leaves no trace of a membership."""
    worker = village.workers[0]
    guest = await Guest.arrive(worker, "guest")
    guest.say(Join(1, "No Room!", None, 0, 0), Join(2, "@guest", None, 0, 0))
    guest.say(Join(3, LOG, None, 0, 10_001), Leave(4, LOG))
    await guest.told(Error, count=4)
    assert [e.request for e in guest.said if isinstance(e, Error)] == [1, 2, 3, 4]
    assert not worker.hub.fanout.feeds
    await guest.join(LOG)
    guest.say(Join(5, LOG, None, 0, 0))
    await guest.told(Error, count=5)
    assert len(worker.feed(LOG).members) == 1
    assert not [e for e in guest.said if isinstance(e, Behind)]
