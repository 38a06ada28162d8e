"""Keeps a reserve of free disk space: below it nothing is stored, so that nothing else fails.

A completely full file system also breaks checkpoints, log files and other programs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

SHARE: Final = 20
"""The reserve is at most this fraction (1/n) of its file system, so that a small one is usable."""
RECOVERED: Final = 1.1
"""Storing continues at this multiple of the reserve, to avoid switching every few seconds."""
log = logging.getLogger("relay.worker")


class Disk(NamedTuple):
    """A file system."""

    free_bytes: int
    """For unprivileged users, not for root."""
    total_bytes: int


def measure(path: Path | str) -> Disk:
    """Query the file system of a file. Raises OSError."""
    found = os.statvfs(path)
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def reserve_of(disk: Disk, reserve_bytes: int) -> int:
    """Return how much of a file system is kept free."""
    return min(reserve_bytes, disk.total_bytes // SHARE)


def is_short(disk: Disk, reserve_bytes: int, *, was_short: bool) -> bool:
    """Return True if a file system has too little free space."""
    reserve = reserve_of(disk, reserve_bytes)
    return disk.free_bytes < (reserve * RECOVERED if was_short else reserve)


class DiskReserve:
    """Tracks which partitions are on a short disk. Symbolic links may use several disks."""

    def __init__(self, path_of: Callable[[int], Path], reserve_bytes: int) -> None:
        """Create with no partition short.

        Args:
            path_of: returns a partition's file.
            reserve_bytes: 0: none is kept.
        """
        self._path_of = path_of
        self._paths: dict[int, str] = {}
        """Cached results of ``path_of``; they do not change."""
        self._reserve_bytes = reserve_bytes
        self._short: frozenset[int] = frozenset()

    def keep(self, reserve_bytes: int) -> None:
        """Change the reserve; 0: none."""
        self._reserve_bytes = reserve_bytes

    def check(self, partitions: Iterable[int]) -> frozenset[int]:
        """Return those in which nothing may be stored. Called about once a second."""
        if not self._reserve_bytes:
            self._short = frozenset()
            return self._short
        before = self._short
        least: Disk | None = None
        found = set()
        for index in partitions:
            path = self._paths.get(index)
            if path is None:
                path = self._paths[index] = str(self._path_of(index))
            try:
                disk = measure(path)
            except OSError:
                continue  # reported when the file is opened
            if is_short(disk, self._reserve_bytes, was_short=index in before):
                found.add(index)
                least = disk if least is None else min(least, disk)
        self._short = frozenset(found)
        if least is not None and not before:
            log.error(
                "disk_reserve_reached",
                extra={
                    "partitions": sorted(found),
                    "free_mib": least.free_bytes >> 20,
                    "reserve_mib": reserve_of(least, self._reserve_bytes) >> 20,
                },
            )
        elif before and not found:
            log.warning("disk_reserve_free_again", extra={"partitions": sorted(before)})
        return self._short
