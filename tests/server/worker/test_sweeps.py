"""Entries that arrive while a distribution is being written (``member/fanout``): quickly, in order,
once, and at no member's cost.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from relay.limits import OUTBOX_BYTES_MAX
from relay.server.worker.delivery.outbox import FLUSHES_PER_CLOCK
from relay.server.worker.wakeup import FAR
from relay.wire.envelopes import EntryMessage, History, Page, Send
from tests.support.cluster import DEADLINE_S, PAUSE_S, until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
MEMBERS = 2 * FLUSHES_PER_CLOCK + 6
"""Three slices, if each reads the clock only once."""


async def _town(worker: Worker) -> tuple[list[TestClient], TestClient]:
    """Return the members, in the order in which they are written to, and a sender.

    From now on only ``worker.parts.turn.run`` runs turns, and each writes one slice of a sweep.
    """
    members = [await TestClient.login(worker, f"member{number}") for number in range(MEMBERS)]
    for member in members:
        await member.join(LOG)
    sender = await TestClient.login(worker, "sender")
    parts = worker.parts
    await until(lambda: not _pending(worker) and parts.home.rosters.due_at == FAR, "quiet")
    for member in members:  # and has received what was under way to it
        member.send_envelopes(History(9, LOG, False, 0, 1))
        await member.expect(Page)
    await until(
        lambda: worker.feed(LOG).paused_until <= time.monotonic(), "the room to have rested"
    )
    worker.sweeps = False
    parts.wakeup.bind(lambda: None)
    ticks = itertools.count()
    flusher = parts.member.fanout._flusher
    flusher._clock = lambda: time.monotonic() + next(ticks)
    return members, sender


def _pending(worker: Worker) -> bool:
    parts = worker.parts
    return bool(
        parts.member.fanout.sweeping or parts.member.fanout.late or parts.member.feeds.to_distribute
    )


async def _committed(worker: Worker, sender: TestClient, counters: range, size: int = 1) -> None:
    """Send, and wait until the worker has it, without a turn."""
    before = worker.parts.member.forward.unanswered
    for counter in counters:
        sender.send_envelopes(Send(LOG, counter, 0, "", bytes(size)))
    await until(
        lambda: worker.parts.member.forward.unanswered == before + len(counters),
        "the sends to arrive",
    )


async def _swept(worker: Worker) -> None:
    """Run turns until all is written."""
    async with asyncio.timeout(DEADLINE_S):
        while _pending(worker):
            worker.parts.turn.run()
            await asyncio.sleep(PAUSE_S)  # the room may be paused, by a clock that leaps


def _seqs(member: TestClient) -> list[int]:
    return [each.seq for each in member.received if isinstance(each, EntryMessage)]


async def test_a_message_joins_the_sweep_that_is_being_written(single: Cluster) -> None:
    """Members not yet written to get both in one record; the others get the second separately."""
    worker = single.workers[0]
    members, sender = await _town(worker)
    records = [member.records for member in members]
    await _committed(worker, sender, range(1, 2))
    worker.parts.turn.run()
    assert worker.parts.member.fanout.sweeping, "one slice of several"
    await _committed(worker, sender, range(2, 3))
    worker.parts.turn.run()
    assert worker.parts.member.fanout.late, "those of the first slice wait"
    await _swept(worker)
    await until(lambda: all(_seqs(member) == [1, 2] for member in members), "both, in order")
    grown = [member.records - before for member, before in zip(members, records, strict=True)]
    first = FLUSHES_PER_CLOCK
    assert grown == [2] * first + [1] * (MEMBERS - first)


async def test_nobody_falls_behind_for_having_to_wait_for_its_turn(single: Cluster) -> None:
    """An outbox may still hold the previous batch, and more would be too much: then the batch
    waits.
    """
    worker = single.workers[0]
    members, sender = await _town(worker)
    size = 8000
    much, more = OUTBOX_BYTES_MAX * 3 // 4 // size, OUTBOX_BYTES_MAX // 2 // size
    await _committed(worker, sender, range(1, much + 1), size)
    worker.parts.turn.run()
    assert worker.parts.member.fanout.sweeping, "one slice of several"
    await _committed(worker, sender, range(much + 1, much + more + 1), size)
    worker.parts.turn.run()
    assert len(worker.feed(LOG).live) == MEMBERS, "a member fell behind"
    await _swept(worker)
    wanted = list(range(1, much + more + 1))
    await until(lambda: all(_seqs(member) == wanted for member in members), "all, in order")
