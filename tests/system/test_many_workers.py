"""Several workers act as one relay: one order for all, also when one is killed, stopped or a batch
is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.client.aio import Client
from relay.client.events import Message
from tests.support.cluster import Relay, relay_command, run_relay, until, wait_until
from tests.support.raw import RawClient
from tests.support.tails import Tail

ROOM = "lobby"
DEADLINE_S = 120.0


@asynccontextmanager
async def _client(relay: Relay, name: str) -> AsyncIterator[Client]:
    async with Client(relay.address, name=name) as client:
        yield client


async def _connected(stack: AsyncExitStack, clients: Iterable[Client]) -> None:
    """Connect all at once: on a busy machine the handshakes take longer than one client's limit."""

    async def connected(client: Client) -> None:
        stack.push_async_callback(client.close)
        await client.connect(DEADLINE_S)

    await asyncio.gather(*map(connected, clients))


async def _read(client: Client, count: int) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in client:
            if isinstance(event, Message):
                messages.append(event)
                if len(messages) == count:
                    break
    return messages


async def _send(client: Client, count: int) -> None:
    for number in range(count):
        await client.post(ROOM, f"{client.name} {number}")
    await client.flush()


def _assert_one_order(messages: list[Message], senders: Iterable[str], each: int) -> None:
    """Sequence numbers without a gap or duplicate, and each sender's own order."""
    assert [m.seq for m in messages] == list(range(2, len(messages) + 2))
    assert [m.prev for m in messages] == list(range(1, len(messages) + 1))
    by_sender = defaultdict(list)
    for message in messages:
        by_sender[message.sender].append(message.text)
    assert set(by_sender) == set(senders)
    for sender, texts in by_sender.items():
        assert texts == [f"{sender} {number}" for number in range(each)]


async def test_eight_senders_three_readers_four_workers(tmp_path: Path) -> None:
    """All readers receive the same sequence; all workers serve clients."""
    with Relay(tmp_path / "data", workers=4) as relay:
        async with AsyncExitStack() as stack:
            worker_of: dict[str, int] = {}

            async def connected(name: str) -> Client:
                before = relay.peers_by_worker()
                client = await stack.enter_async_context(_client(relay, name))
                after = relay.peers_by_worker()
                (worker_of[name],) = [pid for pid in after if after[pid] - before[pid]]
                return client

            senders = [await connected(f"sender{n}") for n in range(8)]
            readers: dict[int, Client] = {}
            for number in range(12):
                reader = await connected(f"reader{number}")
                readers.setdefault(worker_of[reader.name], reader)
                if len(readers) == 3:
                    break
            assert len(readers) == 3, "readers on three different workers"
            assert {worker_of[s.name] for s in senders} == set(relay.worker_pids())
            for reader in readers.values():
                await reader.join(ROOM)
            views = [asyncio.ensure_future(_read(reader, 8 * 200)) for reader in readers.values()]
            await asyncio.gather(*(_send(sender, 200) for sender in senders))
            seen = await asyncio.gather(*views)
        _assert_one_order(seen[0], [s.name for s in senders], 200)
        assert seen[0] == seen[1] == seen[2]


async def test_presence_over_workers(tmp_path: Path) -> None:
    """Each worker answers WHO alike; connections of a killed worker disappear."""
    with Relay(tmp_path / "data", workers=4) as relay:
        async with AsyncExitStack() as stack:
            names = [f"guest{n}" for n in range(8)]
            clients = [await stack.enter_async_context(_client(relay, name)) for name in names]
            for client in clients:
                await client.join(ROOM)

            async def all_once(client: Client) -> None:
                """Wait until WHO lists all names, and each once."""
                expected = [(name, 1) for name in names]
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        members = await client.who(ROOM)
                        if [(m.name, m.connections) for m in members.members] == expected:
                            return
                        await asyncio.sleep(0.02)

            for client in clients:
                await all_once(client)
            await asyncio.to_thread(relay.kill_worker)
            # Its clients reconnect to other workers: again all names, and none twice.
            for client in clients:
                await all_once(client)


