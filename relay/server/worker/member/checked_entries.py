"""Which stored entries are known to be valid: each is checked when it is first read.

Checking an entry takes several times as long as sending it, and a page is read by many: all members
of a room that come back, one after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from relay.server.worker.stored import unreadable

LOGS_MAX: Final = 4096


class CheckedEntries:
    """One interval of each log: readers go from a cursor to the head."""

    def __init__(self, logs_max: int = LOGS_MAX) -> None:
        self._logs_max = logs_max
        self._checked: OrderedDict[str, tuple[bytes, int, int]] = OrderedDict()
        """By log: (epoch, seq before the first, last). Entries that were checked do not change, but
        by an erasure, which is an entry of ours as well. Once a log has another epoch its file was
        in doubt."""
        self.entries = 0
        """Number of entries checked."""

    def unreadable(
        self, log: str, epoch: bytes, rows: Sequence[tuple[int, bytes]], after: int
    ) -> set[int]:
        """Return the seqs of rows that cannot be read.

        Args:
            log: their log.
            epoch: in which the log is now.
            rows: (seq, packed), ascending; at least one.
            after: the seq that their reader has.
        """
        known, before, last = self._checked.get(log, (epoch, after, after))
        if known != epoch:
            before = last = after
        end = rows[-1][0]
        if before <= after and end <= last:
            self._checked.move_to_end(log)
            return set()
        self.entries += len(rows)
        if bad := unreadable(log, rows, after):
            return bad
        if before <= end and after <= last:  # they touch
            self._checked[log] = epoch, min(before, after), max(last, end)
        else:
            self._checked[log] = epoch, after, end
        self._checked.move_to_end(log)
        if len(self._checked) > self._logs_max:
            self._checked.popitem(last=False)
        return bad

    def forget(self) -> None:
        """Check everything again."""
        self._checked.clear()
