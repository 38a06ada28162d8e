"""The control process: answers whoever watches the server. Entered after the fork."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from typing import TYPE_CHECKING, Final

from relay.chat.partition import PARTITIONS
from relay.server.context import report
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse, measure
from relay.store.directory import DataDirectory

if TYPE_CHECKING:
    from relay.server.context import ControlContext
    from relay.server.control.http_server import HttpServer

HEARTBEAT_S: Final = 0.2
log = logging.getLogger("relay.control")


def control_main(context: ControlContext) -> int:
    """Run the control process until it is asked to stop. Returns its exit code."""
    gc.collect()
    gc.freeze()
    asyncio.run(_Control(context).run())
    return 0


class _Control:
    """The process's parts, and their life."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._view = BoardView(context.boards, PARTITIONS)
        directory = DataDirectory(context.data)
        self._files = [directory.partition_path(index) for index in range(PARTITIONS)]
        self._web: HttpServer | None = None
        """None until somebody has connected."""

    async def run(self) -> None:
        """Serve until the signal, or until the supervisor is gone."""
        context = self._context
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, stop.set)
        loop.add_reader(context.parent_fd, stop.set)
        servers: list[asyncio.Server] = []
        if context.listener is not None:
            servers.append(await asyncio.start_server(self._http, sock=context.listener))
        row = context.scoreboard.row(0)
        row.set("heartbeat_ns", time.monotonic_ns())
        report(context.ready_fd, "R")
        while not stop.is_set():
            row.set("heartbeat_ns", time.monotonic_ns())
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await stop.wait()
            except TimeoutError:
                continue
        loop.remove_reader(context.parent_fd)
        for server in servers:
            server.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._web is None:
            from relay.server.control.web import web_server

            self._web = web_server(self._view, self._disk)
        await self._web.serve(reader, writer)

    def _disk(self) -> DiskUse:
        return measure(self._files)
