"""relay...process.storage.stores: opening the partitions of a worker, and their checkpoints."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from relay.server.boot_report import BootReport
from relay.server.context import WorkerContext
from relay.server.scoreboard import Scoreboard
from relay.server.settings.live import LiveSettings
from relay.server.ticket_register import TicketRegister
from relay.server.worker.home.partitions import OwnPartitions
from relay.server.worker.process.storage.stores import Stores
from relay.settings import Settings, Store
from relay.store.errors import NotTheWriter, StoreCorrupt
from relay.store.file.checkpoint import WAL_PAGES_MAX
from relay.store.file.lock import PartitionLock, read_refusal
from relay.store.log import Partition


def stores_of(tmp_path: Path) -> Stores:
    listeners: tuple[socket.socket, ...] = ()
    context = WorkerContext(
        index=0,
        generation=1,
        live=LiveSettings(Settings(store=Store(data=str(tmp_path)))),
        listeners=listeners,
        scoreboard=Scoreboard(1),
        tickets=TicketRegister(),
        runtime=tmp_path,
        data=tmp_path / "data",
        registration="open",
        invitation_path=tmp_path / "none",
        boot_id="test boot",
        parent_fd=-1,
        boot=BootReport(-1),
    )
    return Stores(context, asyncio.get_running_loop())


async def test_a_checkpoint_that_has_not_begun_is_not_started_again(tmp_path: Path) -> None:
    """Two looks at the stores before the loop ran the first task: one checkpoint, no error."""
    problems: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(str(context)))
    stores = stores_of(tmp_path)
    partition = stores.open_partition(0)
    partition.wal_pages = WAL_PAGES_MAX
    stores.tick()
    stores.tick()
    await stores.settle()
    assert partition.wal_pages == 0, "the checkpoint was done"
    partition.close()
    stores.close()
    del stores
    assert not problems


async def test_a_partition_is_not_closed_before_a_checkpoint_that_is_about_to_begin(
    tmp_path: Path,
) -> None:
    """Otherwise its file would have a second writer: a turn may come before the
    checkpoint's task.
    """
    stores = stores_of(tmp_path)
    partition = stores.open_partition(0)
    own = [True]
    closed: list[Partition] = []
    partitions = OwnPartitions(
        owns=lambda _: own[0],
        open_partition=lambda _: partition,
        reader_of=stores.reader_of,
        wake=lambda: None,
    )
    partitions.close_partition = closed.append
    partitions.partition(0)
    partition.wal_pages = WAL_PAGES_MAX
    stores.tick()
    own[0] = False
    assert partitions.close_others() == []
    await stores.settle()
    assert partitions.close_others() == [0]
    assert closed == [partition]
    partition.close()
    stores.close()


async def test_a_checkpoint_that_never_begins_keeps_nothing_open(tmp_path: Path) -> None:
    stores = stores_of(tmp_path)
    partition = stores.open_partition(0)
    partition.wal_pages = WAL_PAGES_MAX
    stores.tick()
    assert partition.checkpointing
    for task in stores._running.values():
        task.cancel()
    await stores.settle()
    assert not partition.checkpointing
    partition.close()
    stores.close()


async def test_partitions_opened_ahead(tmp_path: Path) -> None:
    """Each as if it were opened when it is used, errors too; those nobody uses are closed."""
    stores = stores_of(tmp_path)
    damaged, locked, unused = stores.path_of(1), stores.path_of(2), 3
    damaged.write_bytes(b"no database" * 1000)
    lock_of = stores._directory.lock_path
    with PartitionLock(lock_of(2), locked):
        await stores.open_ahead([0, 1, 2, unused])
        with pytest.raises(NotTheWriter):
            stores.open_partition(2)
    with pytest.raises(StoreCorrupt) as refused:
        stores.open_partition(1)
    assert read_refusal(lock_of(1)) == str(refused.value)
    first = stores.open_partition(0)
    assert stores._checkpointers[0].of(first)
    second = stores.open_partition(2)  # its lock is free now
    with pytest.raises(NotTheWriter):
        PartitionLock(lock_of(unused), stores.path_of(unused))
    stores.close_ahead()
    await stores.settle()
    PartitionLock(lock_of(unused), stores.path_of(unused)).close()
    assert first._opened is not None, "only what nobody uses was closed"
    for partition in (first, second):
        partition.close()
    stores.close()
