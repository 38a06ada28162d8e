"""Falling behind (rules 4 and 5): bounded memory, nothing lost, nobody else slowed."""

from __future__ import annotations

import asyncio

import pytest

from relay import limits
from relay.server.worker import pressure
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
from tests.support.hubs import Guest, Town, Worker

LOG = "lobby"
OTHER = "hall"


async def _stall(guest: Guest) -> None:
    """Have a guest take nothing any more."""
    guest.transport.pause_reading()


async def _shown(worker: Worker, seq: int) -> None:
    """Wait until a worker has shown an entry to its live members."""
    await until(lambda: worker.feed(LOG).seq == seq, f"entry {seq} on the worker")


async def _flood(writer: Guest, logs: list[str], first: int, last: int) -> None:
    """More than kernel, transport and outbox of one connection hold."""
    for counter in range(first, last + 1):
        for log in logs:
            writer.send(log, counter, size=20_000)
        if counter % 20 == 0:
            for log in logs:
                await writer.acked(log, counter)


async def test_a_stalled_reader_falls_behind_and_loses_nothing(town: Town) -> None:
    """In all its logs at once; another reader on the same worker gets everything meanwhile."""
    worker = town.other(LOG)
    slow = await Guest.arrive(worker, "slow")
    quick = await Guest.arrive(worker, "quick")
    writer = await Guest.arrive(town.home(LOG), "writer")
    for guest in (slow, quick):
        await guest.join(LOG)
        await guest.join(OTHER)
    await _stall(slow)
    await _flood(writer, [LOG, OTHER], 1, 300)
    await quick.has(LOG, 300)
    await quick.has(OTHER, 300)
    session = town.session("slow")
    held = session.outbox.size + session.buffered
    assert held <= limits.CONNECTION_BYTES_MAX, "what a reader that takes nothing makes us hold"
    assert not worker.feed(LOG).members[session].live
    assert not worker.feed(OTHER).members[session].live
    assert worker.hub.pressure.fell_behind >= 1
    slow.transport.resume_reading()
    for log in (LOG, OTHER):
        await slow.has(log, 300)
        assert slow.seqs(log) == list(range(1, 301))
        assert quick.seqs(log) == list(range(1, 301))
    await slow.told(Live, lambda e: e.log == LOG and e.seq == 300)
    assert worker.feed(LOG).members[session].live


async def test_what_a_reader_is_told_when_behind_is_where_it_is(town: Town) -> None:
    """BEHIND names the last entry that came before it: the client's cursor and ours agree."""
    slow = await Guest.arrive(town.other(LOG), "slow")
    writer = await Guest.arrive(town.home(LOG), "writer")
    await slow.join(LOG)
    for round_ in range(3):
        await _stall(slow)
        await _flood(writer, [LOG], round_ * 250 + 1, round_ * 250 + 250)
        slow.transport.resume_reading()
        await slow.has(LOG, (round_ + 1) * 250)
    assert [e for e in slow.said if isinstance(e, Behind)], "it never fell behind"
    last = 0
    for envelope in slow.said:
        if isinstance(envelope, EntryMessage):
            assert envelope.prev == last
            last = envelope.seq
        elif isinstance(envelope, Behind | Live):
            assert envelope.seq == last


async def test_catching_up_under_traffic_reaches_live(town: Town) -> None:
    """The log grows while a reader of all its history catches up; it becomes live all the same."""
    writer = await Guest.arrive(town.home(LOG), "writer")
    await _flood(writer, [LOG], 1, 200)
    reader = await Guest.arrive(town.other(LOG), "reader")
    reader.say(Join(1, LOG, None, 0, 10_000))
    writer.send(LOG, 201, 600)
    await writer.acked(LOG, 600)
    await reader.has(LOG, 600)
    await reader.told(Live)
    assert reader.seqs(LOG) == list(range(1, 601))


async def test_leaving_with_batches_queued(town: Town) -> None:
    """What was queued for the membership that ended says nothing of the next one's place."""
    worker = town.other(LOG)
    slow = await Guest.arrive(worker, "slow")
    writer = await Guest.arrive(town.home(LOG), "writer")
    await slow.join(LOG)
    await slow.join(OTHER)
    session = town.session("slow")
    await _stall(slow)
    counter = 0
    while not session.outbox.paused or session.outbox.size < 60_000:
        counter += 1
        writer.send(LOG, counter, size=20_000)
        await writer.acked(LOG, counter)
        await _shown(worker, counter)
    assert worker.feed(LOG).members[session].live, "not behind yet"
    slow.say(Leave(2, LOG), Join(3, LOG, None, 0, 0))
    await until(lambda: worker.feed(LOG).members[session].seq == counter, "the new membership")
    await _flood(writer, [OTHER], 1, 20)  # now it falls behind, in the new membership
    slow.transport.resume_reading()
    await slow.has(OTHER, 20)
    joined = await slow.told(Joined, lambda e: e.request == 3)
    after = slow.said[slow.said.index(joined) :]
    assert joined.start_seq == counter
    assert [e.seq for e in after if isinstance(e, EntryMessage) and e.log == LOG] == []
    assert all(e.seq >= counter for e in after if isinstance(e, Behind) and e.log == LOG)
    assert [e.request for e in slow.said if isinstance(e, Left)] == [2]


