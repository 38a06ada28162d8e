"""relay.server.worker.process.stores: the checkpoints of a worker's partitions."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from relay.server.context import WorkerContext
from relay.server.live_settings import LiveSettings
from relay.server.scoreboard import Scoreboard
from relay.server.ticket_register import TicketRegister
from relay.server.worker.process.stores import Stores
from relay.settings import Settings, Store
from relay.store.checkpoint import WAL_PAGES_MAX


async def test_a_checkpoint_that_has_not_begun_is_not_started_again(tmp_path: Path) -> None:
    """Two looks at the stores before the loop ran the first task: one checkpoint, no error."""
    problems: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(str(context)))
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
        ready_fd=-1,
    )
    stores = Stores(context, loop)
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
