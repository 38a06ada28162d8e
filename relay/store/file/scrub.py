"""Overwrites remains of moved or erased entries in the unused parts of a file's pages.

SQLite moves rows between pages as a tree grows, and leaves copies in the unused parts of the old
pages; ``secure_delete`` overwrites most of these, but not all. So each page that a checkpoint has
copied to the file is examined, and unused bytes that are not zero are overwritten. SQLite never
reads them (https://www.sqlite.org/fileformat2.html#b_tree_pages).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import apsw

from relay.paths import followed
from relay.store.file.companions import wal_path
from relay.store.file.pairing import wal_salts

# The formats of a WAL's headers (https://www.sqlite.org/walformat.html): the size of a page in the
# file header, and the page number in a frame header.
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_WAL_PAGE_SIZE_AT: Final = 8
_NUMBER_BYTES: Final = 4
_PAGE_SIZE_AT: Final = 16
"""Position in the header of a file: two bytes. 1 means ``ALL_OF_PAGE``."""
_LEAF_OF_TABLE: Final = b"\x0d"
_LEAF: Final = Struct(">BHHHB")
"""Header of a leaf: type, first free block, number of cells, where their contents begin, fragments.
"""
_TWO: Final = Struct(">HH")
ALL_OF_PAGE: Final = 65_536
"""The largest page size, stored as 0 for where contents begin."""
PAGES_PER_READ: Final = 64
"""Each call releases the interpreter to other threads, and may have to wait for it."""


class Span(NamedTuple):
    """Bytes of a page that are unused and not zero."""

    offset: int
    length: int


class WalPages:
    """Collects the page numbers in a file's WAL, reading each frame's header once.

    They are kept until they are taken, even if the WAL starts over.
    """

    def __init__(self) -> None:
        self.found: set[int] = set()
        self._salts = b""
        self._frames = 0

    def look(self, path: Path, frames: int) -> None:
        """Add the pages in the first ``frames`` frames of the WAL. Raises OSError."""
        salts = wal_salts(path)
        if salts != self._salts or frames < self._frames:
            self._salts, self._frames = salts, 0
        self.found |= pages_of_wal(path, frames, self._frames)
        self._frames = frames

    def take(self) -> set[int]:
        """Return all collected pages, and clear them."""
        found, self.found = self.found, set()
        return found


def pages_of_wal(path: Path, frames: int, first: int = 0) -> set[int]:
    """Return the numbers of the pages in a file's WAL, between two frames.

    Raises OSError.
    """
    found: set[int] = set()
    if first >= frames:
        return found
    with wal_path(path).open("rb", buffering=0) as file:
        size = int.from_bytes(os.pread(file.fileno(), _NUMBER_BYTES, _WAL_PAGE_SIZE_AT), "big")
        frame = Struct(f">I{_FRAME_HEADER_BYTES - _NUMBER_BYTES + size}x")
        for at in range(first, frames, PAGES_PER_READ):
            count = min(PAGES_PER_READ, frames - at)
            data = os.pread(file.fileno(), count * frame.size, _WAL_HEADER_BYTES + at * frame.size)
            whole = len(data) // frame.size * frame.size  # fewer: the WAL was truncated
            found.update([number for (number,) in frame.iter_unpack(memoryview(data)[:whole])])
    found.discard(0)  # no page: the WAL was truncated meanwhile
    return found


def unused(page: bytes) -> list[Span]:
    """Return the unused and non-zero parts of a leaf; nothing for any other page."""
    if page[:1] != _LEAF_OF_TABLE:  # the first page begins differently: it belongs to the schema
        return []
    _, block, cells, contents, _ = _LEAF.unpack_from(page)
    contents = contents or ALL_OF_PAGE
    first = _LEAF.size + 2 * cells
    if not first <= contents <= len(page):
        return []  # not a leaf: unknown content
    pointers = Struct(f">{cells}H").unpack_from(page, _LEAF.size)
    if cells and min(pointers) < contents:
        return []
    found = []
    if page.count(0, first, contents) != contents - first:
        found.append(Span(first, contents - first))
    while contents <= block <= len(page) - _TWO.size:
        following, size = _TWO.unpack_from(page, block)
        start, end = block + _TWO.size, block + size
        if start < end <= len(page) and page.count(0, start, end) != end - start:
            found.append(Span(start, end - start))
        if following <= block:
            break
        block = following
    return found


def sync(path: Path) -> None:
    """Wait until what was written to a file is on the disk. Raises apsw.Error."""
    with _opened(path) as file:
        file.xSync(apsw.SQLITE_SYNC_NORMAL)


def pages_of(path: Path) -> int:
    """Return the number of pages of a file. Raises apsw.Error."""
    with _opened(path) as file:
        return file.xFileSize() // _page_bytes(file)


def overwrite(path: Path, pages: Iterable[int]) -> None:
    """Overwrite the unused parts of pages. Only checkpoints may write the file meanwhile.

    Pages are read from the file itself: those of the WAL may be older.

    Raises:
        apsw.Error: it cannot be read or written.
    """
    with _opened(path) as file:
        page_bytes = _page_bytes(file)
        for first, count in _neighbours(sorted(pages)):
            start = (first - 1) * page_bytes
            data = file.xRead(count * page_bytes, start)
            for at in range(0, len(data) - page_bytes + 1, page_bytes):
                for span in unused(data[at : at + page_bytes]):
                    file.xWrite(bytes(span.length), start + at + span.offset)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[apsw.VFSFile]:
    """Open a file through SQLite: closing it by other means would release this process's locks."""
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    file = apsw.VFSFile("", str(followed(path)), [flags, 0])
    try:
        yield file
    finally:
        file.xClose()


def _page_bytes(file: apsw.VFSFile) -> int:
    size = int.from_bytes(file.xRead(2, _PAGE_SIZE_AT), "big")
    return ALL_OF_PAGE if size == 1 else size


def _neighbours(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, count) for consecutive numbers, up to ``PAGES_PER_READ``."""
    first = count = 0
    for number in numbers:
        if count and (number != first + count or count == PAGES_PER_READ):
            yield first, count
            count = 0
        first = first if count else number
        count += 1
    if count:
        yield first, count
