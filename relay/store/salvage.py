"""Creates an intact file from what is readable in a damaged one.

Readers, senders and accounts can only continue with a log that has no holes. So for each log the
entries from its floor up to the first unreadable one are kept, and readable entries after that are
handed to the caller. Everything else in a file follows from its entries. The new file has no
history, so every log begins a new epoch with its next append (invariant "Epochs are segments").
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import apsw

from relay import limits
from relay.chat.entries import Entry, Kind
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.state import Room
from relay.store.apply import ENTRY, STATE, write_more
from relay.store.carving import Row, carved
from relay.store.derived import derive
from relay.store.errors import StoreUnavailable
from relay.store.schema import (
    MEMBER,
    connect_writer,
    create_tables,
    member_rows,
    pragma,
    translated,
)
from relay.store.snapshot import sync_file
from relay.store.state import SEQ_BITS, SEQ_MASK, More, row_id
from relay.store.stub import is_stub

MARK: Final = int(Kind.MARK)
SYSTEM: Final = int(Kind.SYSTEM)
ROW_MAX: Final = (1 << 63) - 1
ROWS_PER_COMMIT: Final = 1000
_ROWS: Final = (
    "SELECT id, time_ms, chain, jump, CAST(packed AS BLOB) FROM entry WHERE id>=? ORDER BY id"
)
_GATHER: Final = "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?)"
_DAMAGE: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.SQLError,
    apsw.IOError,
    UnicodeDecodeError,
)
Floor = tuple[str, int, int]
"""(name, floor, floor_ms) of a log."""
NOTHING_REMOVED: Final = ("", 0, 0)


class SalvagedLog(NamedTuple):
    """The result for one log."""

    name: str
    kept: int
    """The last entry that was kept."""
    aside: int
    """Number of readable entries after a hole."""


def salvage(
    path: Path,
    new: Path,
    *,
    partition: int,
    unpack: Callable[[bytes], Any],
    with_wal: bool,
    aside: Callable[[bytes], object],
    links: bool = True,
) -> list[SalvagedLog]:
    """Write what is readable in a file into a new one.

    Args:
        path: the damaged file. Nothing is written to it.
        new: does not exist yet.
        partition: whose logs it should hold; others are handed to ``aside``.
        unpack: an entry as a tuple of the fields of ``Entry``; raises any exception if invalid.
        with_wal: read the file through its write-ahead log.
        aside: called with the packed entries that are not kept.
        links: keep the links of rows to earlier entries of their producers. Without them, resends
            of old counters are not recognised; those of each producer's last counter are.

    Raises:
        StoreError: the new file cannot be written.
    """
    target = connect_writer(new, create=True)
    try:
        target.execute("BEGIN")
        create_tables(target, unpack)
        with _gathered(path, new, with_wal=with_wal) as (
            rows,
            floors,
        ):
            found = _Salvage(target, partition, unpack, aside, floors, links=links).run(rows)
        target.execute("COMMIT")
        target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        # A single file, to be renamed; the next writer switches to a write-ahead log again.
        pragma(target, "journal_mode=DELETE")
    except apsw.Error as error:
        raise translated(error, new) from error
    finally:
        target.close(True)
    try:
        sync_file(new)
    except OSError as error:
        raise StoreUnavailable(f"{new}: {error.strerror}") from error
    return found


@contextlib.contextmanager
def _gathered(
    path: Path, new: Path, *, with_wal: bool
) -> Iterator[tuple[Iterator[Row], dict[int, Floor]]]:
    """Return all readable rows of entries, in order, and where logs begin.

    Rows found by SQLite come first: it knows which of two versions of a row is valid.
    """
    beside = new.with_name(f"{new.name}.rows")
    gathered = apsw.Connection(str(beside))
    floors: dict[int, Floor] = {}
    try:
        for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            pragma(gathered, setting)
        gathered.execute(
            "BEGIN; CREATE TABLE entry (id INTEGER PRIMARY KEY, time_ms, chain, jump, packed)"
        )
        with contextlib.suppress(*_DAMAGE):
            source = _connect(path, with_wal)
            try:
                floors = _floors(source)
                gathered.executemany(_GATHER, (row for row in _readable(source) if _is_row(row)))
            finally:
                source.close(True)
        with contextlib.suppress(OSError):
            gathered.executemany(_GATHER, carved(path, with_wal=with_wal))
        gathered.execute("COMMIT")
        yield gathered.execute(_ROWS, (0,)), floors
    finally:
        gathered.close(True)
        beside.unlink(missing_ok=True)


def _is_row(row: tuple[Any, ...]) -> bool:
    """Check the types of a row's columns: SQLite returns whatever a page contains."""
    *numbers, packed = row
    return all(type(one) is int for one in numbers) and type(packed) is bytes


