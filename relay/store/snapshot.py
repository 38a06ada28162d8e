"""A partition's file as it was at one moment, to be copied while its writer goes on.

A snapshot is a read transaction: commits go on beside it. Only the write-ahead log cannot start
over while it lasts (``checkpoint`` then holds no commit and waits for its end).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import apsw

from relay.fsync import sync_directory
from relay.store.errors import StoreUnavailable
from relay.store.schema import connect_reader, pragma, rows, translated

PAGES_PER_STEP: Final = 1024
"""Pages of 4 KiB copied between two looks at whether to go on."""
FILE_MODE: Final = 0o600


class Snapshot:
    """See the module's docstring. Not for two threads at a time."""

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
        """Fix the moment: now. A moment that was fixed before is given up.

        Raises:
            StoreError: the file cannot be read.
        """
        self.drop()
        try:
            self._connection.execute("BEGIN")
            rows(self._connection, "SELECT 1 FROM meta LIMIT 1")  # the first read begins it
        except apsw.Error as error:
            raise translated(error, self._path) from error

    def drop(self) -> None:
        """Give the moment up: the write-ahead log may start over."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def copy(self, to: Path) -> None:
        """Write the file as it was at the moment, durably; then give the moment up.

        Args:
            to: a file that does not exist yet.

        Raises:
            StoreError: it cannot be read or written.
        """
        try:
            target = apsw.Connection(str(to))
            try:
                to.chmod(FILE_MODE)
                # A copy that is not finished is thrown away: it needs no way back.
                pragma(target, "journal_mode=OFF")
                pragma(target, "synchronous=OFF")
                with target.backup("main", self._connection, "main") as copying:
                    while not copying.done:
                        copying.step(PAGES_PER_STEP)
            finally:
                target.close(True)
            sync_file(to)
        except apsw.Error as error:
            raise translated(error, to) from error
        except OSError as error:
            raise StoreUnavailable(f"{to}: {error.strerror}") from error
        finally:
            self.drop()

    def close(self) -> None:
        """Close the file."""
        self._connection.close(True)


def sync_file(path: Path) -> None:
    """Wait until a file and its name are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)