async def test_own_ghost_is_replaced_and_a_stranger_refused(tmp_path: Path) -> None:
    """A reconnect of the same instance replaces its old connection on whatever worker that is."""
    with Relay(tmp_path / "data", workers=4) as relay:
        async with _client(relay, "alice") as first:
            for _ in range(4):  # each connects to another worker
                async with Client(relay.address, name="alice", identity=first.identity) as again:
                    await again.send(ROOM, "here")
                first = again


def _end_at_fault(relay: Relay) -> None:
    """Wait until the home worker has stopped at its fault point, then kill it there."""
    wait_until(lambda: relay.marker.exists() and relay.marker.read_text(), "the fault point")
    os.kill(int(relay.marker.read_text()), signal.SIGKILL)


async def test_home_killed_between_commit_and_publish(tmp_path: Path) -> None:
    """Invariant "No silent tail": every member gets the message, without another one after it."""
    with Relay(tmp_path / "data", workers=2, fault="stop-before-publish") as relay:
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(_client(relay, f"reader{n}")) for n in range(4)
            ]
            for reader in readers:
                await reader.join(ROOM)
            sender = await stack.enter_async_context(_client(relay, "sender"))
            await sender.post(ROOM, "one and only: fault")
            await asyncio.to_thread(_end_at_fault, relay)
            for reader in readers:
                (message,) = await _read(reader, 1)
                assert message.text == "one and only: fault"
                assert message.seq == 2
            await sender.flush()


async def test_any_bus_batch_dropped(tmp_path: Path) -> None:
    """One batch is dropped, and nothing follows it: members repair from the log."""
    with Relay(tmp_path / "data", workers=2, fault="drop-one-batch") as relay:
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(_client(relay, f"reader{n}")) for n in range(4)
            ]
            for reader in readers:
                await reader.join(ROOM)
            sender = await stack.enter_async_context(_client(relay, "sender"))
            await sender.send(ROOM, "before")
            await sender.send(ROOM, "dropped: fault")
            for reader in readers:
                texts = [m.text for m in await _read(reader, 2)]
                assert texts == ["before", "dropped: fault"]
            assert relay.marker.exists(), "the fault point was not reached"


