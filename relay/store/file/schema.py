"""The tables of a partition's SQLite file, and the configuration of connections to it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from relay.chat.entries import NO_EPOCH, Entry, Kind
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.errors import EnvelopeError
from relay.refused_files import NO_SPACE, inodes_used_up, missing_descriptors, no_space, refused
from relay.store.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreOfAnotherVersion,
    StoreUnavailable,
)
from relay.store.file.format import (
    FORMAT_OF_CONTROLS,
    FORMAT_OF_MEMBERS,
    FORMAT_OF_ROOMS,
    FORMAT_VERSION,
    FORMATS_READ,
)

APPLICATION_ID: Final = 0x524C5931  # "RLY1", for file(1) and similar programs
SQLITE_MIN: Final = (3, 51, 3)
"""Older versions can corrupt a WAL database if one connection runs a checkpoint while another
resets the log (SQLite's change log, 3.51.3)."""
BUSY_MS: Final = 1000
"""How long a call waits for an SQLite lock. Ours are held for less than a millisecond, except for
the recovery after a crash; only a foreign program can hold one longer."""
CACHE_KIB: Final = 4096
_FILES: Final = 4
"""Opened for one partition, at most: the file, its write-ahead log, its index, its directory."""

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- floor: entries up to this seq are no longer kept; floor_ms: the time of the last one of them.
CREATE TABLE log (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, floor INTEGER NOT NULL,
    floor_ms INTEGER NOT NULL
);
-- A segment: from first_seq on, the log is in this epoch. generation: the file's when it began.
CREATE TABLE epoch (
    log_id INTEGER NOT NULL, first_seq INTEGER NOT NULL, epoch BLOB NOT NULL,
    generation INTEGER NOT NULL, PRIMARY KEY (log_id, first_seq)
) WITHOUT ROWID;
-- chain and jump: seqs of earlier entries of the same producer in this log (chat/repeats.py); 0:
-- none. The large column is last, so that the others are read without it.
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, chain INTEGER NOT NULL, jump INTEGER NOT NULL,
    packed BLOB NOT NULL
);
-- The last counter of a producer, with its seq; used_day: the file's own count of days. Since
-- format 5 it may be older than the entries from unflushed.from_seq on.
CREATE TABLE producer (
    log_id INTEGER NOT NULL, producer BLOB NOT NULL, counter INTEGER NOT NULL, seq INTEGER NOT NULL,
    used_day INTEGER NOT NULL, PRIMARY KEY (log_id, producer)
) WITHOUT ROWID;
"""
ADDED_BY_2: Final = """
-- What control entries have made of a log, as of the last of them, seq. guarded: its messages are
-- judged; due_ms: when something in it ends by itself, or 0.
CREATE TABLE state (
    log_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, guarded INTEGER NOT NULL,
    due_ms INTEGER NOT NULL, packed BLOB NOT NULL
);
CREATE INDEX state_due ON state (due_ms) WHERE due_ms > 0;
"""
TABLES_OF_3: Final = """
-- The entries of kind "system": what a log's state is folded from.
CREATE TABLE control (
    log_id INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log_id, seq)
) WITHOUT ROWID;
-- Direct messages, by whom they were exchanged with. epoch, origin: of a copy that came from the
-- inbox of the peer, its place there, which is its identity; 0: one that was written here.
CREATE TABLE direct (
    log_id INTEGER NOT NULL, peer TEXT NOT NULL, seq INTEGER NOT NULL, epoch BLOB NOT NULL,
    origin INTEGER NOT NULL, PRIMARY KEY (log_id, peer, seq)
) WITHOUT ROWID;
CREATE INDEX direct_origin ON direct (log_id, peer, epoch, origin);
-- Direct messages that were written here and that the recipient's log has not confirmed.
CREATE TABLE pending (
    log_id INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log_id, seq)
) WITHOUT ROWID;
-- Edits, by the message that they are of.
CREATE TABLE edit (
    log_id INTEGER NOT NULL, target INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (log_id, target, seq)
) WITHOUT ROWID;
-- Up to where the owner of an inbox has read: in a room, or ("@handle") of a person's messages.
-- about is empty: seq is when (ms) the owner was last here.
CREATE TABLE mark (
    log_id INTEGER NOT NULL, about TEXT NOT NULL, epoch BLOB NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (log_id, about)
) WITHOUT ROWID;
"""
TABLES_OF_4: Final = """
-- Who has which role in which room, from the states of rooms: to be looked up by person.
-- lasting: 0 for somebody who was only invited, or given a role, and has not entered.
CREATE TABLE member (
    handle TEXT NOT NULL, lasting INTEGER NOT NULL, log_id INTEGER NOT NULL, root BLOB NOT NULL,
    role INTEGER NOT NULL, PRIMARY KEY (handle, lasting, log_id)
) WITHOUT ROWID;
-- What the control entries of an inbox up to seq make of the account: less to fold. It may be old.
CREATE TABLE fold (log_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, packed BLOB NOT NULL);
"""
TABLES_OF_5: Final = """
-- Logs whose producers are in the table of that name up to from_seq only (unflushed.py): who has
-- sent the entries from it on is known of these alone.
CREATE TABLE unflushed (log_id INTEGER PRIMARY KEY, from_seq INTEGER NOT NULL);
"""
MEMBER: Final = "INSERT INTO member VALUES (?, ?, ?, ?, ?)"
CONTROLS_BEFORE_3: Final = """
-- Before format 3 these logs held nothing else.
INSERT INTO control SELECT id >> 40, id & 0xFFFFFFFFFF FROM entry
    WHERE id >> 40 IN (SELECT id FROM log WHERE name GLOB '[@!]*');
