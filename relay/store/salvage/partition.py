"""Creates a whole file from what is readable in a damaged one.

Every readable entry keeps its number. In the place of each other one there is a mark that no reader
takes for an entry (``stub.LOST``), so it is a gap for readers, as a damaged entry is while a relay
runs. Everything else in a file follows from its entries; where a lost entry matters, the old tables
decide (``remains``), and if they do not know either, nobody gets rights: the room or the account is
refused as damaged. The new file has no history, so every log begins a new epoch with its next
append (invariant "Epochs are segments").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import apsw

from relay.chat.entries import Kind
from relay.refused_files import refused
from relay.store.decide import Pack
from relay.store.errors import StoreUnavailable
from relay.store.file.new_file import create_file
from relay.store.file.schema import connect_writer, pragma, translated
from relay.store.file.snapshot import sync_with_name
from relay.store.salvage.carving import Row
from relay.store.salvage.log import LogSalvage, Making, SalvagedLog
from relay.store.salvage.remains import Floor, Remains, named, remains
from relay.store.salvage.row_versions import Removal, entry_of
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import is_stub


def salvage(
    path: Path,
    new: Path,
    *,
    partition: int,
    unpack: Callable[[bytes], Any],
    pack: Pack,
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
        pack: makes the bytes of an entry.
        with_wal: go by the file with its write-ahead log; otherwise by the file alone.
        aside: called with the packed entries that are not kept.
        links: keep the links of rows to earlier entries of their producers. Without them, resends
            of old counters are not recognised; those of each producer's last counter are.

    Raises:
        StoreError: the new file cannot be written.
    """
    create_file(new)
    target = connect_writer(new)
    try:
        target.execute("BEGIN")
        entry_at = partial(entry_of, unpack, partition)
        beside = new.with_name(f"{new.name}.rows")
        with remains(path, beside, entry_at, with_wal=with_wal) as left:
            making = Making(target, entry_at, pack, aside, left.known, links)
            found = _logs(left, making)
        target.execute("COMMIT")
        target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        # A single file, to be renamed; the next writer switches to a write-ahead log again.
        pragma(target, "journal_mode=DELETE")
    except apsw.Error as error:
        raise translated(error, new) from error
    finally:
        target.close(True)
    try:
        sync_with_name(new)
    except OSError as error:
        raise StoreUnavailable(refused(new, error)) from error
    return found


def _logs(left: Remains, making: Making) -> list[SalvagedLog]:
    bounds = _Bounds(making, left.removed)
    for row in left.rows():
        bounds.look(row)
    found: list[SalvagedLog] = []
    made = 0
    seen: set[int] = set()

    def build(log_id: int, some: Iterator[Row]) -> None:
        nonlocal made
        name = names.get(log_id, "")
        log = LogSalvage(log_id, made + 1, name, bounds.floor(log_id), making)
        for row in some:
            log.add(row)
        if (result := log.end()) is not None:
            found.append(result)
            made += bool(result.name)

    names = named(bounds.names, making.known.floors)
    for log_id, some in groupby(left.rows(), lambda row: row[0] >> SEQ_BITS):
        seen.add(log_id)
        build(log_id, some)
    for log_id in sorted(making.known.floors.keys() - seen):  # all its rows are gone
        build(log_id, iter(()))
    return found


class _Bounds:
    """A first pass over all rows: the names of logs, and where they begin."""

    def __init__(self, making: Making, removed: dict[int, Removal]) -> None:
        self._making, self._removed = making, removed
        self.names: Counter[tuple[int, str]] = Counter()
        self._first: dict[int, int] = {}
        """The first readable entry that retention removes."""
        self._stubs: dict[int, Floor] = {}
        """The last stub before it."""

    def look(self, row: Row) -> None:
        """Process a row."""
        where, time_ms, _, _, packed = row
        log_id, seq = where >> SEQ_BITS, where & SEQ_MASK
        entry = self._making.entry_at(row)
        if entry is not None:
            self.names[log_id, entry.log] += 1
            if entry.kind != Kind.SYSTEM:
                self._first.setdefault(log_id, seq)
        elif is_stub(packed) and log_id not in self._first:
            self._stubs[log_id] = Floor("", seq, time_ms)

    def floor(self, log_id: int) -> Floor:
        """Return up to where the entries of a log were removed."""
        known, first = self._making.known.floors.get(log_id), self._first.get(log_id)
        found = self._stubs.get(log_id, Floor("", 0, 0))
        if known is not None and (first is None or known.seq < first):
            found = max(known, found, key=lambda floor: floor.seq)
        removed = self._removed.get(log_id)
        return found if removed is None or removed.seq < found.seq else Floor("", *removed)
