"""Maintains the search indexes of the partitions that this worker owns, in a thread.

A slice of time in each tick, for one partition after the other: however much there is to be read
anew, a core has most of its time for messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from relay.store.search import files
from relay.store.search.follower import Follower
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.store.directory import DataDirectory

SLICE_S: Final = 0.025
"""Of a tick, which come ten times a second: a quarter of a core at most."""
CROWDED_SLICE_S: Final = 0.010
CROWDED_TICKS: Final = 5
"""Likewise while many wait for the worker, of so many ticks in one: each time that the thread needs
the interpreter, and it does for each few rows, they wait for it."""
GATHER_S: Final = 1.0
"""From a partition's slice to the next, once all of it is in the index: what comes meanwhile goes
in as one. A message is found about a second after it was stored."""
KEPT_ENTRIES: Final = 32
"""Whoever had so many in its slice keeps its files open until the next, which costs 200 KiB: for
fewer they can be opened again."""
LOOK_S: Final = 300.0
"""How often all logs are looked at: what is removed of one in which nobody writes is noticed so."""
log = logging.getLogger("relay.worker")


class Indexing:
    """See the module's docstring."""

    def __init__(
        self, directory: DataDirectory, loop: asyncio.AbstractEventLoop, *, on: bool
    ) -> None:
        """Follow nothing yet.

        Args:
            directory: of the partitions.
            loop: of the worker.
            on: False: indexes are removed, not made.
        """
        self._directory = directory
        self._loop = loop
        self._on = on
        self._thread = ThreadPoolExecutor(1, "relay-index")
        self._followers: dict[int, Follower] = {}
        self._touched: dict[int, set[int]] = {}
        self._running: asyncio.Future[None] | None = None
        self._turn = 0
        """The partition that was the last in turn."""
        self._gathering: dict[int, float] = {}
        """By partition: until when messages gather, unless there is more to be done."""
        self.short_of_disk: Callable[[], frozenset[int]] = frozenset
        """Partitions whose disk is nearly full: nothing is added to their index."""
        self.crowded: Callable[[], bool] = _never
        """Tells whether many wait for the worker."""
        self._looked = loop.time()
        self._ticks = 0
        """Since the last slice."""
        self._entries = 0
        """Looked at by followers that are gone."""

    @property
    def entries(self) -> int:
        """How many entries were looked at."""
        return self._entries + sum(one.entries for one in list(self._followers.values()))

    @property
    def behind(self) -> int:
        """Partitions of which not all is in the index."""
        return sum(one.behind for one in self._followers.values())

    def follow(self, index: int) -> set[int]:
        """Follow an own partition from now on; return where ids of logs that change are noted."""
        touched = self._touched.setdefault(index, set())
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
        """Another worker is the home of a partition now."""
        self._touched.pop(index, None)
        self._gathering.pop(index, None)
        self._end(index)

    def _end(self, index: int) -> None:
        follower = self._followers.pop(index, None)
        if follower is not None:
            self._entries += follower.entries
            self._run(follower.close)

    def switch(self, *, on: bool) -> None:
        """Keep indexes from now on, or remove those that there are."""
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
        """Make all indexes of own partitions anew; return how many."""
        for follower in self._followers.values():
            self._run(follower.anew)
        return len(self._followers)

    def tick(self) -> None:
        """Go on, if the slice before has ended. Called ten times a second."""
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
        crowded = self.crowded()
        if crowded and self._ticks < CROWDED_TICKS:
            return
        short = self.short_of_disk()
        due = [
            index
            for index, one in self._followers.items()
            if index not in short
            and (one.unfinished or (one.behind and now >= self._gathering.get(index, 0.0)))
        ]
        if due:
            before = self._followers.get(self._turn)
            self._turn = min(due, key=lambda index: (index <= self._turn, index))
            follower = self._followers[self._turn]
            slice_s = CROWDED_SLICE_S if crowded else SLICE_S
            self._gathering[self._turn] = now + GATHER_S
            self._ticks = 0
            self._running = self._run(lambda: _run(before, follower, slice_s))

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
        """Wait for what runs, and close the files."""
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
