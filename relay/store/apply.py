"""Writes changes into a partition's file. Makes no decisions and reads no clock."""

from __future__ import annotations

from typing import Final

import apsw

from relay.store.file.schema import MEMBER
from relay.store.state import Changes, Flush, More

ENTRY: Final = "INSERT INTO entry VALUES (?, ?, ?, ?, ?)"
STATE: Final = "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)"
PRODUCER: Final = "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)"
MARK: Final = (
    "INSERT INTO mark VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET epoch=excluded.epoch, "
    "seq=excluded.seq WHERE excluded.seq>seq OR seq=?5"
)
"""The later place wins, also of two epochs: a log's seq goes on in the next one. So a device that
comes back with a place of an older epoch sets nothing back. Where a room has lost its end (a backup
was restored), a mark from before would stay ahead until the room has passed it: it is named, and
replaced if it is this one still."""
SEEN: Final = (
    "INSERT INTO mark SELECT id, '', x'', ? FROM log WHERE name=? "
    "ON CONFLICT DO UPDATE SET seq=max(seq, excluded.seq)"
)
NO_MEMBER: Final = "DELETE FROM member WHERE handle=? AND lasting IN (0, 1) AND log_id=?"
FOLD: Final = "INSERT OR REPLACE INTO fold SELECT id, ?, ? FROM log WHERE name=?"
PROOF: Final = "INSERT INTO meta VALUES ('proof', 1) ON CONFLICT DO UPDATE SET value=value + 1"
"""A page that does not change would not be written."""
CONFIRM: Final = "DELETE FROM pending WHERE log_id=(SELECT id FROM log WHERE name=?) AND seq=?"


def is_one_statement(changes: Changes) -> bool:
    """Return True if ``write`` makes a single statement of the changes: usually a lone message.

    SQLite makes a transaction of a single statement, with the same locks and writes.
    """
    return (
        len(changes.entries) == 1
        and changes.more is None
        and not changes.tails_begun
        and not changes.flush.producers
        and not changes.flush.logs
        and not changes.new_logs
        and not changes.new_epochs
        and not changes.states
    )


def write(connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
    """Write changes into the open transaction, or as a single statement without one.

    Args:
        connection: of the partition's writer, or a cursor of it that is reused.
        changes: all that a batch changes.
        day: the file's count of days, for the producers used.

    Raises:
        apsw.Error: they cannot be written.
    """
    insert = connection.executemany
    if not changes.entries:
        if changes.more is not None:
            write_more(connection, changes.more)
        return
    if changes.new_logs:
        insert("INSERT INTO log (id, name, floor, floor_ms) VALUES (?, ?, 0, 0)", changes.new_logs)
    if changes.new_epochs:
        insert("INSERT INTO epoch VALUES (?, ?, ?, ?)", changes.new_epochs)
    if changes.states:
        insert(STATE, list(changes.states.values()))
    if len(changes.entries) == 1:  # the common case: one message, a fifth faster this way
        connection.execute(ENTRY, changes.entries[0])
    else:
        insert(ENTRY, changes.entries)
    if changes.tails_begun:
        insert("INSERT INTO unflushed VALUES (?, ?)", changes.tails_begun)
    if changes.flush.producers or changes.flush.logs:
        write_flush(connection, changes.flush, day)
    if changes.more is not None:  # the entries to erase may be among these
        write_more(connection, changes.more)


def write_flush(connection: apsw.Connection | apsw.Cursor, flush: Flush, day: int) -> None:
    """Write ends of producers into their table, in the open transaction.

    ``day``: as in ``write``.
    """
    producers = flush.producers
    if len(producers) == 1:
        connection.execute(PRODUCER, (*producers[0], day))
    elif producers:
        connection.executemany(PRODUCER, [(*row, day) for row in producers])
    if flush.logs:
        connection.executemany("DELETE FROM unflushed WHERE log_id=?", flush.logs)


def write_more(connection: apsw.Connection | apsw.Cursor, more: More) -> None:
    """Write the changes that few batches have."""
    insert = connection.executemany
    insert("INSERT INTO control VALUES (?, ?)", more.controls)
    insert("INSERT INTO direct VALUES (?, ?, ?, ?, ?)", more.directs)
    insert("INSERT INTO pending VALUES (?, ?)", more.pending)
    insert(CONFIRM, more.confirmed)
    insert("INSERT INTO edit VALUES (?, ?, ?)", more.edits)
    if more.members:
        insert(NO_MEMBER, list(more.members))
        insert(
            MEMBER,
            [
                (handle, int(lasting), log_id, root, role)
                for (handle, log_id), (root, role, lasting) in more.members.items()
                if role
            ],
        )
    insert(MARK, more.marks)
    insert(SEEN, more.seen)
    insert(FOLD, more.folds)
    if more.erased:
        insert("UPDATE entry SET packed=? WHERE id=?", more.erased)
    if more.proof:
        connection.execute(PROOF)
