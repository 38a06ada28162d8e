"""The checkpoint in two phases: the WAL stays short while commits and readers go on."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

from relay.store.errors import StoreError
from relay.store.file import checkpoint
from relay.store.file.checkpoint import FORGET_S, Checkpointer
from relay.store.file.schema import translated
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from tests.support.logs import PAGE_BYTES, append, die, messages, open_partition

WAL_PAGES_MAX = 256
FRAME_BYTES = 4096 + 24
BESIDE_MAX = 8
"""Commits beside a checkpoint, of about 20 pages each."""

READ_ON = """
import sys
from pathlib import Path
from typing import TypeVar
from relay.store.errors import StoreError
from relay.store.reading.reader import SqliteReader
reader = SqliteReader(Path(sys.argv[1]))
print("reading", flush=True)
after = pages = 0
while True:
    page = reader.read("lobby", after, 2**40 - 1, 60_000)
    after = page.rows[-1][0] if page.rows else 0
    pages += 1
    if pages % 100 == 0:
        print(pages, flush=True)
"""


T = TypeVar("T")


def in_thread(work: Callable[[], T], /) -> Awaitable[T]:
    return asyncio.to_thread(work)


@pytest.fixture
def other_readers(partition: SqlitePartition) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that read the log repeatedly."""
    readers = [
        subprocess.Popen([sys.executable, "-c", READ_ON, partition.path], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reading\n"
    yield readers
    for reader in readers:
        reader.kill()
        reader.wait()
        assert reader.stdout is not None
        assert len(reader.stdout.read().splitlines()) > 0, "it never read"
        reader.stdout.close()


@pytest.mark.usefixtures("other_readers")
async def test_the_wal_stays_short_under_load(partition: SqlitePartition) -> None:
    checkpointer = Checkpointer(partition, in_thread, wal_pages_max=WAL_PAGES_MAX)
    wal = partition.path.with_name("00.sqlite-wal")
    running: asyncio.Task[None] | None = None
    counter = beside = during = longest = written = completed = tried = worst = 0
    # "More than the WAL was ever long": it has restarted.
    while checkpointer.completed < 20 or written * FRAME_BYTES <= 2 * longest:
        # So many during one checkpoint: however slow its thread is, and however fast the loop.
        if not partition.commits_blocked and (beside < BESIDE_MAX or not checkpointer.running):
            before = partition.wal_pages
            append(partition, *messages(counter + 1, counter + 20))
            counter += 20
            written += partition.wal_pages - before if partition.wal_pages > before else 0
            during += checkpointer.running
            beside = beside + 1 if checkpointer.running else 0
        if checkpointer.due(0.0):
            running = asyncio.create_task(checkpointer.run())
        longest = max(longest, wal.stat().st_size)
        # A reader that is descheduled within a page makes a checkpoint incomplete.
        if checkpointer.completed > completed:
            completed, tried = checkpointer.completed, checkpointer.incomplete
        worst = max(worst, checkpointer.incomplete - tried)
        # A loop waits for its sockets occasionally: otherwise the thread seldom gets the GIL.
        await asyncio.sleep(0.001 if checkpointer.running else 0)
    assert running is not None
    await running
    assert during > 0, "no commit went on during a checkpoint"
    # It grows by what one retry allows, and by what is committed meanwhile, and no further.
    a_try = checkpoint.RETRY_PAGES + 2 * WAL_PAGES_MAX
    assert longest < (1 + worst) * a_try * FRAME_BYTES
    read = SqliteReader(partition.path).read("lobby", 0, counter, 10**9)
    assert [seq for seq, _ in read.rows] == list(range(1, counter + 1))


async def test_commits_are_held_only_in_the_second_phase(partition: SqlitePartition) -> None:
    held: list[bool] = []

    async def watched(work: Callable[[], T], /) -> T:
        held.append(partition.commits_blocked)
        return await asyncio.to_thread(work)

    append(partition, *messages(1, 1000))
    checkpointer = Checkpointer(partition, watched, wal_pages_max=10)
    assert checkpointer.due(0.0)
    await checkpointer.run()
    assert held == [False, False, True, False]
    assert not partition.commits_blocked
    assert not checkpointer.due(0.0)
    append(partition, *messages(1001, 1001))
    assert partition.wal_pages < 10  # restarted


async def test_a_foreign_reader_is_reported_and_it_is_tried_again(
    partition: SqlitePartition, caplog: pytest.LogCaptureFixture
) -> None:
    append(partition, *messages(1, 100))
    shell = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM entry").fetchall()
    counter = 100
    while partition.wal_pages < 4 * checkpoint.REST_PAGES_MAX:
        append(partition, *messages(counter + 1, counter + 500))
        counter += 500
    held: list[bool] = []

    def watched(work: Callable[[], T], /) -> Awaitable[T]:
        held.append(partition.commits_blocked)
        return asyncio.to_thread(work)

    checkpointer = Checkpointer(partition, watched, wal_pages_max=10)
    with caplog.at_level(logging.WARNING, "relay.store"):
        await checkpointer.run()
    [record] = caplog.records
    assert record.message == "checkpoint_incomplete"
    assert "such as a backup" in record.__dict__["reason"]
    assert not any(held), "commits waited for a reader that stays"
    assert (checkpointer.completed, checkpointer.incomplete) == (0, 1)
    assert not checkpointer.due(0.0), "tried again at once, for ever"
    assert not partition.commits_blocked
    shell.close()
    while not checkpointer.due(0.0):
        append(partition, *messages(counter + 1, counter + 500))
        counter += 500
    await checkpointer.run()
    assert checkpointer.completed == 1


async def test_a_checkpoint_that_fails_releases_the_commits(
    partition: SqlitePartition, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(partition, *messages(1, 100))
    monkeypatch.setattr(checkpoint, "connect_writer", broken_disk)
    checkpointer = Checkpointer(partition, in_thread, wal_pages_max=1)
    with caplog.at_level(logging.WARNING, "relay.store"):
        await checkpointer.run()
    assert "the disk is broken" in caplog.records[0].__dict__["reason"]
    assert not partition.commits_blocked
    assert not checkpointer.running
    append(partition, *messages(101, 102))


def broken_disk(path: Path) -> apsw.Connection:
    raise translated(apsw.IOError("the disk is broken"), path)


async def test_a_cancelled_one_releases_the_commits(partition: SqlitePartition) -> None:
    holding = asyncio.Event()

    async def stuck(work: Callable[[], T], /) -> T:
        if partition.commits_blocked:
            holding.set()
            await asyncio.Event().wait()
        return await asyncio.to_thread(work)

    append(partition, *messages(1, 100))
    checkpointer = Checkpointer(partition, stuck)
    task = asyncio.create_task(checkpointer.run())
    await holding.wait()
    assert partition.commits_blocked
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not partition.commits_blocked
    assert not checkpointer.running


async def test_what_was_erased_leaves_the_wal_after_a_while(partition: SqlitePartition) -> None:
    """Although it is short; it is tried again as long as somebody reads."""
    append(partition, *messages(1, 5))
    wal = partition.path.with_name("00.sqlite-wal")
    checkpointer = Checkpointer(partition, in_thread)
    await checkpointer.run()
    assert wal.stat().st_size > 0, "it restarts in place"
    partition.erased = True
    assert not checkpointer.due(100.0)
    assert not checkpointer.due(100.0 + FORGET_S / 2)
    assert checkpointer.due(100.0 + FORGET_S)
    shell = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM entry").fetchall()
    append(partition, *messages(6, 8))
    await checkpointer.run()
    assert partition.erased
    shell.close()
    assert not checkpointer.due(200.0)
    assert checkpointer.due(200.0 + FORGET_S)
    before = wal.stat().st_size
    await checkpointer.run()
    assert not partition.erased
    assert wal.stat().st_size < before, "the commit that restarts it is all it has"
    assert not checkpointer.due(300.0)


def test_only_a_wal_that_was_left_may_hold_what_was_erased(tmp_path: Path) -> None:
    """A start after a clean stop does not write, however many partitions there are."""
    for first, state in ((1, "new"), (6, "closed")):
        partition = open_partition(tmp_path)
        assert not partition.erased, state
        append(partition, *messages(first, first + 4))
        partition.close()
    die(open_partition(tmp_path))
    partition = open_partition(tmp_path)
    assert partition.erased
    partition.close()


async def test_a_partition_closed_meanwhile_does_no_harm(partition: SqlitePartition) -> None:
    append(partition, *messages(1, 100))
    checkpointer = Checkpointer(partition, in_thread)
    task = asyncio.create_task(checkpointer.run())
    await asyncio.sleep(0)
    partition.close()
    await task
    assert len(SqliteReader(partition.path).read("lobby", 0, 100, PAGE_BYTES).rows) == 100


def test_a_file_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        checkpoint.finish(tmp_path / "00.sqlite")
    assert list(tmp_path.iterdir()) == []
