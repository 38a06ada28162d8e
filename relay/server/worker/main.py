"""A worker process: build its parts, run its loop, end it. Entered after the fork."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import uvloop

from relay.chat.partition import partition_of
from relay.errors import RelayError
from relay.server.agent.client import AgentClient
from relay.server.worker.acceptor import Acceptor
from relay.server.worker.drain import drain
from relay.server.worker.hub import Hub
from relay.server.worker.session import Session
from relay.server.worker.stores import Stores

if TYPE_CHECKING:
    from relay.server.context import WorkerContext

HEARTBEAT_S: Final = 0.2
SWEEP_S: Final = 1.0
ORPHAN_EXIT_S: Final = 1.5
"""Rule 17: nobody outlives the supervisor by more than 2 s."""
BOOT_FAILED: Final = 3
log = logging.getLogger("relay.worker")


def worker_main(context: WorkerContext) -> int:
    """Run one worker until it is told to stop. Returns its exit code."""
    # What the imports made stays for ever: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Worker(context).run())
    except KeyboardInterrupt:
        return 0


class _Worker:
    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._stop: asyncio.Event = asyncio.Event()
        self._orphaned = False
        self._quick = False

    async def run(self) -> int:
        context = self._context
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_reader(context.parent_fd, self._parent_gone)
        agent = AgentClient(context.agent_path)
        try:
            await agent.connect()
            stores = Stores(context, loop)
        except (RelayError, OSError) as error:
            _report(context.ready_fd, f"E {error}\n")
            return BOOT_FAILED
        hub = Hub(
            loop=loop,
            clock=time.monotonic,
            agent=agent,
            spki=agent.spki,
            open_partition=stores.open_partition,
            reader_of=lambda name: stores.reader(partition_of(name)),
            wall_clock_ms=lambda: time.time_ns() // 1_000_000,
            random_bytes=secrets.token_bytes,
            agent_name=f"relay/{version('relay-chat')}",
        )
        connections_max = context.settings.server.max_connections
        acceptor = Acceptor(
            loop,
            context.listeners,
            lambda peer: Session(hub, peer),
            lambda: len(hub.sessions) < connections_max,
        )
        acceptor.start()
        tasks = [
            loop.create_task(self._every(HEARTBEAT_S, lambda: self._heartbeat(hub))),
            loop.create_task(self._every(SWEEP_S, lambda: _sweep(hub))),
        ]
        _report(context.ready_fd, "R\n")
        log.info("worker_ready", extra={"worker": context.index, "pid": os.getpid()})
        await self._stop.wait()
        if not self._quick:
            grace = ORPHAN_EXIT_S if self._orphaned else context.settings.server.graceful_timeout_s
            await drain(hub, acceptor, grace)
        for task in tasks:
            task.cancel()
        stores.close()
        agent.close()
        return 0

    def _quit(self) -> None:
        self._quick = True
        self._stop.set()

    def _parent_gone(self) -> None:
        """Rule 17: the supervisor died; leave so that neither port nor partition stays held."""
        asyncio.get_running_loop().remove_reader(self._context.parent_fd)
        self._orphaned = True
        self._stop.set()

    def _heartbeat(self, hub: Hub) -> None:
        row = self._context.scoreboard.row(self._context.index)
        row.set("heartbeat_ns", time.monotonic_ns())
        row.set("connections", len(hub.sessions))
        row.set("accepted", hub.home.accepted)
        row.set("deliveries", hub.fanout.deliveries)

    async def _every(self, seconds: float, action: Callable[[], None]) -> None:
        while True:
            try:
                action()
            except Exception:
                log.exception("periodic_task_failed")
            await asyncio.sleep(seconds)


def _sweep(hub: Hub) -> None:
    now = hub.clock()
    for session in list(hub.sessions):
        session.check_deadline(now)


def _report(fd: int, line: str) -> None:
    try:
        os.write(fd, line.encode(errors="replace"))
    except OSError:
        sys.stderr.write(line)  # the supervisor is gone; its death is handled elsewhere
