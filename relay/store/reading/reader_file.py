"""The file of a partition, opened by its readers: always the one currently at its path."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final, cast

import apsw

from relay.store.errors import StoreCorrupt, StoreUnavailable
from relay.store.file.created import was_created
from relay.store.file.format import FORMAT_VERSION
from relay.store.file.lock import read_refusal
from relay.store.file.schema import connect_reader, rows, taken_away, translated

IDS_REMEMBERED_MAX: Final = 8192


class ReaderFile:
    """A partition's file, opened for reading."""

    def __init__(self, path: Path) -> None:
        """Create; the first call opens the file, which may not exist yet."""
        self._path = path
        self._connection: apsw.Connection | None = None
        self._inode = 0
        self._newest = False
        """True: the file has the newest format, which nothing lowers."""
        self._ids: dict[str, int] = {}

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)
        self._ids.clear()
        self._newest = False

    def _rows_of(self, log: str, query: str, *bindings: int | str) -> list[Any]:
        try:
            connection = self._opened()
            log_id = self._log_id(connection, log)
            if connection is None or log_id is None:
                return []
            return rows(connection, query, (log_id, *bindings))
        except apsw.Error as error:
            self.close()
            raise translated(error, self._path) from error

    def _format(self, log: str) -> int:
        """Return the format of the file. An older one is not cached: its writer may upgrade it."""
        with contextlib.suppress(apsw.Error):  # the query reports it
            if self._opened() is not None and self._newest:
                return FORMAT_VERSION
        found = self._rows_of(log, "SELECT user_version FROM pragma_user_version WHERE ? > 0")
        if not found:
            return FORMAT_VERSION
        self._newest = found[0][0] == FORMAT_VERSION
        return cast("int", found[0][0])

    def _opened(self) -> apsw.Connection | None:
        """Return the connection to the current file; None if the partition was never created.

        Raises:
            StoreCorrupt: the file is refused.
            StoreUnavailable: it is missing, or empty: an empty answer would look like an empty log.
        """
        if self._connection is None:
            reason = read_refusal(self._path.with_suffix(".lock"))
            if reason is not None:
                raise StoreCorrupt(reason)
        try:
            inode = os.stat(self._path).st_ino  # noqa: PTH116 - a third of the time, in every call
        except FileNotFoundError:
            self.close()
            self._check_new("is missing")
            return None
        except OSError:
            inode = 0  # opening it reports the problem
        if self._connection is not None and inode != self._inode:
            self.close()
        if self._connection is None:
            self._connection = connect_reader(self._path)
            if self._connection is None:
                self._check_new("is empty")
                return None
            self._inode = inode
        return self._connection

    def _check_new(self, what: str) -> None:
        """Check that there has never been a file: its writer records one in the lock file."""
        path = self._path
        if self._inode or was_created(path, path.with_suffix(".lock")):
            raise StoreUnavailable(taken_away(path, what))

    def _log_id(self, connection: apsw.Connection | None, log: str) -> int | None:
        log_id = self._ids.get(log)
        if log_id is None and connection is not None:
            found = rows(connection, "SELECT id FROM log WHERE name=?", (log,))
            if not found:
                return None
            if len(self._ids) >= IDS_REMEMBERED_MAX:
                self._ids.clear()
            log_id = self._ids[log] = found[0][0]
        return log_id
