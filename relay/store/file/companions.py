"""The files beside a partition's file: SQLite's WAL and its index, and the lock file.

Nothing here needs SQLite. If the partition's file is a symbolic link, they are beside its target.
"""

from __future__ import annotations

from pathlib import Path

from relay.paths import followed


def wal_path(path: Path) -> Path:
    """Return the path of a file's WAL."""
    return _beside(path, "-wal")


def index_path(path: Path) -> Path:
    """Return the path of a file's WAL index."""
    return _beside(path, "-shm")


def place_lock_path(path: Path) -> Path:
    """Return the path of the additional lock that is taken if ``path`` is a link (``lock``)."""
    return _beside(path, "-lock")


def wal_bytes(path: Path) -> int:
    """Return the size of a file's WAL; 0 if there is none."""
    try:
        return wal_path(path).stat().st_size
    except OSError:
        return 0


def _beside(path: Path, suffix: str) -> Path:
    real = followed(path)
    return real.with_name(f"{real.name}{suffix}")
