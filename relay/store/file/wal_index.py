"""Reads SQLite's index of a WAL (``-shm``) before SQLite rebuilds it.

SQLite protects this file by POSIX locks, and a process loses all its locks on a file when it closes
*any* descriptor of it (https://www.sqlite.org/howtocorrupt.html, 2.2). Without them the next
process that opens the partition believes that it is the first. It truncates the index, which
current readers have mapped, and they die of SIGBUS. So a descriptor opened here stays open and is
reused: one for each partition that this process has opened as its writer.

The format: https://www.sqlite.org/walformat.html#the_wal_index_file_format.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple

from relay.store.file.companions import index_path

_HEADER: Final = struct.Struct("=IIIBBHII8s8s8s")
_VERSION: Final = 3_007_000
_kept: Final[dict[tuple[int, int], int]] = {}
"""Descriptors by device and inode."""
_one_user: Final = threading.Lock()
"""A worker opens its partitions in several threads at once, and any of them may close a descriptor.
"""


class WalIndex(NamedTuple):
    """What the last process with the file open knew about its WAL."""

    frames: int
    """Number of committed frames."""
    copied: int
    """Number of these that a checkpoint has copied to the file."""
    salts: bytes


def read_wal_index(path: Path) -> WalIndex | None:
    """Return the WAL index of a partition without a writer; None if there is no valid one."""
    size = _HEADER.size
    try:
        with _one_user:
            data = os.pread(_descriptor(index_path(path)), 2 * size + 4, 0)
    except OSError:
        return None
    if len(data) < 2 * size + 4 or data[:size] != data[size : 2 * size]:
        return None
    version, _, _, initialised, _, _, frames, _, _, salts, _ = _HEADER.unpack(data[:size])
    if version != _VERSION or not initialised:
        return None
    return WalIndex(frames, int.from_bytes(data[2 * size :], sys.byteorder), salts)


def _descriptor(path: Path) -> int:
    for key, fd in list(_kept.items()):
        if not os.fstat(fd).st_nlink:  # deleted: nobody can open it any more
            del _kept[key]
            os.close(fd)
    with contextlib.suppress(KeyError):
        return _kept[_key(path.stat())]
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a pipe
    return _kept.setdefault(_key(os.fstat(fd)), fd)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
