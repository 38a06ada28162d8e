"""A relay on a disk that is full to its last byte, and then is not any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.client.aio import Client
from relay.client.aio_pump import Post
from relay.client.events import Message, Postponed
from relay.client.known_servers import KnownServers
from relay.client.refusals import Unavailable
from relay.client.trust import KeyPolicy
from tests.support.cluster import Relay, until
from tests.support.watching import ON_A_FREE_PORT, Watcher

ROOM = "lobby"
BODY_BYTES = 30_000
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def body(number: int) -> bytes:
    return f"{number} ".encode().ljust(BODY_BYTES, b".")


async def test_nothing_is_lost_and_nobody_restarts(small_disk: Path, tmp_path: Path) -> None:
    """Senders are told, and wait; readers go on; with room on the disk all is stored, once."""
    # Without a reserve, which would keep the disk from being full.
    settings = {"limits.disk_reserve_mib": 0}
    beside = small_disk / "beside"
    beside.write_bytes(bytes(8 * MIB))
    with Relay(small_disk / "data", workers=2, settings=settings) as relay:
        workers = relay.worker_pids()
        # What an operator deletes beside the data is free: no process of the relay holds it.
        before = os.statvfs(small_disk).f_bavail
        beside.unlink()
        freed = os.statvfs(small_disk)
        assert (freed.f_bavail - before) * freed.f_frsize > 7 * MIB
        policy = KeyPolicy(KnownServers(tmp_path / "known"))
        async with (
            Client(relay.address, name="~ann", key_policy=policy) as ann,
            Client(relay.address, name="~bob", key_policy=policy) as bob,
        ):
            await bob.join(ROOM)
            posts: list[Post] = []

            async def post() -> None:
                for number in range(1, 2 * 24 * MIB // BODY_BYTES):
                    sent = await ann.post(ROOM, body(number))
                    posts.append(sent)

            posting = asyncio.create_task(post())
            async with asyncio.timeout(60):
                while not isinstance(told := await ann.next_event(), Postponed):
                    pass
            assert told.room == ROOM
            assert "disk is full" in told.detail
            page = await bob.history(ROOM, count=5)
            assert page.entries
            async with Client(relay.address, name="~cat", key_policy=policy) as cat:
                await cat.join(ROOM, last=3)  # who comes now reads as well
                async with asyncio.timeout(60):
                    while not isinstance(await cat.next_event(), Message):
                        pass
            stored = sum(one.done() for one in posts)
            assert 0 < stored < len(posts)
            await asyncio.to_thread(resize, small_disk, "256m")
            async with asyncio.timeout(90):
                await posting
                await ann.flush()
            assert relay.worker_pids() == workers
            seqs = [one.result().seq for one in posts]
            assert len(set(seqs)) == len(posts)
            got: list[Message] = []
            async with asyncio.timeout(60):
                while len(got) < len(posts):
                    event = await bob.next_event()
                    if isinstance(event, Message):
                        got.append(event)
            assert [one.seq for one in got] == seqs
            assert all(one.body == body(n) for n, one in enumerate(got, 1))
            assert len({one.epoch for one in got}) == 1
            assert relay.events("partition_unavailable")
            assert relay.events("partition_available")


async def test_it_is_found_out_that_there_is_room_again(small_disk: Path, tmp_path: Path) -> None:
    """By itself: whoever spreads clients sends nobody here who would write before."""
    settings = {**ON_A_FREE_PORT, "limits.disk_reserve_mib": 0}
    with Relay(small_disk / "data", settings=settings) as relay:
        policy = KeyPolicy(KnownServers(tmp_path / "known"))
        async with Client(
            relay.address, name="~ann", key_policy=policy, retry_timeout_s=0.1
        ) as ann:
            await ann.send(ROOM, "the first")
            with contextlib.suppress(Unavailable):
                for number in range(2 * 24 * MIB // BODY_BYTES):
                    await ann.send(ROOM, body(number))
            await until(lambda: relay.events("partition_unavailable"), "it to be full")
        watcher = Watcher(relay)
        await until(lambda: watcher.ask("/readyz")[0] == 503, "it to be told of")
        resize(small_disk, "256m")
        await until(lambda: relay.events("partition_available"), "somebody to have tried")
        await until(lambda: watcher.ask("/readyz")[0] == 200, "it to be ready")
