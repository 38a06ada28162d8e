"""Closing a partition so that its next writer finds nothing to doubt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import apsw

from relay.store import generation, pairing
from relay.store.checkpoint import all_pages_of, clean, look
from relay.store.lock import PartitionLock, State
from relay.store.schema import pragma
from relay.store.scrub import WalPages


def close_cleanly(
    connection: apsw.Connection,
    path: Path,
    lock: PartitionLock,
    opening: int,
    flush: Callable[[], object],
) -> None:
    """Mark a partition clean, and empty its WAL into the file.

    Args:
        connection: its writer's.
        path: its file.
        lock: on it; its note tells the next writer.
        opening: how often the file has been opened.
        flush: puts into the open transaction what is still to be written.

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
    # A reader in the middle of a page, or a checkpoint: then the WAL simply stays.
    with contextlib.suppress(apsw.BusyError):
        pages = WalPages()
        look(connection, path, pages)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        for part in all_pages_of(path) if lock.uncleaned else [pages.found]:
            clean(path, part)
        state = "closed"
    lock.note(path, opening, state, durable=True)
