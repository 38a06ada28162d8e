"""The control process: answers monitoring requests. Entered after the fork."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from relay import event_loops
from relay.chat.partition import PARTITIONS
from relay.local_sockets import NamedListener
from relay.reopening import Reopening
from relay.server import gate, logs
from relay.server.context import CTL_SOCKET
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse, measure
from relay.server.control.health import Readiness
from relay.server.control.supervisor_line import SupervisorLine
from relay.server.line_server import BACKLOG, QUESTION_BYTES_MAX, LineServer
from relay.server.periodic import every_until
from relay.store.file.directory import DataDirectory

if TYPE_CHECKING:
    from relay.server.context import ControlContext
    from relay.server.control.http_server import HttpServer

HEARTBEAT_S: Final = 0.4
"""Less than half of the time after which it counts as away (``FRESH_NS``)."""
log = logging.getLogger("relay.control")


def control_main(context: ControlContext) -> int:
    """Run the control process until it is asked to stop. Returns its exit code."""
    gc.collect()
    gc.freeze()
    with event_loops.runner() as runner:
        runner.run(_Control(context).run())
    return 0


class _Control:
    """The process's parts and their lifetime."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._supervisor_pid = os.getppid()
        self._view = BoardView(context.boards, PARTITIONS)
        self._readiness = Readiness(self._view)
        directory = DataDirectory(context.data)
        self._files = [directory.partition_path(index) for index in range(PARTITIONS)]
        self._listener = NamedListener(context.runtime / CTL_SOCKET, BACKLOG)
        self._ctl_server: asyncio.Server | None = None
        """None until it is open."""
        self._reopening = Reopening(self._listener, self._open_ctl_again)
        self._lines: LineServer | None = None
        self._web: HttpServer | None = None
        """None until the first connection."""

    async def run(self) -> None:
        """Serve until a signal, or until the supervisor is gone."""
        context = self._context
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, stop.set)
        loop.add_reader(context.parent_fd, stop.set)
        servers: list[asyncio.Server] = []
        if not await gate.passed(context.gate_fd, context.boot, stop):
            return
        await self._open_ctl()
        if context.listener is not None:
            servers.append(await asyncio.start_server(self._http, sock=context.listener))
        self._beat()
        context.boot.ready()
        await every_until(stop, HEARTBEAT_S, self._beat)
        loop.remove_reader(context.parent_fd)
        for server in servers:
            server.close()
        self._listener.remove()

    def _beat(self) -> None:
        """Show that the loop runs, and check what may have changed."""
        context = self._context
        context.scoreboard.row(0).set("heartbeat_ns", now_ns := time.monotonic_ns())
        self._readiness.look(now_ns)
        if (settings := context.live.changed()) is not None:
            logs.set_level(settings.log)
        logs.report_left_out(time.monotonic())
        self._reopening.check()

    async def _open_ctl(self) -> None:
        """Begin to answer ``relay ctl``. Raises OSError."""
        sock = self._listener.open()
        before, self._ctl_server = (
            self._ctl_server,
            await asyncio.start_unix_server(self._ctl, sock=sock, limit=QUESTION_BYTES_MAX),
        )
        if before is not None:
            before.close()

    async def _open_ctl_again(self) -> None:
        try:
            await self._open_ctl()
        except OSError as error:
            log.warning("ctl_socket_failed", extra={"reason": error.strerror})
        else:
            log.warning("ctl_socket_replaced", extra={"path": str(self._listener.path)})

    async def _ctl(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._lines is None:
            from relay.server.control.ctl import Ctl

            line = SupervisorLine(self._context.supervisor)
            context = self._context
            ctl = Ctl(
                self._view,
                self._readiness,
                self._disk,
                context.data,
                context.runtime,
                line,
                self._supervisor_pid,
            )
            self._lines = LineServer(ctl.handlers)
        await self._lines.serve(reader, writer)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._web is None:
            from relay.server.control.web import web_server

            self._web = web_server(self._view, self._readiness, self._disk)
        await self._web.serve(reader, writer)

    def _disk(self) -> DiskUse:
        return measure(self._files)
