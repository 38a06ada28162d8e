"""The file of an index: its tables, and how it is opened and removed.

It can be rebuilt from its partition at any time. So nothing here waits for the disk as a commit of
messages does, and a damaged file, or one of another format, is removed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import apsw

from relay.store.file.companions import index_path, wal_path
from relay.store.file.schema import pragma, rows, without_temporary_files

FORMAT: Final = 2
"""In format 1, texts without spaces were indexed as whole sentences."""
APPLICATION_ID: Final = 0x524C5953  # "RLYS"
CACHE_KIB: Final = 2048
BUSY_MS: Final = 20
"""A home that is about to lose its partition may still write; the next one retries later."""
WAL_PAGES: Final = 1000
WAL_KEPT_BYTES: Final = 4 * 1024 * 1024
TABLES: Final = """
-- Up to which entry a log is in the index, and what that entry is known by. floor: up to where
-- entries were removed.
CREATE TABLE position (
    log_id INTEGER PRIMARY KEY, name TEXT NOT NULL, epoch BLOB NOT NULL, seq INTEGER NOT NULL,
    floor INTEGER NOT NULL
);
CREATE INDEX position_name ON position (name);
-- Edits, by their row ids (as in a partition): the seq of the message that each is of.
CREATE TABLE edit (id INTEGER PRIMARY KEY, target INTEGER NOT NULL);
-- The text of each message (words.apart), as it is now, under the row id that the message has in
-- its partition. It is kept here too: what is to be removed of the index must be known by word.
CREATE VIRTUAL TABLE text USING fts5 (
    body, columnsize = 0, tokenize = "unicode61 remove_diacritics 2"
);
INSERT INTO text (text, rank) VALUES ('secure-delete', 1);
"""


class Unusable(Exception):
    """A file that is damaged, or not an index of this format: it must be removed."""


def open_writer(path: Path) -> apsw.Connection:
    """Open an index for writing; create it if there is none.

    Raises:
        Unusable: it must be removed first.
        apsw.Error: anything else.
    """
    connection = apsw.Connection(str(path))
    try:
        _set_up(connection)
        if pragma(connection, "user_version") != FORMAT:
            if rows(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"):
                raise Unusable(f"{path} has another format")
            pragma(connection, "journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(TABLES)
            pragma(connection, f"application_id={APPLICATION_ID}")
            pragma(connection, f"user_version={FORMAT}")
            connection.execute("COMMIT")
        pragma(connection, "secure_delete=ON")
        pragma(connection, "synchronous=NORMAL")
        pragma(connection, f"wal_autocheckpoint={WAL_PAGES}")
        pragma(connection, f"journal_size_limit={WAL_KEPT_BYTES}")
    except (apsw.CorruptError, apsw.NotADBError) as error:
        connection.close(True)
        raise Unusable(f"{path}: {error}") from error
    except BaseException:
        connection.close(True)
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection | None:
    """Open an index for reading; None if there is none (yet).

    Raises:
        apsw.Error: it cannot be opened.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.CantOpenError:
        if path.exists():
            raise
        return None
    try:
        _set_up(connection)
        if pragma(connection, "user_version") != FORMAT:
            connection.close(True)
            return None
    except BaseException:
        connection.close(True)
        raise
    return connection


def remove(path: Path) -> None:
    """Remove an index, if there is one: first its WAL, so that none remains without its file."""
    for each in (wal_path(path), index_path(path), path):
        with contextlib.suppress(FileNotFoundError):
            each.unlink()


def _set_up(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_MS)
    # Otherwise the last connection to close would wait for the disk.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    pragma(connection, f"cache_size=-{CACHE_KIB}")
    without_temporary_files(connection)
