"""Determines what retention would remove from a partition's logs, using reads only."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from relay import limits
from relay.store.reading.reader import SqliteReader
from relay.store.reading.resume import LogView
from relay.store.retention.limits import Excess, Measured, RetentionLimits, upto
from relay.store.retention.message_counter import MessageCounter

TIME: Final = "SELECT time_ms FROM entry WHERE id=? << 40 | ?"
SIZE: Final = (
    "SELECT coalesce(sum(length(packed)), 0) FROM entry WHERE id BETWEEN ?1 << 40 | ?2 "
    "AND ?1 << 40 | ?3"
)
SEQS_PER_SUM: Final = 1024


class RemovalReader(SqliteReader):
    """A reader for retention. One for each pass over some logs."""

    def __init__(self, path: Path, counter: MessageCounter) -> None:
        """``counter``: shared by the readers of all partitions, one at a time."""
        super().__init__(path)
        self._counter = counter
        counter.begin_step()

    def first_control(self, log: str) -> int:
        """Return the first kept entry of kind *system*; 2^63-1: there is none."""
        found = self._rows_of(log, "SELECT min(seq) FROM control WHERE log_id=?")
        first: int | None = found[0][0] if found else None
        return limits.U63_MAX if first is None else first

    def last_control(self, log: str) -> int:
        """Return the last entry of kind *system*; 0: there is none."""
        found = self._rows_of(log, "SELECT max(seq) FROM control WHERE log_id=?")
        last: int | None = found[0][0] if found else None
        return last or 0

    def removable(self, log: str, keep: RetentionLimits, now_ms: int, grace_ms: int) -> Excess:
        """Return what to remove from a log (``limits.upto``). May take long.

        Raises:
            StoreError: the partition cannot be read.
        """
        view = self._view(log)
        if view is None:
            return Excess(0)

        def time_of(seq: int) -> int:
            found = self._rows_of(log, TIME, seq)
            return found[0][0] if found else now_ms

        def older(most: int) -> tuple[int, bool]:
            return self._counter.older(self, log, view.floor, view.end, most)

        def end_of_excess(most: int) -> int:
            return self._end_of_excess(log, view, most)

        return upto(
            keep,
            Measured(view.floor, view.end),
            now_ms=now_ms,
            grace_ms=grace_ms,
            time_of=time_of,
            older=older,
            end_of_excess=end_of_excess,
        )

    def _end_of_excess(self, log: str, view: LogView, most: int) -> int:
        last = view.end
        while last > view.floor:
            first = max(view.floor, last - SEQS_PER_SUM) + 1
            size = self._size(log, first, last)
            if size > most:
                break
            most -= size
            last = first - 1
        while last > view.floor and (size := self._size(log, last, last)) <= most:
            most -= size
            last -= 1
        return last

    def _size(self, log: str, first: int, last: int) -> int:
        found = self._rows_of(log, SIZE, first, last)
        return found[0][0] if found else 0
