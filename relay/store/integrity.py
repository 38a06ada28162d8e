"""Checks whether a partition's file is intact. Done only on suspicion, since it reads all of it.

SQLite's own check detects broken trees. It does not detect pages from different times that happen
to fit: those leave holes in logs, or a producer's record that is older than its entries.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import apsw

from relay.chat.entries import Entry, Kind
from relay.chat.names import is_room
from relay.chat.partition import partition_of
from relay.chat.rooms import state as rooms
from relay.errors import EnvelopeError
from relay.store.creations import is_creation
from relay.store.format import FORMAT_OF_CONTROLS, FORMAT_OF_MEMBERS, FORMAT_OF_TAILS
from relay.store.generation import number, read_meta
from relay.store.schema import (
    ADDED_BY_2,
    TABLES,
    TABLES_OF_3,
    TABLES_OF_4,
    TABLES_OF_5,
    has_states,
    rows,
)
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import is_stub

OPCODES_BETWEEN_LOOKS: Final = 10_000
ENTRIES_BETWEEN_LOOKS: Final = 1000


_ENTRIES: Final = (
    "SELECT id, chain, jump, CASE WHEN typeof(packed)='blob' AND typeof(chain)='integer' "
    "AND typeof(jump)='integer' THEN packed END FROM entry ORDER BY id"
)


class CheckUnfinished(Exception):
    """The time limit was reached before the end of the file."""


class _Damaged(Exception):
    pass


def damage(
    connection: apsw.Connection,
    *,
    unpack: Callable[[bytes], Entry],
    partition: int | None,
    limit_s: float | None,
) -> str | None:
    """Return what is wrong with a file, seen through its WAL; None: it is intact.

    Args:
        connection: to the file.
        unpack: raises any exception for an entry that cannot be read.
        partition: the partition whose logs the file should hold; None: not checked.
        limit_s: time limit; None: none.

    Raises:
        CheckUnfinished: the time limit was reached.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s

    def late() -> bool:
        return deadline is not None and time.monotonic() > deadline

    connection.set_progress_handler(late, OPCODES_BETWEEN_LOOKS)
    try:
        _check_structure(connection)
        _check_logs(connection, partition)
        _check_entries(connection, unpack, late)
    except apsw.InterruptError:
        raise CheckUnfinished from None
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        return str(error)
    except UnicodeDecodeError:
        return "a text is not UTF-8"
    except _Damaged as error:
        return str(error)
    finally:
        connection.set_progress_handler(None)
    return None


def _check_structure(connection: apsw.Connection) -> None:
    found = str(rows(connection, "PRAGMA integrity_check(1)")[0][0])
    if found != "ok":
        raise _Damaged(" ".join(found.split()))
    names = {name for (name,) in rows(connection, "SELECT name FROM sqlite_schema")}
    version = rows(connection, "PRAGMA user_version")[0][0]
    added = (
        (2, ADDED_BY_2),
        (FORMAT_OF_CONTROLS, TABLES_OF_3),
        (FORMAT_OF_MEMBERS, TABLES_OF_4),
        (FORMAT_OF_TAILS, TABLES_OF_5),
    )
    made = TABLES + "".join(tables for since, tables in added if version >= since)
    for what, name in re.findall(r"CREATE (TABLE|INDEX) (\w+)", made):
        if name not in names:
            raise _Damaged(f"the {what.lower()} {name} is missing")


def _check_logs(connection: apsw.Connection, partition: int | None) -> None:
    for (name,) in rows(connection, "SELECT name FROM log") if partition is not None else ():
        if partition_of(name) != partition:
            raise _Damaged(f"log {name} belongs to partition {partition_of(name):02}")
    meta = read_meta(connection)
    newest, *_ = [number(meta, key) for key in ("generation", "opening", "day", "day_began_ms")]
    for what, condition in (
        ("an epoch", "SELECT 1 FROM epoch WHERE log_id NOT IN (SELECT id FROM log)"),
        ("a producer", "SELECT 1 FROM producer WHERE log_id NOT IN (SELECT id FROM log)"),
        ("the epoch of a log", "SELECT 1 FROM log WHERE id NOT IN (SELECT log_id FROM epoch)"),
    ):
        if rows(connection, condition):
            raise _Damaged(f"{what} does not match the rest of the file")
    if has_states(connection):
        _check_states(connection)
    if rows(connection, "SELECT 1 FROM epoch WHERE generation > ?", (newest,)):
        raise _Damaged("the file's generation does not match the rest of the file")


def _check_states(connection: apsw.Connection) -> None:
    if rows(connection, "SELECT 1 FROM state WHERE log_id NOT IN (SELECT id FROM log)"):
        raise _Damaged("the state of a log does not match the rest of the file")
    cursor = connection.execute("SELECT name, packed FROM state JOIN log ON log.id=log_id")
    try:
        for name, packed in cursor:
            try:
                rooms.unpack(packed)
            except EnvelopeError:
                raise _Damaged(f"the state of log {name} cannot be read") from None
    finally:
        cursor.close(True)


