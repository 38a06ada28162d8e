"""Decides which version of a row counts where a damaged file contains several (``remains``).

With its write-ahead log and without it, a file may have different versions of a row, as may pages
that are not in its tree any more. Entries are only added, erased in place, and removed from the
beginning of a log; none of that is ever undone. So, whichever version a repair goes by:

- an entry that one version has erased is erased, and one that a version has removed is removed;
- a log goes on to its end in any version, so that no ban, removed device or used invitation there
  is undone; and an entry that can be read in any version is not lost. A message is only taken from
  another version if everything after it can be read: otherwise it may have been erased.

The last rule does not apply to a log of which two versions have different entries in one place:
its histories differ, and only one of them can be kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import apsw

from relay.chat.entries import Entry, Kind
from relay.chat.partition import partition_of
from relay.store.file.schema import rows
from relay.store.salvage.carving import Row
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import is_stub, stub_of

TABLES: Final = """
CREATE TABLE entry (id INTEGER PRIMARY KEY, time_ms, chain, jump, packed);
CREATE TABLE version (id INTEGER, time_ms, chain, jump, packed);
"""
_FIRST: Final = "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?)"
_VERSION: Final = (
    "INSERT INTO version SELECT ?1, ?2, ?3, ?4, ?5 "
    "WHERE NOT EXISTS (SELECT 1 FROM entry WHERE id=?1 AND packed=?5)"
)
_ROWS: Final = "SELECT id, time_ms, chain, jump, packed FROM entry ORDER BY id"
_PAIRS: Final = (
    "SELECT version.*, entry.* FROM version LEFT JOIN entry ON entry.id=version.id "
    "ORDER BY version.id"
)
_REPLACE: Final = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)"
_ENDS: Final = f"SELECT id >> {SEQ_BITS}, max(id & {SEQ_MASK}) FROM entry GROUP BY 1"  # noqa: S608
ERASED: Final = int(Kind.ERASED)
Unpack = Callable[[Row], Entry | None]
"""Returns the entry of a row; None: it is none, or the one of another place."""
NamesOf = Callable[[Counter[tuple[int, str]]], dict[int, str]]


class Removal(NamedTuple):
    """Up to where a version of a log was removed."""

    seq: int
    time_ms: int


class RowVersions:
    """The rows of a file, in a temporary one."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Create the tables. ``connection``: of the temporary file, in a transaction."""
        self._connection = connection
        connection.execute(TABLES)
        self.removed: dict[int, Removal] = {}
        """By log id, what only other versions than the first had removed (``settle``)."""

    def add(self, found: Iterable[Row], *, first: bool) -> None:
        """Add rows.

        Args:
            found: rows of the file.
            first: in this version a missing row is taken, whatever it is. A version of a row that
                was added before remains the one that counts until ``settle``.
        """
        for row in found:
            if first:
                self._connection.execute(_FIRST, row)
                if self._connection.changes():
                    continue
            self._connection.execute(_VERSION, row)

    def rows(self) -> apsw.Cursor:
        """Return the rows that count, in order."""
        return self._connection.execute(_ROWS)

    def settle(self, unpack: Unpack, names_of: NamesOf) -> None:
        """Apply the rules to all rows.

        Args:
            unpack: see there.
            names_of: returns the names of logs by id, from the numbers of entries by (id, name).
        """
        if not self._connection.execute("SELECT 1 FROM version LIMIT 1").fetchall():
            return
        counted: Counter[tuple[int, str]] = Counter()
        for row in self.rows():
            if (entry := unpack(row)) is not None:
                counted[row[0] >> SEQ_BITS, entry.log] += 1
        pairs = _Pairs(names_of(counted), dict(rows(self._connection, _ENDS)), unpack)
        for settling in (pairs.compare, pairs.choose):
            for pair in self._connection.execute(_PAIRS):
                settling(pair[:5], None if pair[5] is None else pair[5:])
        self.removed = pairs.removed
        self._connection.executemany(_REPLACE, [one.row for one in pairs.chosen.values()])
        doubtful = self._doubtful(unpack)
        for row, _, before, is_message in pairs.chosen.values():
            if is_message and row[0] & SEQ_MASK < doubtful.get(row[0] >> SEQ_BITS, 0):
                self._connection.execute("DELETE FROM entry WHERE id=?", row[:1])
                if before is not None:
                    self._connection.execute(_REPLACE, before)

    def _doubtful(self, unpack: Unpack) -> dict[int, int]:
        """Return, by log id, the last seq whose entry may have erased one before it."""
        found: dict[int, int] = {}
        log_id = last = 0
        for row in self.rows():
            if row[0] >> SEQ_BITS == log_id and row[0] & SEQ_MASK != last + 1:
                found[log_id] = (row[0] & SEQ_MASK) - 1
            log_id, last = row[0] >> SEQ_BITS, row[0] & SEQ_MASK
            if not is_stub(row[-1]) and unpack(row) is None:
                found[log_id] = last
        return found


