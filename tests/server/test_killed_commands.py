"""Commands that are killed before any one of their changes to the disk: nothing is lost by it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.chat.partition import partition_of
from relay.errors import StartError
from relay.server.backups.create import create
from relay.server.backups.restore import restore, verify
from relay.server.offline import repair as repairing
from relay.server.offline.export import Line, export, import_lines
from relay.store.file.checkpoint import copy_pages
from relay.store.file.directory import DataDirectory, lock_directory
from relay.wire.packing import unpack_entry
from tests.support.killed_at import killed_at
from tests.support.logs import NOW_MS, append, die, messages, open_partition

INDEX = partition_of("lobby")


def bodies(data: Path) -> list[bytes]:
    """Return what a relay has, or would have, in the room."""
    return [entry.body for entry in export(data, "lobby")]


def filled(data: Path, *, crash: bool) -> list[bytes]:
    """Store messages, half of them only in the write-ahead log of a crash."""
    logs = DataDirectory(data).partition_path(0).parent
    partition = open_partition(logs)
    append(partition, *messages(1, 20))
    partition.flush()
    copy_pages(partition.path)
    append(partition, *messages(21, 40))
    if crash:  # refused, though each entry can be read
        inner = partition._opened
        assert inner is not None
        inner.connection.execute("DELETE FROM epoch")
        die(partition)
    else:
        partition.close()
    for kind in ("sqlite", "lock", "sqlite-wal", "sqlite-shm"):
        if (logs / f"00.{kind}").exists():
            (logs / f"00.{kind}").rename(logs / f"{INDEX:02}.{kind}")
    return [one.body for one in messages(1, 40)]


def repair(data: Path) -> None:
    with repairing.stopped(data) as directory:
        for found in repairing.check(directory):
            if found.to_repair is not None:
                repairing.repair(directory, found, lambda packed: repr(unpack_entry(packed)))


def test_a_repair(tmp_path: Path) -> None:
    """Neither a start nor the next repair goes back to what the file has without its WAL."""
    whole = tmp_path / "whole"
    expected = filled(whole, crash=True)
    for step in itertools.count(1):
        data = tmp_path / str(step)
        shutil.copytree(whole, data)
        killed = killed_at(step, lambda data=data: repair(data))  # type: ignore[misc]
        with repairing.stopped(data) as directory:
            accepted = [one.refused is None for one in repairing.check(directory)]
        if accepted == [True]:
            assert bodies(data) == expected, step
        repair(data)
        assert bodies(data) == expected, step
        assert not list(data.glob("logs/*repaired*"))
        assert not list(data.glob("logs/*attempt*"))
        if not killed:
            break
    assert step > 10


def test_a_backup_and_a_restore(tmp_path: Path) -> None:
    """What has the name of a backup or can be started is complete."""
    whole, backup = tmp_path / "whole", tmp_path / "backup"
    expected = filled(whole, crash=False)
    steps = 0
    for steps in itertools.count(1):
        killed = killed_at(steps, lambda: create(whole, backup, None, lambda *_: None))
        if not killed:
            break
        if backup.exists():
            verify(backup)
            shutil.rmtree(backup)
    assert steps > 5
    for steps in itertools.count(1):
        data = tmp_path / f"data-{steps}"
        killed = killed_at(steps, lambda data=data: restore(backup, data))  # type: ignore[misc]
        with contextlib.suppress(StartError):
            DataDirectory.existing(data)
            assert bodies(data) == expected
        if not killed:
            break
        with contextlib.suppress(StartError):
            restore(backup, data)
            assert bodies(data) == expected
    assert steps > 5
    assert bodies(data) == expected


def test_an_import(tmp_path: Path) -> None:
    """The next one stores the rest."""
    lines = [Line("lobby", NOW_MS, "ann", "text/plain", b"%d" % number) for number in range(30)]

    def run(data: Path) -> None:
        with DataDirectory(data).lock():
            import_lines(DataDirectory(data), b"source", lines)

    for step in itertools.count(1):
        data = tmp_path / str(step)
        DataDirectory(data)
        killed = killed_at(step, lambda data=data: run(data))  # type: ignore[misc]
        run(data)
        assert bodies(data) == [line.body for line in lines]
        if not killed:
            break
    assert step > 3


@contextlib.contextmanager
def held_by_another(data: Path) -> Iterator[None]:
    """Lock a directory in another process."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with lock_directory(data):
                os.write(ready[1], b"x")
                os.close(done[1])
                os.read(done[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    try:
        yield
    finally:
        for fd in (*ready, *done):
            os.close(fd)
        os.waitpid(pid, 0)


def test_two_restores_to_one_directory(tmp_path: Path) -> None:
    """The second is refused, and leaves alone what the first has done."""
    whole, backup, data = (tmp_path / name for name in ("whole", "backup", "data"))
    filled(whole, crash=False)
    create(whole, backup, None, lambda *_: None)
    data.mkdir()
    with pytest.raises(StartError, match="in use"), held_by_another(data):
        restore(backup, data)
    assert [path.name for path in data.iterdir()] == ["lock"]
    restore(backup, data)
    with pytest.raises(StartError, match="is not empty"):
        restore(backup, data)
    verify(backup)
    assert bodies(data) == bodies(whole)
