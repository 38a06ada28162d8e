"""Disk usage of the data directory, and free space, as reported by the kernel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class DiskUse(NamedTuple):
    """For all partitions together."""

    database_bytes: int
    wal_bytes: int
    """Write-ahead logs: committed data not yet copied to the database files."""
    free_bytes: int | None
    """Of the file system with the least free space; None: unknown."""

    def document(self) -> dict[str, int | None]:
        """Return it as a JSON object."""
        return self._asdict()


def measure(files: Sequence[Path]) -> DiskUse:
    """Measure partition files. Missing files count as empty."""
    free: int | None = None
    for directory in {file.resolve().parent for file in files}:
        try:
            found = os.statvfs(directory)
        except OSError:
            continue
        here = found.f_bavail * found.f_frsize
        free = here if free is None else min(free, here)
    return DiskUse(
        database_bytes=sum(map(_size, files)),
        wal_bytes=sum(
            _size(file.resolve().with_name(f"{file.resolve().name}-wal")) for file in files
        ),
        free_bytes=free,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
