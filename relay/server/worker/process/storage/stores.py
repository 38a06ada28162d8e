"""The partition files of one worker: a writer for those it owns, and a reader for each."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from relay.chat.partition import partition_of
from relay.server.system.threads import started_pool
from relay.server.worker.home.rooms.rules import RoomRules
from relay.server.worker.process.storage.indexing import Indexing
from relay.server.worker.process.storage.searches import Searches
from relay.store.errors import StoreCorrupt, StoreError
from relay.store.file.checkpoint import Checkpointer
from relay.store.file.created import note_created
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.file.lock import PartitionLock
from relay.store.log import Partition, Reader
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import pack_entry, unpack_entry

if TYPE_CHECKING:
    from relay.server.context import WorkerContext

T = TypeVar("T")
THREADS: Final = 4
"""For checkpoints, and for commits that wait for the disk."""


class Stores:
    """Opens partitions and readers, and runs the checkpoints of open partitions."""

    def __init__(self, context: WorkerContext, loop: asyncio.AbstractEventLoop) -> None:
        """Create without partitions. Raises StartError: the system allows no more threads."""
        self._directory = DataDirectory(context.data)
        self._host = Host(context.boot_id, secrets.token_bytes)
        self._durability = context.live.current.store.durability
        self.rules = RoomRules(anyone_creates=context.live.current.rooms.create == "anyone")
        self.judges = True
        """False: anybody may append, and rooms need no entry of their own."""
        self._loop = loop
        self._threads = started_pool(THREADS, "relay-store")
        self._ahead: dict[int, SqlitePartition | BaseException] = {}
        """Partitions opened ahead, until ``open_partition`` is called for each."""
        self._checkpointers: dict[int, Checkpointer] = {}
        self._running: dict[Checkpointer, asyncio.Task[None]] = {}
        """Running checkpoints, from ``tick`` on; a task begins only in the loop's next iteration.
        """
        self._readers: dict[int, SqliteReader] = {}
        self._closing: set[asyncio.Future[None]] = set()
        row, search = context.scoreboard.row(context.index), context.live.current.store.search
        self.indexing = Indexing(self._directory, loop, on=search)
        self.searches = Searches(
            self._directory.search_path, loop, row.observer("search_ns"), on=search
        )
        self._observe_checkpoint_ns = context.scoreboard.row(context.index).observer(
            "checkpoint_ns"
        )

    async def open_ahead(self, indexes: Sequence[int]) -> None:
        """Open partitions in the threads: they wait for the disk, and not one after the other."""
        work = [self.run_in_thread(partial(self._opened, index)) for index in indexes]
        results = await asyncio.gather(*work, return_exceptions=True)
        self._ahead = dict(zip(indexes, results, strict=True))

    def close_ahead(self) -> None:
        """Close those that were not wanted any more."""
        for partition in self._ahead.values():
            if isinstance(partition, SqlitePartition):
                self.close_partition(partition)
        self._ahead.clear()

    def open_partition(self, index: int) -> SqlitePartition:
        """Open a partition for writing. Raises StoreError."""
        found = self._ahead.pop(index, None)
        if isinstance(found, BaseException):
            raise found
        partition = self._opened(index) if found is None else found
        note_created(self._directory.lock_path(index).parent)
        self._checkpointers[index] = Checkpointer(partition, self.run_in_thread)
        partition.touched = self.indexing.follow(index)
        return partition

    def _opened(self, index: int) -> SqlitePartition:
        path, lock_path = self._directory.partition_path(index), self._directory.lock_path(index)
        try:
            return SqlitePartition(
                path,
                lock_path,
                host=self._host,
                durability=self._durability,
                pack=pack_entry,
                unpack_entry=unpack_entry,
                rules=self.rules if self.judges else None,
            )
        except StoreCorrupt as error:
            # Otherwise the next one to open it would not see all that is wrong with it.
            with contextlib.suppress(StoreError), PartitionLock(lock_path, path) as lock:
                lock.refuse(str(error))
            raise

    def close_partition(self, partition: Partition) -> None:
        """Close a partition that another worker owns now. In a thread: it waits for the disk."""
        self._end(partition, partition.close)

    def refuse_partition(self, partition: Partition, reason: str) -> None:
        """Close a partition whose file is damaged, in a thread."""
        self._end(partition, partial(partition.refuse, reason))

    def _end(self, partition: Partition, end: Callable[[], None]) -> None:
        for index, checkpointer in list(self._checkpointers.items()):
            if checkpointer.of(partition):
                del self._checkpointers[index]
                self.indexing.forget(index)
        closing = self.run_in_thread(end)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def reader_of(self, log: str) -> Reader:
        """Return the reader of a log's partition."""
        return self.reader_at(partition_of(log))

    def reader_at(self, index: int) -> Reader:
        """Return the reader of a partition."""
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = SqliteReader(self._directory.partition_path(index))
        return reader

    def path_of(self, index: int) -> Path:
        """Return the file of a partition."""
        return self._directory.partition_path(index)

    def tick(self) -> None:
        """Start the checkpoints that are due. Called every fraction of a second."""
        now = time.monotonic()
        for checkpointer in self._checkpointers.values():
            if checkpointer.due(now) and checkpointer not in self._running:
                # already now: a turn before the task begins may close partitions
                checkpointer.begins()
                task = self._loop.create_task(self._checkpoint(checkpointer))
                self._running[checkpointer] = task
                task.add_done_callback(partial(self._ended, checkpointer))
        self.indexing.tick()

    def search(self, *, on: bool) -> None:
        """Maintain search indexes, or none."""
        self.searches.on = on
        self.indexing.switch(on=on)

    async def _checkpoint(self, checkpointer: Checkpointer) -> None:
        began_ns = time.monotonic_ns()
        await checkpointer.run()
        self._observe_checkpoint_ns(time.monotonic_ns() - began_ns)

    def _ended(self, checkpointer: Checkpointer, _: asyncio.Task[None]) -> None:
        checkpointer.ended()
        del self._running[checkpointer]

    async def settle(self) -> None:
        """Wait for the running checkpoints; after that, partitions may be closed."""
        while self._running:
            await asyncio.wait(self._running.values())
        if self._closing:
            await asyncio.wait(self._closing)

    def run_in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run something that waits for the disk, without blocking the loop."""
        return self._loop.run_in_executor(self._threads, work)

    def close(self) -> None:
        """Wait for the threads, and close the readers. The home closes its partitions."""
        self._threads.shutdown(wait=True)
        self.searches.close()
        self.indexing.close()
        for reader in self._readers.values():
            reader.close()
