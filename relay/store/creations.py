"""The first entries of rooms, in files of versions that did not mark all of them as controls.

When a message began a room (or began one of the same name again), its entry was not in the table
``control``: it counted as unread, outlived the room, and the check of the file found it unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import apsw

from relay.chat.entries import Entry, Kind
from relay.chat.rooms import events
from relay.errors import EnvelopeError
from relay.store.generation import read_meta, write_meta

NOTED: Final = "creations_noted"
"""Among the facts of a file that needs no look any more."""
# A room begins with an epoch, as each log does. Bodies of messages may look like such an entry.
_UNKNOWN: Final = (
    "SELECT log_id, first_seq, CAST(packed AS BLOB) FROM epoch "
    "JOIN entry ON entry.id = epoch.log_id << 40 | epoch.first_seq "
    "WHERE log_id IN (SELECT log_id FROM state) AND instr(packed, ?) AND NOT EXISTS "
    "(SELECT 1 FROM control WHERE control.log_id=epoch.log_id AND seq=first_seq)"
)


def is_creation(entry: Entry) -> bool:
    """Tell whether a room begins with an entry."""
    if entry.kind != Kind.SYSTEM or entry.content_type != events.CONTENT_TYPE:
        return False
    try:
        return isinstance(events.unpack(entry.body), events.Created)
    except EnvelopeError:
        return False


def note_creations(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
    """Add what the table ``control`` lacks, once for each file, in the caller's transaction."""
    if NOTED in read_meta(connection):
        return
    found: list[tuple[int, int]] = []
    try:
        for log_id, seq, packed in connection.execute(_UNKNOWN, (events.CONTENT_TYPE.encode(),)):
            try:
                entry = unpack(packed)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001, S112 - a damaged one: a check finds it
                continue
            if is_creation(entry):
                found.append((log_id, seq))
    except apsw.CorruptError:
        return  # what can be read is served, as ever, and this looks again another time
    connection.executemany("INSERT INTO control VALUES (?, ?)", found)
    write_meta(connection, **{NOTED: 1})