async def test_stopped_home_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP a home under load, SIGCONT after it was replaced: no loss, no duplicate."""
    with Relay(tmp_path / "data", workers=2) as relay:
        async with AsyncExitStack() as stack:
            senders = [
                await stack.enter_async_context(_client(relay, f"sender{n}")) for n in range(4)
            ]
            await asyncio.gather(*(_send(sender, 50) for sender in senders))
            victims = relay.worker_pids()
            load = [asyncio.ensure_future(_numbered(s, 50, 400)) for s in senders]
            os.kill(victims[0], signal.SIGSTOP)
            await until(
                lambda: (now := relay.worker_pids()) and victims[0] not in now and len(now) == 2,
                "the stopped worker to be replaced",
            )
            with contextlib.suppress(ProcessLookupError):  # it was killed, not only replaced
                os.kill(victims[0], signal.SIGCONT)
            await asyncio.gather(*load)
        with Tail(relay.address, ROOM, "--since", "0") as tail:
            texts = tail.has(4 * 400)
            assert [e["seq"] for e in tail.entries] == list(range(2, 1602))
        for sender in range(4):
            own = [t for t in texts if t.startswith(f"sender{sender} ")]
            assert own == [f"sender{sender} {n}" for n in range(400)]


async def _numbered(client: Client, start: int, end: int) -> None:
    for number in range(start, end):
        await client.post(ROOM, f"{client.name} {number}")
    await client.flush()


@contextlib.contextmanager
def _writer(relay: Relay, name: str) -> Iterator[subprocess.Popen[str]]:
    """Start ``relay send`` with its standard input open."""
    with subprocess.Popen(
        relay_command("send", relay.address, ROOM, "--name", name),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


KILLS = 12
"""Three workers are killed: the third death within 30 s delays a restart, and from the fifth on the
delay is seconds, in which nothing is tested."""


def test_many_kills_while_people_send(tmp_path: Path) -> None:
    """Random ``kill -9`` of workers: with three senders and two tails, each line comes once, in
    order.
    """
    chance = random.Random(7)
    with (
        Relay(tmp_path / "data", workers=3) as relay,
        contextlib.ExitStack() as stack,
        Tail(relay.address, ROOM, "--since", "0") as one,
        Tail(relay.address, ROOM, "--since", "0") as two,
    ):
        senders = [stack.enter_context(_writer(relay, f"writer{n}")) for n in range(3)]
        for kill in range(KILLS):
            for index, sender in enumerate(senders):
                assert sender.stdin is not None
                sender.stdin.write("".join(f"{index} {kill * 50 + n}\n" for n in range(50)))
                sender.stdin.flush()
            relay.kill_worker(chance.randrange(3))
        for sender in senders:
            _, errors = sender.communicate(timeout=DEADLINE_S)
            assert sender.returncode == 0, errors
        for tail in (one, two):
            texts = tail.has(3 * 600)
            assert [e["seq"] for e in tail.entries] == list(range(2, 1802))
            for index in range(3):
                own = [text for text in texts if text.startswith(f"{index} ")]
                assert own == [f"{index} {n}" for n in range(600)]
        assert one.entries == two.entries


@pytest.mark.parametrize("arrival", ["slow", "burst"])
async def test_balance(tmp_path: Path, arrival: str) -> None:
    """Logged-in connections per worker: max/min at most 1.25 from 200 connections on."""
    with Relay(tmp_path / "data", workers=4) as relay:
        async with AsyncExitStack() as stack:
            if arrival == "slow":
                for number in range(200):
                    await stack.enter_async_context(_client(relay, f"user{number}"))
            else:
                clients = [Client(relay.address, name=f"user{number}") for number in range(200)]
                await _connected(stack, clients)
            counts: list[int] = []

            def all_connected() -> bool:
                """Also: the connections that clients have given up on a busy machine are gone."""
                counts[:] = [len(ports) for ports in relay.peers_by_worker().values()]
                return sum(counts) == 200

            await until(all_connected, "a connection for each client")
            assert max(counts) <= 1.25 * min(counts), counts


async def test_balance_with_a_worker_killed_half_way(tmp_path: Path) -> None:
    """During the restart the others share new connections; then the new worker gets them, until all
    are level.
    """
    with Relay(tmp_path / "data", workers=4) as relay:

        def counts() -> list[int]:
            return sorted(len(ports) for ports in relay.peers_by_worker().values())

        async with AsyncExitStack() as stack:
            clients = [Client(relay.address, name=f"user{number}") for number in range(320)]
            arriving = asyncio.ensure_future(_connected(stack, clients[:240]))
            await until(lambda: sum(counts()) > 100, "half of them")
            await asyncio.to_thread(relay.kill_worker)
            await arriving
            await until(lambda: sum(counts()) == 240 and len(counts()) == 4, "all to be back")
            assert counts()[3] <= 1.25 * counts()[1], counts()
            await _connected(stack, clients[240:])
            await until(lambda: sum(counts()) == 320, "a connection for each client")
            assert counts()[3] <= 1.25 * counts()[0], counts()


def test_a_stopped_worker_keeps_nobody_from_accepting(tmp_path: Path) -> None:
    """While one worker is stopped, the others accept all connections, evenly."""
    others = (
        name
        for number in itertools.count()
        if partition_of(INBOX_PREFIX + (name := f"~user{number}")) % 4
    )
    with Relay(tmp_path / "data", "--worker-timeout", "600", workers=4) as relay:
        stopped = relay.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            # They log in (at homes that run), or would be closed for their silence after seconds.
            clients = [RawClient("127.0.0.1", relay.port, next(others)) for _ in range(200)]
            counts = relay.peers_by_worker()
            assert not counts.pop(stopped)
            sizes = [len(ports) for ports in counts.values()]
            assert sum(sizes) == 200
            assert max(sizes) <= 1.25 * min(sizes), sizes
            for client in clients:
                client.close()
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_worker_count_may_change_with_the_same_data(tmp_path: Path) -> None:
    """Three workers, then one, then two: the log continues."""
    total = 0
    for workers in (3, 1, 2):
        with Relay(tmp_path / "data", workers=workers) as relay:
            lines = "".join(f"{total + n}\n" for n in range(50))
            sent = run_relay("send", relay.address, ROOM, text=lines)
            assert sent.returncode == 0, sent.stderr
            total += 50
            with Tail(relay.address, ROOM, "--since", "0") as tail:
                assert tail.has(total) == [str(n) for n in range(total)]
                assert len({entry["epoch"] for entry in tail.entries}) == 1
