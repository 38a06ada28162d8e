"""A partition's file as of one moment, for copying it while its writer continues.

A snapshot is a read transaction: commits continue beside it. Only the write-ahead log cannot start
over while it lasts (``checkpoint`` then holds no commits and waits for its end).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import apsw

from relay.fsync import sync_directory, sync_file
from relay.refused_files import refused
from relay.store.errors import StoreUnavailable
from relay.store.file.schema import connect_reader, pragma, rows, translated

PAGES_PER_STEP: Final = 1024
"""Pages of 4 KiB to copy between two checks whether to continue."""
FILE_MODE: Final = 0o600


class Snapshot:
    """A snapshot of one file. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open the file; ``take`` fixes the moment.

        Raises:
            StoreError: it cannot be opened, or there is none.
        """
        self._path = path
        connection = connect_reader(path)
        if connection is None:
            raise StoreUnavailable(f"{path} is missing or empty")
        self._connection = connection

    def take(self) -> None:
        """Fix the moment to now. An earlier snapshot is released.

        Raises:
            StoreError: the file cannot be read.
        """
        self.drop()
        try:
            self._connection.execute("BEGIN")
            # the first read begins the transaction
            rows(self._connection, "SELECT 1 FROM meta LIMIT 1")
        except apsw.Error as error:
            raise translated(error, self._path) from error

    def drop(self) -> None:
        """Release the snapshot: the write-ahead log may start over."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def copy(self, to: Path) -> None:
        """Write the file as of that moment, durably; then release the snapshot.

        Args:
            to: a file that does not exist yet.

        Raises:
            StoreError: it cannot be read or written.
        """
        try:
            target = apsw.Connection(str(to))
            try:
                to.chmod(FILE_MODE)
                # An unfinished copy is deleted, so it needs no journal.
                pragma(target, "journal_mode=OFF")
                pragma(target, "synchronous=OFF")
                with target.backup("main", self._connection, "main") as copying:
                    while not copying.done:
                        copying.step(PAGES_PER_STEP)
            finally:
                target.close(True)
            sync_with_name(to)
        except apsw.Error as error:
            raise translated(error, to) from error
        except OSError as error:
            raise StoreUnavailable(refused(to, error)) from error
        finally:
            self.drop()

    def close(self) -> None:
        """Close the file."""
        self._connection.close(True)


def sync_with_name(path: Path) -> None:
    """Wait until a file and its name are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(fd, path)
    finally:
        os.close(fd)
    sync_directory(path.parent)
