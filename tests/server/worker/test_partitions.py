"""The partitions of a worker, read by its loop while threads work on them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from relay.chat.entries import NO_EPOCH, Head
from relay.server.worker.home.partitions import OwnPartitions
from relay.store import apply
from relay.store.errors import StoreUnavailable
from relay.store.log import Partition
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.store.state import Changes
from tests.support.cluster import DEADLINE_S
from tests.support.logs import NOW_MS, append, message, open_partition
from tests.support.threads import beside

LOBBY, ELSEWHERE = "room-0", "room-12"
GIVEN_UP_S = 30.0


class SlowDisk:
    """One partition, whose commit waits until a test lets it continue."""

    def __init__(self, directory: Path) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.slow = False
        self.partition = open_partition(directory, durability="power", write=self._write)
        self.reader = SqliteReader(self.partition.path)
        self.own = OwnPartitions(
            owns=lambda _: True,
            open_partition=lambda _: self.partition,
            reader_of=lambda _: self.reader,
            wake=lambda: None,
        )
        # A loop that waits for the commit would wait for ever: the commit continues then, and the
        # test detects that.
        self._given_up = threading.Timer(GIVEN_UP_S, self.goes_on.set)
        self._given_up.daemon = True
        self._running = contextlib.ExitStack()

    def _write(self, connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
        if self.slow:
            self.begun.set()
            self.goes_on.wait()
        apply.write(connection, changes, day)

    def commits(self) -> None:
        """Begin a commit in a thread."""
        self.slow = True
        late = [message(1, log="late")]
        self._running.enter_context(beside(lambda: self.partition.append(late, NOW_MS)))
        self._given_up.start()
        assert self.begun.wait(DEADLINE_S)

    def close(self) -> None:
        self.goes_on.set()
        self._given_up.cancel()
        self._running.close()
        self.reader.close()
        self.partition.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    made = SlowDisk(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("busy", ["committing", "commits_blocked"])
def test_a_commit_in_a_thread_holds_up_no_look(disk: SlowDisk, busy: str) -> None:
    """Neither a read of a log that is not cached, nor of one that does not exist."""
    own, index = disk.own, 0
    (stored,) = append(disk.partition, message(1, log=LOBBY))
    own.partition(index)
    opened = disk.partition._opened
    assert opened is not None
    opened.committed.logs.clear()
    disk.commits()
    if busy == "committing":
        own.committing.update(range(16))
    else:  # a checkpoint writes what commits have left for later
        disk.partition.commits_blocked = True
    assert own.head(LOBBY) == Head(stored.epoch, 1)
    assert own.state(LOBBY) == b""
    assert own.head(ELSEWHERE) == Head(NO_EPOCH, 0)
    assert own.heads([LOBBY]) == [[LOBBY, stored.epoch, 1]]
    assert own.due(index, NOW_MS) == []
    assert not disk.goes_on.is_set(), "the loop has waited for the commit"


@pytest.mark.parametrize("error", [StoreUnavailable("no"), ValueError("no entry")])
def test_one_that_cannot_be_used_is_closed_as_any_other(disk: SlowDisk, error: Exception) -> None:
    """Otherwise its checkpoints would go on, and its lock would stay held."""
    closed: list[Partition] = []

    def fails(_: Partition) -> None:
        raise error

    disk.own.on_opened = fails
    disk.own.close_partition = closed.append
    with pytest.raises(type(error)):
        disk.own.partition(0)
    assert closed == [disk.partition]
    assert isinstance(disk.partition, SqlitePartition)
