"""A process keeps SQLite's locks on a partition's files, whatever it does with the partition.

POSIX locks of a process end when it closes any descriptor of the file. Then another process
considers the WAL index unused and truncates it: processes that have it mapped die by SIGBUS.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.store.file.checkpoint import Checkpointer
from relay.store.file.companions import index_path
from relay.store.file.generation import Host
from relay.store.file.lock import PartitionLock
from relay.store.file.opening import needs_check
from relay.store.file.snapshot import Snapshot
from relay.store.reading.reader import SqliteReader
from tests.support.logs import PAGE_BYTES, append, die, messages, open_partition

SHARED_OF_FILE = 0x4000_0002
"""The first of 510 bytes, all of which a connection in WAL mode keeps locked."""
IN_USE_OF_INDEX = 128
"""The byte of the index that is locked while anybody has it open ("DMS" in os_unix.c)."""

IS_FREE = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
    except BlockingIOError:
        sys.exit(1)
"""


def is_free(path: Path, byte: int) -> bool:
    """Return whether another process could lock a byte, and so consider the file unused."""
    done = subprocess.run([sys.executable, "-c", IS_FREE, path, str(byte)], check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


def reopen(directory: Path) -> None:
    open_partition(directory).close()


def doubt(directory: Path) -> None:
    with PartitionLock(directory / "00.lock") as lock:
        needs_check(directory / "00.sqlite", lock, Host("boot 1", secrets.token_bytes))


def snapshot(directory: Path) -> None:
    taken = Snapshot(directory / "00.sqlite")
    taken.take()
    taken.copy(directory / "copy.sqlite")
    taken.close()


def checkpoint(directory: Path) -> None:
    partition = open_partition(directory)
    append(partition, *messages(4, 6))
    asyncio.run(Checkpointer(partition, asyncio.to_thread).run())
    partition.close()


def death(directory: Path) -> None:
    partition = open_partition(directory)
    append(partition, *messages(4, 6))
    die(partition)
    open_partition(directory).close()


@pytest.mark.parametrize("work", [reopen, doubt, snapshot, checkpoint, death])
def test_its_locks_outlive(tmp_path: Path, work: Callable[[Path], None]) -> None:
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 3))
    die(partition)
    file = tmp_path / "00.sqlite"
    reader = SqliteReader(file)
    assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 3
    assert not is_free(file, SHARED_OF_FILE)
    assert not is_free(index_path(file), IN_USE_OF_INDEX)
    work(tmp_path)
    assert not is_free(file, SHARED_OF_FILE)
    assert not is_free(index_path(file), IN_USE_OF_INDEX)
    reader.close()
    assert is_free(file, SHARED_OF_FILE)  # otherwise this could not fail
