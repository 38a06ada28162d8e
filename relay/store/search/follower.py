"""Maintains the index of one partition: follows its commits at its own pace, in any thread.

It reads the partition like any reader, and records its position in each commit of the index. So
after a crash it continues from there. It detects by itself when the partition is not the one it has
indexed (restored, repaired, a new epoch), and then indexes that log again from the beginning.

A thread of a busy worker waits for the interpreter each time it returns from SQLite. So many rows
are passed at a time: many entries are read as one, and written by one statement.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from relay import limits
from relay.chat.entries import Entry, Kind
from relay.store.errors import StoreError
from relay.store.file.schema import connect_reader, epoch_at, has_logs, pragma, rows
from relay.store.search import files
from relay.store.search.words import text_of
from relay.store.state import SEQ_BITS, SEQ_MASK, row_id
from relay.store.stub import LOST
from relay.store.touched import Touched
from relay.store.view import UnpackEntry

LOGS_PER_STEP: Final = 256
ENTRIES_PER_STEP: Final = 256  # about 4 ms
READ_CACHE_KIB: Final = 256  # for the partition's pages, which are read once, in order
BYTES_PER_STEP: Final = 131_072
"""Maximum size of the entries read at a time, unless it is one alone. The content of a step is in
memory several times, and in JSON a character may take six bytes."""
REMOVED_PER_STEP: Final = 256
RETRY_S: Final = 30.0  # after an error, such as a full disk: the index can wait
LOGS: Final = """
SELECT json_group_array(json_array(id, name, floor, last, hex(epoch))) FROM (
    SELECT log.id AS id, name, floor,
        coalesce((SELECT max(entry.id) FROM entry
            WHERE entry.id BETWEEN log.id << 40 AND (log.id << 40) + 0xFFFFFFFFFF) & 0xFFFFFFFFFF,
            floor) AS last,
        coalesce((SELECT epoch FROM epoch WHERE log_id=log.id AND first_seq<=wanted.value->>1
            ORDER BY first_seq DESC LIMIT 1), x'') AS epoch
    FROM json_each(?1) AS wanted CROSS JOIN log ON log.id=wanted.value->>0)"""
_WANTED: Final = """
FROM json_each(?1) AS wanted CROSS JOIN entry
ON entry.id > ((wanted.value->>0) << 40) + (wanted.value->>1)
    AND entry.id <= ((wanted.value->>0) << 40) + (wanted.value->>2)
LIMIT ?2"""
# SQLite knows how long a value is without reading it.
SIZES: Final = f"SELECT json_group_array(size) FROM (SELECT octet_length(packed) AS size {_WANTED})"  # noqa: S608 - all of it is above
ENTRIES: Final = f"""
SELECT json_group_array(json_array(id, length(CAST(packed AS BLOB)))),
    CAST(coalesce(group_concat(packed, ''), '') AS BLOB)
