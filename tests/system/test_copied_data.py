"""Copied data directories: a copy made under traffic is refused, a backup is accepted."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from relay import BlockingClient, StoreDamaged
from relay.chat.partition import partition_of
from relay.client.events import Gap, Message
from relay.store.file.pairing import wal_salts
from tests.support.cluster import Relay, wait_until
from tests.support.threads import beside

BODY = "x" * 20_000
CHECKPOINTS = 3


def copied(suffix: str, data: Path, copy: Path) -> None:
    for file in (data / "logs").glob(f"*{suffix}"):
        target = copy / "logs" / file.name
        shutil.copy2(file, target)
        while starts_over(target):
            shutil.copy2(file, target)


def starts_over(file: Path) -> bool:
    """Return whether a WAL has a header and no frame: then the database file is complete without
    it.

    Header and first frame are written separately, and about one copy in some hundred falls in
    between.
    """
    data = file.read_bytes()[:64] if file.name.endswith("-wal") else b""
    return len(data) == 64 and data[16:24] != data[40:48]


def prepared(data: Path, copy: Path) -> Path:
    for directory in (copy, copy / "logs"):
        directory.mkdir(mode=0o700)
    for name in ("format", "server.key"):
        shutil.copy2(data / name, copy / name)
    return copy


def elsewhere(refused: set[int]) -> str:
    """Return the name of a room in a partition that was not refused."""
    names = (f"room-{n}" for n in range(1000))
    return next(name for name in names if partition_of(name) not in refused)


def test_a_copy_taken_under_traffic_is_refused(tmp_path: Path) -> None:
    """Database files first and WALs later, as a slow tar does, or the reverse."""
    data = tmp_path / "data"
    path = data / "logs" / f"{partition_of('lobby'):02}.sqlite"
    done = threading.Event()
    with Relay(data) as relay:

        def talk() -> None:
            with BlockingClient(relay.address, name="alice") as client:
                while not done.is_set():
                    for _ in range(50):
                        client.post("lobby", BODY)
                    client.flush()

        def checkpoints_pass() -> None:
            """Wait until the WAL has restarted twice: only then do the two files certainly not
            match.
            """
            seen: set[bytes] = set()

            def enough() -> bool:
                seen.add(wal_salts(path))
                return len(seen) > CHECKPOINTS

            wait_until(enough, "checkpoints under traffic")

        with beside(talk, stop=done):
            checkpoints_pass()
            first = prepared(data, tmp_path / "file first")
            later = prepared(data, tmp_path / "wal first")
            copied(".sqlite", data, first)
            copied(".sqlite-wal", data, later)
            checkpoints_pass()
            copied(".sqlite-wal", data, first)
            copied(".sqlite", data, later)
    for copy in (first, later):
        with Relay(copy) as relay, BlockingClient(relay.address, name="~bob") as client:
            refused = {one["partition"]: one["reason"] for one in relay.events("partition_refused")}
            line = refused[partition_of("lobby")]
            assert line.startswith(f"{copy}/logs/{path.name} ")
            assert "of different moments" in line or "is damaged" in line
            assert "stop the relay, run: relay data repair" in line
            with pytest.raises(StoreDamaged):
                client.join("lobby", since=0)
            assert client.send(elsewhere(set(refused)), "there").seq


def test_readers_of_a_backup_restored_in_place_get_a_gap(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as client:
        client.send("lobby", "one")
    shutil.copytree(data, backup)
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as client:
        client.send("lobby", "two")
        client.join("lobby", since=0)
        events = (event for event in client.events() if isinstance(event, Message))
        assert [next(events).body, next(events).body] == [b"one", b"two"]
        cursor = client.leave("lobby")
    for file in backup.rglob("*"):
        if file.is_file():
            (data / file.relative_to(backup)).write_bytes(file.read_bytes())
    with Relay(data) as relay, BlockingClient(relay.address, name="bob") as client:
        client.send("lobby", "other")
        client.join("lobby", cursor=cursor)
        gap = next(event for event in client.events() if isinstance(event, (Gap, Message)))
        assert isinstance(gap, Gap)
        after = next(event for event in client.events() if isinstance(event, (Gap, Message)))
        assert isinstance(after, Message)
        assert (after.seq, after.body) == (3, b"other")
