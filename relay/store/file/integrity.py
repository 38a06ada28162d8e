"""Checks whether a partition's file is intact. Done only on suspicion, since it reads all of it.

SQLite's own check detects broken trees. It does not detect pages from different times that happen
to fit: those leave holes in logs, or a producer's record that is older than its entries.

An entry or a state that cannot be read, in a file that is whole, damages its log alone: a running
relay serves what is around it, and so does a start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import apsw

from relay.chat.entries import Entry, Kind
from relay.chat.names import is_room
from relay.chat.partition import partition_of
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import is_creation
from relay.errors import EnvelopeError
from relay.store.file.format import FORMAT_OF_CONTROLS, FORMAT_OF_MEMBERS, FORMAT_OF_TAILS
from relay.store.file.generation import number, read_meta
from relay.store.file.schema import (
    ADDED_BY_2,
    TABLES,
    TABLES_OF_3,
    TABLES_OF_4,
    TABLES_OF_5,
    has_states,
    rows,
)
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import LOST, is_stub

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


class DamagedLog(NamedTuple):
    """A log of which something cannot be read."""

    log: str
    reason: str
    repairable: bool = False
    """True if a repair restores something: its state follows from its entries, or messages are
    refused because it is unknown who sent the last ones."""


class FileCheck(NamedTuple):
    """The result."""

    damage: str | None
    """Why the file cannot be relied on; None: it is whole."""
    logs: list[DamagedLog]
    """What cannot be read in a file that is whole, sorted."""


def check_file(
    connection: apsw.Connection,
    *,
    unpack: Callable[[bytes], Entry],
    partition: int | None,
    limit_s: float | None,
) -> FileCheck:
    """Return what is wrong with a file, seen through its WAL.

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
        logs = _check_logs(connection, partition)
        logs += _Entries(connection, unpack).check(late)
    except apsw.InterruptError:
        raise CheckUnfinished from None
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        return FileCheck(str(error), [])
    except UnicodeDecodeError:
        return FileCheck("a text is not UTF-8", [])
    except _Damaged as error:
        return FileCheck(str(error), [])
    finally:
        connection.set_progress_handler(None)
    return FileCheck(None, sorted(logs))


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


def _check_logs(connection: apsw.Connection, partition: int | None) -> list[DamagedLog]:
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
    if rows(connection, "SELECT 1 FROM epoch WHERE generation > ?", (newest,)):
        raise _Damaged("the file's generation does not match the rest of the file")
    return _check_states(connection) if has_states(connection) else []


def _check_states(connection: apsw.Connection) -> list[DamagedLog]:
    if rows(connection, "SELECT 1 FROM state WHERE log_id NOT IN (SELECT id FROM log)"):
        raise _Damaged("the state of a log does not match the rest of the file")
    found: list[DamagedLog] = []
    cursor = connection.execute(
        "SELECT name, CAST(packed AS BLOB) FROM state JOIN log ON log.id=log_id"
    )
    try:
        for name, packed in cursor:
            try:
                rooms.unpack(packed)
            except EnvelopeError:
                again = packed != LOST  # otherwise a repair has put it there
                found.append(DamagedLog(name, "its state cannot be read", repairable=again))
    finally:
        cursor.close(True)
    return found


