"""Reads the logs of one partition, in any process, while its writer continues.

Every call finishes its statements before it returns: a snapshot that stays open would keep the WAL
from ever starting over (SQLite documentation, "Avoiding Excessively Large WAL Files").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from relay import limits
from relay.chat.entries import NO_EPOCH, Cursor, Head
from relay.chat.rooms.events import Role
from relay.chunking import count_fitting
from relay.store.file.format import FORMAT_OF_CONTROLS, FORMAT_OF_MEMBERS
from relay.store.file.schema import epoch_at, has_states, pragma, rows, translated
from relay.store.log import Page, ResumePoint
from relay.store.reading.reader_file import ReaderFile
from relay.store.reading.resume import LogView, resume_point
from relay.store.reading.segments import read_view, read_view_of
from relay.store.state import SEQ_BITS, SEQ_MASK, row_id

STATES: Final = (
    "SELECT name, coalesce(packed, x''), coalesce((SELECT max(entry.id) FROM entry "
    "WHERE entry.id BETWEEN log.id << ?1 AND (log.id << ?1) + ?2), floor) "
    "FROM log LEFT JOIN state ON state.log_id = log.id "
    "WHERE name > ?3 AND (name < ':' OR name >= 'a') ORDER BY name LIMIT ?4"
)
WITHOUT_STATES: Final = STATES.replace(
    "LEFT JOIN state ON state.log_id = log.id", "LEFT JOIN (SELECT NULL AS packed)"
)
NO_LIMIT: Final = -1
_KEPT: Final = (
    "SELECT id, CAST(packed AS BLOB) FROM entry WHERE id>max(?1, (SELECT id << 40 | floor FROM log "
    "WHERE id=?1 >> 40)) AND id<=?2 ORDER BY id "
)
FORWARD: Final = _KEPT + "LIMIT ?3"
CONTROLS: Final = (
    "SELECT CAST(packed AS BLOB) FROM control "
    "JOIN entry ON entry.id=control.log_id << 40 | control.seq "
    "WHERE control.log_id=? AND control.seq>? ORDER BY control.seq"
)
CONTROLS_BEFORE_3: Final = (
    "SELECT CAST(packed AS BLOB) FROM entry WHERE id >> 40=? AND id & 0xFFFFFFFFFF>? ORDER BY id"
)
DIRECT: Final = (
    "SELECT entry.id, CAST(packed AS BLOB) FROM direct JOIN entry ON entry.id=?1 | direct.seq "
    "WHERE log_id=?2 AND peer=?3 AND seq<?4 AND seq>(SELECT floor FROM log WHERE id=?2) "
    "ORDER BY seq DESC LIMIT ?5"
)
ENTRY: Final = (
    "SELECT CAST(packed AS BLOB) FROM entry JOIN log ON log.id=?1 "
    "WHERE entry.id=?1 << 40 | ?2 AND ?2 > floor"
)
EDITS: Final = (
    "SELECT CAST(packed AS BLOB) FROM edit JOIN entry ON entry.id=?1 << 40 | edit.seq "
    "WHERE edit.log_id=?1 AND target=?2 AND edit.seq<=?3 ORDER BY edit.seq DESC LIMIT ?4"
)
WRITTEN: Final = "SELECT 1 FROM direct WHERE log_id=? AND peer=? AND epoch=x'' AND origin=0 LIMIT 1"
PLACE: Final = "SELECT epoch, origin FROM direct WHERE log_id=? AND peer=? AND seq=?"
MARKS: Final = (  # '' is no mark, so the comparison excludes it
    "SELECT about, epoch, seq FROM mark WHERE log_id=? AND about>? ORDER BY about LIMIT ?"
)
MARK: Final = "SELECT epoch, seq FROM mark WHERE log_id=? AND about=?"
LAST_CONTROLS: Final = (
    "SELECT seq FROM control WHERE log_id=(SELECT id FROM log WHERE name=?) AND seq<=? "
    "ORDER BY seq DESC LIMIT ?"
)
CONTROLS_PASSED_MAX: Final = 1000
"""Maximum number of entries read beyond those requested."""
MEMBERSHIPS: Final = (
    "SELECT name FROM member JOIN log ON log.id=log_id "
    "WHERE handle=? AND lasting IN (0, 1) AND root=? AND name>? ORDER BY name LIMIT ?"
)
ROOTS: Final = (
    "SELECT name, root FROM member JOIN log ON log.id=log_id "
    "WHERE handle=? AND lasting IN (0, 1) LIMIT ?"
)
OWNED: Final = "SELECT count(*) FROM member WHERE handle=? AND lasting=1 AND root=? AND role=?"
SHARES: Final = (  # in this order: a row of the first account, then a matching row of the other one
    "SELECT 1 FROM member AS one CROSS JOIN member AS other ON other.log_id=one.log_id "
    "WHERE one.handle=? AND one.lasting=1 AND one.root=? "
    "AND other.handle=? AND other.lasting=1 AND other.root=? LIMIT 1"
)
SEEN: Final = "SELECT seq FROM mark WHERE log_id=? AND about=''"
BACK: Final = _KEPT + "DESC LIMIT ?3"


class SqliteReader(ReaderFile):
    """See ``log.Reader``. One per partition and worker; not thread-safe."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._states = False
        """True: the file has a table of states."""
        self._members = False
        """True: the file has a table of members."""

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        super().close()
        self._states = self._members = False

    # --- pages ----------------------------------------------------------------------------------
    def read(
        self, log: str, after: int, upto: int, bytes_max: int, count: int | None = None
    ) -> Page:
        """See ``log.Reader``."""
        return self._page(FORWARD, log, after, upto, bytes_max, count)

    def read_back(self, log: str, before: int, count: int, bytes_max: int) -> Page:
        """See ``log.Reader``."""
        page = self._page(BACK, log, 0, before - 1, bytes_max, count)
        page.rows.reverse()
        return page

    def _page(
        self, query: str, log: str, after: int, upto: int, bytes_max: int, count: int | None
    ) -> Page:
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None or after >= upto:
                return Page([], True)
            # One more than requested, to find out whether there are more.
            limit = NO_LIMIT if count is None else count + 1
            bounds = row_id(log_id, after), row_id(log_id, min(upto, SEQ_MASK)), limit
            return _read_page(connection, query, bounds, bytes_max, count)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error

    def read_direct(self, log: str, peer: str, before: int, count: int, bytes_max: int) -> Page:
        """See ``log.Reader``."""
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None:
                return Page([], True)
            bounds = log_id << SEQ_BITS, log_id, peer, before, count + 1
            page = _read_page(connection, DIRECT, bounds, bytes_max, count)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error
        page.rows.reverse()
        return page

    def read_edited(
        self, log: str, seq: int, upto: int, shown: Callable[[bytes], bool]
    ) -> list[bytes]:
        """See ``log.Reader``."""
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None:
                return []
            found = [packed for (packed,) in rows(connection, ENTRY, (log_id, seq))]
            if found:
                bounds = log_id, seq, upto, limits.EDITS_SHOWN_MAX
                cursor = connection.execute(EDITS, bounds)
                try:  # one by one: each may be long
                    found += next(([packed] for (packed,) in cursor if shown(packed)), [])
                finally:
                    cursor.close(True)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error
        return found

    def fold(self, log: str) -> tuple[int, bytes]:
        """See ``log.Reader``."""
        if self._format(log) < FORMAT_OF_MEMBERS:
            return 0, b""
        found = self._rows_of(log, "SELECT seq, packed FROM fold WHERE log_id=?")
        return found[0] if found else (0, b"")

    def controls(self, log: str, after: int = 0) -> list[bytes]:
        """See ``log.Reader``."""
        knows = self._format(log) >= FORMAT_OF_CONTROLS
        found = self._rows_of(log, CONTROLS if knows else CONTROLS_BEFORE_3, after)
        return [packed for (packed,) in found]

    def has_written(self, log: str, peer: str) -> bool:
        """See ``log.Reader``."""
        return bool(self._rows_of(log, WRITTEN, peer))

    def place_at(self, log: str, peer: str, seq: int) -> Cursor | None:
        """See ``log.Reader``."""
        found = self._rows_of(log, PLACE, peer, seq)
        return Cursor(*found[0]) if found and found[0][1] else None

    def marks(self, log: str, after: str, count: int) -> list[tuple[str, bytes, int]]:
        """See ``log.Reader``."""
        return self._rows_of(log, MARKS, after, count)

    def mark(self, log: str, about: str) -> Cursor:
        """See ``log.Reader``."""
        found = self._rows_of(log, MARK, about)
        return Cursor(*found[0]) if found else Cursor(NO_EPOCH, 0)

    # --- memberships ----------------------------------------------------------------------------
    def memberships(self, handle: str, root: bytes, after: str, count: int) -> list[str]:
        """See ``log.Reader``."""
        return [name for (name,) in self._member_rows(MEMBERSHIPS, handle, root, after, count)]

    def memberships_of_all(self, handle: str, count: int) -> list[tuple[str, bytes]]:
        """Return (room, root) of the roles of all accounts that a handle has had."""
        return self._member_rows(ROOTS, handle, count)

    def owned(self, handle: str, root: bytes) -> int:
        """See ``log.Reader``."""
        found = self._member_rows(OWNED, handle, root, int(Role.OWNER))
        return found[0][0] if found else 0

    def shares(self, handle: str, root: bytes, other: str, other_root: bytes) -> bool:
        """See ``log.Reader``."""
        return bool(self._member_rows(SHARES, handle, root, other, other_root))

    def _member_rows(self, query: str, *bindings: int | str | bytes) -> list[Any]:
        try:
            connection = self._opened()
            if connection is None or not self._has_members(connection):
                return []
            return rows(connection, query, bindings)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error

    def _has_members(self, connection: apsw.Connection) -> bool:
        """Only a writer adds the table to a file of an older Relay."""
        if not self._members:
            version = pragma(connection, "user_version")
            assert isinstance(version, int)
            self._members = version >= FORMAT_OF_MEMBERS
        return self._members

    def seen(self, log: str) -> int:
        """See ``log.Reader``."""
        found = self._rows_of(log, SEEN)
        return found[0][0] if found else 0

    # --- places ---------------------------------------------------------------------------------
    def floor_of_last(self, log: str, count: int, upto: int) -> int:
        """See ``log.Reader``.

        Seqs have no holes above the floor, so no further search is needed.
        """
        view = self._view(log)
        if view is None:
            return upto
        after = upto - count
        for (seq,) in self._member_rows(LAST_CONTROLS, log, upto, CONTROLS_PASSED_MAX):
            if seq <= after:
                break
            after -= 1
        return min(upto, max(view.floor, after))

    def head(self, log: str) -> Head:
        """See ``log.Reader``."""
        view = self._view(log)
        if view is None or not view.segments:
            return Head(NO_EPOCH, 0)
        return Head(view.segments[-1].epoch, view.end)

    def names(self, prefix: str, after: str = "", count: int | None = None) -> list[str]:
        """See ``log.Reader``."""
        assert prefix
        assert prefix.isascii()
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        limit = NO_LIMIT if count is None else count
        try:
            connection = self._opened()
            if connection is None:
                return []
            found = rows(
                connection,
                "SELECT name FROM log WHERE name>=? AND name>? AND name<? ORDER BY name LIMIT ?",
                (prefix, after, end, limit),
            )
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error
        return [name for (name,) in found]

    def state(self, log: str) -> bytes:
        """See ``log.Reader``."""
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None or not self._has_states(connection):
                return b""
            found = rows(connection, "SELECT packed FROM state WHERE log_id=?", (log_id,))
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error
        return found[0][0] if found else b""

    def states(self, after: str, count: int, bytes_max: int) -> list[tuple[str, bytes, int]]:
        """See ``log.Reader``."""
        try:
            connection = self._opened()
            if connection is None:
                return []
            joined = self._has_states(connection)
            found: list[tuple[str, bytes, int]] = []
            cursor = connection.execute(
                STATES if joined else WITHOUT_STATES,
                (SEQ_BITS, SEQ_MASK, max(after, "/"), count),
            )
            try:
                for name, packed, seq in cursor:
                    found.append((name, packed, seq & SEQ_MASK))
                    bytes_max -= len(packed)
                    if bytes_max <= 0:
                        break
            finally:
                cursor.close(True)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error
        return found

    def _has_states(self, connection: apsw.Connection) -> bool:
        """Only a writer adds the table to a file of an older Relay."""
        if not self._states:
            self._states = has_states(connection)
        return self._states

    def epoch_at(self, log: str, seq: int) -> bytes:
        """See ``log.Reader``."""
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None:
                return NO_EPOCH
            return epoch_at(connection, log_id, seq)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error

    def resume(self, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        """See ``log.Reader``."""
        view = self._view(
            log, lambda opened, log_id: read_view_of(opened, log_id, cursor, head.seq)
        )
        return resume_point(view, cursor, head)

    def _view(
        self, log: str, read: Callable[[apsw.Connection, int], LogView] = read_view
    ) -> LogView | None:
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None:
                return None
            return read(connection, log_id)
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error

    def floor(self, log: str) -> int:
        """See ``log.Reader``."""
        view = self._view(log)
        return 0 if view is None else view.floor


def _read_page(
    connection: apsw.Connection,
    query: str,
    bounds: tuple[int | str, ...],
    bytes_max: int,
    count: int | None,
) -> Page:
    """Read as many rows as fit. The query returns one more than ``count``, if there is one."""
    found: list[tuple[int, bytes]] = []
    cursor = connection.execute(query, bounds)
    try:
        fitting = count_fitting(_read_into(found, cursor), bytes_max, count)
    finally:
        cursor.close(True)
    return Page(found[:fitting], fitting == len(found))


def _read_into(found: list[tuple[int, bytes]], cursor: Iterable[tuple[Any, ...]]) -> Iterator[int]:
    """Read rows one by one, as long as the caller requests their sizes."""
    for row, packed in cursor:
        found.append((row & SEQ_MASK, packed))
        yield len(packed)
