"""A damaged partition is refused alone; the other partitions are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import BlockingClient, Client, StoreDamaged
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import PARTITIONS, partition_of
from relay.client.events import LogEntry, Message, Unfollowed
from relay.store.file.lock import read_refusal
from tests.support.cluster import Relay, run_relay
from tests.support.watching import ON_A_FREE_PORT, Watcher
from tests.system.test_ctl import status_of

PAGE = 4096
BODY = "x" * 200
MESSAGES = 400


def room_in(partition: int) -> str:
    """Return the name of a room in a partition."""
    return next(name for n in range(10_000) if partition_of(name := f"room-{n}") == partition)


def person_in(partition: int) -> str:
    """Return the name of a user whose account is in a partition."""
    names = (f"ann{n}" for n in range(10_000))
    return next(name for name in names if partition_of(INBOX_PREFIX + name) == partition)


def file_of(data: Path, partition: int) -> Path:
    return data / "logs" / f"{partition:02}.sqlite"


def overwrite_middle(path: Path) -> None:
    """Damage a page with messages in place, as a failing disk does."""
    page = path.read_bytes().index(b" 200 " + BODY.encode()) // PAGE * PAGE
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xa5" * PAGE)


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"\xa5" * PAGE + path.read_bytes()[PAGE:])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // PAGE // 2 * PAGE])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_directory(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.mkdir()


DAMAGE: dict[int, Callable[[Path], None]] = {
    2: overwrite_middle,
    5: overwrite_header,
    7: truncate,
    11: empty,
    13: replace_by_directory,
}
WHOLE = sorted(set(range(PARTITIONS)) - set(DAMAGE))


def text_of(room: str, number: int) -> str:
    return f"{room} {number} {BODY}"


def fill(client: BlockingClient, partitions: range | list[int]) -> None:
    for partition in partitions:
        room = room_in(partition)
        for number in range(MESSAGES):
            client.post(room, text_of(room, number))
    client.flush()


def read_all(client: BlockingClient, room: str) -> list[str]:
    """Read a room up to its head."""
    head = client.join(room, since=0).head.seq
    found: list[str] = []
    for event in client.events():
        if isinstance(event, LogEntry) and event.room == room:
            if isinstance(event, Message):
                found.append(event.text)
            if event.seq == head:
                return found
    raise AssertionError


def test_the_others_go_on_and_repair_brings_it_back(tmp_path: Path) -> None:
    """With each kind of damage: header, middle page, truncated, empty, a directory in its place."""
    data = tmp_path / "data"
    gone, there = person_in(5), person_in(6)
    with Relay(data) as relay:
        with BlockingClient(relay.address, name=gone) as client:
            client.send(room_in(6), "I was here")
        with BlockingClient(relay.address, name=there) as client:
            fill(client, range(PARTITIONS))
    for partition, damage in DAMAGE.items():
        damage(file_of(data, partition))

    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        refused = {one["partition"]: one["reason"] for one in relay.events("partition_refused")}
        assert set(refused) == set(DAMAGE)
        assert all(str(file_of(data, index)) in reason for index, reason in refused.items())
        with BlockingClient(relay.address, name=there) as client:
            for partition in WHOLE:
                room = room_in(partition)
                texts = [text_of(room, number) for number in range(MESSAGES)]
                assert [text for text in read_all(client, room) if BODY in text] == texts
                client.send(room, "it goes on")
            for partition in DAMAGE:
                with pytest.raises(StoreDamaged, match="operator has to repair it"):
                    client.join(room_in(partition), last=10)
                with pytest.raises(StoreDamaged):
                    client.send(room_in(partition), "lost?")
            with pytest.raises(StoreDamaged):
                client.send(f"@{gone}", "are you there?")
            # A listing leaves the damaged partition out; what must be complete is refused.
            assert {room.name for room in client.rooms()} == {room_in(n) for n in WHOLE}
            for mine in (True, False):
                with pytest.raises(StoreDamaged):
                    client.rooms(mine=mine, whole=True)
            with pytest.raises(StoreDamaged):
                list(client.export())
            with pytest.raises(StoreDamaged):
                client.delete_account(erase_messages=True)
        with (
            pytest.raises(StoreDamaged),
            BlockingClient(relay.address, name=gone) as client,
        ):
            client.send(room_in(6), "nobody knows my devices")

        listed = run_relay("room", "list", relay.address, "--mine", "--name", there)
        assert listed.returncode == 0
        assert room_in(1) in listed.stdout
        assert "rooms may be missing here" in listed.stderr

        watcher = Watcher(relay)
        watcher.sees("/readyz", 200)
        assert "5 of 16 partitions refused" in str(watcher.ask("/readyz"))
        watcher.sees("/lagz", 503)
        assert "5 of 16 partitions refused" in str(watcher.ask("/lagz"))
        assert watcher.total("relay_partitions_refused") == len(DAMAGE)
        lines = [f"partition {partition}: {file_of(data, partition)}" for partition in DAMAGE]
        status_of(relay, *lines, f"relay data repair --data {data}")
        backup = run_relay("backup", "create", tmp_path / "backup", "--data", data)
        assert backup.returncode == 1
        assert "partition 02 is refused, so no backup can be whole" in backup.stderr
        assert not (tmp_path / "backup").exists()
        export = run_relay("data", "export", "--data", data)
        assert export.returncode == 1
        assert "partition 02 is refused" in export.stderr
        # A new home worker, which has not checked the partition at a start, detects the damage as
        # well.
        relay.kill_worker(0)
        with BlockingClient(relay.address, name=there) as client:
            for partition in DAMAGE:
                with pytest.raises(StoreDamaged):
                    client.join(room_in(partition))
            client.send(room_in(1), "still")

    file_of(data, 13).rmdir()
    file_of(data, 13).with_suffix(".moved").rename(file_of(data, 13))
    mended = run_relay("data", "repair", "--data", data)
    assert mended.returncode == 0
    assert "13 was refused, and is whole now" in mended.stdout
    with Relay(data) as relay:
        assert not relay.events("partition_refused")
        with BlockingClient(relay.address, name=there) as client:
            for partition in WHOLE:
                assert "it goes on" in read_all(client, room_in(partition))
            for partition in DAMAGE:
                assert client.send(room_in(partition), "back").seq
            # The undamaged partitions have everything, and so has the one that lost its first
            # page.
            for partition in (5, 13):
                assert len(read_all(client, room_in(partition))) >= MESSAGES


async def test_damage_is_found_while_it_runs(tmp_path: Path) -> None:
    """Each follower of the room gets one error; no client reconnects in a loop."""
    data = tmp_path / "data"
    bad, good = room_in(2), room_in(3)
    with Relay(data) as relay, BlockingClient(relay.address, name="~writer") as client:
        fill(client, [2, 3])
    # Closed cleanly and opened again: no process has cached more than its first pages.
    with Relay(data, workers=2) as relay:
        workers = relay.worker_pids()
        async with (
            Client(relay.address, name="~ann") as ann,
            Client(relay.address, name="~bob") as bob,
        ):
            await ann.join(bad)
            await ann.join(good)
            overwrite_middle(file_of(data, 2))
            # or the damage is found when the join is answered
            with contextlib.suppress(StoreDamaged):
                await bob.join(bad, last=MESSAGES)
            async with asyncio.timeout(60):
                while not isinstance(event := await ann.next_event(), Unfollowed):
                    pass
            assert event.room == bad
            assert "damaged" in event.detail
            with pytest.raises(StoreDamaged):
                await bob.send(bad, "not stored")
            with pytest.raises(StoreDamaged):
                await ann.join(bad)
            await bob.send(good, "goes on")
            async with asyncio.timeout(60):
                while not isinstance(event := await ann.next_event(), Message):
                    pass
            assert event.text == "goes on"
        assert relay.worker_pids() == workers
        (refused,) = relay.events("partition_refused")
        assert refused["partition"] == 2
        relay.kill_workers()
        async with Client(relay.address, name="~bob") as bob:
            with pytest.raises(StoreDamaged):
                await bob.join(bad)
            await bob.send(good, "goes on")
    assert read_refusal(data / "logs" / "02.lock")
    with Relay(data) as relay:
        assert relay.events("partition_refused")[0]["partition"] == 2
    assert run_relay("data", "repair", "--data", data).returncode == 0
    with Relay(data) as relay, BlockingClient(relay.address, name="~writer") as client:
        kept = read_all(client, bad)
        whole = [text_of(bad, number) for number in range(MESSAGES)]
        lost = [number for number, text in enumerate(whole) if text not in kept]
        assert kept == [text for text in whole if text in kept]
        # What is behind the damage is there as well.
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert 0 < len(lost) < MESSAGES - 1 - lost[-1]
        assert client.send(bad, "back").seq