class _Entries:
    """Checks the entries of all logs, in order, and what tables tell about them."""

    def __init__(self, connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
        self._connection = connection
        self._unpack = unpack
        self._logs: dict[int, tuple[str, int]] = {
            log_id: (name, floor)
            for log_id, name, floor in rows(connection, "SELECT id, name, floor FROM log")
        }
        """By id: name and floor."""
        self._ends = {log_id: floor for log_id, (_, floor) in self._logs.items()}
        self._controls = _Controls(connection)
        self._tails = _tails(connection)
        self._unreadable: dict[str, _Unreadable] = {}
        self._current = 0
        """The id of the log whose entries come now."""
        self._lasts: set[int] = set()
        """In that log: the last entries of its senders, by their table."""

    def check(self, late: Callable[[], bool]) -> list[DamagedLog]:
        """Return the logs with entries that cannot be read.

        Raises:
            _Damaged: something does not match the rest of the file.
            CheckUnfinished: it is ``late``.
        """
        cursor = self._connection.execute(_ENTRIES)
        try:
            for number, (row, chain, jump, packed) in enumerate(cursor):
                if number % ENTRIES_BETWEEN_LOOKS == 0 and late():
                    raise CheckUnfinished
                self._check_row(row >> SEQ_BITS, row & SEQ_MASK, chain, jump, packed)
            self._end_log()
        finally:
            cursor.close(True)
        self._check_ends()
        return [one.found(name) for name, one in self._unreadable.items()]

    def _check_row(
        self, log_id: int, seq: int, chain: int, jump: int, packed: bytes | None
    ) -> None:
        if log_id not in self._logs:
            raise _Damaged(f"entry {seq} belongs to no log")
        if log_id != self._current:
            self._end_log()
            self._controls.begin(log_id)
            self._current = log_id
            self._lasts = _last_seqs(self._connection, log_id)
        name, floor = self._logs[log_id]
        if packed is None:
            raise _Damaged(f"the row of entry {seq} of log {name} cannot be read")
        above = seq > floor
        if not above and is_stub(packed):
            self._controls.take(name, seq, None)
            return
        if above and seq != self._ends[log_id] + 1:
            raise _Damaged(f"entry {self._ends[log_id] + 1} of log {name} is missing")
        self._ends[log_id] = max(self._ends[log_id], seq)
        # A negative value: a copy of a direct message (``derived.copy_links``).
        if above and chain >= 0 and (not 0 <= jump < seq or not chain < seq):
            raise _Damaged(f"entry {seq} of log {name} has a later one as its predecessor")
        in_tail = seq >= self._tails.get(log_id, seq + 1)
        if above and not in_tail and chain and chain in self._lasts:
            raise _Damaged(f"the record of a sender in log {name} is older than its entries")
        if (entry := _readable(packed, name, seq, self._unpack)) is None:
            unreadable = self._unreadable.setdefault(name, _Unreadable(seq))
            unreadable.add(blocks=in_tail and chain >= 0)
            self._controls.pass_over(seq)
        else:
            self._controls.take(name, seq, entry)

    def _end_log(self) -> None:
        self._controls.end(self._logs[self._current][0] if self._current else "")

    def _check_ends(self) -> None:
        """Check what tables tell about the ends of logs, which are known now."""
        connection, logs, ends = self._connection, self._logs, self._ends
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
        for log_id, seq in self._tails.items():
            if log_id not in logs or not logs[log_id][1] < seq <= ends[log_id]:
                raise _Damaged(
                    "the list of senders that are not recorded does not match the rest of the file"
                )


def _readable(packed: bytes, name: str, seq: int, unpack: Callable[[bytes], Entry]) -> Entry | None:
    """Return the entry of a row; None: it is none, or the one of another place."""
    try:
        entry = unpack(packed)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
        return None
    return entry if entry.seq == seq and entry.log == name else None


class _Unreadable:
    """The entries of one log that cannot be read."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._count = 0
        self._blocks = False

    def add(self, *, blocks: bool) -> None:
        """Add one. ``blocks``: nothing can be stored in the log because of it (``unflushed``)."""
        self._count += 1
        self._blocks = self._blocks or blocks

    def found(self, name: str) -> DamagedLog:
        """Return the result for the log with this name."""
        more = f" and {self._count - 1} more" if self._count > 1 else ""
        reason = f"entry {self._first}{more} cannot be read"
        if self._blocks:
            reason += ", so nothing can be sent to it"
        return DamagedLog(name, reason, self._blocks)


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

    def pass_over(self, seq: int) -> None:
        """Process an entry that cannot be read: it may be one or not."""
        self._left.discard(seq)

    def end(self, name: str) -> None:
        """End a log."""
        if self._left:
            raise _Damaged(f"control entry {min(self._left)} of log {name} is missing")


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