class _Chosen(NamedTuple):
    """A row to replace or add."""

    row: Row
    entry: Entry | None
    """None: it is a stub."""
    before: Row | None
    """The row that it replaces."""
    is_message: bool
    """True if it may have been erased."""


class _Pairs:
    """Compares other versions of rows with those that count."""

    def __init__(self, names: dict[int, str], ends: dict[int, int], unpack: Unpack) -> None:
        self._names, self._ends, self._unpack = names, ends, unpack
        self._taken = set(names.values())
        self._forked: set[int] = set()
        self.chosen: dict[int, _Chosen] = {}
        """By row id."""
        self.removed: dict[int, Removal] = {}

    def compare(self, row: Row, ours: Row | None) -> None:
        """First pass: find the logs whose histories differ."""
        here, there = ours and self._unpack(ours), self._unpack(row)
        if here is not None and there is not None and not is_same(here, there):
            self._forked.add(row[0] >> SEQ_BITS)

    def choose(self, row: Row, ours: Row | None) -> None:
        """Second pass: decide about one row."""
        log_id, seq = row[0] >> SEQ_BITS, row[0] & SEQ_MASK
        here, there = ours and self._unpack(ours), self._unpack(row)
        if here is not None:
            assert ours is not None
            if there is not None:
                if _erases(there, here):
                    self._take(row, ours, there)
            elif here.kind != Kind.SYSTEM and row[-1] == stub_of(here) and row[1] == ours[1]:
                self.removed[log_id] = Removal(seq, row[1])
        elif ours is not None and is_stub(ours[-1]):
            pass  # what it has removed is not taken from another version
        elif there is not None and self._is_of(log_id, there.log):
            self._take(row, ours, there)
        elif is_stub(row[-1]) and log_id not in self._forked:
            self._take(row, ours, None)

    def _take(self, row: Row, ours: Row | None, there: Entry | None) -> None:
        """Take a row (None: a stub), unless a version of it was taken that is not undone by it."""
        taken = self.chosen.get(row[0])
        if taken is not None and (
            taken.entry is None or (there is not None and not _erases(there, taken.entry))
        ):
            return
        log_id, seq = row[0] >> SEQ_BITS, row[0] & SEQ_MASK
        message = there is not None and there.kind not in (Kind.SYSTEM, ERASED)
        message = message and seq <= self._ends.get(log_id, 0)
        self.chosen[row[0]] = _Chosen(row, there, ours, message)

    def _is_of(self, log_id: int, name: str) -> bool:
        """Return True if entries of another version belong to the history of a log."""
        if log_id in self._forked:
            return False
        return self._names[log_id] == name if log_id in self._names else name not in self._taken


def entry_of(unpack: Callable[[bytes], Any], partition: int, row: Row) -> Entry | None:
    """Return the entry of a row; None: it is none, or the one of another place."""
    try:
        entry = Entry._make(unpack(row[-1]))
        here = entry.seq == row[0] & SEQ_MASK and partition_of(entry.log) == partition
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, it is no entry
        return None
    return entry if here else None


def _erases(one: Entry, other: Entry) -> bool:
    """Return True if one is what an erasure has left of the other."""
    return one.kind == ERASED and other.kind != ERASED and is_same(one, other)


def is_same(one: Entry, other: Entry) -> bool:
    """Return True if two entries are the same one, perhaps erased meanwhile."""
    return _identity(one) == _identity(other)


def _identity(entry: Entry) -> tuple[object, ...]:
    return (*entry[: Entry._fields.index("kind")], entry.to)
