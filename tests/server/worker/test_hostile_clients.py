"""What one client does to a worker affects that client only."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest

from relay.codec import Unknown
from relay.limit_settings import Limits
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.requests import commands
from relay.server.worker.connection.schedule import UNITS, UNITS_PER_TURN
from relay.server.worker.connection.session import Session
from relay.server.worker.connection.stages import Stage
from relay.store.sqlite import SqlitePartition
from relay.wire.cipher import RecordType
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Ack, Error, Hello, Join, Refused, Send
from relay.wire.frames import FrameType, header
from relay.wire.packing import pack
from tests.support.cluster import DEADLINE_S, until
from tests.support.workers import Cluster, TestClient

LOG = "lobby"
UNBOUNDED = Limits(waste_per_s=0)
"""Without pauses of heavy users: the tests are about how a flood shares the worker."""
UNKNOWN = msgpack.packb([99]) * 1023
"""A record of unknown operations: 1,023 in 2 KiB."""
NESTED_COUNT = 390
NESTED = msgpack.packb([99, *[[[[[[[[]]]]]]]] * 23]) * NESTED_COUNT
"""As many nested empty arrays as fit into a record: 10 ms of work at once."""


@asynccontextmanager
async def _shares(path: Path) -> AsyncIterator[tuple[Cluster, list[int]]]:
    """A worker, and the units of each visit to a session."""
    shares = Shares()
    ready = dict(commands.OPERATIONS[Stage.READY]) | {Unknown: shares.unknown}
    operations = dict(commands.OPERATIONS) | {Stage.READY: ready}
    needs: dict[str, object] = {"clock": shares.clock, "operations": operations}
    async with Cluster(path, 1, needs=needs, limits=UNBOUNDED) as single:
        yield single, shares.visits


class Shares:
    """Records how many units each visit to a session uses at once.

    A visit begins with a clock read; the counted operations do not read the clock.
    """

    def __init__(self) -> None:
        self.visits = [0]

    def clock(self) -> float:
        if self.visits[-1]:
            self.visits.append(0)
        return time.monotonic()

    def unknown(self, session: Session, operation: Unknown) -> None:
        self.visits[-1] += UNITS[Unknown]
        commands.unknown(session, operation)


async def test_garbage_takes_its_turn(tmp_path: Path) -> None:
    """A flood of cheap envelopes (attack A16): a share at a time, with others in between."""
    async with _shares(tmp_path) as (single, visits):
        await _garbage_takes_its_turn(single, visits)


async def _garbage_takes_its_turn(single: Cluster, visits: list[int]) -> None:
    worker = single.workers[0]
    floods = [await TestClient.login(worker, f"flood{n}") for n in range(8)]
    honest = await TestClient.login(worker, "honest")
    await honest.join(LOG)
    for flood in floods:
        flood.transport.write(b"".join(flood.sealed(UNKNOWN) for _ in range(10)))
    await floods[-1].expect(Error)
    honest.send(LOG, 1)
    await honest.acked(LOG, 1)
    answered = sum(len(flood.received) for flood in floods)
    assert answered < 8 * 10 * 1023, "the honest client waited for all of the garbage"
    for flood in floods:
        await flood.expect(Error, count=10 * 1023)
    assert sum(visits) == 8 * 10 * 1023 * UNITS[Unknown], "all of it was counted"
    assert max(visits) <= UNITS_PER_TURN + max(UNITS.values())
    assert not worker.parts.services.schedule.waiting


async def test_a_long_record_is_unpacked_a_part_at_a_time(tmp_path: Path) -> None:
    """Until then its received bytes are kept; its sender waits for its turns."""
    async with Cluster(tmp_path, 1, limits=UNBOUNDED) as single:
        flood = await TestClient.login(single.workers[0], "flood")
        reading = single.session("flood").reading
        flood.transport.write(flood.sealed(NESTED))
        # It waits alone for some ms: check in each iteration.
        async with asyncio.timeout(DEADLINE_S):
            while reading._unpacking is None:
                await asyncio.sleep(0)
        assert 0 < len(reading._unpacking.messages) < NESTED_COUNT
        assert reading.unprocessed > len(NESTED)
        await flood.expect(Error, count=NESTED_COUNT)


async def test_nothing_of_an_illegal_record_is_done(tmp_path: Path) -> None:
    """However much of it was unpacked before the illegal part."""
    async with Cluster(tmp_path, 1, limits=UNBOUNDED) as single:
        flood = await TestClient.login(single.workers[0], "flood")
        known = len(flood.received)
        flood.transport.write(flood.sealed(NESTED[: -len(NESTED) // NESTED_COUNT] + b"\x80"))
        await until(lambda: flood.lost, "the end")
        assert flood.closed is not None
        assert flood.closed.code == CloseCode.PROTOCOL
        assert len(flood.received) == known
        assert single.workers[0].parts.services.schedule.busy == 0


async def test_many_small_records_take_their_turn(tmp_path: Path) -> None:
    """Records of pings are work, too: they are opened a share at a time."""
    async with Cluster(tmp_path, 1, limits=UNBOUNDED) as single:
        await _many_small_records_take_their_turn(single)


async def _many_small_records_take_their_turn(single: Cluster) -> None:
    worker = single.workers[0]
    flood = await TestClient.login(worker, "flood")
    honest = await TestClient.login(worker, "honest")
    session = single.session("flood")
    cipher = flood.connection._send
    flood.transport.write(b"".join(cipher.seal(RecordType.PING, b"x") for _ in range(20_000)))
    async with asyncio.timeout(DEADLINE_S):  # it waits alone for some ms: check in each iteration
        while not worker.parts.services.schedule.waiting:
            await asyncio.sleep(0)
    assert session._connection.reader.pending, "all of it was opened at once"
    honest.send(LOG, 1)
    await honest.acked(LOG, 1)
    flood.send(LOG, 1)
    await flood.acked(LOG, 1)


async def test_who_was_held_up_goes_on_in_turn(tmp_path: Path) -> None:
    """Many connections that may continue at once (their answers have come) do not make a
    turn long.
    """
    async with _shares(tmp_path) as (single, visits):
        await _who_was_held_up_goes_on_in_turn(single, visits)


async def _who_was_held_up_goes_on_in_turn(single: Cluster, visits: list[int]) -> None:
    worker = single.workers[0]
    clients = [await TestClient.login(worker, f"client{n}") for n in range(12)]
    readings = [session.reading for session in worker.parts.connections.sessions]
    queued = worker.parts.services.schedule
    for client in clients:
        client.transport.write(client.sealed(UNKNOWN))
    await until(lambda: all(reading._pending for reading in readings), "all of it")
    for reading in readings:
        reading.pause(Pause.REQUEST)
    await until(lambda: not queued.waiting, "all to be held up")
    queued.slice_s = 0.0
    visits[:] = [0]
    for reading in readings:
        reading.resume(Pause.REQUEST)
    assert 0 < sum(visits) <= UNITS_PER_TURN + max(UNITS.values())
    assert queued.waiting == len(readings)
    for client in clients:
        await client.expect(Error, count=1023)


async def test_new_rooms_wait_for_themselves(cluster: Cluster) -> None:
    """Floods of new rooms are stored, and clients in existing rooms are not delayed."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    honest = await TestClient.login(home, "honest")
    honest.send(LOG, 1)
    await honest.acked(LOG, 1)
    floods = [await TestClient.login(other, f"flood{n}") for n in range(8)]
    for number, flood in enumerate(floods):
        flood.send_envelopes(*[Send(f"r{number}-{n}", 1, 0, "", b"x") for n in range(200)])
    await floods[-1].expect(Ack)
    for counter in range(2, 30):
        honest.send(LOG, counter)
    await honest.acked(LOG, 29)
    answered = sum(isinstance(e, Ack) for flood in floods for e in flood.received)
    assert answered < 8 * 200, "the honest client waited for all new rooms"
    for flood in floods:
        await flood.expect(Ack, count=200)
    assert not any(
        one.count for worker in (home, other) for one in worker.parts.home.queues.by_partition
    )


