"""Reports what a start would find in a partition's file, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

import apsw

from relay.chat.entries import Entry
from relay.chat.names import is_room
from relay.store import opening, recovery
from relay.store.contents import Contents, contents_of
from relay.store.format import FORMAT_OF_MEMBERS
from relay.store.generation import Host
from relay.store.integrity import damage
from relay.store.lock import PartitionLock
from relay.store.schema import closed_on_error, connect_writer, pragma, rows

_LOGS: Final = (
    "SELECT id, name, coalesce(fold.seq, state.seq, 0), coalesce(fold.packed, state.packed, x'') "
    "FROM log LEFT JOIN state ON state.log_id=id LEFT JOIN fold ON fold.log_id=id ORDER BY name"
)
_CONTROLS: Final = (
    "SELECT packed FROM control JOIN entry ON entry.id=control.log_id << 40 | control.seq "
    "WHERE control.log_id=? ORDER BY control.seq"
)


class Controls(NamedTuple):
    """What the state of one log follows from."""

    log: str
    entries: list[Entry]
    """Its control entries."""
    state: bytes
    """The stored state; empty: none."""
    state_seq: int
    """Up to which entry it is valid."""


class Examined(NamedTuple):
    """The result."""

    doubt: str | None
    """Why it may differ from what its last writer left: its logs will begin new epochs."""
    damage: str | None
    """Why it is refused; None: it is intact."""
    contents: Contents
    """What it contains."""
    meaningless: list[tuple[str, str]]
    """(log, reason) of logs with a state that cannot be what it should be. The partition is served
    all the same, without them."""


def examine(
    path: Path,
    lock_path: Path,
    *,
    host: Host,
    unpack: Callable[[bytes], Entry],
    partition: int,
    meaningless: Callable[[Iterator[Controls]], list[tuple[str, str]]],
) -> Examined:
    """Examine a partition that no process has open.

    Args:
        path: of its file.
        lock_path: of its lock file.
        host: of this process.
        unpack: raises any exception for an entry that cannot be read.
        partition: its number.
        meaningless: returns what is wrong with the states of logs.

    Raises:
        StoreCorrupt: it is torn, or not a partition.
        StoreError: it cannot be opened.
    """
    with PartitionLock(lock_path, path) as lock:
        index = recovery.saved_index(path)
        try:
            return _examine(path, lock, host, unpack, partition, meaningless)
        finally:
            recovery.put_back(path, index)


def _examine(
    path: Path,
    lock: PartitionLock,
    host: Host,
    unpack: Callable[[bytes], Entry],
    partition: int,
    meaningless: Callable[[Iterator[Controls]], list[tuple[str, str]]],
) -> Examined:
    doubt = opening.doubt_of(path, lock, host)
    connection = connect_writer(path, create=False)
    with closed_on_error(connection, path):
        found = damage(connection, unpack=unpack, partition=partition, limit_s=None)
        contents = Contents(0, 0, "") if found else contents_of(connection)
        wrong = [] if found else meaningless(_controls(connection, unpack))
        connection.close(True)
    return Examined(doubt, found, contents, wrong)


def _controls(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> Iterator[Controls]:
    """Yield what the states of logs follow from, of an intact file."""
    if cast("int", pragma(connection, "user_version")) < FORMAT_OF_MEMBERS:
        return  # a start makes it a newer one first
    for log_id, name, seq, state in rows(connection, _LOGS):
        found = [unpack(packed) for (packed,) in rows(connection, _CONTROLS, (log_id,))]
        if found or (is_room(name) and state):
            yield Controls(name, found, state, seq)
