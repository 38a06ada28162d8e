"""Bytes that pages of a file still hold of entries that were moved or erased.

SQLite moves rows between pages as a tree grows, and leaves copies of them in the unused part of the
pages that they came from; ``secure_delete`` overwrites most of them, but not all. So what a
checkpoint has copied to the file is looked at, and unused parts that are not zero are overwritten.
No reader ever looks at them (https://www.sqlite.org/fileformat2.html#b_tree_pages).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import apsw

from relay.paths import followed
from relay.store.companions import wal_path

_WAL_HEADER: Final = Struct(">8xI20x")
"""Of the header of a WAL: the size of a page (https://www.sqlite.org/walformat.html)."""
_FRAME: Final = Struct(">I20x")
"""Of the header of a frame: the number of its page."""
_LEAF_OF_TABLE: Final = 13
_LEAF: Final = Struct(">BHHHB")
"""The header of a leaf: type, first free block, cells, where their contents begin, fragments."""
_TWO: Final = Struct(">HH")
ALL_OF_PAGE: Final = 65_536
"""What 0 means as the place where contents begin."""


class Span(NamedTuple):
    """Bytes of the file that are not used and not zero."""

    offset: int
    length: int


def read_wal(path: Path, frames: int, page_bytes: int) -> bytes:
    """Return the first frames of a file's WAL, with its header. Raises OSError."""
    if not frames:
        return b""
    with wal_path(path).open("rb") as file:
        return file.read(_WAL_HEADER.size + frames * (_FRAME.size + page_bytes))


def slack_of(wal: bytes) -> dict[int, list[Span]]:
    """Return, by page, what is to be overwritten in a file into which all of a WAL was copied."""
    if not wal:
        return {}
    (page_bytes,) = _WAL_HEADER.unpack_from(wal)
    step = _FRAME.size + page_bytes
    last: dict[int, int] = {}
    for at in range(_WAL_HEADER.size, len(wal) - step + 1, step):
        last[_FRAME.unpack_from(wal, at)[0]] = at + _FRAME.size
    found: dict[int, list[Span]] = {}
    for number, at in last.items():
        found[number] = []
        if wal[at] == _LEAF_OF_TABLE:  # the first page begins otherwise: it is the schema's
            start = (number - 1) * page_bytes
            page = wal[at : at + page_bytes]
            found[number] = [Span(start + first, end - first) for first, end in _unused(page)]
    return found


def _unused(page: bytes) -> list[tuple[int, int]]:
    """Return (first, end) of the parts of a leaf that are not used and not zero."""
    _, block, cells, contents, _ = _LEAF.unpack_from(page)
    contents = contents or ALL_OF_PAGE
    first = _LEAF.size + 2 * cells
    if not first <= contents <= len(page):
        return []  # no leaf: what it is, is not known
    pointers = Struct(f">{cells}H").unpack_from(page, _LEAF.size)
    if cells and min(pointers) < contents:
        return []
    found = []
    if page.count(0, first, contents) != contents - first:
        found.append((first, contents))
    while contents <= block <= len(page) - _TWO.size:
        following, size = _TWO.unpack_from(page, block)
        start, end = block + _TWO.size, block + size
        if start < end <= len(page) and page.count(0, start, end) != end - start:
            found.append((start, end))
        if following <= block:
            break
        block = following
    return found


def overwrite(path: Path, spans: Iterable[Span]) -> None:
    """Overwrite what is not used, while nobody else writes the file: only checkpoints do.

    By SQLite's own file: closing one of another kind would end the locks that this process has.

    Raises:
        apsw.Error: it cannot be written.
    """
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    file = apsw.VFSFile("", str(followed(path)), [flags, 0])
    try:
        for span in spans:
            file.xWrite(bytes(span.length), span.offset)
    finally:
        file.xClose()
