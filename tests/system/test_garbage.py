"""A thousand connections that send garbage, while two clients chat."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import struct
import time
from pathlib import Path

import psutil

from relay.client.aio import Client
from relay.client.events import Message
from relay.wire.connection import Connection
from relay.wire.events import ServerKeyOffered
from tests.support.cluster import Relay, until
from tests.support.processes import own_bytes

ROOM = "lobby"
CONNECTIONS = 1000
MESSAGES = 200
AT_ONCE = 100
"""Garbage connections open at a time, for each of the two ways to end."""
ROUNDS = 6
LOOKS = 20
"""At descriptors, one after the other, with the same result."""
GROWTH_MAX = 1024 * 1024
"""Growth of a round without a leak: 40 KB are usual; 1,000 leaked connections are 2.5 MB."""
TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303" + "5a" * 32 + "20" + "a5" * 32 + "0004130113020100007700000012001000"
)


def _half_handshake(hello: bytes, chance: random.Random) -> bytes:
    """A valid ClientKey for a real ServerHello, truncated, damaged, or followed by random bytes."""
    client = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
    client.receive_data(hello, time.monotonic())
    assert any(isinstance(event, ServerKeyOffered) for event in client.events())
    client.accept_server_key(time.monotonic())
    answer = bytearray(client.data_to_send())
    kind = chance.randrange(4)
    if kind == 0:
        return bytes(answer[: chance.randrange(1, len(answer))])
    if kind == 1:
        answer[chance.randrange(len(answer))] ^= 1 << chance.randrange(8)
        return bytes(answer)
    if kind == 2:
        return bytes(answer) + chance.randbytes(100)
    return bytes(answer)  # valid, then silence


def _rubbish(number: int, hello: bytes, chance: random.Random) -> bytes:
    kinds = [
        chance.randbytes(chance.randrange(1, 5000)),
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        TLS_HELLO,
        hello[: chance.randrange(1, len(hello))],  # the server's own frame, truncated
        b"\x02\x00\x01",  # three bytes of a frame header
        struct.pack(">I", 0x02_000200) + bytes(17),  # half a frame
        b"",
        _half_handshake(hello, chance),
    ]
    return kinds[number % len(kinds)]


async def _visit(relay: Relay, number: int, chance: random.Random) -> None:
    """Open one garbage connection: read ServerHello, send something, end in one of several ways."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        head = await reader.readexactly(4)
        hello = head + await reader.readexactly(int.from_bytes(head[1:], "big"))
        writer.write(_rubbish(number, hello, chance))
        ending = chance.randrange(3)
        if ending == 0:  # with a reset
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif ending == 1:  # the server should read it before the end, unless it closes at once
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the server may have closed it already
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _visits(relay: Relay, seed: int) -> None:
    chance = random.Random(seed)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await _visit(relay, number, chance)

    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(one(number))


async def _silent(relay: Relay, count: int) -> None:
    """Connections that send nothing, or half a message, until the server closes them."""

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        if number % 2:
            writer.write(b"\x02\x00")
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    await asyncio.gather(*map(one, range(count)))


async def _talk(alice: Client, bob: Client, begin: int) -> None:
    """Two clients take turns; both receive all messages in stored order."""

    async def read(client: Client) -> list[str]:
        texts: list[str] = []
        async for event in client:
            if isinstance(event, Message):
                texts.append(event.text)
                if len(texts) == MESSAGES:
                    break
        return texts

    texts = [f"line {begin + n}" for n in range(MESSAGES)]
    readers = [asyncio.ensure_future(read(client)) for client in (alice, bob)]
    for number, text in enumerate(texts):
        await (alice, bob)[number % 2].send(ROOM, text)
    assert await asyncio.gather(*readers) == [texts, texts]


def _descriptors(relay: Relay) -> int:
    """Count the descriptors of all processes of the server."""
    return sum(child.num_fds() for child in relay.children())


async def _descriptors_at_rest(relay: Relay) -> int:
    """Count them once none comes or goes any more: a worker that has just begun reads its logs."""
    counts: list[int] = []

    def same() -> bool:
        counts.append(_descriptors(relay))
        return len(counts) >= LOOKS and len(set(counts[-LOOKS:])) == 1

    await until(same, "descriptors that stay")
    return counts[-1]


def _memory(relay: Relay) -> int:
    """Return the bytes allocated by the worker, the key agent and the control process."""
    return sum(own_bytes(child.pid) for child in relay.children())


async def test_a_thousand_garbage_connections_while_two_people_chat(tmp_path: Path) -> None:
    """All 200 messages arrive in order; then descriptors and memory are as before."""
    # A spare worker would start in between and be counted, and so would files of the search
    # index.
    settings = {"server.spare_worker": False, "store.search": False}
    with Relay(tmp_path / "data", settings=settings, fresh=True) as relay:
        async with (
            Client(relay.address, name="alice") as alice,
            Client(relay.address, name="bob") as bob,
        ):
            for client in (alice, bob):
                await client.join(ROOM)
            baseline = await _descriptors_at_rest(relay)
            processes = {child.pid for child in relay.children()}
            sizes: list[int] = []
            # The first round also fills caches. An allocator may keep some memory of the next
            # rounds, but not of every one: what each round adds is a leak.
            for round_ in range(ROUNDS):
                work = [_visits(relay, 7), _talk(alice, bob, round_ * MESSAGES)]
                if round_ == 0:  # these last as long as the handshake timeout
                    work.append(_silent(relay, 50))
                await asyncio.gather(*work)
                await until(lambda: _descriptors(relay) == baseline, "descriptors as before")
                sizes.append(_memory(relay))
                if round_ > 0 and sizes[-1] - sizes[-2] <= GROWTH_MAX:
                    break
            else:
                raise AssertionError(f"memory grows with each round: {sizes}")
            assert {child.pid for child in relay.children()} == processes, "a process was restarted"
        await until(
            lambda: (
                not any(
                    connection.status == psutil.CONN_ESTABLISHED
                    for pid in relay.worker_pids()
                    for connection in psutil.Process(pid).net_connections("tcp")
                )
            ),
            "the last connection to be gone",
        )
        assert not [line for line in relay.log if "Traceback" in line or '"error"' in line]