"""


def connect_writer(path: Path) -> apsw.Connection:
    """Open a partition's file for writing, in WAL mode.

    Only ``checkpoint.py`` checkpoints the WAL, never a commit or a close.

    Raises:
        StoreError: it cannot be opened, or is not a partition of this format.
    """
    connection = _open(path, apsw.SQLITE_OPEN_READWRITE)
    with closed_on_error(connection, path):
        check_format(connection, path)  # first: the following statements change the file
        if pragma(connection, "journal_mode=WAL") != "wal":
            raise StoreUnavailable(
                f"{path}: the file system lacks what SQLite's write-ahead log needs (memory that "
                "processes share): put the data directory on a local disk"
            )
        pragma(connection, "wal_autocheckpoint=0")
        pragma(connection, "secure_delete=ON")  # see also ``scrub``
    return connection


def connect_reader(path: Path) -> apsw.Connection | None:
    """Open a partition's file for reading; None if there is none, or only one without tables.

    Raises:
        StoreError: it cannot be opened, or is not a partition of this format.
    """
    if not path.exists():
        return None
    if not path.is_file():
        raise StoreCorrupt(not_a_file(path))
    connection = _open(path, apsw.SQLITE_OPEN_READONLY)
    with closed_on_error(connection, path):
        found = check_format(connection, path)
    if found == 0:
        connection.close(True)
        return None
    return connection


@contextlib.contextmanager
def closed_on_error(connection: apsw.Connection, path: Path) -> Iterator[None]:
    """Close a connection if its set-up fails in the block; convert the error.

    Raises:
        StoreError: for an error of SQLite or of the system in the block.
    """
    try:
        yield
    except apsw.Error as error:
        connection.close(True)
        raise translated(error, path) from error
    except OSError as error:
        connection.close(True)
        raise StoreUnavailable(refused(path, error)) from error
    except BaseException:
        connection.close(True)
        raise


def _open(path: Path, flags: int) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), flags=flags)
        connection.set_busy_timeout(BUSY_MS)
        # Otherwise the last connection to close would checkpoint and delete the WAL.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        pragma(connection, f"cache_size=-{CACHE_KIB}")
        without_temporary_files(connection)
    except apsw.Error as error:
        raise translated(error, path) from error
    return connection


def without_temporary_files(connection: apsw.Connection) -> None:
    """Keep SQLite's temporary data in memory: it belongs to single statements and is small.

    The sandbox may deny access to the directory of such files, a container may have no writable
    one, and messages must not be stored outside the data directory.
    """
    pragma(connection, "temp_store=MEMORY")


def rows(
    connection: apsw.Connection, statement: str, bindings: tuple[int | str | bytes, ...] = ()
) -> list[Any]:
    """Run one SELECT to its end: an unfinished statement keeps a snapshot, and so the WAL."""
    try:
        return connection.execute(statement, bindings).fetchall()
    except UnicodeDecodeError:  # of SQLite's errors, the one that it does not find itself
        raise apsw.CorruptError("a text is not UTF-8") from None


def pragma(connection: apsw.Connection, text: str) -> object:
    """Run a PRAGMA to its end and return its first value; None if it has none."""
    found = rows(connection, f"PRAGMA {text}")
    return found[0][0] if found else None


def check_format(connection: apsw.Connection, path: Path) -> int:
    """Return the format of a partition's file; 0 for an empty one.

    Raises:
        StoreCorrupt: it is not a partition.
        StoreOfAnotherVersion: it has a format that this Relay does not read.
    """
    found = pragma(connection, "user_version")
    assert isinstance(found, int)
    if found == 0 and rows(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"):
        raise StoreCorrupt(f"{path} is a SQLite file of another program: move it away")
    if found not in (0, *FORMATS_READ):
        raise StoreOfAnotherVersion(
            f"{path} has format {found}; this Relay reads formats 1 to {FORMAT_VERSION}: "
            "use the Relay that wrote it, or a newer one"
        )
    return found


def epoch_at(connection: apsw.Connection, log_id: int, seq: int) -> bytes:
    """Return the epoch that a seq belongs to; NO_EPOCH if the log begins after it."""
    found = rows(
        connection,
        "SELECT epoch FROM epoch WHERE log_id=? AND first_seq<=? ORDER BY first_seq DESC LIMIT 1",
        (log_id, seq),
    )
    return found[0][0] if found else NO_EPOCH


def has_logs(connection: apsw.Connection) -> bool:
    """Return True if a file has a log: in a new relay, most have none."""
    return bool(rows(connection, "SELECT 1 FROM log LIMIT 1"))


def has_states(connection: apsw.Connection) -> bool:
    """Return True if a file has the table of states, which a writer adds."""
    return bool(rows(connection, "SELECT 1 FROM sqlite_schema WHERE name='state'"))


def create_tables(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
    """Create missing tables, inside the caller's transaction."""
    found = pragma(connection, "user_version")
    assert isinstance(found, int)
    if found == FORMAT_VERSION:
        return
    if found == 0:
        connection.execute(TABLES).fetchall()
        pragma(connection, f"application_id={APPLICATION_ID}")
    if found in (0, 1):
        connection.execute(ADDED_BY_2).fetchall()
    if found < FORMAT_OF_CONTROLS:
        connection.execute(TABLES_OF_3 + CONTROLS_BEFORE_3).fetchall()
    if found == FORMAT_OF_ROOMS:
        _fill_controls_of_rooms(connection, unpack)
    if found < FORMAT_OF_MEMBERS:
        connection.execute(TABLES_OF_4).fetchall()
        _fill_members(connection)
    connection.execute(TABLES_OF_5).fetchall()
    pragma(connection, f"user_version={FORMAT_VERSION}")


