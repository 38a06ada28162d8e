"""Keeps a partition's WAL short without blocking the loop: a checkpoint in two phases.

A checkpoint in a thread alone does not bound the WAL: while commits continue it never catches up
with them, so the WAL never starts over (measured: 502 MB in 3 s). So most of it is copied in a
thread while commits continue. Then commits are held (the loop runs, messages queue) while the rest
is copied and no reader is inside the WAL. The next commit starts the WAL over.

This module does not depend on an event loop: ``run`` only awaits what ``run_in_thread`` returns.

Erased content is still in old frames of the WAL, even after the WAL has started over. So some time
after an erasure there is a checkpoint that leaves no frame.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

import apsw

from relay.refused_files import refused
from relay.store.errors import StoreError, StoreUnavailable
from relay.store.file import pairing
from relay.store.file.schema import connect_writer, pragma, rows, translated
from relay.store.file.scrub import WalPages, overwrite, pages_of, sync

PAGE_BYTES: Final = 4096
WAL_PAGES_MAX: Final = 8 * 1024 * 1024 // PAGE_BYTES
"""When a checkpoint begins: often enough that each is short, rarely enough that a page of the file
is rewritten once for many commits."""
RETRY_PAGES: Final = WAL_PAGES_MAX // 4
"""Growth of the WAL after a failed checkpoint before the next attempt."""
READERS_WAIT_MS: Final = 20
"""How long commits are held, at most, for a reader inside the WAL. Our reads take less than 1 ms.
"""
REST_PAGES_MAX: Final = 64
"""If more than this cannot be copied while commits continue, there is a long reader, such as a
backup. Commits are then not held, because the WAL could not start over anyway. A page being read
blocks only what was committed in the last millisecond."""
COPIES_MAX: Final = 3
"""Number of attempts: a reader that had lost the CPU will have finished."""
PAGES_PER_CLEANING: Final = 4096
"""Pages per step when all pages of a file are examined: 16 MiB, about 10 ms of a thread."""
FORGET_S: Final = 30.0
"""How long erased content stays in the WAL, and the delay before the next attempt if that fails."""
log = logging.getLogger("relay.store")

Result = TypeVar("Result")


class RunInThread(Protocol):
    """Runs a function in a thread."""

    def __call__(self, work: Callable[[], Result], /) -> Awaitable[Result]:
        """Return what the function returns, or raise what it raises."""


class Progress(NamedTuple):
    """Pages of the WAL, and how many of them are copied to the file."""

    wal: int
    copied: int

    @property
    def rest(self) -> int:
        """Pages not copied yet."""
        return self.wal - self.copied

    @property
    def complete(self) -> bool:
        """True if the WAL can start over."""
        return self.wal == self.copied >= 0


NOTHING_COPIED: Final = Progress(-1, -1)


class Checkpointed(Protocol):
    """A partition that can be checkpointed."""

    path: Path
    commits_blocked: bool
    """Set here while no commit may begin."""
    checkpointing: bool
    """Set here while a checkpoint runs: the partition must not be closed."""
    wal_pages: int
    """Updated by the partition's commits."""
    erased: bool
    """Set by commits when the WAL may contain erased content; cleared here."""

    @property
    def unflushed(self) -> bool:
        """Return True if ``flush`` has something to do."""

    def flush(self) -> None:
        """Commit what commits have deferred; no other commit begins meanwhile.

        Raises StoreError.
        """

    def checkpoint_begins(self) -> bool:
        """The file is about to change. Return True if all its pages must be cleaned."""

    def checkpoint_ended(self, *, all_cleaned: bool = False) -> None:
        """The file no longer changes."""

    def checkpoint_failed(self, reason: str) -> None:
        """The disk failed: data written to the WAL may not have reached it."""


