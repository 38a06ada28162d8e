"""A relay on a disk that becomes completely full, and later has space again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient
from relay.chat.partition import partition_of
from relay.client.aio import Client
from relay.client.aio.posts import Post
from relay.client.events import Message, Postponed
from relay.client.refusals import Unavailable
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from tests.support.cluster import Relay, run_relay, until, wait_until
from tests.support.watching import ON_A_FREE_PORT, Watcher
from tests.system.test_ctl import status_of

ROOM = "lobby"
BODY_BYTES = 30_000
MIB = 1024 * 1024


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with mounted(tmp_path / "disk", "size=24m") as path:
        yield path


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave less than the reserve, which is a twentieth of such a small disk.

    The relay that runs on it may write meanwhile: the last part of the filler need not fit.
    """
    found = os.statvfs(disk)
    free = found.f_bavail * found.f_frsize - MIB // 2
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while free > 0:
            free -= filler.write(bytes(min(free, 64 * 1024)))


def body(number: int) -> bytes:
    return f"{number} ".encode().ljust(BODY_BYTES, b".")


async def test_nothing_is_lost_and_nobody_restarts(small_disk: Path, tmp_path: Path) -> None:
    """Senders get an error and wait; readers go on; with free space everything is stored once."""
    # Without a reserve, which would keep the disk from filling up.
    settings = {"limits.disk_reserve_mib": 0}
    beside = small_disk / "beside"
    beside.write_bytes(bytes(8 * MIB))
    with Relay(small_disk / "data", workers=2, settings=settings) as relay:
        workers = relay.worker_pids()
        # Space that an operator frees beside the data is really free: the relay holds no such
        # file open.
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
                await cat.join(ROOM, last=3)  # a new client reads as well
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
            await until(lambda: relay.events("partition_available"), "it in the log")


async def test_it_is_found_out_that_there_is_room_again(small_disk: Path, tmp_path: Path) -> None:
    """Without a write: a load balancer sends no client here while the relay reports that it is
    full.
    """
    settings = {**ON_A_FREE_PORT, "limits.disk_reserve_mib": 0}
    with Relay(small_disk / "data", settings=settings) as relay:
        policy = KeyPolicy(KnownServers(tmp_path / "known"))
        async with Client(
            relay.address, name="~ann", key_policy=policy, retry_timeout_s=0.1
        ) as ann:
            await ann.send(ROOM, "the first")
            watcher = Watcher(relay)

            async def post() -> None:
                """What is left of the disk may be enough for less: so the last one fails often."""
                for number in range(1000 * 24 * MIB // BODY_BYTES):
                    with contextlib.suppress(Unavailable):
                        await ann.send(ROOM, body(number))

            posting = asyncio.create_task(post())
            # Not any warning: on a busy machine, a heartbeat may be late before the disk is full.
            await until(
                lambda: "cannot be opened or written" in str(watcher.ask("/readyz")), "a warning"
            )
            posting.cancel()
        resize(small_disk, "256m")
        await until(lambda: relay.events("partition_available"), "somebody to have tried")
        await until(lambda: not watcher.ask("/readyz")[1]["warnings"], "all to be well")


async def test_an_upgrade_with_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """The next version takes over, and stores what its clients have kept as soon as it can."""
    policy = KeyPolicy(KnownServers(tmp_path / "known"))
    with Relay(small_disk / "data", workers=2) as relay:
        async with Client(relay.address, name="~ann", key_policy=policy) as ann:
            await ann.join(ROOM)
            posts = [await ann.post(ROOM, "before")]
            await ann.flush()
            with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            # Each worker looks for itself, and one of them is the room's home.
            await until(lambda: len(relay.events("disk_reserve_reached")) >= 2, "a full disk")
            reserve = {event["reserve_mib"] for event in relay.events("disk_reserve_reached")}
            assert reserve == {1}, "a twentieth of it, not the setting"
            posts.append(await ann.post(ROOM, "while it was full"))
            ended = await asyncio.to_thread(run_relay, "ctl", "--data", relay.data, "upgrade")
            assert ended.returncode == 0, ended.stderr
            assert not posts[1].done()
            (small_disk / "filler").unlink()
            async with asyncio.timeout(90):
                await ann.flush()
            page = await ann.history(ROOM, count=5)
            kept = [one for one in page.entries if isinstance(one, Message)]
            assert [one.text for one in kept] == ["before", "while it was full"]
            assert [one.seq for one in kept] == [one.result().seq for one in posts]
            assert len({one.epoch for one in kept}) == 1
        assert relay.stop() == 0


def test_one_partition_that_cannot_be_written_takes_no_machine_away(
    small_disk: Path, tmp_path: Path
) -> None:
    """The relay stays ready, for no other machine has the partition; the operator gets a
    warning.
    """
    data, elsewhere = tmp_path / "data", small_disk / "partition.sqlite"
    with Relay(data, settings=ON_A_FREE_PORT):
        pass
    partition = data / "logs" / f"{partition_of(ROOM):02}.sqlite"
    shutil.move(partition, elsewhere)
    partition.symlink_to(elsewhere)
    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        watcher = Watcher(relay)
        watcher.sees("/readyz", 200)
        fill(small_disk)
        told = "1 of 16 partitions are on a disk that is nearly full"
        watcher.sees("/readyz", 200, ready=True, reasons=[], warnings=[told])
        watcher.sees("/lagz", 503, lagging=["disk: no more than the reserve is free"])
        status_of(relay, told)
        other = next(
            f"room{n}" for n in range(99) if partition_of(f"room{n}") != partition_of(ROOM)
        )
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send(other, "it is served").seq
            (small_disk / "filler").unlink()
            assert alice.send(ROOM, "it is served again").seq


def test_nothing_that_can_be_written_is_not_ready(small_disk: Path) -> None:
    with Relay(small_disk / "data", workers=2, settings=ON_A_FREE_PORT) as relay:
        watcher = Watcher(relay)
        fill(small_disk)
        reasons = ["all partitions are on a disk that is nearly full"]
        watcher.sees("/readyz", 503, reasons=reasons)
        assert run_relay("ctl", "--data", relay.data, "status").returncode == 1
        (small_disk / "filler").unlink()
        watcher.sees("/readyz", 200)


def use_up_inodes(disk: Path) -> list[Path]:
    """Create empty files until there is no inode left; return them."""
    files: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            (disk / f"empty-{len(files)}").touch()
            files.append(disk / f"empty-{len(files)}")
    assert os.statvfs(disk).f_favail == 0
    return files


def kill_and_await_another(relay: Relay, title: str) -> None:
    (before,) = relay.pids_titled(title)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not {*relay.pids_titled(title)} <= {before}, f"another {title}")