def _fill_controls_of_rooms(connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
    """Find the control entries of rooms: format 2 only has the states."""
    found = connection.execute(
        "SELECT id >> 40, id & 0xFFFFFFFFFF, packed FROM entry WHERE instr(packed, ?) "
        "AND id >> 40 IN (SELECT log_id FROM state)",
        (events.CONTENT_TYPE.encode(),),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO control VALUES (?, ?)",
        [(log_id, seq) for log_id, seq, packed in found if unpack(packed).kind == Kind.SYSTEM],
    )


def _fill_members(connection: apsw.Connection) -> None:
    for log_id, packed in rows(connection, "SELECT log_id, packed FROM state"):
        with contextlib.suppress(EnvelopeError):  # a damaged entry: found by a check
            connection.executemany(MEMBER, member_rows(log_id, rooms.unpack(packed)))


def member_rows(log_id: int, room: rooms.Room) -> list[tuple[str, int, int, bytes, int]]:
    """Return the rows of ``member`` for a room's state."""
    return [
        (handle, int(person.lasting), log_id, person.root, int(person.role))
        for handle, person in room.people.items()
        if person.role
    ]


def not_a_file(path: Path) -> str:
    """Return the error text for a directory or a device in place of a file."""
    return f"{path} is not a regular file: stop the relay and move it away"


def taken_away(path: Path, what: str) -> str:
    """Return the error text for a missing file that was in use. ``what``: its description."""
    return (
        f"{path} {what}, though it was in use: put that very file back, or stop the relay and "
        "restore a backup"
    )


def advice(path: Path) -> str:
    """Return what a person can do about a refused file."""
    return (
        f"stop the relay, run: relay data repair --data {shlex.quote(str(path.parent.parent))} (or "
        f"restore all of {path.with_suffix('')}.* from one backup, or move them away and let its "
        "rooms begin anew), and start it again"
    )


def is_full(error: apsw.Error, connection: apsw.Connection | None = None) -> bool:
    """Return True if there was no space: then nothing was written.

    Args:
        error: what failed.
        connection: where it failed; None: it no longer exists.
    """
    if isinstance(error, apsw.FullError):
        return True
    code = getattr(error, "extendedresult", 0)
    if code == apsw.SQLITE_IOERR_SHMSIZE:  # the index of a write-ahead log could not be created
        return True
    full = connection is not None and connection.system_errno in NO_SPACE
    return full and code == apsw.SQLITE_IOERR_WRITE


def translated(error: apsw.Error, path: Path, *, full: bool = False) -> StoreError:
    """Convert an SQLite error to a store error. ``full``: lack of space is the known cause.

    Raises:
        MemoryError: SQLite got no memory, which does not concern this file.
    """
    if isinstance(error, apsw.NoMemError):
        raise MemoryError(f"{path}: SQLite has no memory left")
    no_file = isinstance(error, apsw.CantOpenError) and inodes_used_up(path)
    if full or no_file or is_full(error):
        return StoreFull(no_space(path))
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreCorrupt(f"{path} is damaged ({error}): {advice(path)}")
    if isinstance(error, apsw.CantOpenError) and (few := missing_descriptors(_FILES)):
        return StoreUnavailable(f"{path} cannot be opened, no descriptor is left: {few}")
    if isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError)):
        return StoreUnavailable(
            f"{path} cannot be opened or written ({error}): it and its directory must exist and be "
            "writable for the user that runs Relay"
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreUnavailable(f"{path} is locked by another program ({error}): end that program")
    why, code = str(error), getattr(error, "extendedresult", 0)
    name = str(apsw.mapping_extended_result_codes.get(code, type(error).__name__))
    if why.endswith("not an error"):  # a backup's steps fail without a message
        why = name
    elif isinstance(error, apsw.IOError):  # which of its operations
        why = f"{why} ({name})"
        if name.endswith("LOCK"):
            why += ": its file system must have locks (fcntl)"
    return StoreUnavailable(f"{path}: {why}")


def check_sqlite() -> None:
    """Raise StoreUnavailable if the SQLite used by apsw is too old to be safe."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE_MIN:
        raise StoreUnavailable(
            f"SQLite {apsw.sqlite_lib_version()} is too old: "
            f"{'.'.join(map(str, SQLITE_MIN))} is needed; upgrade the package apsw"
        )
