"""Where the newest so many messages of a log begin.

What an entry is stands in the entry alone, so entries are read to count messages: each once, for
what was found is remembered, and some at a time, for it is done beside everything else.

A message that is erased is none any more, and whether it had been counted is not known. So it is
taken off, which keeps one more at worst, and the next time all is counted anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat.entries import Kind

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.store.reader import SqliteReader

ENTRIES_PER_STEP: Final = 2048
"""About 5 ms."""
BYTES_PER_STEP: Final = 4 << 20
BYTES_PER_PAGE: Final = 256 * 1024
ENTRIES_PER_MESSAGE: Final = 10
ENTRIES_LEAST: Final = 1000
"""Edits, reactions and the like count as no messages. But of all entries so many are kept at most
for each message, or this many: else a log with a bound could grow without one."""
LOGS_MAX: Final = 65_536
"""Beyond it all are forgotten, and counted anew."""


class _Window:
    """Of one log: there are ``count`` messages in (after, upto]; or more, after an erasure."""

    __slots__ = ("after", "begun", "count", "done", "erased", "most", "upto")

    def __init__(self, most: int, end: int) -> None:
        self.most = most
        self.after = self.upto = end
        self.count = 0
        self.begun = False
        """False: what is before ``after`` is still to be counted."""
        self.done = False
        """True: it was all counted once."""
        self.erased = False
        """True: something was erased since it was counted."""

    def take_off(self) -> None:
        """Something was erased that may have been counted."""
        self.count -= 1
        self.erased = True


class Newest:
    """See the module's docstring. For one thread at a time."""

    def __init__(self, unpack: Callable[[bytes], Entry]) -> None:
        """Begin with nothing counted. ``unpack``: returns a packed entry."""
        self._unpack = unpack
        self._windows: dict[str, _Window] = {}
        self._entries_left = 0
        self._bytes_left = 0

    def begin_step(self) -> None:
        """Allow another step's worth of entries to be read."""
        self._entries_left, self._bytes_left = ENTRIES_PER_STEP, BYTES_PER_STEP

    def older(
        self, reader: SqliteReader, log: str, floor: int, end: int, most: int
    ) -> tuple[int, bool]:
        """Return the last entry before the newest ``most`` messages; False: not all are counted.

        Args:
            reader: of its partition.
            log: which one.
            floor: the last entry that is no longer kept.
            end: the last entry.
            most: 1 at least.

        Raises:
            StoreError: the partition cannot be read.
        """
        least = max(floor, end - max(most * ENTRIES_PER_MESSAGE, ENTRIES_LEAST))
        window = self._windows.get(log)
        if (
            window is None
            or window.most != most
            or window.upto > end
            or window.after < floor
            or (window.erased and window.done)
        ):
            if len(self._windows) >= LOGS_MAX:
                self._windows.clear()
            window = self._windows[log] = _Window(most, end)
        window.done = (
            self._count_back(reader, log, window, least)
            and self._count_new(reader, log, window, end)
            and self._move(reader, log, window, least)
        )
        return (window.after if window.done else floor), window.done

    def _count_back(self, reader: SqliteReader, log: str, window: _Window, least: int) -> bool:
        """Count from the end back, until there are enough."""
        while not window.begun:
            if self._entries_left <= 0 or self._bytes_left <= 0:
                return False
            rows = reader.read_back(log, window.after + 1, self._entries_left, BYTES_PER_PAGE).rows
            for seq, packed in reversed(self._paid(rows)):
                if seq <= least or window.count >= window.most:
                    break
                window.count += self._unpack(packed).kind == Kind.MESSAGE
                window.after = seq - 1
            window.begun = not rows or window.count >= window.most or window.after <= least
        return True

    def _count_new(self, reader: SqliteReader, log: str, window: _Window, end: int) -> bool:
        """Count what has come since."""
        while window.upto < end:
            if self._entries_left <= 0 or self._bytes_left <= 0:
                return False
            rows = self._forward(reader, log, window.upto, end)
            for _, packed in rows:
                kind = self._unpack(packed).kind
                window.count += kind == Kind.MESSAGE
                if kind == Kind.REDACTION:
                    window.take_off()
            window.upto = rows[-1][0] if rows else end
        return True

    def _move(self, reader: SqliteReader, log: str, window: _Window, least: int) -> bool:
        """Leave out the oldest ones, until there are not too many."""
        while window.count > window.most or window.after < least:
            if self._entries_left <= 0 or self._bytes_left <= 0:
                return False
            rows = self._forward(reader, log, window.after, window.upto)
            if not rows:
                break
            for seq, packed in rows:
                if window.count <= window.most and window.after >= least:
                    break
                entry = self._unpack(packed)
                window.count -= entry.kind == Kind.MESSAGE
                if entry.kind == Kind.ERASED and entry.about_seq > window.upto:
                    window.take_off()  # just now
                window.after = seq
        return True

    def _forward(
        self, reader: SqliteReader, log: str, after: int, upto: int
    ) -> list[tuple[int, bytes]]:
        return self._paid(reader.read(log, after, upto, BYTES_PER_PAGE, self._entries_left).rows)

    def _paid(self, rows: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        self._entries_left -= len(rows)
        self._bytes_left -= sum(len(packed) for _, packed in rows)
        return rows
