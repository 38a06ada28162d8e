"""A program error ends the affected connections only, and their clients miss nothing."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from relay.bus.messages import Batch
from relay.chat.entries import NO_EPOCH, Kind
from relay.chat.rooms import events as room_events
from relay.server.periodic import Periodic
from relay.server.worker.process.periodic import attempt
from relay.store.log import Page, Reader
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Join, Removed
from relay.wire.packing import pack_entry
from tests.support.workers import Cluster, TestClient, Worker


def _control(worker: Worker, body: bytes | None) -> Batch:
    """Return a control entry after the head of the lobby; None: one with invalid bytes."""
    feed = worker.feed("lobby")
    content = b"\xc1"
    if body is not None:
        place = feed.epoch, feed.seq + 1, feed.seq, 0
        kind, name = int(Kind.SYSTEM), room_events.CONTENT_TYPE
        content = pack_entry(("lobby", *place, "relay", b"", bytes(16), 1, kind, name, body))
    return Batch("lobby", feed.seq, feed.epoch, feed.seq + 1, 1, content, True)


async def _members(cluster: Cluster) -> tuple[TestClient, TestClient]:
    """A member of the lobby and a member of another room, on one worker."""
    first = await TestClient.login(cluster.workers[0], "alice")
    second = await TestClient.login(cluster.workers[0], "bob")
    await first.join("lobby")
    await second.join("tea")
    first.send("lobby", 1)
    await first.acked("lobby", 1)
    await first.has("lobby", 1)
    return first, second


async def test_a_batch_that_cannot_be_distributed_ends_its_members_alone(
    single: Cluster, program_errors: list[str]
) -> None:
    """The head was advanced by then: a member that stayed connected would miss it unnoticed."""
    alice, bob = await _members(single)
    worker = single.workers[0]
    worker.parts.member.feeds.on_batch(worker.parts.own_home.to_member, _control(worker, None))
    bob.send("tea", 1)
    await bob.has("tea", 1)
    await alice.until(lambda: alice.lost, "the end of the connection")
    assert "fan_out_failed" in program_errors.pop()
    assert not bob.lost


async def test_a_change_of_a_room_that_cannot_be_read_ends_reading_it(single: Cluster) -> None:
    """Nobody gets what follows: it is not known who may read that."""
    alice, bob = await _members(single)
    worker = single.workers[0]
    worker.parts.member.feeds.on_batch(worker.parts.own_home.to_member, _control(worker, b"\xc1"))
    bob.send("tea", 1)
    await bob.has("tea", 1)
    removed = await alice.expect(Removed)
    assert (removed.log, removed.code) == ("lobby", ErrorCode.DAMAGED)


async def test_an_error_at_reading_a_page_ends_its_reader_alone(
    single: Cluster, program_errors: list[str]
) -> None:
    """The client is closed, and reconnects instead of waiting for ever."""
    alice, bob = await _members(single)
    catchup = single.workers[0].parts.member.catchup
    reader_of = catchup._reader_of

    class Damaged:
        """A reader with a program error."""

        def read(self, *_: object) -> Page:
            raise ValueError("not foreseen")

    catchup._reader_of = lambda log: cast(Reader, Damaged()) if log == "tea" else reader_of(log)
    bob.send("tea", 1, 3)
    await bob.acked("tea", 3)
    carol = await TestClient.login(single.workers[0], "carol")
    carol.send_envelopes(Join(1, "tea", NO_EPOCH, 0, 0))
    await carol.until(lambda: carol.lost, "the end of the connection")
    assert "catchup_failed" in program_errors.pop()
    alice.send("lobby", 2)
    await alice.has("lobby", 2)


async def test_each_step_of_a_periodic_task_is_tried(program_errors: list[str]) -> None:
    """The periodic task goes on."""
    done: list[int] = []

    def step() -> None:
        done.append(len(done))
        raise ValueError(len(done))

    periodic = Periodic(0.0, partial(attempt, step))
    async with asyncio.timeout(30):
        while len(done) < 3:
            await asyncio.sleep(0)
    periodic.cancel()
    assert all("periodic_task_failed" in error for error in program_errors)
    program_errors.clear()