class Checkpointer:
    """Checkpoints one partition, whenever its owner finds it ``due`` after a commit."""

    def __init__(
        self,
        partition: Checkpointed,
        run_in_thread: RunInThread,
        *,
        wal_pages_max: int = WAL_PAGES_MAX,
    ) -> None:
        self._partition = partition
        self._run_in_thread = run_in_thread
        self._wal_pages_max = wal_pages_max
        self._begin_at = wal_pages_max
        self.running = False
        self._forget_at: float | None = None
        self._pages = WalPages()
        """Pages that were or will be copied, and must then be cleaned."""
        self.completed = 0
        """Checkpoints after which the WAL could start over."""
        self.incomplete = 0
        """Checkpoints after which it could not: a foreign reader, or an error. Each is logged."""

    def of(self, partition: object) -> bool:
        """Return True if this object checkpoints the partition."""
        return partition is self._partition

    def due(self, now: float) -> bool:
        """Return True if the WAL is long, or has contained erased content for long.

        Not while ``run`` is in progress. ``now``: monotonic seconds.
        """
        if self.running:
            return False
        if self._partition.erased:
            if self._forget_at is None:
                self._forget_at = now + FORGET_S
            elif now >= self._forget_at:
                self._forget_at = None
                return True
        return self._partition.wal_pages >= self._begin_at

    def begins(self) -> None:
        """Prepare for ``run``: the partition must not be closed from now on."""
        self._partition.checkpointing = True

    def ended(self) -> None:
        """Note that ``run`` has finished or was not called."""
        self._partition.checkpointing = False

    async def run(self) -> None:
        """Do one checkpoint. When it returns, blocked commits may continue.

        Never raises for a failure of the store: a failed checkpoint is logged and repeated later;
        no message depends on it.
        """
        assert not self.running
        partition = self._partition
        path = partition.path
        erased, partition.erased = partition.erased, False  # of what is committed from now on
        self.running = partition.checkpointing = True
        problem = "a reader stays in the WAL: another program has the file open"
        progress = NOTHING_COPIED
        try:
            if partition.unflushed:
                partition.commits_blocked = True
                await self._run_in_thread(partition.flush)
                partition.commits_blocked = False
            all_pages = partition.checkpoint_begins()
            pages = self._pages  # filled before the next commit, which may start the WAL over
            await self._run_in_thread(lambda: copy_and_sync(path, pages))
            for _ in range(COPIES_MAX):
                copied = await self._run_in_thread(lambda: copy_pages(path, pages))
                if copied.rest <= REST_PAGES_MAX:
                    break
            if copied.rest <= REST_PAGES_MAX:
                partition.commits_blocked = True
                progress = await self._run_in_thread(lambda: finish(path, pages, truncate=erased))
                if progress.complete:
                    partition.wal_pages = 0  # the next commit starts it over
                    partition.commits_blocked = False
                    to_clean = pages.take()
                    parts = all_pages_of(path) if all_pages else [to_clean]
                    try:
                        for part in parts:  # one thread call each: commits need threads meanwhile
                            await self._run_in_thread(partial(clean, path, part))
                    except BaseException:
                        pages.found |= to_clean
                        raise
            else:
                problem = "a long read is in progress, such as a backup"
            partition.checkpoint_ended(all_cleaned=all_pages and progress.complete)
        except StoreError as error:
            problem, progress = str(error), NOTHING_COPIED
            if isinstance(error.__cause__, apsw.IOError):
                partition.checkpoint_failed(problem)
        finally:
            partition.commits_blocked = False
            self.running = partition.checkpointing = False
        if progress.complete:
            self.completed += 1
            self._begin_at = self._wal_pages_max
        else:
            partition.erased = partition.erased or erased
            self.incomplete += 1
            self._begin_at = partition.wal_pages + RETRY_PAGES
            log.warning(
                "checkpoint_incomplete",
                extra={
                    "path": str(partition.path),
                    "reason": problem,
                    "wal_pages": partition.wal_pages,
                },
            )


def copy_pages(path: Path, pages: WalPages | None = None) -> Progress:
    """Copy the WAL's content to the file, as far as readers allow, while commits continue.

    Args:
        path: of the partition.
        pages: receives the pages to clean when everything is copied.

    Raises:
        StoreError: the file cannot be read or written.
    """
    with _connected(path) as connection:
        connection.set_busy_timeout(READERS_WAIT_MS)
        try:
            progress = Progress(*connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE))
        except apsw.BusyError:
            return NOTHING_COPIED
        look(connection, path, pages or WalPages())
        return progress


def copy_and_sync(path: Path, pages: WalPages) -> None:
    """Copy the WAL's content and wait for the disk, while commits continue.

    A copy beside commits leaves this to the last copy, for which commits are held.

    Raises:
        StoreError: the file cannot be read or written.
    """
    copy_pages(path, pages)
    try:
        sync(path)
    except apsw.Error as error:
        raise translated(error, path) from error


def finish(path: Path, pages: WalPages | None = None, *, truncate: bool = False) -> Progress:
    """Copy the rest, wait for readers inside the WAL, and start it over.

    The caller holds commits. The last commit in the WAL and the first one in the next record that
    they belong together (``pairing``).

    Args:
        path: of the partition.
        pages: receives the pages that were in the WAL, for ``clean``.
        truncate: leave no frame of it.

    Raises:
        StoreError: the file cannot be read or written.
    """
    mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_RESTART
    with _connected(path) as connection:
        # The checkpoint itself makes the first of the two commits durable; the second need not be.
        pragma(connection, "synchronous=NORMAL")
        row = _commit(connection, pairing.next_step)
        look(connection, path, pages or WalPages())
        connection.set_busy_timeout(READERS_WAIT_MS)
        try:
            progress = Progress(*connection.wal_checkpoint(mode=mode))
        except apsw.BusyError:
            return NOTHING_COPIED
        if progress.complete:
            next_id = secrets.token_hex(pairing.ID_BYTES)
            _commit(connection, lambda connection: pairing.start_wal(connection, next_id, row))
        return progress


def all_pages_of(path: Path) -> Iterator[range]:
    """Yield the numbers of all pages of a file in ranges: each is one unit of work.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        count = pages_of(path)
    except apsw.Error as error:
        raise translated(error, path) from error
    for first in range(1, count + 1, PAGES_PER_CLEANING):
        yield range(first, min(first + PAGES_PER_CLEANING, count + 1))


def clean(path: Path, pages: Collection[int]) -> None:
    """Overwrite old content in the unused parts of copied pages (``scrub``).

    No other checkpoint of the file may run meanwhile.

    Raises:
        StoreError: the file cannot be read or written.
    """
    try:
        if pages:
            overwrite(path, pages)
    except apsw.Error as error:
        raise translated(error, path) from error


def look(connection: apsw.Connection, path: Path, pages: WalPages) -> None:
    """Determine which pages are in the WAL. Raises apsw.Error, OSError."""
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    pages.look(path, frames)


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[apsw.Connection]:
    connection = connect_writer(path)
    try:
        # A connection that has read nothing yet does not know the WAL, and silently does nothing.
        rows(connection, "SELECT count(*) FROM meta")
        yield connection
    except apsw.Error as error:
        raise translated(error, path) from error
    except OSError as error:
        raise StoreUnavailable(refused(path, error)) from error
    finally:
        connection.close(True)


def _commit(connection: apsw.Connection, change: Callable[[apsw.Connection], Result]) -> Result:
    connection.execute("BEGIN IMMEDIATE")
    result = change(connection)
    connection.execute("COMMIT")
    return result