async def test_old_counters_wait_in_their_own_flow(tmp_path: Path) -> None:
    """Repeats of old messages are expensive (attack A2): each is answered, and new messages go
    first.
    """
    async with Cluster(tmp_path, 2, limits=UNBOUNDED) as cluster:
        await _old_counters_wait_in_their_own_flow(cluster)


async def _old_counters_wait_in_their_own_flow(cluster: Cluster) -> None:
    home, other = cluster.home(LOG), cluster.other(LOG)
    hostile = await TestClient.login(other, "hostile")
    honest = await TestClient.login(other, "honest")
    for start in range(1, 3001, 500):
        hostile.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in range(start, start + 500)])
        await hostile.acked(LOG, start + 499)
    hostile.received.clear()
    counters = random.Random(7).sample(range(1, 2900), 1000)
    hostile.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in counters])
    await hostile.expect(Ack)
    for counter in range(1, 6):
        honest.send(LOG, counter)
        await honest.acked(LOG, counter)
    answered = len([e for e in hostile.received if isinstance(e, Ack)])
    assert answered < 1000, "the honest client waited for all repeats"
    await hostile.expect(Ack, count=1000)
    acks = [(e.counter, e.seq) for e in hostile.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in counters], "each once, in order, as the original"
    hostile.send_envelopes(Send(LOG, 3001, 0, "", b"new"))
    await hostile.acked(LOG, 3001)
    assert not any(one.count for one in home.parts.home.queues.by_partition)


