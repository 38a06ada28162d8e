"""Writing changes into a partition's file: no decision is made here, and no clock is read."""

from __future__ import annotations

import apsw

from relay.store.state import Changes


def write(connection: apsw.Connection, changes: Changes, day: int) -> None:
    """Put changes into the open transaction.

    Args:
        connection: of the partition's writer.
        changes: all that a batch changes.
        day: the file's count of days, for the producers that were used.

    Raises:
        apsw.Error: they cannot be written.
    """
    insert = connection.executemany
    if not changes.entries:
        return
    if changes.new_logs:
        insert("INSERT INTO log (id, name, floor, floor_ms) VALUES (?, ?, 0, 0)", changes.new_logs)
    if changes.new_epochs:
        insert("INSERT INTO epoch VALUES (?, ?, ?, ?)", changes.new_epochs)
    insert("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", changes.entries)
    insert(
        "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)",
        [
            (end.log.id, key[1], end.counter, end.stack[-1], day)
            for key, end in changes.producers.items()
            if end.counter
        ],
    )
