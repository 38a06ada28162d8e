"""The file of one partition, open for writing: its lock, its opening and closing, its errors.

After any error except a full disk the connection and all cached state are dropped, and rebuilt from
the file (invariant "Disk errors").
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import apsw

from relay.fsync import sync_directory
from relay.store.errors import StoreError, StoreFull, StoreUnavailable
from relay.store.file.closing import close_cleanly
from relay.store.file.companions import wal_bytes
from relay.store.file.generation import Durability, Host
from relay.store.file.lock import PartitionLock
from relay.store.file.opening import Check, open_again, open_first
from relay.store.file.schema import check_sqlite, closed_on_error, is_full, translated
from relay.store.opened import FileIdentity, Opened, Write
from relay.store.view import UnpackEntry

log = logging.getLogger("relay.store")


class PartitionFile:
    """The file of one partition, with what a checkpoint of it needs (``checkpoint.Checkpointed``).

    It is used by one thread at a time: see ``_one_user``.
    """

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        host: Host,
        durability: Durability,
        unpack_entry: UnpackEntry,
        write: Write | None,
        check: Check,
    ) -> None:
        """Take the partition's lock and open its file. See ``SqlitePartition``."""
        check_sqlite()
        self.path = path
        self.commits_blocked = self.checkpointing = self.erased = False
        self.wal_pages = 0
        self._host = host
        self._durability: Durability = durability
        self._unpack_entry = unpack_entry
        self._write = write
        self._check = check
        self._doubt: str | None = None
        """Why the file must be checked when it is opened again; None: it need not be."""
        self._suspected: str | None = None
        """Why the file must be reopened before the next commit; None: it need not be."""
        self._opened: Opened | None = None
        self._opening = 0
        """How often the file has been opened: also in the lock's note."""
        self._one_user = threading.Lock()
        self._lock = PartitionLock(lock_path, path)
        self._identity = FileIdentity(path)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    # --- opening and closing --------------------------------------------------------------------
    def _open(self) -> Opened:
        if self._opened is None:
            erased = self._lock.uncleaned or wal_bytes(self.path) > 0  # left by its last writer
            if self._opening == 0:
                connection, begun = open_first(
                    self.path, self._lock, self._host, self._durability, self._check
                )
            else:
                if self._doubt is not None and self.checkpointing:
                    # It may be overwriting parts of pages (``clean``); this writes whole ones.
                    raise StoreUnavailable(f"{self.path}: {self._doubt}; a checkpoint goes on")
                connection, begun = open_again(
                    self.path, self._lock, self._host, self._durability, self._doubt, self._check
                )
            with closed_on_error(connection, self.path):
                self.wal_pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
                self.erased = erased
                connection.set_wal_hook(self._wal_grew)
                opened = Opened(connection, begun.generation, self._unpack_entry, self._write)
                # In any case: the process that created it may have died before its sync.
                sync_directory(self.path.parent)
                self._lock.note(self.path, begun.opening, "open")
            self._opened, self._opening, self._doubt = opened, begun.opening, None
            self._identity.opened()
        return self._opened

    def _open_to_commit(self) -> Opened:
        if self._suspected is not None:
            self._doubt, self._suspected = self._suspected, None
            self._drop()
        return self._open()

    def close(self) -> None:
        """Mark the partition clean, copy its WAL into the file, and release the lock."""
        with self._one_user:
            opened, self._opened = self._opened, None
            try:
                if opened is not None:
                    close_cleanly(
                        opened.connection, self.path, self._lock, self._opening, opened.write_rest
                    )
            except (apsw.Error, OSError, StoreError) as error:
                self._close_failed(error)  # it stays unclean: the next start then checks it
            finally:
                if opened is not None:
                    opened.connection.close(True)
                self._lock.close()

    def refuse(self, reason: str) -> None:
        """See ``log.Partition``."""
        with self._one_user:
            self._drop()
            try:
                self._lock.refuse(reason)
            except StoreError as error:  # it is not closed cleanly in any case
                self._close_failed(error)
            self._lock.close()

    def _close_failed(self, error: Exception) -> None:
        log.warning("partition_close_failed", extra={"path": str(self.path), "reason": str(error)})

    def _failed(self, error: apsw.Error) -> StoreError:
        """Roll back (full disk), or drop everything (other errors): invariant "Disk errors"."""
        opened = self._opened
        full = is_full(error, None if opened is None else opened.connection)
        if full and opened is not None:
            try:
                opened.roll_back(self._durability)
            except apsw.Error:
                self._drop()
        else:
            if isinstance(error, apsw.IOError):
                # Unwritten pages may still be lost: nothing written after them may appear to
                # continue what readers saw.
                self._doubt = f"an error of the disk ({error})"
            self._drop()
        return translated(error, self.path, full=full)

    def _give_up(self, error: BaseException) -> None:
        if isinstance(error, apsw.Error):
            raise self._failed(error) from error
        self._drop()

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.close(True)

    # --- for the checkpointer -------------------------------------------------------------------
    @property
    def unflushed(self) -> bool:
        """Return True if the ends of some producers are only in entries."""
        opened = self._opened
        return opened is not None and opened.unflushed.entries > 0

    def flush(self) -> None:
        """Write the ends of producers missing in their table, in a separate commit.

        Raises:
            StoreError: they cannot be written. For lack of space they are skipped.
        """
        with self._one_user:
            opened = self._opened
            if opened is None or self._suspected is not None:
                return
            try:
                opened.flush()
            except apsw.Error as error:
                if not isinstance(failed := self._failed(error), StoreFull):
                    raise failed from error

    def checkpoint_begins(self) -> bool:
        """Note that the file is about to change; see ``Checkpointed``."""
        self._lock.note(self.path, self._opening, "changing")
        return self._lock.uncleaned

    def checkpoint_ended(self, *, all_cleaned: bool = False) -> None:
        """Record the file's current state."""
        self._lock.uncleaned = self._lock.uncleaned and not all_cleaned
        self._lock.note(self.path, self._opening, "open")

    def checkpoint_failed(self, reason: str) -> None:
        """Reopen the file before the next commit: invariant "Disk errors"."""
        self._lock.uncleaned = True  # what was not cleaned may be forgotten by then
        self._suspected = f"an error of the disk ({reason})"

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK
