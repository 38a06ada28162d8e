"""The contents of a partition by log, each with a digest, for comparing two files.

An entry's packed bytes contain its log, epoch, number, time, sender and content, and change only
when its content is erased. The digest of a log covers all of them in order, so equal digests mean
equal histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from relay.store.errors import StoreCorrupt, StoreUnavailable
from relay.store.file.schema import check_format, connect_reader, rows, translated
from relay.store.file.still import open_still
from relay.store.state import SEQ_MASK, row_id

DIGEST_BYTES: Final = 16
ROWS_PER_PAGE: Final = 256
_PAGE: Final = (
    "SELECT id, CAST(packed AS BLOB) FROM entry WHERE id>=? AND id<=? ORDER BY id LIMIT ?"
)


class LogContents(NamedTuple):
    """One log."""

    name: str
    head: int
    """Its last seq."""
    entries: int
    digest: str


class Contents(NamedTuple):
    """All logs of one file or of several."""

    logs: int
    entries: int
    digest: str


def total(logs: Iterable[LogContents]) -> Contents:
    """Return the sum of several logs, whatever their order."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    count = entries = 0
    for log in sorted(logs):
        count += 1
        entries += log.entries
        digest.update(f"{log.name} {log.head} {log.entries} {log.digest}\n".encode())
    return Contents(count, entries, digest.hexdigest())


def contents_of(connection: apsw.Connection) -> Contents:
    """Return the contents of a file as a connection sees it. Raises apsw.Error."""
    return total(logs_of(connection, None))


def connect_still(path: Path) -> apsw.Connection:
    """Open a file that nobody changes, without writing anything to it or beside it.

    Raises:
        StoreError: it cannot be opened, or is no partition.
    """
    if not path.is_file():
        raise StoreUnavailable(f"{path} is missing")
    try:
        connection = open_still(path)
    except apsw.Error as error:
        raise translated(error, path) from error
    try:
        if check_format(connection, path) == 0:
            raise StoreCorrupt(f"{path} is empty")
    except apsw.Error as error:
        connection.close(True)
        raise translated(error, path) from error
    except BaseException:
        connection.close(True)
        raise
    return connection


def logs_of(
    connection: apsw.Connection, upto: Callable[[str], int] | None
) -> Iterator[LogContents]:
    """Yield the logs that a connection sees. Raises apsw.Error.

    ``upto`` returns the seq of the last entry of a log that counts; None: all count.
    """
    for log_id, name, floor in rows(connection, "SELECT id, name, floor FROM log ORDER BY name"):
        last = SEQ_MASK if upto is None else upto(name)
        digest = blake2b(digest_size=DIGEST_BYTES)
        head, entries = floor, 0
        cursor = connection.execute(
            "SELECT id, CAST(packed AS BLOB) FROM entry WHERE id>=? AND id<=? ORDER BY id",
            (row_id(log_id, floor + 1), row_id(log_id, last)),
        )
        for row, packed in cursor:
            head, entries = row & SEQ_MASK, entries + 1
            digest.update(len(packed).to_bytes(4, "big") + packed)
        yield LogContents(name, head, entries, digest.hexdigest())


def packed_entries(
    path: Path, wanted: Callable[[str], bool], log: str | None, *, still: bool
) -> Iterator[bytes]:
    """Yield the packed entries of a file, log by log, in order, reading a few at a time.

    Args:
        path: of a partition.
        wanted: returns True for the names of logs to include.
        log: only this one; None: all.
        still: nobody changes the file, and nothing may be written beside it.

    Raises:
        StoreError: it cannot be read.
    """
    connection = connect_still(path) if still else connect_reader(path)
    if connection is None:
        return
    try:
        names = rows(connection, "SELECT id, name, floor FROM log ORDER BY name")
        for log_id, name, floor in names:
            if not wanted(name) or log not in (None, name):
                continue
            at, end = row_id(log_id, floor + 1), row_id(log_id, SEQ_MASK)
            while page := rows(connection, _PAGE, (at, end, ROWS_PER_PAGE)):
                yield from (packed for _, packed in page)
                at = page[-1][0] + 1
    except apsw.Error as error:
        raise translated(error, path) from error
    finally:
        connection.close(True)
