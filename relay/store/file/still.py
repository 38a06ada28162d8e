"""Opens files that nobody changes: without their write-ahead log, and without any other file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import apsw


def still_uri(path: Path) -> str:
    """Return the URI by which SQLite opens, or attaches, such a file."""
    return f"file:{quote(str(path))}?immutable=1"


def open_still(path: Path) -> apsw.Connection:
    """Open such a file, whatever it contains. Raises apsw.Error."""
    return apsw.Connection(still_uri(path), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
