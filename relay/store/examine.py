"""Reports what a start would find in a partition's file, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

import apsw

from relay.chat.entries import Entry
from relay.chat.names import is_room
from relay.chat.rooms import state as rooms
from relay.store import recovery
from relay.store.contents import Contents, LogContents, connect_still, contents_of, logs_of
from relay.store.errors import StoreCorrupt
from relay.store.file import opening
from relay.store.file.format import FORMAT_OF_MEMBERS
from relay.store.file.generation import Host
from relay.store.file.integrity import DamagedLog, check_file
from relay.store.file.lock import PartitionLock
from relay.store.file.schema import closed_on_error, connect_writer, pragma, rows, translated

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


Meaningless = Callable[[Iterator[Controls]], list[tuple[str, str]]]
"""Returns (log, reason) of logs whose states cannot be relied on."""


class Examined(NamedTuple):
    """The result."""

    doubt: str | None
    """Why it may differ from what its last writer left: its logs will begin new epochs."""
    damage: str | None
    """Why it is refused; None: it is intact."""
    contents: Contents
    """What it contains."""
    logs: list[DamagedLog]
    """Logs of which something cannot be read, or with a state that cannot be what it should be. The
    partition is served all the same, and these logs as far as possible."""


def examine(
    path: Path,
    lock_path: Path,
    *,
    host: Host,
    unpack: Callable[[bytes], Entry],
    partition: int,
    meaningless: Meaningless,
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
    meaningless: Meaningless,
) -> Examined:
    doubt = opening.doubt_of(path, lock, host)
    connection = connect_writer(path)
    with closed_on_error(connection, path):
        found = check_file(connection, unpack=unpack, partition=partition, limit_s=None)
        contents = Contents(0, 0, "") if found.damage else contents_of(connection)
        logs = [] if found.damage else found.logs + _wrong(connection, unpack, meaningless)
        connection.close(True)
    return Examined(doubt, found.damage, contents, logs)


def examine_still(
    path: Path, *, unpack: Callable[[bytes], Entry], partition: int, meaningless: Meaningless
) -> tuple[list[LogContents], list[DamagedLog]]:
    """Check a file that nobody changes; return what it contains, and which logs are damaged.

    Its write-ahead log is ignored, and nothing is written. Arguments as for ``examine``.

    Raises:
        StoreCorrupt: the file is damaged.
        StoreError: it cannot be read.
    """
    connection = connect_still(path)
    try:
        found = check_file(connection, unpack=unpack, partition=partition, limit_s=None)
        if found.damage is not None:
            raise StoreCorrupt(f"{path} is damaged ({found.damage})")
        wrong = _wrong(connection, unpack, meaningless)
        return list(logs_of(connection, None)), found.logs + wrong
    except apsw.Error as error:
        raise translated(error, path) from error
    finally:
        connection.close(True)


def _wrong(
    connection: apsw.Connection, unpack: Callable[[bytes], Entry], meaningless: Meaningless
) -> list[DamagedLog]:
    return [DamagedLog(*one) for one in meaningless(_controls(connection, unpack))]


def _controls(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> Iterator[Controls]:
    """Yield what the states of logs follow from, of a whole file.

    Logs with control entries or a state that cannot be read are left out: that was reported.
    """
    if cast("int", pragma(connection, "user_version")) < FORMAT_OF_MEMBERS:
        return  # a start makes it a newer one first
    for log_id, name, seq, state in rows(connection, _LOGS):
        packed_ones = [packed for (packed,) in rows(connection, _CONTROLS, (log_id,))]
        try:
            found = [unpack(packed) for packed in packed_ones]
            if is_room(name) and state:
                rooms.unpack(state)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - whatever it is, the bytes are the reason
            continue
        if found or (is_room(name) and state):
            yield Controls(name, found, state, seq)
