"""Maintains the search indexes of the partitions that this worker owns, in a thread.

Each tick has a slice of time for one partition after the other. However much has to be indexed
again, most of a core's time remains for messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.server.system.threads import started_pool
from relay.store.search import files
from relay.store.search.follower import Follower
from relay.store.touched import Touched
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.store.file.directory import DataDirectory

SLICE_S: Final = 0.025
"""Of a tick, ten times a second: a quarter of a core at most."""
OVERLOADED_SLICE_S: Final = 0.010
OVERLOADED_TICKS: Final = 5
"""While many connections wait for the worker, only every n-th tick has a slice: they wait whenever
the thread needs the interpreter, which it does every few rows."""
GATHER_S: Final = 1.0
"""Time between two slices of a partition whose index is complete; messages of this time are added
together. A message is found about a second after it was stored."""
GATHER_ACCOUNTS_S: Final = 30.0
"""The same if only accounts have changed, for example by registrations. Nothing of that can be
found, and many small slices take more time than one."""
KEPT_ENTRIES: Final = 32
"""A partition with at least this many entries in its slice keeps its files open, which costs 200
KiB; for fewer they are opened again."""
LOOK_S: Final = 300.0
"""How often all logs are examined: detects removals in logs without new entries."""
log = logging.getLogger("relay.worker")


class Indexing:
    """Maintains the indexes."""

    def __init__(
        self, directory: DataDirectory, loop: asyncio.AbstractEventLoop, *, on: bool
    ) -> None:
        """Create without partitions.

        Args:
            directory: of the partitions.
            loop: of the worker.
            on: False: indexes are removed, not created.
        """
        self._directory = directory
        self._loop = loop
        self._on = on
        # No later than the loop (``others_first``): it would keep the interpreter while others run.
        self._thread = started_pool(1, "relay-index")
        self._followers: dict[int, Follower] = {}
        self._touched: dict[int, Touched] = {}
        self._running: asyncio.Future[None] | None = None
        self._turn = 0
        """The last partition served."""
        self._gathering: dict[int, float] = {}
        """By partition: until when messages accumulate, unless there is more to do."""
        self._gathering_accounts: dict[int, float] = {}
        """The same for changes of accounts."""
        self.short_of_disk: Callable[[], frozenset[int]] = frozenset
        """Returns partitions whose disk is nearly full: nothing is added to their indexes."""
        self.overloaded: Callable[[], bool] = _never
        """Returns whether many connections wait for the worker."""
        self._looked = loop.time()
        self._ticks = 0
        """Ticks since the last slice."""
        self._entries = 0
        """Entries examined by followers that have ended."""

    @property
    def entries(self) -> int:
        """Number of entries examined."""
        return self._entries + sum([one.entries for one in list(self._followers.values())])

    @property
    def behind(self) -> int:
        """Number of partitions whose index is incomplete."""
        return sum([one.behind for one in self._followers.values()])

    def follow(self, index: int) -> Touched:
        """Index a partition from now on. Return where changed logs are recorded."""
        touched = self._touched.setdefault(index, Touched())
        if self._on:
            self._begin(index)
        else:
            self._run(lambda: self._remove(index))
        return touched

    def _begin(self, index: int) -> None:
        if index in self._followers:
            self._followers[index].look()
            return
        self._followers[index] = Follower(
            self._directory.partition_path(index),
            self._directory.search_path(index),
            self._touched[index],
            unpack_entry,
        )

    def forget(self, index: int) -> None:
        """Stop indexing a partition that belongs to another worker now."""
        self._touched.pop(index, None)
        self._gathering.pop(index, None)
        self._gathering_accounts.pop(index, None)
        self._end(index)

    def _end(self, index: int) -> None:
        follower = self._followers.pop(index, None)
        if follower is not None:
            self._entries += follower.entries
            self._run(follower.close)

    def switch(self, *, on: bool) -> None:
        """Begin to maintain indexes, or remove the existing ones."""
        if on == self._on:
            return
        self._on = on
        for index in self._touched:
            if on:
                self._begin(index)
            else:
                self._end(index)
                self._run(lambda index=index: self._remove(index))  # type: ignore[misc]

    def anew(self) -> int:
        """Rebuild all indexes of owned partitions; return how many."""
        for follower in self._followers.values():
            self._run(follower.anew)
        return len(self._followers)

    def tick(self) -> None:
        """Start the next slice if the previous one has ended. Called ten times a second."""
        if self._running is not None and not self._running.done():
            return
        if not self._on:
            for touched in self._touched.values():
                touched.clear()
            return
        now = self._loop.time()
        if now >= self._looked + LOOK_S:
            self._looked = now
            for one in self._followers.values():
                one.look()
        self._ticks += 1
        overloaded = self.overloaded()
        if overloaded and self._ticks < OVERLOADED_TICKS:
            return
        short = self.short_of_disk()
        due = [
            index
            for index, one in self._followers.items()
            if index not in short and (one.unfinished or self._gathered(index, now))
        ]
        if due:
            before = self._followers.get(self._turn)
            self._turn = min(due, key=lambda index: (index <= self._turn, index))
            follower = self._followers[self._turn]
            slice_s = OVERLOADED_SLICE_S if overloaded else SLICE_S
            self._gathering[self._turn] = now + GATHER_S
            self._gathering_accounts[self._turn] = now + GATHER_ACCOUNTS_S
            self._ticks = 0
            self._running = self._run(lambda: _run(before, follower, slice_s))

    def _gathered(self, index: int, now: float) -> bool:
        """Return whether a partition has changed logs that have waited long enough."""
        touched = self._touched[index]
        if touched.soon and now >= self._gathering.get(index, 0.0):
            return True
        return bool(touched.later) and now >= self._gathering_accounts.get(index, 0.0)

    def _remove(self, index: int) -> None:
        try:
            files.remove(self._directory.search_path(index))
        except OSError as error:
            path = self._directory.search_path(index)
            log.warning("search_index_stays", extra={"path": str(path), "reason": str(error)})

    def _run(self, work: Callable[[], None]) -> asyncio.Future[None]:
        future = self._loop.run_in_executor(self._thread, work)
        future.add_done_callback(_report)
        return future

    def close(self) -> None:
        """Wait for the running slice, and close the files."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for follower in self._followers.values():
            follower.close()


def _never() -> bool:
    return False


def _run(before: Follower | None, follower: Follower, slice_s: float) -> None:
    if before is not None and before is not follower:
        if before.slice_entries >= KEPT_ENTRIES:
            before.release_memory()
        else:
            before.close()
    follower.run(slice_s)


def _report(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("search_index_failed", exc_info=error)
