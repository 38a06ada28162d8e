"""Creates the file of a partition, with its tables: complete, or not at all.

SQLite would create each table by parsing its statement, and switch to a write-ahead log by a
transaction with a rollback journal: five waits for the disk and a file that is deleted again. All
new files are the same, so the bytes are computed once, in memory. The file gets its name when they
are on the disk, and the name is on the disk before the file has a WAL. So at no moment does a power
failure leave a part of a file, or a WAL without its file.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

import apsw

from relay.fsync import sync_directory, sync_file
from relay.paths import followed
from relay.refused_files import NO_SPACE, no_space, refused
from relay.store.errors import StoreFull, StoreUnavailable
from relay.store.file.creations import note_creations
from relay.store.file.schema import create_tables

FILE_MODE: Final = 0o600
_VERSIONS: Final = slice(18, 20)
"""File format, section 1.3.3 (https://www.sqlite.org/fileformat2.html): 2 for readers and writers
stands for a write-ahead log."""
_WAL: Final = b"\2\2"


def create_file(path: Path) -> None:
    """Create a partition's file, in place of none or of an empty one.

    The caller holds the partition's lock. If ``path`` is a link, its target is created.

    Raises:
        StoreFull: there is no space for it.
        StoreUnavailable: it cannot be created.
    """
    target = followed(path)
    partial = target.with_name(f"{target.name}.new")  # one of a dead process is replaced
    try:
        fd = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE
        )
        with os.fdopen(fd, "wb", buffering=0) as file:
            rest = memoryview(_image())
            while rest:
                rest = rest[file.write(rest) :]
            sync_file(fd, target, os.fdatasync)
        partial.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        _raise(path, error)


def _raise(path: Path, error: OSError) -> NoReturn:
    if error.errno in NO_SPACE:
        raise StoreFull(no_space(path)) from error
    raise StoreUnavailable(refused(path, error)) from error


@cache
def _image() -> bytes:
    """Return the bytes of a new file."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute("BEGIN")
        create_tables(connection, _unpack_none)
        note_creations(connection, _unpack_none)
        connection.execute("COMMIT")
        image = bytearray(connection.serialize("main"))
    finally:
        connection.close(True)
    image[_VERSIONS] = _WAL
    return bytes(image)


def _unpack_none(_: bytes) -> NoReturn:
    raise AssertionError("a new file has no entries")
