"""Finds messages in the index of one partition, in any process, newest first.

A search examines ``WINDOW`` seqs of a log at a time, and stops when it has enough results or has
taken long enough; the result shows how far it came, and the next search continues there. So no
search costs more than another, whatever the query and however long the log is.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from relay.store.errors import StoreUnavailable
from relay.store.file.schema import rows
from relay.store.search import files
from relay.store.state import row_id

WINDOW: Final = 65_536
"""Entries: words that nearly all of them contain, but never together, take about 10 ms."""
SLICE_S: Final = 0.025
"""Time for one search: no window is begun after this."""
QUERY_S_MAX: Final = 1.0
"""Time for one window, on a slow disk: after this the search fails."""
STEPS: Final = 50_000
"""Steps of SQLite's virtual machine between two checks of the time."""
FIND: Final = (
    "SELECT json_group_array(rowid & 0xFFFFFFFFFF) FROM (SELECT rowid FROM text WHERE text MATCH ? "
    "AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?)"
)


class Found(NamedTuple):
    """The result of one search."""

    seqs: list[int]
    """Of messages that contain all the words, newest first."""
    next: int
    """Everything from this seq on was examined: the next search is for lower ones."""
    end: bool
    """True if there are no lower ones."""
    indexed: int
    """Entries above this are not in the index yet."""


NOTHING: Final = Found([], 0, True, 0)


class Finder:
    """Searches one index. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Create; the file is opened later and may not exist yet.

        Args:
            path: of the index.
        """
        self._path = path
        self._connection: apsw.Connection | None = None
        self._inode = 0
        self._deadline = 0.0

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    def find(self, log: str, match: str, after: int, before: int, count: int) -> Found:
        """Return matching messages of a log: all, or those found within the time limit.

        Args:
            log: its name.
            match: the result of ``words.match_of``.
            after: only messages with a seq above it.
            before: and below this.
            count: maximum number.

        Raises:
            StoreUnavailable: the index cannot be read now, or not in time.
        """
        try:
            return self._find(log, match, after, before, count)
        except apsw.Error as error:
            self.close()
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def _find(self, log: str, match: str, after: int, before: int, count: int) -> Found:
        connection = self._opened()
        if connection is None:
            return NOTHING
        position = rows(connection, "SELECT log_id, seq FROM position WHERE name=?", (log,))
        if not position:
            return NOTHING
        log_id, indexed = position[0]
        high = min(before - 1, indexed)
        began = time.monotonic()
        found: list[int] = []
        while high > after:
            low = max(after, high - WINDOW)
            self._deadline = time.monotonic() + QUERY_S_MAX
            bounds = row_id(log_id, low + 1), row_id(log_id, high), count - len(found)
            found += json.loads(rows(connection, FIND, (match, *bounds))[0][0])
            high = low
            if len(found) >= count:
                return Found(found, found[-1], found[-1] <= after + 1, indexed)
            if time.monotonic() - began >= SLICE_S:
                break
        return Found(found, high + 1, high <= after, indexed)

    def _opened(self) -> apsw.Connection | None:
        try:
            inode = os.stat(self._path).st_ino  # noqa: PTH116 - as in ``reader``
        except FileNotFoundError:
            self.close()
            return None
        if self._connection is not None and inode != self._inode:
            self.close()
        if self._connection is None:
            self._connection = files.open_reader(self._path)
            self._inode = inode
            if self._connection is not None:
                self._connection.set_progress_handler(self._is_late, STEPS)
        return self._connection

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline
