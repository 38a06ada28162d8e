"""Reads entries of a damaged file from its pages, without its tree.

SQLite finds a row through the pages above it; if one of those, or the first page of a file, is
damaged, everything below is lost. The pages that contain the rows identify themselves, so each page
of the file and of its write-ahead log is examined
(https://www.sqlite.org/fileformat2.html#b_tree_pages). Everything that looks like a row of the
table ``entry`` is yielded; the caller checks whether it is an entry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from relay.store.file.companions import wal_path
from relay.store.state import SEQ_BITS

PAGE_BYTES: Final = 4096
"""The same for all our files; the header that contains it may be damaged."""
ROW_BYTES_MAX: Final = 1 << 20
"""Far more than an entry has."""
_HEADER_OF_FILE: Final = 100
"""At the beginning of the first page, before the header that all pages have."""
_LEAF_OF_TABLE: Final = 0x0D
_LEAF: Final = Struct(">BHHHB")
_WAL: Final = Struct(">IIII8s8x")
_FRAME: Final = Struct(">II8s8x")
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
"""Serial types of integers, with their sizes in bytes."""
_BLOB: Final = 12
_COLUMNS: Final = 5
Row = tuple[int, int, int, int, bytes]


def carved(path: Path, *, with_wal: bool) -> Iterator[Row]:
    """Yield (id, time_ms, chain, jump, packed), in the order of pages. Raises OSError.

    Args:
        path: of the file, which no process has open.
        with_wal: use the committed part of the write-ahead log.
    """
    pages = _Pages(path, with_wal=with_wal)
    try:
        for number in range(1, pages.count + 1):
            yield from _rows(pages, number)
    finally:
        pages.close()


class _Pages:
    """The latest version of each page."""

    def __init__(self, path: Path, *, with_wal: bool) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._wal_fd = -1
        self._frames: dict[int, int] = {}
        try:
            if with_wal and wal_path(path).is_file():
                self._wal_fd = os.open(wal_path(path), os.O_RDONLY | os.O_CLOEXEC)
                self._frames = _committed(self._wal_fd)
            size = os.fstat(self._fd).st_size
        except BaseException:
            self.close()
            raise
        self.count = max([-(-size // PAGE_BYTES), *self._frames])

    def read(self, number: int) -> bytes:
        """Return a page; shorter, or empty, if it does not exist."""
        if number in self._frames:
            return os.pread(self._wal_fd, PAGE_BYTES, self._frames[number])
        return os.pread(self._fd, PAGE_BYTES, (number - 1) * PAGE_BYTES)

    def close(self) -> None:
        for fd in (self._fd, self._wal_fd):
            if fd >= 0:
                os.close(fd)


def _committed(fd: int) -> dict[int, int]:
    """Return the position of the last committed version of each page in a write-ahead log."""
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    header = os.pread(fd, _WAL.size, 0)
    if len(header) < _WAL.size:
        return found
    *_, page_bytes, _, salts = _WAL.unpack(header)
    if page_bytes != PAGE_BYTES:
        return found
    at, size = _WAL.size, os.fstat(fd).st_size
    while at + _FRAME.size + PAGE_BYTES <= size:
        number, commit, own = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
        if own != salts:  # left by the previous log
            break
        pending[number] = at + _FRAME.size
        if commit:
            found |= pending
            pending.clear()
        at += _FRAME.size + PAGE_BYTES
    return found


def _rows(pages: _Pages, number: int) -> Iterator[Row]:
    page = pages.read(number)
    start = _HEADER_OF_FILE if number == 1 else 0
    if len(page) < PAGE_BYTES or page[start] != _LEAF_OF_TABLE:
        return
    _, _, cells, _, _ = _LEAF.unpack_from(page, start)
    first = start + _LEAF.size
    for place in range(first, min(first + 2 * cells, PAGE_BYTES - 1), 2):
        cell = int.from_bytes(page[place : place + 2], "big")
        try:
            row = _row(pages, page, cell)
        except (IndexError, ValueError):
            continue
        if row is not None:
            yield row


def _row(pages: _Pages, page: bytes, at: int) -> Row | None:
    """Read a cell of a leaf. Raises IndexError or ValueError if it is not a row."""
    size, at = _varint(page, at)
    row_id, at = _varint(page, at)
    if not 0 < size <= ROW_BYTES_MAX or row_id >> 63 or not row_id >> SEQ_BITS:
        return None  # a row of another table, whose rows are numbered by their logs
    local = _local(size)
    record = page[at : at + local]
    if local < size:
        record += _overflow(pages, page[at + local : at + local + 4], size - local)
    return _columns(record, row_id) if len(record) == size else None


def _local(size: int) -> int:
    """Return how much of a record is stored in the page of its cell."""
    most = PAGE_BYTES - 35
    if size <= most:
        return size
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (size - least) % (PAGE_BYTES - 4)
    return local if local <= most else least


def _overflow(pages: _Pages, pointer: bytes, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        page = pages.read(int.from_bytes(pointer, "big") or pages.count + 1)
        if len(page) < PAGE_BYTES:
            raise ValueError
        pointer = page[:4]
        found += page[4 : 4 + size - len(found)]
    return bytes(found)


def _columns(record: bytes, row_id: int) -> Row | None:
    end, at = _varint(record, 0)
    types = []
    while at < end:
        kind, at = _varint(record, at)
        types.append(kind)
    if len(types) != _COLUMNS or types[0] or types[-1] < _BLOB or types[-1] % 2:
        return None
    numbers = []
    for kind in types[1:-1]:
        if kind not in _INTEGERS:
            return None
        size = _INTEGERS[kind]
        value = int.from_bytes(record[at : at + size], "big", signed=True)
        numbers.append(int(kind == 9) if kind > 6 else value)
        at += size
    packed = record[at:]
    if len(packed) != (types[-1] - _BLOB) // 2:
        return None
    return row_id, numbers[0], numbers[1], numbers[2], packed


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends. Raises IndexError."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9