def test_no_inode_is_left(tmp_path: Path) -> None:
    """There is space for messages, but not for another file.

    Each process that dies is replaced all the same, with the inodes of its predecessor's sockets.
    """
    # The indexes of searches are created when they are needed, and wait until they can be.
    settings = {"store.search": False}
    with (
        mounted(tmp_path / "disk", "nr_inodes=400") as disk,
        Relay(disk / "data", workers=2, settings=settings) as relay,
    ):
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send(ROOM, "before").seq == 2
            files = use_up_inodes(disk)
            assert alice.send(ROOM, "meanwhile").seq == 3
            assert alice.send("new-room", "meanwhile").seq == 2
            for number in range(2):
                for index in range(2):
                    relay.kill_worker(index)
                assert alice.send(ROOM, "after the workers").seq == 4 + number
            for title in ("relay: key agent", "relay: control"):
                kill_and_await_another(relay, title)
        with BlockingClient(relay.address, name="bob") as bob:  # by a full handshake
            assert bob.send(ROOM, "after all").seq == 6
        status_of(relay)
        # A worker that this test killed before it was ready is there, too.
        reasons = [str(line["reason"]) for line in relay.events("boot_failed")]
        assert not [reason for reason in reasons if "inode" in reason], reasons
        files.pop().unlink()
        assert relay.stop() == 0


def test_a_start_with_few_inodes(tmp_path: Path) -> None:
    """What can be served is; the reason of the rest is not that it is not permitted.

    The sockets, without which nothing can be served, are on another disk.
    """
    settings = {"server.runtime": str(tmp_path / "run")}
    with (
        mounted(tmp_path / "disk", "nr_inodes=50") as disk,
        Relay(disk / "data", settings=settings) as relay,
    ):
        wait_until(lambda: relay.events("partition_unavailable"), "a partition without a file")
        for line in relay.events("partition_unavailable"):
            assert "no inode left for " in str(line["reason"]), line
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(disk)], check=True)
        failed = {line["partition"] for line in relay.events("partition_unavailable")}
        wait_until(
            lambda: {line["partition"] for line in relay.events("partition_available")} >= failed,
            "all partitions",
        )
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send(ROOM, "hello").seq == 2
        assert relay.stop() == 0


def test_a_start_without_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "nr_inodes=8") as disk:
        ended = run_relay("serve", "--control", "off", "--data", disk / "data")
        assert ended.returncode == 1
        assert "No space left on device" in ended.stderr
