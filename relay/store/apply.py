"""Writing changes into a partition's file: no decision is made here, and no clock is read."""

from __future__ import annotations

from typing import Final

import apsw

from relay.store.state import Changes

ENTRY: Final = "INSERT INTO entry VALUES (?, ?, ?, ?, ?)"
STATE: Final = "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)"
PRODUCER: Final = "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)"


def write(connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
    """Put changes into the open transaction.

    Args:
        connection: of the partition's writer, or a cursor of it that is kept: one less to make.
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
    if changes.states:
        insert(STATE, list(changes.states.values()))
    producers = [
        (end.log.id, key[1], end.counter, end.stack[-1], day)
        for key, end in changes.producers.items()
        if end.counter
    ]
    if len(changes.entries) == len(producers) == 1:  # the lone message, a fifth quicker so
        connection.execute(ENTRY, changes.entries[0])
        connection.execute(PRODUCER, producers[0])
        return
    insert(ENTRY, changes.entries)
    insert(PRODUCER, producers)
