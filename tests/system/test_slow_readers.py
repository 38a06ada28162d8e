"""Readers slower than their rooms lose nothing, use bounded memory, and delay nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from relay import limits
from relay.client.aio import Client
from relay.client.events import Event, Gap, Message, State, StateChanged
from relay.wire.codes import CloseCode
from relay.wire.envelopes import Behind, EntryMessage, Join, Live, ServerEnvelope
from tests.support.cluster import Relay, until
from tests.support.processes import own_bytes
from tests.support.raw import RawClient
from tests.system.test_ctl import asked

ROOM = "lobby"
BODY = bytes(8192)
DEADLINE_S = 120.0
LARGE_BODY, LARGE_COUNT = bytes(limits.BODY_BYTES_MAX), 2000
"""64 MB: compared with this, caches and the allocator keep little (15 MB), so that memory use shows
whether unread data is held."""


def _worker_bytes(relay: Relay) -> int:
    return sum(map(own_bytes, relay.worker_pids()))


def _owed(relay: Relay, name: str) -> list[int]:
    """Return the bytes that connections of a name have not read, as ``relay ctl`` reports them."""
    connections = asked(relay, "connections")["items"]
    return [one["owed_bytes"] for one in connections if one["name"] == name]


@contextlib.contextmanager
def _raw(relay: Relay, name: str) -> Iterator[RawClient]:
    """A client that reads only when asked to."""
    client = RawClient("127.0.0.1", relay.port, name)
    try:
        yield client
    finally:
        client.close()


async def _entries_until(client: RawClient, entries: list[EntryMessage], seq: int) -> None:
    """Read up to an entry; raise if the connection ends."""
    while not entries or entries[-1].seq < seq:
        envelopes = await asyncio.to_thread(client.read)
        entries += [envelope for envelope in envelopes if isinstance(envelope, EntryMessage)]


async def _collect(client: Client, count: int) -> list[Event]:
    events: list[Event] = []
    messages = 0
    async with asyncio.timeout(DEADLINE_S):
        async for event in client:
            events.append(event)
            messages += isinstance(event, Message)
            if messages == count:
                return events
    raise AssertionError("the client ended")


async def test_one_that_does_not_read_gets_everything_later(tmp_path: Path) -> None:
    """It leaves live; memory stays within its bound; then it reads all, in order, once."""
    async with AsyncExitStack() as stack:
        settings = {"server.slow_reader_timeout_s": 3600}  # however slow the machine is
        relay = stack.enter_context(
            Relay(tmp_path / "data", workers=2, settings=settings, fresh=True)
        )
        sender = await stack.enter_async_context(Client(relay.address, name="sender"))
        quick = await stack.enter_async_context(Client(relay.address, name="quick"))
        await quick.join(ROOM)
        stuck = stack.enter_context(_raw(relay, "stuck"))
        stuck.join(ROOM)
        before = _worker_bytes(relay)
        reading = asyncio.ensure_future(_collect(quick, LARGE_COUNT))
        for _ in range(LARGE_COUNT):
            await sender.post(ROOM, LARGE_BODY)
        await sender.flush()
        seen = [e.seq for e in await reading if isinstance(e, Message)]
        grown = _worker_bytes(relay) - before
        (owed,) = await asyncio.to_thread(_owed, relay, "stuck")
        assert seen == list(range(2, LARGE_COUNT + 2))
        assert owed <= limits.CONNECTION_BYTES_MAX, "by the relay's own account"
        assert grown < LARGE_COUNT * len(LARGE_BODY) * 3 // 4, "another process keeps the data"
        envelopes: list[ServerEnvelope] = []
        while not _caught_up(envelopes[-1:], LARGE_COUNT + 1):
            envelopes += await asyncio.to_thread(stuck.read)
        entries = [e for e in envelopes if isinstance(e, EntryMessage)]
        assert [e.seq for e in entries] == list(range(1, LARGE_COUNT + 2))
        assert all(e.prev == e.seq - 1 for e in entries)
        assert any(isinstance(e, Behind) for e in envelopes), "the reader did not fall behind"
        await until(
            lambda: any("stuck" in str(event) for event in relay.events("readers_fell_behind")),
            "the operator to be told who is slow",
        )


def _caught_up(envelopes: list[ServerEnvelope], head: int) -> bool:
    return any(isinstance(e, Live) and e.seq == head for e in envelopes)


async def test_one_that_takes_nothing_is_closed_and_resumes(tmp_path: Path) -> None:
    """It is closed with a code of its own; it may reconnect, and resumes at its cursor."""
    count = 600
    settings = {"server.slow_reader_timeout_s": 4}
    async with AsyncExitStack() as stack:
        relay = stack.enter_context(Relay(tmp_path / "data", workers=2, settings=settings))
        sender = await stack.enter_async_context(Client(relay.address, name="sender"))
        await sender.send(ROOM, BODY)
        stuck = stack.enter_context(_raw(relay, "stuck"))
        stuck.join(ROOM)
        for _ in range(count - 1):
            await sender.post(ROOM, BODY)
        await sender.flush()
        await until(lambda: relay.events("reader_too_slow"), "the end")
        entries: list[EntryMessage] = []
        with pytest.raises(ConnectionError, match=str(int(CloseCode.TOO_SLOW))):
            await _entries_until(stuck, entries, count + 1)
        last = entries[-1]
        again = stack.enter_context(_raw(relay, "other"))
        again.send_envelopes(Join(1, ROOM, last.epoch, last.seq, 0))
        await _entries_until(again, entries, count + 1)
        assert [entry.seq for entry in entries] == list(range(3, count + 2))


async def test_many_come_back_far_behind_while_people_talk(tmp_path: Path) -> None:
    """200 readers resume 1,000 messages behind; others chat meanwhile; all receive everything
    once.
    """
    count, readers = 1000, 200
    with Relay(tmp_path / "data", workers=2) as relay:
        async with (
            Client(relay.address, name="sender") as sender,
            Client(relay.address, name="listener") as listener,
        ):
            await listener.join(ROOM)
            first = asyncio.ensure_future(_collect(listener, count))
            for number in range(count):
                await sender.post(ROOM, f"{number}".encode() + bytes(200))
            await sender.flush()
            await first

            async def come_back(number: int) -> list[Event]:
                reader = Client(relay.address, name=f"reader{number}")
                # Those who were first keep this process busy with what they missed.
                await reader.connect(DEADLINE_S)
                try:
                    await reader.join(ROOM, since=0)
                    return await _collect(reader, count + 50)
                finally:
                    await reader.close()

            returning = [asyncio.ensure_future(come_back(number)) for number in range(readers)]
            talk = asyncio.ensure_future(_collect(listener, 50))
            for number in range(50):
                await sender.send(ROOM, f"live {number}")
            assert [e.text for e in await talk if isinstance(e, Message)] == [
                f"live {n}" for n in range(50)
            ]
            for events in await asyncio.gather(*returning):
                assert not any(isinstance(event, Gap) for event in events)
                seqs = [event.seq for event in events if isinstance(event, Message)]
                assert seqs == list(range(2, count + 52))


async def test_half_open_connections_end(tmp_path: Path) -> None:
    """A silent peer is pinged, then closed; a live client answers and stays."""
    with Relay(tmp_path / "data", workers=1, settings={"server.keepalive_s": 3}) as relay:
        async with Client(relay.address, name="alive") as alive:
            await alive.join(ROOM)
            with _raw(relay, "silent") as silent:
                silent.join(ROOM)
                await until(
                    lambda: sum(map(len, relay.peers_by_worker().values())) == 1,
                    "the silent connection to end",
                )
            assert alive.state is State.ONLINE
            await alive.send(ROOM, "still here")


async def test_a_client_that_awaits_an_answer_notices_silence(tmp_path: Path) -> None:
    """SIGSTOP of the whole server: the client drops the connection, and sends again afterwards."""
    with Relay(tmp_path / "data", "--worker-timeout", "60", workers=1) as relay:
        async with Client(relay.address, name="alice") as alice:
            await alice.join(ROOM)
            processes = [psutil.Process(relay.pid), *relay.children()]
            for process in processes:
                process.suspend()
            try:
                sent = await alice.post(ROOM, "said into silence")
                async with asyncio.timeout(DEADLINE_S):
                    async for event in alice:
                        if isinstance(event, StateChanged) and event.state is State.WAITING:
                            break
            finally:
                for process in processes:
                    process.resume()
            async with asyncio.timeout(DEADLINE_S):
                stored = await sent
                (message,) = [e for e in await _collect(alice, 1) if isinstance(e, Message)]
            assert (message.text, message.seq) == ("said into silence", stored.seq)