FROM (SELECT entry.id AS id, packed {_WANTED})"""  # noqa: S608 - likewise
POSITIONS: Final = """
SELECT json_group_array(json_array(log_id, name, hex(epoch), seq, floor)) FROM position
WHERE log_id IN (SELECT value FROM json_each(?))"""
NOTE: Final = """
INSERT OR REPLACE INTO position
SELECT value->>0, value->>1, unhex(value->>2), value->>3, value->>4 FROM json_each(?)"""
TEXTS: Final = "INSERT INTO text (rowid, body) SELECT value->>0, value->>1 FROM json_each(?)"
EDITS: Final = "INSERT OR IGNORE INTO edit SELECT value->>0, value->>1 FROM json_each(?)"
NEXT_LOGS: Final = "SELECT json_group_array(id) FROM (SELECT id FROM log WHERE id>? LIMIT ?)"
NEXT_POSITIONS: Final = """
SELECT json_group_array(log_id) FROM (SELECT log_id FROM position WHERE log_id>? LIMIT ?)"""
EDITS_OF: Final = """
SELECT CAST(packed AS BLOB) FROM edit JOIN entry ON entry.id=?1 << 40 | edit.seq
WHERE edit.log_id=?1 AND target=?2 ORDER BY edit.seq DESC LIMIT ?3"""
MESSAGE: Final = """
SELECT CAST(packed AS BLOB) FROM entry JOIN log ON log.id=?1
WHERE entry.id=?1 << 40 | ?2 AND ?2 > floor"""
MESSAGE_KIND: Final = int(Kind.MESSAGE)
EDIT_KIND: Final = int(Kind.EDIT)
REDACTION_KIND: Final = int(Kind.REDACTION)
log = logging.getLogger("relay.store")


class _Log(NamedTuple):
    """A log in its partition."""

    id: int
    name: str
    floor: int
    last: int
    epoch: str
    """Hexadecimal: the epoch at the position of the index."""


class _Position(NamedTuple):
    """The position of the index in a log: a row of ``position``."""

    id: int
    name: str
    epoch: str
    seq: int
    floor: int


class Follower:
    """Maintains one index. Not thread-safe, except for ``touched``."""

    def __init__(
        self, partition: Path, index: Path, touched: Touched, unpack_entry: UnpackEntry
    ) -> None:
        """Create; files are opened later.

        Args:
            partition: its file.
            index: the file of the index.
            touched: the changed logs.
            unpack_entry: reads a packed entry.
        """
        self._path = partition
        self.path = index
        self._touched = touched
        self._unpack = unpack_entry
        self._partition: apsw.Connection | None = None
        self._index: apsw.Connection | None = None
        self._scanned: int | None = 0
        """Logs up to this id were examined, whether or not they have changed; None: all were."""
        self._again: list[int] = []
        """Logs that one step was too short for."""
        self._scrub = True
        """True if something was removed and may still be in the index's WAL."""
        self._unfinished = False
        """True if the last slice ended before all changed logs were examined."""
        self._resting_until = 0.0
        self.entries = 0  # examined, for statistics
        self.slice_entries = 0
        """Number of entries examined in the last slice."""

    @property
    def behind(self) -> bool:
        """True while anything that could be found is not indexed."""
        return bool(self._touched.soon) or self.unfinished

    @property
    def unfinished(self) -> bool:
        """True while there is more to do than what arrived since the last slice."""
        return self._unfinished or bool(self._again) or self._scrub or self._scanned is not None

    def release_memory(self) -> None:
        """Keep the files open, because opening is most of a short slice's work, but no pages."""
        for connection in (self._index, self._partition):
            if connection is not None:
                with contextlib.suppress(apsw.Error):
                    pragma(connection, "shrink_memory")

    def close(self) -> None:
        """Close both files."""
        for connection in (self._index, self._partition):
            if connection is not None:
                connection.close(True)
        self._index = self._partition = None

    def anew(self) -> None:
        """Remove the index; it is then rebuilt."""
        self.close()
        files.remove(self.path)
        self._scanned, self._again = 0, []
        self._resting_until = 0.0

    def look(self) -> None:
        """Examine all logs again: entries may have been removed from any of them."""
        self._scanned = 0

    def run(self, seconds: float) -> None:
        """Follow for this long, in one commit of the index. Raises nothing: failures are logged."""
        now = time.monotonic()
        if now < self._resting_until:
            return
        entries = self.entries
        try:
            self._run(now + seconds)
            self.slice_entries = self.entries - entries
            return
        except files.Unusable as error:
            reason = str(error)
        except (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError) as error:
            reason = str(error)
        except apsw.BusyError:
            self._rolled_back()  # the previous home
            return
        except (apsw.Error, StoreError, OSError) as error:
            self._rolled_back()
            self.close()
            self._resting_until = time.monotonic() + RETRY_S
            extra = {"path": str(self.path), "reason": str(error), "retry_s": RETRY_S}
            log.warning("search_index_waits", extra=extra)
            return
        log.warning("search_index_anew", extra={"path": str(self.path), "reason": reason})
        with contextlib.suppress(OSError):
            self.anew()

    def _rolled_back(self) -> None:
        if self._index is not None and self._index.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._index.execute("ROLLBACK")
        self._scanned, self._again = 0, []  # the logs that it contained are no longer known

    def _run(self, until: float) -> None:
        if self._partition is None:
            self._partition = connect_reader(self._path)
            if self._partition is None:
                return
            pragma(self._partition, f"cache_size=-{READ_CACHE_KIB}")
        if self._index is None:
            if not self._touched.some and not self.path.exists() and not has_logs(self._partition):
                self._scanned, self._scrub = None, False
                return
            self._index = files.open_writer(self.path)
        index, partition = self._index, self._partition
        if self._touched.some or self._again or self._unfinished or self._scanned is not None:
            self._unfinished = more = True  # until it is committed
            index.execute("BEGIN IMMEDIATE")
            while more and time.monotonic() < until:
                more = self._step(index, partition)
            index.execute("COMMIT")
            self._unfinished = more
        if self._scrub:
            with contextlib.suppress(apsw.BusyError):  # somebody is searching: next time
                index.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._scrub = False

    def _step(self, index: apsw.Connection, partition: apsw.Connection) -> bool:
        """Do one step. Returns True if there is more to do."""
        ids = self._next(index, partition)
        if not ids:
            return self._scanned is not None
        positions = {row[0]: _Position(*row) for row in _json(index, POSITIONS, json.dumps(ids))}
        wanted = [[id, positions[id].seq if id in positions else 0] for id in ids]
        logs = {row[0]: _Log(*row) for row in _json(partition, LOGS, json.dumps(wanted))}
        reads: list[list[int]] = []
        now: dict[int, _Position] = {}
        for id in ids:
            position, found = positions.get(id), logs.get(id)
            if position is not None and (found is None or not _continues(position, found)):
                if not self._removed(index, id, 0, SEQ_MASK):
                    self._again.append(id)
                    continue
                index.execute("DELETE FROM position WHERE log_id=?", (id,))
                position = None
            if found is None:
                continue
            if position is None:
                position = _Position(id, found.name, "", 0, 0)
            if found.floor > position.floor:
                if not self._removed(index, id, position.floor, found.floor):
                    self._again.append(id)
                    continue
                position = position._replace(floor=found.floor)
                now[id] = position
            if found.last > max(position.seq, found.floor):
                # Rows up to the floor may still exist, without the content of their entries.
                reads.append([id, max(position.seq, found.floor), found.last])
                now[id] = position
        self._read(index, partition, reads, now)
        return True

    def _next(self, index: apsw.Connection, partition: apsw.Connection) -> list[int]:
        """Return the ids of logs to examine."""
        found, self._again = dict.fromkeys(self._again), []
        found.update(dict.fromkeys(self._touched.take(LOGS_PER_STEP - len(found))))
        if self._scanned is not None and len(found) < LOGS_PER_STEP:
            count = LOGS_PER_STEP - len(found)
            bounds = self._scanned, count
            some = {*_json(partition, NEXT_LOGS, *bounds), *_json(index, NEXT_POSITIONS, *bounds)}
            ahead = sorted(some)[:count]
            self._scanned = ahead[-1] if ahead else None
            found.update(dict.fromkeys(ahead))
        return list(found)

    def _read(
        self,
        index: apsw.Connection,
        partition: apsw.Connection,
        reads: list[list[int]],
        now: dict[int, _Position],
    ) -> None:
        """Read entries, and add their texts and the new positions to the index."""
        lengths, packed = [], b""
        count_max = 1
        if reads:
            wanted = json.dumps(reads)
            sizes = itertools.accumulate(_json(partition, SIZES, wanted, ENTRIES_PER_STEP))
            count_max = max(1, sum(size <= BYTES_PER_STEP for size in sizes))
            shape, packed = rows(partition, ENTRIES, (wanted, count_max))[0]
            lengths = json.loads(shape)
        texts: dict[int, str] = {}
        edits: list[list[int]] = []
        changed: dict[int, None] = {}
        last: dict[int, tuple[int, Entry | None]] = {}
        """For each log that was read: its last row, and the entry there."""
        at = 0
        for row, length in lengths:
            entry = self._entry(row, packed[at : at + length])
            at += length
            last[row >> SEQ_BITS] = row, entry
            if entry is None:
                continue
            kind = entry.kind
            if kind == MESSAGE_KIND:
                if text := text_of(entry.content_type, entry.body):
                    texts[row] = text
            elif kind == EDIT_KIND:
                edits.append([row, entry.about_seq])
                changed[row_id(row >> SEQ_BITS, entry.about_seq)] = None
            elif kind == REDACTION_KIND:
                changed[row_id(row >> SEQ_BITS, entry.about_seq)] = None
        for id, (row, entry) in last.items():
            seq = row & SEQ_MASK
            epoch = epoch_at(partition, id, seq) if entry is None else entry.epoch
            now[id] = now[id]._replace(epoch=epoch.hex(), seq=seq)
        self.entries += len(lengths)
        if edits:
            index.execute(EDITS, (json.dumps(edits),))
        for row in changed:
            self._change(index, partition, row, texts)
        if texts:
            index.execute(TEXTS, (json.dumps(list(texts.items())),))
        if now:
            index.execute(NOTE, (json.dumps(list(now.values())),))
        if len(lengths) >= count_max:
            self._again += [id for id, _, upto in reads if now[id].seq < upto]

    def _change(
        self, index: apsw.Connection, partition: apsw.Connection, row: int, texts: dict[int, str]
    ) -> None:
        """Determine the current text of a message that was edited or redacted."""
        for (target,) in rows(index, "SELECT target FROM edit WHERE id=?", (row,)):
            row = row_id(row >> SEQ_BITS, target)
        texts.pop(row, None)
        if rows(index, "SELECT 1 FROM text WHERE rowid=?", (row,)):
            index.execute("DELETE FROM text WHERE rowid=?", (row,))
            self._scrub = True
        for (packed,) in rows(partition, MESSAGE, (row >> SEQ_BITS, row & SEQ_MASK)):
            message = self._entry(row, packed)
            if message is None or message.kind != Kind.MESSAGE:
                return
            current = self._last_edit(partition, row) or message
            if text := text_of(current.content_type, current.body):
                texts[row] = text

    def _last_edit(self, partition: apsw.Connection, row: int) -> Entry | None:
        id, seq = row >> SEQ_BITS, row & SEQ_MASK
        cursor = partition.execute(EDITS_OF, (id, seq, limits.EDITS_SHOWN_MAX))
        try:
            for (packed,) in cursor:  # one by one: usually the first is enough
                found = self._entry(row, packed)
                if found is not None and found.kind == Kind.EDIT:
                    return found
        finally:
            cursor.close(True)
        return None

    def _entry(self, row: int, packed: bytes) -> Entry | None:
        """Return an entry; None, after logging it, if it is damaged: it will not be found."""
        try:
            return self._unpack(packed)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
            if packed != LOST:  # a repair has told of those
                fields = {"log_id": row >> SEQ_BITS, "seq": row & SEQ_MASK}
                log.error("search_entry_skipped", extra=fields | {"path": str(self._path)})
            return None

    def _removed(self, index: apsw.Connection, id: int, after: int, upto: int) -> bool:
        """Remove a log's texts from the index; return True if that was all."""
        bounds = row_id(id, after + 1), row_id(id, upto)
        index.execute(
            "DELETE FROM text WHERE rowid IN (SELECT rowid FROM text WHERE rowid BETWEEN ? AND ? "
            "LIMIT ?)",
            (*bounds, REMOVED_PER_STEP),
        )
        removed = index.changes()
        self._scrub = self._scrub or removed > 0
        if removed < REMOVED_PER_STEP:
            index.execute("DELETE FROM edit WHERE id BETWEEN ? AND ?", bounds)
        return removed < REMOVED_PER_STEP


def _continues(position: _Position, found: _Log) -> bool:
    """Return True if a log is the one that is in the index."""
    if position.name != found.name or position.seq > found.last:
        return False
    return position.seq == 0 or position.epoch.lower() == found.epoch.lower()


def _json(connection: apsw.Connection, query: str, *bindings: str | int) -> list[Any]:
    found: list[Any] = json.loads(rows(connection, query, bindings)[0][0])
    return found