async def test_one_message_that_cannot_be_stored_is_refused_alone(single: Cluster) -> None:
    """No ids for new rooms are left (attack A5): existing rooms go on, in the same commit."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    for partition in worker.parts.home.partitions.opened.values():
        assert isinstance(partition, SqlitePartition)
        partition.logs_max = 0
    client.send_envelopes(
        Send(LOG, 2, 0, "", b"before"),
        *[Send(f"new{n}", 1, 0, "", b"x") for n in range(20)],
        Send(LOG, 3, 0, "", b"after"),
    )
    await client.expect(Refused, count=20)
    refused = [e for e in client.received if isinstance(e, Refused)]
    assert {e.code for e in refused} == {ErrorCode.LIMIT}
    assert all("takes no new one" in e.text for e in refused)
    await client.expect(Ack, lambda e: e.counter == 3)


VIOLATIONS: dict[str, Callable[[TestClient], bytes]] = {
    "a frame": lambda _: header(FrameType.CLIENT_KEY, 100) + bytes(100),
    "a type of record": lambda client: client.connection._send.seal(RecordType.TICKET, b""),
    "no msgpack": lambda client: client.sealed(b"\xc1"),
    "a field": lambda client: client.sealed(pack(Join(0, LOG, None, 0, 0))),
    "an envelope too many": lambda client: client.sealed(b"\x91\x63" * 1025),
    "a second login": lambda client: client.sealed(pack(Hello("client", bytes(16), "", ""))),
}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_the_reason_arrives_though_the_peer_still_writes(
    single: Cluster, violation: str, held: bool
) -> None:
    """A violation of any kind (attack A18): what follows is read, so that no reset overtakes the
    close.
    """
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.transport.pause_reading()
    if held:  # the server does not read it when the violation is found
        for n in range(1, 200):
            client.send_envelopes(Send(LOG, n, 0, "", bytes(4096)))
    client.transport.write(VIOLATIONS[violation](client))
    for _ in range(40):
        client.transport.write(client.sealed(bytes(60_000)))
    await until(lambda: not client.transport.get_write_buffer_size(), "everything to be taken")
    client.transport.resume_reading()
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == CloseCode.PROTOCOL
    await client.gone(worker)