def _check_entries(
    connection: apsw.Connection, unpack: Callable[[bytes], Entry], late: Callable[[], bool]
) -> None:
    logs: dict[int, tuple[str, int]] = {
        log_id: (name, floor)
        for log_id, name, floor in rows(connection, "SELECT id, name, floor FROM log")
    }
    ends = {log_id: floor for log_id, (_, floor) in logs.items()}
    lasts: dict[int, set[int]] = {}
    controls = _Controls(connection)
    tails = _tails(connection)
    current = 0
    cursor = connection.execute(_ENTRIES)
    try:
        for number, (row, chain, jump, packed) in enumerate(cursor):
            if number % ENTRIES_BETWEEN_LOOKS == 0 and late():
                raise CheckUnfinished
            log_id, seq = row >> SEQ_BITS, row & SEQ_MASK
            if log_id not in logs:
                raise _Damaged(f"entry {seq} belongs to no log")
            if log_id != current:
                controls.end(logs[current][0] if current else "")
                controls.begin(log_id)
                current = log_id
                lasts = {log_id: _last_seqs(connection, log_id)}
            name, floor = logs[log_id]
            if packed is None:
                raise _Damaged(f"entry {seq} of log {name} cannot be read")
            if seq <= floor:
                controls.take(name, seq, _check_removed(name, seq, packed, unpack))
                continue
            if seq != ends[log_id] + 1:
                raise _Damaged(f"entry {ends[log_id] + 1} of log {name} is missing")
            ends[log_id] = seq
            # A negative value: a copy of a direct message (``derived.copy_links``).
            if chain >= 0 and (not 0 <= jump < seq or not chain < seq):
                raise _Damaged(f"entry {seq} of log {name} has a later one as its predecessor")
            if seq < tails.get(log_id, seq + 1) and chain and chain in lasts[log_id]:
                raise _Damaged(f"the record of a sender in log {name} is older than its entries")
            try:
                entry = unpack(packed)
                if entry.seq != seq or entry.log != name:
                    raise _Damaged(f"entry {seq} of log {name} is the one of another place")
                controls.take(name, seq, entry)
            except _Damaged:
                raise
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
                raise _Damaged(f"entry {seq} of log {name} cannot be read") from None
        controls.end(logs[current][0] if current else "")
    finally:
        cursor.close(True)
    queries = [
        ("an epoch", "SELECT log_id, max(first_seq) FROM epoch GROUP BY log_id"),
        ("a sender", "SELECT log_id, max(seq) FROM producer GROUP BY log_id"),
    ]
    if has_states(connection):
        queries.append(("the state", "SELECT log_id, seq FROM state"))
    for what, query in queries:
        for log_id, seq in rows(connection, query):
            if seq > ends[log_id]:
                raise _Damaged(f"{what} of log {logs[log_id][0]} is newer than its entries")
    for log_id, seq in tails.items():
        if log_id not in logs or not logs[log_id][1] < seq <= ends[log_id]:
            raise _Damaged(
                "the list of senders that are not recorded does not match the rest of the file"
            )


class _Controls:
    """Compares the rows of ``control``, log by log, with their entries.

    A file that was of format 2 may lack rows for the first control entries of a room, and one
    written by an older Relay those of rooms that a message created (``creations``).
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        version = rows(connection, "PRAGMA user_version")[0][0]
        self._known = version >= FORMAT_OF_CONTROLS
        self._left: set[int] = set()
        self._first = 0

    def begin(self, log_id: int) -> None:
        """Begin a log; its entries follow in order."""
        if self._known:
            found = rows(self._connection, "SELECT seq FROM control WHERE log_id=?", (log_id,))
            self._left = {seq for (seq,) in found}
            self._first = min(self._left, default=0)

    def take(self, name: str, seq: int, entry: Entry | None) -> None:
        """Process an entry. None: only a hash of it is kept."""
        if not self._known:
            return
        is_control = entry is not None and entry.kind == Kind.SYSTEM
        if is_control and entry is not None and seq not in self._left:
            if not is_room(name) or (0 < self._first < seq and not is_creation(entry)):
                raise _Damaged(f"control entry {seq} of log {name} is not listed as one")
        elif not is_control and seq in self._left:
            raise _Damaged(
                f"entry {seq} of log {name} is listed as a control entry, but is not one"
            )
        self._left.discard(seq)

    def end(self, name: str) -> None:
        """End a log."""
        if self._left:
            raise _Damaged(f"control entry {min(self._left)} of log {name} is missing")


def _check_removed(
    name: str, seq: int, packed: bytes, unpack: Callable[[bytes], Entry]
) -> Entry | None:
    """Check an entry below the floor: a hash (None), or a complete control entry."""
    if is_stub(packed):
        return None
    try:
        return unpack(packed)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
        raise _Damaged(f"what is kept of entry {seq} of log {name} cannot be read") from None


def _tails(connection: apsw.Connection) -> dict[int, int]:
    """Return, by log, from where on entries may be newer than the records of their senders."""
    version = rows(connection, "PRAGMA user_version")[0][0]
    if version < FORMAT_OF_TAILS:
        return {}
    return dict(rows(connection, "SELECT log_id, from_seq FROM unflushed"))


def _last_seqs(connection: apsw.Connection, log_id: int) -> set[int]:
    """Return the last seqs in producers' records: these must not be followed by another entry."""
    found = rows(connection, "SELECT seq FROM producer WHERE log_id=?", (log_id,))
    return {seq for (seq,) in found}
