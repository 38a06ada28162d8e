"""When a worker updates its search indexes from committed entries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import cast

import psutil
import pytest

from relay.chat.entries import Kind
from relay.server.worker.process.main import TICK_S
from relay.server.worker.process.storage.indexing import (
    GATHER_ACCOUNTS_S,
    GATHER_S,
    KEPT_ENTRIES,
    Indexing,
)
from relay.store.file.directory import DataDirectory
from relay.store.sqlite import SqlitePartition
from tests.support.cluster import DEADLINE_S
from tests.support.logs import append, message, messages, open_partition


class Loop:
    """The loop that ``Indexing`` needs: a clock that stands still, and work that is done at
    once.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.slices = 0

    def time(self) -> float:
        return self.now

    def run_in_executor(self, _: Executor, work: Callable[[], None]) -> Future[None]:
        self.slices += 1
        done = Future[None]()
        work()
        done.set_result(None)
        return done


class Followed:
    """Partition 0 of a data directory, with its index."""

    def __init__(self, path: Path) -> None:
        self.directory = directory = DataDirectory(path)
        self.loop = Loop()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.partition: SqlitePartition = open_partition(directory.partition_path(0).parent)
        self.indexing = Indexing(directory, loop, on=True)
        self.partition.touched = self.indexing.follow(0)
        self._counter = 0

    def follow(self, index: int) -> None:
        """Update the index of another partition: there is none, so its slice does nothing."""
        self.indexing.follow(index)

    def tick(self, seconds: float) -> None:
        self.loop.now += seconds
        self.indexing.tick()

    def say(self, count: int) -> None:
        append(self.partition, *messages(self._counter + 1, self._counter + count))
        self._counter += count

    def register(self, inbox: str) -> None:
        """Append the first entry of an account."""
        append(self.partition, message(1, log=inbox)._replace(kind=int(Kind.SYSTEM)))

    def settle(self) -> None:
        """Index everything, and let the last slice be long ago."""
        while self.indexing.behind:
            self.tick(GATHER_S)
        self.loop.now += GATHER_ACCOUNTS_S
        self.loop.slices = 0


def open_files() -> set[Path]:
    """Return the open files of this process."""
    return {Path(one.path) for one in psutil.Process().open_files()}


@pytest.fixture(autouse=True)
def _long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice does all that there is, also on a busy machine: its time is of the wall clock."""
    monkeypatch.setattr("relay.server.worker.process.storage.indexing.SLICE_S", DEADLINE_S)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    one = Followed(tmp_path / "data")
    one.say(1)
    one.settle()
    yield one
    one.indexing.close()
    one.partition.close()


def test_the_first_message_is_indexed_at_once_and_those_behind_it_together(
    followed: Followed,
) -> None:
    followed.say(1)
    followed.tick(TICK_S)
    assert not followed.indexing.behind
    entries = followed.indexing.entries
    for _ in range(5):
        followed.say(1)
        followed.tick(TICK_S)
    assert (followed.loop.slices, followed.indexing.entries) == (1, entries)
    followed.tick(GATHER_S)
    assert (followed.loop.slices, followed.indexing.entries) == (2, entries + 5)
    assert not followed.indexing.behind


def test_registrations_are_collected_for_longer_unless_there_is_a_message(
    followed: Followed,
) -> None:
    entries = followed.indexing.entries
    followed.register("@bob")
    followed.tick(TICK_S)
    assert followed.loop.slices == 1, "the first one is indexed at once as well"
    for number in range(5):
        followed.register(f"@carol{number}")
        followed.tick(GATHER_S)
    assert not followed.indexing.behind
    assert (followed.loop.slices, followed.indexing.entries) == (1, entries + 1)
    followed.tick(GATHER_ACCOUNTS_S)
    assert (followed.loop.slices, followed.indexing.entries) == (2, entries + 6)
    followed.register("@dave")
    followed.say(1)
    followed.tick(GATHER_S)
    assert (followed.loop.slices, followed.indexing.entries) == (3, entries + 8)


def test_what_a_slice_was_too_short_for_does_not_wait(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.server.worker.process.storage.indexing.SLICE_S", 0.0)
    followed.say(1)
    for _ in range(3):
        followed.tick(TICK_S)
    assert followed.loop.slices == 3, "each of them ended before it began"


@pytest.mark.parametrize(("count", "kept"), [(KEPT_ENTRIES, True), (KEPT_ENTRIES - 1, False)])
def test_files_stay_open_where_much_comes(followed: Followed, count: int, kept: bool) -> None:
    index = followed.directory.search_path(0)
    followed.say(count)
    followed.tick(TICK_S)
    assert index in open_files()
    followed.follow(1)
    followed.tick(TICK_S)
    assert (index in open_files()) == kept
