"""Checks whether a WAL is the one that continues the file beside it.

SQLite trusts any WAL that it finds: the frames of an older one, or of another file, replace pages
of the file without any check. A copy that was taken while the server ran, or that was assembled
from two backups, is such a pair.

So each WAL has an id, written by its first commit (``start_wal``), with the *mark* of the file that
it continues. A mark is the id of the last WAL that was copied to the file, and a step that
increases with each checkpoint (``next_step``). The row is stored in the pages themselves: the file
alone shows which WAL it contains, and the file seen through the WAL shows which file that WAL
needs.

A WAL without a commit belongs to any file, because it has no effect: it was just being started
over. SQLite writes its header, waits for the disk, and only then writes frames; until then the file
alone contains everything. A copy of exactly that moment cannot be distinguished from an older file
without a WAL: an intact one is opened, with new epochs.

After the death of a process, SQLite's own index of the WAL still shows how long the WAL was
(``wal_index``): a shorter one has lost commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple, Self

import apsw

from relay.store.file.companions import wal_path
from relay.store.file.generation import read_meta, write_meta
from relay.store.file.still import open_still

KEY: Final = "wal"
ID_BYTES: Final = 8
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


class Mark(NamedTuple):
    """A moment in the history of a file: a checkpoint of a WAL."""

    wal: str
    step: int


class WalRow(NamedTuple):
    """The content of the row: the current mark, and the file's mark when this WAL began."""

    mark: Mark
    continues: Mark | None

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Parse the row's value; None if there is none, as in files of older versions.

        Raises:
            ValueError: it is invalid.
        """
        if text is None:
            return None
        wal, step, *before = str(text).split()
        continues = None
        if before:
            before_wal, before_step = before
            continues = Mark(before_wal, int(before_step))
        return cls(Mark(wal, int(step)), continues)

    def __str__(self) -> str:
        """Return the row's value."""
        return " ".join(map(str, (*self.mark, *(self.continues or ()))))


def read_row(connection: apsw.Connection) -> WalRow | None:
    """Return the row as this connection sees it.

    Raises:
        ValueError: it is invalid.
    """
    return WalRow.parse(read_meta(connection).get(KEY))


def read_row_of_file(path: Path) -> WalRow | None:
    """Return the row of the file alone, without its WAL.

    Raises:
        ValueError: it is invalid.
        apsw.Error: it cannot be read.
    """
    connection = open_still(path)
    try:
        # The tables of a new file are in the WAL.
        tables = connection.execute("SELECT 1 FROM sqlite_schema WHERE name='meta'").fetchall()
        return read_row(connection) if tables else None
    finally:
        connection.close(True)


def fits(file: WalRow | None, view: WalRow | None) -> bool:
    """Return True if a file and its WAL belong together.

    Args:
        file: the row of the file alone.
        view: the row of the file seen through its WAL.
    """
    if view is None or file is None:
        return file is None and (view is None or view.continues is None)
    if file.mark.wal == view.mark.wal:
        return file.mark.step <= view.mark.step
    return file.mark == view.continues


def start_wal(connection: apsw.Connection, wal: str, copied: WalRow | None) -> None:
    """Record that the WAL beginning with this commit has the id ``wal``.

    ``copied`` is the row of the file. Nothing is recorded if the row has changed: then the file is
    not what the next WAL continues.
    """
    if read_row(connection) == copied:
        write_meta(connection, **{KEY: str(WalRow(Mark(wal, 0), copied and copied.mark))})


def next_step(connection: apsw.Connection) -> WalRow | None:
    """Record that this commit ends with a checkpoint. Returns the resulting row."""
    row = read_row(connection)
    if row is None:
        return None
    row = WalRow(Mark(row.mark.wal, row.mark.step + 1), row.continues)
    write_meta(connection, **{KEY: str(row)})
    return row


def wal_salts(path: Path) -> bytes:
    """Return the salts in the WAL's header, which identify it; empty if there is no WAL."""
    try:
        with wal_path(path).open("rb") as file:
            header = file.read(_WAL_HEADER_BYTES)
    except OSError:
        return b""
    return header[16:24]


def frame_salts(path: Path, number: int) -> bytes:
    """Return the salts of a frame of the WAL, numbered from 1; empty if it does not exist.

    They equal the WAL's own unless the frame was left by an earlier WAL, or its bytes are lost.
    """
    try:
        with wal_path(path).open("rb") as file:
            header = file.read(_WAL_HEADER_BYTES)
            frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
            file.seek(_WAL_HEADER_BYTES + (number - 1) * frame_bytes)
            frame = file.read(frame_bytes)
    except OSError:
        return b""
    return frame[8:16] if len(frame) == frame_bytes else b""