async def test_history_is_rationed(village: Town) -> None:
    """A thousand requests in one record wait their turn: one page at a time, and others go on."""
    worker = village.workers[0]
    writer = await Guest.arrive(worker, "writer")
    await _flood(writer, [LOG], 1, 100)
    greedy = await Guest.arrive(worker, "greedy")
    await greedy.join(LOG)
    await _stall(greedy)
    greedy.say(*[History(n, LOG, False, 0, 1000) for n in range(1, 1001)])
    session = village.session("greedy")
    await until(lambda: session.outbox.paused, "the flood to be stuck")
    writer.send(LOG, 101, 110)
    await writer.acked(LOG, 110)
    assert session.outbox.size + session.buffered <= limits.CONNECTION_BYTES_MAX
    greedy.transport.resume_reading()
    await greedy.told(Page, count=1000)
    assert [e.request for e in greedy.said if isinstance(e, Page)] == list(range(1, 1001))


async def test_operations_that_wait_are_held_as_bytes(village: Town) -> None:
    """Behind an operation that waits, records stay records: objects take many times the room."""
    worker = village.workers[0]
    guest = await Guest.arrive(worker, "guest")
    await guest.join(LOG)
    session = village.session("guest")
    session.block()
    for _ in range(10):
        guest.say(*[Who(n, LOG) for n in range(1, 1001)])
    session._transport.resume_reading()  # as if all of it had been in one read
    await until(lambda: len(session._pending) == 10, "all records")
    assert all(isinstance(item, bytes) for item in session._pending)
    session.unblock()
    await guest.told(Members, count=10_000)


async def test_one_question_at_a_time(town: Town) -> None:
    """Answers to WHO that are on their way are no more than one for each connection."""
    other = town.other(LOG)
    guest = await Guest.arrive(other, "guest")
    await guest.join(LOG)
    guest.say(*[Who(n, LOG) for n in range(1, 1001)], Leave(1001, LOG))
    most = 0
    while not [e for e in guest.said if isinstance(e, Left)]:
        most = max(most, len(other.hub.waits._waiting))
        await asyncio.sleep(0)
    assert most == 1
    assert [e.request for e in guest.said if isinstance(e, Members)] == list(range(1, 1001))


async def test_a_reader_that_takes_nothing_is_ended(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When too many bytes wait in a worker, who takes nothing goes, so that others catch up."""
    monkeypatch.setattr(pressure, "BUDGET_BYTES", 100_000)
    monkeypatch.setattr(pressure, "CROWDED_BYTES", 20_000)
    monkeypatch.setattr(pressure, "CROWDED_TIMEOUT_S", 0.1)
    worker = town.other(LOG)
    stuck = [await Guest.arrive(worker, f"stuck{n}") for n in range(4)]
    quick = await Guest.arrive(worker, "quick")
    writer = await Guest.arrive(town.home(LOG), "writer")
    for guest in (*stuck, quick):
        await guest.join(LOG)
    for guest in stuck:
        await _stall(guest)
    await _flood(writer, [LOG], 1, 300)
    await quick.has(LOG, 300)
    await until(lambda: worker.hub.pressure.too_slow >= 1, "the budget to be kept")
    await until(lambda: worker.hub.pressure.bytes <= 20_000, "the others to go on")
    for guest in stuck:
        guest.transport.resume_reading()
    kept = 0
    for guest in stuck:
        await _ends_or_has_all(guest)
        if guest.closed is not None:
            assert guest.closed.code == CloseCode.TOO_SLOW
        kept += not guest.lost
    assert kept + worker.hub.pressure.too_slow == 4


async def _ends_or_has_all(guest: Guest) -> None:
    await until(lambda: guest.lost or len(guest.entries(LOG)) == 300, "an end, or all of it")


async def test_acknowledgements_pass_a_slow_reader(town: Town) -> None:
    """Rule 2: a sender that is a stalled reader's neighbour gets its ACKs."""
    worker = town.other(LOG)
    slow = await Guest.arrive(worker, "slow")
    writer = await Guest.arrive(worker, "writer")
    await slow.join(LOG)
    await _stall(slow)
    await _flood(writer, [LOG], 1, 100)
    assert len([e for e in writer.said if isinstance(e, Ack)]) == 100
    assert not [e for e in writer.said if isinstance(e, Error)]
