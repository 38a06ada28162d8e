"""The first entries of rooms, in files of versions that did not mark all of them as controls.

When a message created a room (or created one of the same name again), its first entry was not in
the table ``control``. It was counted as unread, outlived the room, and was unknown to the check of
the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import apsw

from relay.chat.entries import Entry
from relay.chat.rooms import events
from relay.store.file.generation import read_meta, write_meta

NOTED: Final = "creations_noted"
"""Stored in a file that has been processed."""
# A room begins with an epoch, like each log. Bodies of messages may look like such an entry.
_UNKNOWN: Final = (
    "SELECT log_id, first_seq, CAST(packed AS BLOB) FROM epoch "
    "JOIN entry ON entry.id = epoch.log_id << 40 | epoch.first_seq "
    "WHERE log_id IN (SELECT log_id FROM state) AND instr(packed, ?) AND NOT EXISTS "
    "(SELECT 1 FROM control WHERE control.log_id=epoch.log_id AND seq=first_seq)"
)


def note_creations(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
    """Add missing rows to the table ``control``, once per file, in the caller's transaction."""
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
            if events.is_creation(entry):
                found.append((log_id, seq))
    except apsw.CorruptError:
        return  # readable content is served as before, and this is tried again later
    connection.executemany("INSERT INTO control VALUES (?, ?)", found)
    write_meta(connection, **{NOTED: 1})
