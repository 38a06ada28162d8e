"""Drops producers unused for 30 days, by the file's own count of days.

Invariant "A clock jump expires nothing".

The wall clock may jump by years. The count increases by at most one day at a time, so a jump
expires nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import apsw

from relay.store.file.generation import number, read_meta, write_meta
from relay.store.file.schema import rows

DAY_MS: Final = 86_400_000
PRODUCER_DAYS: Final = 30
PASS_MS: Final = 60_000
PASS_ROWS: Final = 1000
"""Rows examined per pass, few enough not to be noticeable: a million producers take 17 hours."""


class Pass(NamedTuple):
    """What one pass changes: decided here, and only committed by ``write``."""

    day: int
    day_began_ms: int
    unused: list[tuple[int, bytes]]
    """(log id, producer) of those to drop."""
    looked_up_to: tuple[int, bytes]


class ProducerExpiry:
    """Counts days, and examines the producers cyclically, a few at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Read the count of days; inside or outside a transaction."""
        meta = read_meta(connection)
        self.day = number(meta, "day")
        self._day_began_ms = number(meta, "day_began_ms")
        self._pass_due_ms = 0
        self._at: tuple[int, bytes] = (0, b"")

    def due(self, now_ms: int) -> bool:
        """True if a pass is due."""
        return not 0 < self._pass_due_ms - now_ms <= PASS_MS

    def decide(self, connection: apsw.Connection, now_ms: int) -> Pass:
        """Examine the next producers without changing anything.

        None is dropped where their page is damaged: it affects the logs that need it.
        """
        day, day_began_ms = self.day, self._day_began_ms
        if now_ms < day_began_ms:
            day_began_ms = now_ms  # the clock was set back: this day becomes longer
        elif now_ms >= day_began_ms + DAY_MS:
            day, day_began_ms = day + 1, now_ms
        try:
            found = rows(
                connection,
                "SELECT log_id, producer, used_day FROM producer WHERE (log_id, producer) > (?, ?) "
                "ORDER BY log_id, producer LIMIT ?",
                (*self._at, PASS_ROWS),
            )
        except apsw.CorruptError:
            found = []
        looked_up_to = found[-1][:2] if len(found) == PASS_ROWS else (0, b"")
        unused = [row[:2] for row in found if row[2] < day - PRODUCER_DAYS]
        return Pass(day, day_began_ms, unused, looked_up_to)

    def changes(self, decided: Pass) -> bool:
        """True if a pass has anything to write."""
        return bool(decided.unused) or self._day_changes(decided)

    def _day_changes(self, decided: Pass) -> bool:
        return (decided.day, decided.day_began_ms) != (self.day, self._day_began_ms)

    def write(self, connection: apsw.Connection, decided: Pass) -> None:
        """Write a pass into the open transaction."""
        if self._day_changes(decided):
            write_meta(connection, day=decided.day, day_began_ms=decided.day_began_ms)
        connection.executemany("DELETE FROM producer WHERE log_id=? AND producer=?", decided.unused)

    def apply(self, decided: Pass, now_ms: int) -> None:
        """Update the state after a pass has been committed."""
        self.day, self._day_began_ms = decided.day, decided.day_began_ms
        self._at = decided.looked_up_to
        self.skip(now_ms)

    def skip(self, now_ms: int) -> None:
        """Make the next pass due as if there had been one now."""
        self._pass_due_ms = now_ms + PASS_MS
