"""Compares two files that were made of the same damaged one (``partition``).

Entries are only added, erased in place, and removed from the beginning of a log. Both files have
what either version has erased or removed (``row_versions``); so the one in which a log ends later,
or begins later, is the later one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from relay.chat.entries import Entry, Kind
from relay.store.file.schema import rows, translated
from relay.store.file.still import open_still, still_uri
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import LOST

_OF_LOG: Final = f"id>log.id<<{SEQ_BITS} AND id<log.id+1<<{SEQ_BITS}"
_ENDS: Final = f"""
    SELECT name, floor,
      coalesce((SELECT max(id) & {SEQ_MASK} FROM entry WHERE {_OF_LOG}), 0),
      coalesce((SELECT max(id) & {SEQ_MASK} FROM entry WHERE {_OF_LOG} AND packed!=?), 0)
    FROM log
"""  # noqa: S608 - numbers
_READABLE: Final = f"""
    SELECT log.name, theirs.packed, ours.packed FROM other.log
    JOIN other.entry theirs
      ON theirs.id>(log.id<<{SEQ_BITS})+log.floor AND theirs.id<log.id+1<<{SEQ_BITS}
    LEFT JOIN main.log mine ON mine.name=log.name
    LEFT JOIN main.entry ours ON ours.id=(mine.id<<{SEQ_BITS})+(theirs.id&{SEQ_MASK})
    WHERE theirs.packed!=?1 AND (theirs.id&{SEQ_MASK})>coalesce(mine.floor, 0)
"""  # noqa: S608 - numbers
_MISSING: Final = f"{_READABLE} AND (ours.packed IS NULL OR ours.packed=?1)"
_DIFFERENT: Final = f"{_READABLE} AND ours.packed!=?1 AND ours.packed!=theirs.packed"


class _End(NamedTuple):
    """How far a log goes."""

    floor: int
    head: int
    readable: int
    """The last entry that is readable."""


def is_better(path: Path, than: Path) -> bool:
    """Return True if no log is older in one file than in another one, and one is newer.

    Raises:
        StoreError: one of them cannot be read.
    """
    return not _is_behind(path, than) and _is_behind(than, path)


def missing(
    path: Path, other: Path, unpack: Callable[[bytes], Entry]
) -> Iterator[tuple[str, bytes]]:
    """Yield (log, packed) of the readable entries that only the other file has.

    Those that were removed in the first one are left out. If the files have different entries in
    one place, the histories of a log differ, and only one of them can be kept.

    Raises:
        StoreError: one of them cannot be read.
    """
    with _both(path, other) as connection:
        for log, packed, _ in connection.execute(_MISSING, (LOST,)):
            yield str(log), bytes(packed)
        for log, there, _ in connection.execute(_DIFFERENT, (LOST,)):
            if unpack(there).kind != Kind.ERASED:
                yield str(log), bytes(there)


def _is_behind(path: Path, other: Path) -> bool:
    """Return True if a log is older in a file than in the other one."""
    ours, theirs = _ends(path), _ends(other)
    return any(
        mine < one
        for name, end in theirs.items()
        for mine, one in zip(ours.get(name, (-1, -1, -1)), end, strict=True)
    )


def _ends(path: Path) -> dict[str, _End]:
    with _both(path, path) as connection:
        found = rows(connection, _ENDS, (LOST,))
    return {
        name: _End(floor, max(floor, head), max(floor, readable))
        for name, floor, head, readable in found
    }


@contextlib.contextmanager
def _both(path: Path, other: Path) -> Iterator[apsw.Connection]:
    """Open a file, and another one as the schema ``other``. Nobody changes them."""
    try:
        connection = open_still(path)
        try:
            connection.execute("ATTACH ? AS other", (still_uri(other),))
            yield connection
        finally:
            connection.close(True)
    except apsw.Error as error:
        raise translated(error, path) from error
