"""Closes a partition so that its next writer has no reason for doubt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import apsw

from relay.store.file import generation, pairing
from relay.store.file.checkpoint import all_pages_of, clean, look
from relay.store.file.lock import PartitionLock, State
from relay.store.file.schema import pragma
from relay.store.file.scrub import WalPages


def close_cleanly(
    connection: apsw.Connection,
    path: Path,
    lock: PartitionLock,
    opening: int,
    flush: Callable[[], object],
) -> None:
    """Mark a partition clean, and copy its WAL into the file.

    Args:
        connection: of its writer.
        path: its file.
        lock: its lock, with the note for the next writer.
        opening: how often the file has been opened.
        flush: writes what is still deferred into the open transaction.

    Raises:
        apsw.Error, OSError, StoreError: it stays unclean.
    """
    pragma(connection, "synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    flush()
    generation.mark_clean(connection)
    pairing.next_step(connection)
    connection.execute("COMMIT")
    lock.note(path, opening, "changing")
    state: State = "open"
    # A reader in the middle of a page, or a checkpoint: then the WAL stays.
    with contextlib.suppress(apsw.BusyError):
        pages = WalPages()
        look(connection, path, pages)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        for part in all_pages_of(path) if lock.uncleaned else [pages.found]:
            clean(path, part)
        state = "closed"
    lock.note(path, opening, state, durable=True)
