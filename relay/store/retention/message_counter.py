"""Finds where the newest N messages of a log begin, for retention by count.

The kind of an entry is stored only in the entry, so counting messages means reading entries. Each
is read once, since counts are kept, and in small steps, so that other work can run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat.entries import Kind

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.store.reading.reader import SqliteReader

ENTRIES_PER_STEP: Final = 2048
"""About 5 ms."""
BYTES_PER_STEP: Final = 4 << 20
BYTES_PER_PAGE: Final = 256 * 1024
ENTRIES_PER_MESSAGE: Final = 10
ENTRIES_LEAST: Final = 1000
"""Edits, reactions and the like are not counted. But a log keeps at most ``ENTRIES_PER_MESSAGE``
entries of any kind per message of its limit, and at least ``ENTRIES_LEAST``: otherwise a log with a
limit could grow without one."""
LOGS_MAX: Final = 65_536
REMEMBERED_BYTES_MAX: Final = 64 << 20
"""Beyond either limit all counts are dropped, and counting starts again."""
ROOM_BYTES: Final = 64


class _Seqs:
    """A set of sequence numbers, as a bitmap from the first to the last one."""

    __slots__ = ("_bits", "_first", "count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._first = 0
        """The seq of the first bit, divided by eight."""
        self.count = 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self._bits)

    def add(self, seq: int) -> None:
        """Add a seq that is not in the set."""
        bits = self._bits
        if not bits:
            self._first = seq >> 3
        at = (seq >> 3) - self._first
        if at < 0:
            # They may be added in descending order: double the capacity.
            more = min(self._first, max(-at, len(bits), ROOM_BYTES))
            bits[:0] = bytes(more)
            self._first -= more
            at += more
        elif at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        bits[at] |= 1 << (seq & 7)
        self.count += 1

    def discard(self, seq: int) -> None:
        """Remove a seq if it is in the set."""
        at, bit = (seq >> 3) - self._first, 1 << (seq & 7)
        if 0 <= at < len(self._bits) and self._bits[at] & bit:
            self._bits[at] ^= bit
            self.count -= 1

    def begins_behind(self, seq: int) -> None:
        """Release the memory for seqs up to this one, which are not in the set."""
        unused = (seq >> 3) - self._first
        if unused > ROOM_BYTES:
            del self._bits[:unused]
            self._first += unused


class _Window:
    """The ``messages`` of one log in (after, upto]."""

    __slots__ = ("after", "begun", "messages", "most", "upto")

    def __init__(self, most: int, end: int) -> None:
        self.most = most
        self.after = self.upto = end
        self.messages = _Seqs()
        """Stored individually, since a counted message may be erased later."""
        self.begun = False
        """False while entries before ``after`` must still be counted."""

    @property
    def count(self) -> int:
        """Number of messages."""
        return self.messages.count


class MessageCounter:
    """Counts the messages of logs. Not thread-safe."""

    def __init__(self, unpack: Callable[[bytes], Entry]) -> None:
        """Create without counts. ``unpack``: returns a packed entry, or raises."""
        self._unpack = unpack
        self._windows: dict[str, _Window] = {}
        self._bytes = 0
        """Size of all windows."""
        self._entries_left = 0
        self._bytes_left = 0

    def begin_step(self) -> None:
        """Allow another step's worth of entries to be read."""
        self._entries_left, self._bytes_left = ENTRIES_PER_STEP, BYTES_PER_STEP

    def older(
        self, reader: SqliteReader, log: str, floor: int, end: int, most: int
    ) -> tuple[int, bool]:
        """Return the last entry before the newest ``most`` messages; False: counting is incomplete.

        Args:
            reader: of its partition.
            log: its name.
            floor: the last entry that is no longer kept.
            end: the last entry.
            most: at least 1.

        Raises:
            StoreError: the partition cannot be read.
        """
        least = max(floor, end - max(most * ENTRIES_PER_MESSAGE, ENTRIES_LEAST))
        window = self._windows.get(log)
        if window is None or window.most != most or window.upto > end or window.after < floor:
            self._forget(log, window)
            window = self._windows[log] = _Window(most, end)
        before = window.messages.size
        try:
            done = (
                self._count_new(reader, log, window, end)
                and self._count_back(reader, log, window, least)
                and self._move(window, least)
            )
        finally:
            self._bytes += window.messages.size - before
        return (window.after if done else floor), done

    def _forget(self, log: str, window: _Window | None) -> None:
        """Make room for another window of a log."""
        if len(self._windows) >= LOGS_MAX or self._bytes > REMEMBERED_BYTES_MAX:
            self._windows.clear()
            self._bytes = 0
        elif window is not None:
            del self._windows[log]
            self._bytes -= window.messages.size

    def _count_new(self, reader: SqliteReader, log: str, window: _Window, end: int) -> bool:
        """Count what was appended since then, and subtract what was erased."""
        while window.upto < end:
            if self._entries_left <= 0 or self._bytes_left <= 0:
                return False
            rows = self._forward(reader, log, window.upto, end)
            for seq, packed in rows:
                kind, about_seq = self._look(packed)
                if kind == Kind.MESSAGE:
                    window.messages.add(seq)
                elif kind == Kind.REDACTION:
                    window.messages.discard(about_seq)
            window.upto = rows[-1][0] if rows else end
        return True

    def _count_back(self, reader: SqliteReader, log: str, window: _Window, least: int) -> bool:
        """Count backwards until there are enough; continue if some were erased."""
        if window.count < window.most and window.after > least:
            window.begun = False
        while not window.begun:
            if self._entries_left <= 0 or self._bytes_left <= 0:
                return False
            rows = reader.read_back(log, window.after + 1, self._entries_left, BYTES_PER_PAGE).rows
            for seq, packed in reversed(self._paid(rows)):
                if seq <= least or window.count >= window.most:
                    break
                if self._look(packed)[0] == Kind.MESSAGE:
                    window.messages.add(seq)
                window.after = seq - 1
            window.begun = not rows or window.count >= window.most or window.after <= least
        return True

    def _move(self, window: _Window, least: int) -> bool:
        """Drop the oldest messages until there are not too many."""
        messages, seq = window.messages, window.after
        while seq < window.upto and (window.count > window.most or seq < least):
            if self._entries_left <= 0:
                break
            self._entries_left -= 1
            seq += 1
            messages.discard(seq)
        window.after = seq
        messages.begins_behind(seq)
        return window.count <= window.most and seq >= least

    def _look(self, packed: bytes) -> tuple[int, int]:
        """Return (kind, about_seq) of an entry. One that cannot be read is not a message."""
        try:
            entry = self._unpack(packed)
            return entry.kind, entry.about_seq
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
            return -1, 0

    def _forward(
        self, reader: SqliteReader, log: str, after: int, upto: int
    ) -> list[tuple[int, bytes]]:
        return self._paid(reader.read(log, after, upto, BYTES_PER_PAGE, self._entries_left).rows)

    def _paid(self, rows: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        self._entries_left -= len(rows)
        self._bytes_left -= sum(len(packed) for _, packed in rows)
        return rows
