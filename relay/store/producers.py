"""Producers unused for 30 days are dropped, by the file's own count of days.

Invariant "A clock jump expires nothing".

The wall clock may jump by years: the count grows by one day at most, so a jump expires nothing.
"""

from __future__ import annotations

from typing import Final

import apsw

from relay.store.generation import read_meta, write_meta
from relay.store.schema import rows

DAY_MS: Final = 86_400_000
PRODUCER_DAYS: Final = 30
PASS_MS: Final = 60_000
PASS_ROWS: Final = 1000
"""Rows looked at per pass, so that no pass is felt: a million producers take 17 hours."""


class ProducerExpiry:
    """Counts days, and goes round the producers a few at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Read the count of days; inside a transaction or outside of one."""
        meta = read_meta(connection)
        self.day = int(str(meta.get("day", 0)))
        self._day_began_ms = int(str(meta.get("day_began_ms", 0)))
        self._pass_due_ms = 0
        self._at: tuple[int, bytes] = (0, b"")

    def run(self, connection: apsw.Connection, now_ms: int) -> bool:
        """Do a pass if one is due, in the caller's transaction. True: producers were dropped."""
        if 0 < self._pass_due_ms - now_ms <= PASS_MS:
            return False
        self._pass_due_ms = now_ms + PASS_MS
        self._count_days(connection, now_ms)
        found = rows(
            connection,
            "SELECT log_id, producer, used_day FROM producer WHERE (log_id, producer) > (?, ?) "
            "ORDER BY log_id, producer LIMIT ?",
            (*self._at, PASS_ROWS),
        )
        self._at = found[-1][:2] if len(found) == PASS_ROWS else (0, b"")
        unused = [row[:2] for row in found if row[2] < self.day - PRODUCER_DAYS]
        connection.executemany("DELETE FROM producer WHERE log_id=? AND producer=?", unused)
        return bool(unused)

    def _count_days(self, connection: apsw.Connection, now_ms: int) -> None:
        if now_ms < self._day_began_ms:
            self._day_began_ms = now_ms  # the clock was set back: this day is a longer one
        elif now_ms >= self._day_began_ms + DAY_MS:
            self.day += 1
            self._day_began_ms = now_ms
        else:
            return
        write_meta(connection, day=self.day, day_began_ms=self._day_began_ms)
