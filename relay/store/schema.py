"""The tables of a partition's SQLite file, and how a connection to it is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from relay.store.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable

APPLICATION_ID: Final = 0x524C5931  # "RLY1", so that file(1) and others can tell
FORMAT_VERSION: Final = 1
SQLITE_MIN: Final = (3, 51, 3)
"""Older ones can corrupt a WAL database whose checkpoint runs in one connection while another
connection resets the log (SQLite's change log, 3.51.3)."""
SEQ_BITS: Final = 40
"""An entry's rowid is ``log_id << 40 | seq``: the primary key (log, seq) in one integer, which is the
cheapest key SQLite has, and keeps large bodies out of the tree's inner pages."""
BUSY_MS: Final = 5000

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- floor: entries up to it are no longer kept.
CREATE TABLE log (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, floor INTEGER NOT NULL);
-- A segment: from first_seq on, the log is in this epoch. generation: the file's when it began.
CREATE TABLE epoch (
    log_id INTEGER NOT NULL, first_seq INTEGER NOT NULL, epoch BLOB NOT NULL,
    generation INTEGER NOT NULL, PRIMARY KEY (log_id, first_seq)
) WITHOUT ROWID;
-- chain: the seq of the same producer's entry before this one in this log, 0 for none.
CREATE TABLE entry (id INTEGER PRIMARY KEY, chain INTEGER NOT NULL, packed BLOB NOT NULL);
CREATE TABLE producer (
    log_id INTEGER NOT NULL, producer BLOB NOT NULL, counter INTEGER NOT NULL, seq INTEGER NOT NULL,
    used_day INTEGER NOT NULL, PRIMARY KEY (log_id, producer)
) WITHOUT ROWID;
CREATE INDEX producer_used ON producer (used_day);
"""


def row_id(log_id: int, seq: int) -> int:
    """Return the primary key of an entry."""
    return log_id << SEQ_BITS | seq


def connect(path: Path, *, create: bool, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """Open a partition's file in WAL mode.

    Raises:
        StoreError: it cannot be opened, or is not a partition of this format.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        connection = apsw.Connection(str(path), flags=flags)
        connection.set_busy_timeout(busy_ms)
        connection.execute("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA cache_size=-4096")
        found = connection.execute("PRAGMA user_version").fetchall()[0][0]
        if found not in (0, FORMAT_VERSION):
            connection.close()
            raise StoreCorrupt(
                f"{path} has format {found}; this Relay reads format {FORMAT_VERSION}: "
                "use the Relay that wrote it, or a newer one"
            )
    except apsw.Error as error:
        raise translated(error, path) from error
    return connection


def create_tables(connection: apsw.Connection) -> None:
    """Create the tables in an empty file; nothing if they exist. Inside the caller's transaction."""
    if connection.execute("PRAGMA user_version").fetchall()[0][0] == 0:
        connection.execute(TABLES)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")


def translated(error: apsw.Error, path: Path) -> StoreError:
    """Return what an error of SQLite means for the store."""
    if isinstance(error, apsw.FullError):
        return StoreFull(f"no space left for {path}")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreCorrupt(f"{path} is damaged ({error}): restore it from a backup")
    return StoreUnavailable(f"{path}: {error}")


def check_sqlite() -> None:
    """Raise StoreUnavailable when the SQLite under apsw is too old to be safe."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE_MIN:
        raise StoreUnavailable(
            f"SQLite {apsw.sqlite_lib_version()} is too old: "
            f"{'.'.join(map(str, SQLITE_MIN))} is needed; upgrade the package apsw"
        )
