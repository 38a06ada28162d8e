"""Reports what a start would find in a partition's file, without changing anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from relay.chat.entries import Entry
from relay.store import opening, recovery
from relay.store.contents import Contents, contents_of
from relay.store.generation import Host
from relay.store.integrity import damage
from relay.store.lock import PartitionLock
from relay.store.schema import closed_on_error, connect_writer


class Examined(NamedTuple):
    """The result."""

    doubt: str | None
    """Why it may differ from what its last writer left: its logs will begin new epochs."""
    damage: str | None
    """Why it is refused; None: it is intact."""
    contents: Contents
    """What it contains."""


def examine(
    path: Path,
    lock_path: Path,
    *,
    host: Host,
    unpack: Callable[[bytes], Entry],
    partition: int,
) -> Examined:
    """Examine a partition that no process has open.

    Raises:
        StoreCorrupt: it is torn, or not a partition.
        StoreError: it cannot be opened.
    """
    with PartitionLock(lock_path, path) as lock:
        index = recovery.saved_index(path)
        try:
            return _examine(path, lock, host, unpack, partition)
        finally:
            recovery.put_back(path, index)


def _examine(
    path: Path,
    lock: PartitionLock,
    host: Host,
    unpack: Callable[[bytes], Entry],
    partition: int,
) -> Examined:
    doubt = opening.doubt_of(path, lock, host)
    connection = connect_writer(path, create=False)
    with closed_on_error(connection, path):
        found = damage(connection, unpack=unpack, partition=partition, limit_s=None)
        contents = Contents(0, 0, "") if found else contents_of(connection)
        connection.close(True)
    return Examined(doubt, found, contents)
