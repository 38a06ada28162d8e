"""Makes one log of a new file from what is left of it in a damaged one (``partition``)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

import apsw

from relay import limits
from relay.chat.entries import Entry, Kind, packable
from relay.chat.names import INBOX_PREFIX
from relay.store.apply import ENTRY, write_more
from relay.store.decide import Pack
from relay.store.derived import derive
from relay.store.file.schema import rows
from relay.store.reading.resume import Segment
from relay.store.salvage.carving import Row
from relay.store.salvage.remains import Floor, Known
from relay.store.salvage.rights import SalvagedRights
from relay.store.salvage.row_versions import Unpack
from relay.store.state import SEQ_MASK, More, row_id
from relay.store.stub import LOST, is_stub, stub_of

MARK: Final = int(Kind.MARK)
REDACTION: Final = int(Kind.REDACTION)
SYSTEM: Final = int(Kind.SYSTEM)
ROWS_PER_COMMIT: Final = 1000
LOST_MAX: Final = 1 << 20
"""Entries lost in one place: far more than a damaged part of a disk holds. A number that is further
away is not believed."""
_ROW: Final = "SELECT id, time_ms, chain, jump, packed FROM entry WHERE id=?"


class SalvagedLog(NamedTuple):
    """The result for one log."""

    name: str
    """Empty: unknown; nothing of it is kept."""
    kept: int
    """Number of entries that can be read."""
    lost: int
    """Number of entries that were there and cannot."""
    aside: int
    """Number of readable entries that have no place in it."""
    doubtful: bool = False
    """True if its rights or its account cannot be known: it is refused as damaged."""


class Making(NamedTuple):
    """How a new file is made."""

    target: apsw.Connection
    entry_at: Unpack
    pack: Pack
    aside: Callable[[bytes], object]
    known: Known
    links: bool


class LogSalvage:
    """One log of the new file."""

    def __init__(self, old: int, id: int, name: str, floor: Floor, making: Making) -> None:
        self._old, self._id, self._name, self._making = old, id, name, making
        self._floor, self._head, self._time_ms = floor, floor.seq, floor.time_ms
        self._kept = self._aside = self._rows = 0
        self._damaged: dict[int, tuple[int, int]] = {}
        """Links of rows after the head that have no entry."""
        self._lost: set[int] = set()
        self._segments: list[tuple[int, int, bytes]] = []
        """(first, last, epoch) of the entries kept."""
        self._ends: dict[bytes, tuple[int, int]] = {}
        """The last counter and its seq, by producer."""
        self._ends_at: dict[int, bytes] = {}
        self._chained: set[int] = set()
        """Seqs that later rows refer to."""
        self._more = More()
        self._rights = SalvagedRights(old, id, name, making.known, self._lost, self._more)
        self._redactions: list[Entry] = []

    def add(self, row: Row) -> None:
        """Add the next row."""
        where, time_ms, chain, jump, packed = row
        seq = where & SEQ_MASK
        entry = self._making.entry_at(row)
        if entry is not None and (entry.log != self._name or seq > self._head + LOST_MAX):
            self._aside += 1
            self._making.aside(packed)
            entry = None
        if seq <= self._floor.seq:
            self._add_removed(row, entry)
        elif entry is None:
            self._damaged[seq] = chain, jump
        else:
            self._lose_until(seq)
            self._head, self._time_ms = seq, time_ms
            self._kept += 1
            self._segment(seq, entry.epoch)
            chain, jump = self._linked(entry, chain, jump)
            self._write(seq, time_ms, chain, jump, packed)
            self._derive(entry, chain, jump)
            if chain >= 0:
                self._ended(entry.producer, entry.counter, seq)

    def end(self) -> SalvagedLog | None:
        """Write what follows from the entries. None: there is nothing of it."""
        if not self._name:
            return SalvagedLog("", 0, 0, self._aside) if self._aside else None
        self._rights.add_named_controls(self._floor.seq)
        while self._head + 1 in self._damaged:
            self._lose_until(self._head + 2)
        known = max(self._rights.controls, default=0)
        if self._head < known <= self._head + LOST_MAX:
            self._lose_until(known + 1)
        self._lose_removed_controls()
        if not self._head:
            return None
        self._write_log()
        doubtful = self._rights.write(self._making.target, self._head)
        self._erase()
        self._add_rows_of_removed()
        write_more(self._making.target, self._more)
        return SalvagedLog(self._name, self._kept, len(self._lost), self._aside, doubtful)

    # --- entries --------------------------------------------------------------------------------
    def _add_removed(self, row: Row, entry: Entry | None) -> None:
        """Keep what is left of a removed entry, or remove it as another version did."""
        where, time_ms, chain, jump, packed = row
        if entry is not None and entry.kind != SYSTEM:
            packed = stub_of(entry)
        if entry is not None or is_stub(packed):
            self._write(where & SEQ_MASK, time_ms, chain, jump, packed)
        if entry is not None and entry.kind == SYSTEM:
            self._segment(where & SEQ_MASK, entry.epoch)  # it may have created the room
            self._derive(entry, chain, jump)

    def _lose_until(self, end: int) -> None:
        """Mark the entries between the head and this one as lost."""
        for seq in range(self._head + 1, end):
            chain, jump = self._damaged.pop(seq, (0, 0))
            plausible = 0 <= chain < seq and 0 <= jump < seq and self._is_end(chain)
            if producer := self._ends_at.get(chain) if plausible else None:
                self._ended(producer, self._ends[producer][0] + 1, seq)
            if not self._making.links or not plausible:
                chain, jump = 0, 0
            self._write(seq, self._time_ms, chain, jump, LOST)
            self._lost.add(seq)
            self._head = seq

    def _is_end(self, chain: int) -> bool:
        return chain <= self._floor.seq or chain in self._lost or chain in self._ends_at

    def _linked(self, entry: Entry, chain: int, jump: int) -> tuple[int, int]:
        """Return the links of a row to earlier entries if they can be correct, otherwise none."""
        if chain < 0 and entry.log.startswith(INBOX_PREFIX):
            return chain, jump  # a copy: its position in the sender's inbox
        counter, seq = self._ends.get(entry.producer, (0, 0))
        if not self._making.links or not 0 <= jump < entry.seq or chain < 0:
            return 0, 0
        if counter and counter == entry.counter - 1:
            right = chain == seq
        else:  # the entry before it is not there: it was removed, or is lost
            removed = not counter and chain <= self._floor.seq
            right = chain == 0 or removed or (chain in self._lost and chain > seq)
        return (chain, jump) if right else (0, 0)

    def _ended(self, producer: bytes, counter: int, seq: int) -> None:
        before = self._ends.get(producer)
        if before is not None:
            self._ends_at.pop(before[1], None)
        self._ends[producer] = counter, seq
        self._ends_at[seq] = producer

    def _derive(self, entry: Entry, chain: int, jump: int) -> None:
        """Note what follows from an entry."""
        if entry.kind == MARK and not _is_text(entry.body):
            return
        derive(self._more, self._id, entry, chain, jump)
        if entry.kind == REDACTION:
            self._redactions.append(entry)
        elif entry.kind == SYSTEM:
            self._rights.note(entry)

    def _write(self, seq: int, time_ms: int, chain: int, jump: int, packed: bytes) -> None:
        target = self._making.target
        target.execute(ENTRY, (row_id(self._id, seq), time_ms, chain, jump, packed))
        if chain > 0:
            self._chained.add(chain)
        self._rows += 1
        if self._rows % ROWS_PER_COMMIT == 0:
            target.execute("COMMIT")
            target.execute("BEGIN")

    def _segment(self, seq: int, epoch: bytes) -> None:
        first, _, last = self._segments[-1] if self._segments else (0, 0, b"")
        if first and last == epoch:
            self._segments[-1] = first, seq, epoch
        else:
            self._segments.append((seq, seq, epoch))

    # --- what follows from them -----------------------------------------------------------------
    def _erase(self) -> None:
        """Erase what a redaction tells to be erased: the row may be one from before."""
        edits: dict[int, list[int]] = {}
        for _, target, seq in self._more.edits:
            edits.setdefault(target, []).append(seq)
        for redaction in self._redactions:
            target, end = redaction.about_seq, redaction.seq
            if not (first := self._erasable(target, end)) or first.epoch != redaction.about_epoch:
                continue
            others = (self._erasable(seq, end) for seq in edits.get(target, ()))
            for entry in (first, *others):
                if entry is not None and entry.kind != Kind.ERASED:
                    erased = entry._replace(
                        kind=int(Kind.ERASED), content_type="", body=b"",
                        about_epoch=redaction.epoch, about_seq=redaction.seq,
                    )  # fmt: skip
                    packed = self._making.pack(packable(erased))
                    self._more.erased.append((packed, row_id(self._id, entry.seq)))

    def _erasable(self, seq: int, before: int) -> Entry | None:
        if not self._floor.seq < seq < before:
            return None
        [row] = rows(self._making.target, _ROW, (row_id(self._id, seq),))
        entry = self._making.entry_at(row)
        return None if entry is None or entry.kind == SYSTEM else entry

    def _add_rows_of_removed(self) -> None:
        """Keep what entries have left in tables when they were removed: these are the record."""
        known, mine = self._making.known, self._id
        directs = known.directs.get(self._old, ())  # a damaged table may yield a row twice
        once = {row[:2]: row for row in directs if 0 < row[1] <= self._floor.seq}
        self._more.directs += [(mine, *row) for row in once.values()]
        self._more.marks += [(mine, *mark, 0) for mark in known.marks.get(self._old, ())]

    def _lose_removed_controls(self) -> None:
        """Mark lost control entries that would be kept although everything around was removed."""
        kept = self._rights.controls_kept | self._lost
        for seq in sorted(self._rights.controls - kept):
            if 0 < seq <= self._floor.seq:
                self._making.target.execute(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, 0, 0, ?)",
                    (row_id(self._id, seq), self._floor.time_ms, LOST),
                )
                self._lost.add(seq)

    def _write_log(self) -> None:
        target, mine = self._making.target, self._id
        target.execute(
            "INSERT INTO log (id, name, floor, floor_ms) VALUES (?, ?, ?, ?)",
            (mine, self._name, self._floor.seq, self._floor.time_ms),
        )
        for producer, counter, seq in self._making.known.producers.get(self._old, ()):
            last = self._ends.get(producer, (0, 0))[1]
            here = seq in self._lost or 0 < seq <= self._floor.seq
            if here and seq > last and seq not in self._chained:
                self._ends[producer] = counter, seq
        target.executemany(
            "INSERT INTO producer VALUES (?, ?, ?, ?, 0)",
            [(mine, producer, *end) for producer, end in self._ends.items()],
        )
        target.executemany(
            "INSERT INTO epoch VALUES (?, ?, ?, 0)",
            [(mine, first, epoch) for first, epoch in self._epochs()],
        )

    def _epochs(self) -> list[Segment]:
        """Return the epochs of the log: as the table knows them, if the entries agree."""
        noted = [
            one
            for one in self._making.known.epochs.get(self._old, ())
            if one.first_seq <= self._head and len(one.epoch) == limits.EPOCH_BYTES
        ]
        ends = [two.first_seq - 1 for two in noted[1:]] + [self._head]
        if noted and all(
            any(
                one.epoch == epoch and one.first_seq <= first and last <= end
                for one, end in zip(noted, ends, strict=True)
            )
            for first, last, epoch in self._segments
        ):
            return noted
        found = [Segment(first, epoch) for first, _, epoch in self._segments]
        return found or [Segment(self._head, secrets.token_bytes(limits.EPOCH_BYTES))]


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