def _connect(path: Path, with_wal: bool) -> apsw.Connection:
    if with_wal:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    return apsw.Connection(
        f"file:{quote(str(path))}?immutable=1",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )


class _Salvage:
    def __init__(
        self,
        target: apsw.Connection,
        partition: int,
        unpack: Callable[[bytes], Any],
        aside: Callable[[bytes], object],
        floors: dict[int, Floor],
        *,
        links: bool,
    ) -> None:
        self._floors = floors
        self._links = links
        self._floor = NOTHING_REMOVED
        self._target = target
        self._partition = partition
        self._unpack = unpack
        self._aside = aside
        self._found: list[SalvagedLog] = []
        self._names: set[str] = set()
        self._more = More()

    def run(self, readable: Iterator[Row]) -> list[SalvagedLog]:
        log_id, name, kept, aside = -1, "", 0, 0
        epoch = b""
        producers: dict[bytes, tuple[int, int]] = {}
        room: Room | None = None
        for number, (row, time_ms, chain, jump, packed) in enumerate(readable, 1):
            entry = self._entry(packed, row & SEQ_MASK)
            if row >> SEQ_BITS != log_id:
                self._end(name, kept, aside, producers, room)
                log_id, name, kept, aside, epoch, producers = row >> SEQ_BITS, "", 0, 0, b"", {}
                room = None
                self._floor = self._floors.get(log_id, NOTHING_REMOVED)
                known, kept, _ = self._floor
                if kept and known not in self._names and partition_of(known) == self._partition:
                    name = known
                    self._names.add(name)
            if is_stub(packed) and log_id not in self._floors:  # if the floor is unknown
                kept, aside = row & SEQ_MASK, 0
                self._floor = name, kept, time_ms
            if row & SEQ_MASK <= self._floor[1]:
                room = self._removed((row, time_ms, chain, jump, packed), room)
                continue
            whole = entry is not None and entry.seq == kept + 1 and not aside
            if whole and not name:
                assert entry is not None
                if entry.log not in self._names:
                    name = entry.log
                    self._names.add(name)
            if not whole or entry is None or not name or entry.log != name:
                aside += 1
                if entry is not None:
                    self._aside(packed)
                continue
            kept += 1
            mine = len(self._found) + 1
            if entry.epoch != epoch:
                epoch = entry.epoch
                self._target.execute("INSERT INTO epoch VALUES (?, ?, ?, 0)", (mine, kept, epoch))
            chain, jump = self._linked(entry, chain, jump, producers.get(entry.producer))
            self._target.execute(ENTRY, (row_id(mine, kept), time_ms, chain, jump, packed))
            derive(self._more, mine, entry, chain, jump)
            if chain >= 0:
                producers[entry.producer] = entry.counter, kept
            if _is_room_event(entry):
                event = events.unpack(entry.body)
                room = rooms.applied(room or Room(), event, entry.sender, kept)
            if number % ROWS_PER_COMMIT == 0:
                self._target.execute("COMMIT")
                self._target.execute("BEGIN")
        self._end(name, kept, aside, producers, room)
        return [log for log in self._found if log.name or log.aside]

    def _linked(
        self, entry: Entry, chain: int, jump: int, last: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Return the links of a row to earlier entries if they can be correct, otherwise none.

        ``last``: counter and seq of the producer's last kept entry.
        """
        if chain < 0 and entry.log.startswith(INBOX_PREFIX):
            return chain, jump  # a copy: its position in the sender's inbox
        if last is None:
            right = 0 <= chain <= self._floor[1]
        else:
            right = chain == (last[1] if last[0] == entry.counter - 1 else 0)
        return (chain, jump) if self._links and right and 0 <= jump < entry.seq else (0, 0)

    def _removed(self, row: Row, room: Room | None) -> Room | None:
        """Keep what is left of a removed entry; return the state of the room."""
        where, time_ms, chain, jump, packed = row
        mine, seq = len(self._found) + 1, where & SEQ_MASK
        entry = None if is_stub(packed) else self._entry(packed, seq)
        if entry is None and not is_stub(packed):
            return room
        self._target.execute(ENTRY, (row_id(mine, seq), time_ms, chain, jump, packed))
        if entry is not None:
            derive(self._more, mine, entry, chain, jump)
            if _is_room_event(entry):
                event = events.unpack(entry.body)
                return rooms.applied(room or Room(), event, entry.sender, seq)
        return room

    def _entry(self, packed: bytes, seq: int) -> Entry | None:
        try:
            entry = Entry._make(self._unpack(packed))
            if entry.seq != seq or partition_of(entry.log) != self._partition:
                return None
            # The entries that tables and state are derived from must be readable, too.
            if _is_room_event(entry):
                events.unpack(entry.body)
            elif entry.kind == MARK:
                entry.body.decode()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # whatever it is, it is no entry
            return None
        return entry

    def _end(
        self,
        name: str,
        kept: int,
        aside: int,
        producers: dict[bytes, tuple[int, int]],
        room: Room | None,
    ) -> None:
        if not name and not aside:
            return
        mine = len(self._found) + 1
        self._found.append(SalvagedLog(name, kept, aside))
        if not name:
            self._target.execute("DELETE FROM entry WHERE id >> 40=?", (mine,))
            return
        self._target.execute(
            "INSERT INTO log (id, name, floor, floor_ms) VALUES (?, ?, ?, ?)",
            (mine, name, self._floor[1], self._floor[2]),
        )
        self._target.executemany(
            "INSERT INTO producer VALUES (?, ?, ?, ?, 0)",
            [(mine, producer, *end) for producer, end in producers.items()],
        )
        self._target.execute(
            "INSERT INTO epoch SELECT ?1, ?2, ?3, 0 "
            "WHERE NOT EXISTS (SELECT 1 FROM epoch WHERE log_id=?1)",
            (mine, kept, secrets.token_bytes(limits.EPOCH_BYTES)),
        )
        if room is not None:  # who may read and write follows from its entries
            guarded = int(not room.everybody_writes)
            row = mine, room.version, guarded, room.due_ms, rooms.pack(room)
            self._target.execute(STATE, row)
            self._target.executemany(MEMBER, member_rows(mine, room))
        write_more(self._target, self._more)
        self._more = More()


def _is_room_event(entry: Entry) -> bool:
    return entry.kind == SYSTEM and entry.content_type == events.CONTENT_TYPE


def _floors(source: apsw.Connection) -> dict[int, Floor]:
    """Return where logs begin, as far as that can be read."""
    found: dict[int, Floor] = {}
    with contextlib.suppress(*_DAMAGE):
        for log_id, *floor in source.execute("SELECT id, name, floor, floor_ms FROM log"):
            found[log_id] = (floor[0], floor[1], floor[2])
    return found


def _readable(source: apsw.Connection) -> Iterator[Row]:
    """Yield the readable rows, in order, skipping unreadable pages."""
    at = 0
    while at <= ROW_MAX:
        try:
            for row in source.execute(_ROWS, (at,)):
                at = row[0] + 1
                yield row
        except _DAMAGE:
            behind = _behind_damage(source, at)
            if behind is None:
                return
            at = behind
        else:
            return


def _behind_damage(source: apsw.Connection, at: int) -> int | None:
    """Return the first row id after ``at`` from which reading can continue; None: there is none."""
    step, bad = 1, at
    while not _can_read(source, good := at + step):
        bad, step = good, step * 2
        if at + step > ROW_MAX:
            return None
    while good - bad > 1:
        middle = (good + bad) // 2
        if _can_read(source, middle):
            good = middle
        else:
            bad = middle
    return good


def _can_read(source: apsw.Connection, at: int) -> bool:
    try:
        source.execute(f"{_ROWS} LIMIT 1", (at,)).fetchall()
    except _DAMAGE:
        return False
    return True
