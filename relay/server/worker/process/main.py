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
from typing import TYPE_CHECKING, Final

import uvloop

from relay import __version__
from relay.bus.link import Link
from relay.bus.mesh import Mesh
from relay.chat.partition import PARTITIONS
from relay.errors import RelayError
from relay.server.agent.client import AgentClient
from relay.server.context import BUS_DIRECTORY
from relay.server.worker.connection.session import Session
from relay.server.worker.home.home import commit_at_once
from relay.server.worker.process.acceptor import Acceptor
from relay.server.worker.process.drain import drain
from relay.server.worker.process.status import Scores
from relay.server.worker.process.stores import Stores
from relay.server.worker.process.title import set_title
from relay.server.worker.process.turn import Hub, Surroundings
from relay.store.errors import NotTheWriter
from relay.wire.connection import Timing

if TYPE_CHECKING:
    from relay.server.context import WorkerContext

TICK_S: Final = 0.1
"""Heartbeat, redialling, routes: what need not happen at once."""
SWEEP_S: Final = 1.0
"""Deadlines of connections, and heads to other workers (rule 7)."""
BOOT_LOCK_S: Final = 20.0
"""How long a new home waits for the locks of the one before, which the kernel is ending."""
ORPHAN_EXIT_S: Final = 1.5
"""Rule 17: nobody outlives the supervisor by more than 2 s."""
BOOT_FAILED: Final = 3
GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Allocations between collections of the three generations. Nothing on the data path makes cycles
and ended sessions need no collector (with it off, a connection that came and went left less than
1 KiB, most of it its producer's row in a cache), so collections only cost: the default of 700 walks
young objects all the time, and the old ones, every live session, for tens of milliseconds."""
log = logging.getLogger("relay.worker")


def worker_main(context: WorkerContext) -> int:
    """Run one worker until it is told to stop. Returns its exit code."""
    # What the imports made stays for ever: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Worker(context).run())
    except KeyboardInterrupt:
        return 0


class _Worker:
    """The parts of one worker, and their life."""

    _hub: Hub
    _mesh: Mesh
    _stores: Stores
    _acceptor: Acceptor

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._scores = Scores(context.scoreboard, context.index, context.generation)
        self._agent = AgentClient(context.agent_path)
        self._stop = asyncio.Event()
        self._grace_s = context.settings.server.graceful_timeout_s
        self._table_version = -1
        self._own: set[int] = set()
        """Partitions that were this worker's when the table was last looked at."""

    async def run(self) -> int:
        """Build, serve, drain."""
        self._listen_to_signals()
        try:
            await self._build()
        except (RelayError, OSError) as error:
            _report(self._context.ready_fd, f"E {error}\n")
            return BOOT_FAILED
        self._acceptor.start()
        tasks = [
            asyncio.ensure_future(_every(TICK_S, self._tick)),
            asyncio.ensure_future(_every(SWEEP_S, self._sweep)),
        ]
        self._tick()
        _report(self._context.ready_fd, "R\n")
        await self._stop.wait()
        if self._grace_s:
            await drain(self._hub, self._acceptor, self._grace_s)
        for task in tasks:
            task.cancel()
        await self._stores.settle()
        if not self._scores.fenced:
            self._hub.home.close()
        self._mesh.close()
        self._stores.close()
        self._agent.close()
        return 0

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._stop_within, 0.0)
        loop.add_reader(self._context.parent_fd, self._parent_gone)

    def _stop_within(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._stop.set()

    def _parent_gone(self) -> None:
        """Rule 17: the supervisor died; leave so that neither port nor partition stays held."""
        asyncio.get_running_loop().remove_reader(self._context.parent_fd)
        self._stop_within(ORPHAN_EXIT_S)

    async def _build(self) -> None:
        context, scores = self._context, self._scores
        loop = asyncio.get_running_loop()
        await self._agent.connect()
        self._stores = Stores(context, loop)
        links: dict[int, Link] = {}
        powerful = context.settings.store.durability == "power"
        hub = self._hub = Hub(
            Surroundings(
                index=context.index,
                generation=context.generation,
                loop=loop,
                clock=time.monotonic,
                wall_clock_ms=lambda: time.time_ns() // 1_000_000,
                random_bytes=secrets.token_bytes,
                agent=self._agent,
                spki=self._agent.spki,
                agent_name=f"relay/{__version__}",
                owner_of=context.scoreboard.owner,
                links=links,
                silent=scores.silent,
                open_partition=self._stores.open_partition,
                reader_of=self._stores.reader_of,
                run_commit=self._stores.commit_in_thread if powerful else commit_at_once,
                timing=Timing(ping_after_s=context.settings.server.keepalive_s),
                slow_reader_timeout_s=context.settings.server.slow_reader_timeout_s,
            )
        )
        await self._open_own()
        self._mesh = Mesh(
            context.runtime / BUS_DIRECTORY,
            context.index,
            context.generation,
            scores.peers,
            hub.exchange,
            hub.wake,
            links,
        )
        await self._mesh.start()
        hub.namebook.unsettle()  # from now on the others can say what they hold
        hub.flush_links = self._mesh.flush
        self._acceptor = Acceptor(
            loop,
            context.listeners,
            lambda peer: Session(hub, peer),
            connections_max=context.settings.server.max_connections,
            least_loaded=scores.least_loaded,
            accepting=scores.set_accepting,
            counted=scores.set_connections,
        )
        hub.connection_ended = self._acceptor.ended

    async def _open_own(self) -> None:
        """Open the partitions that are this worker's; their last home may still be dying."""
        deadline = time.monotonic() + BOOT_LOCK_S
        while True:
            try:
                self._hub.home.open_own()
                return
            except NotTheWriter:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    # --- from time to time --------------------------------------------------------------------
    def _tick(self) -> None:
        hub, scores = self._hub, self._scores
        if scores.fenced:
            # Another worker has this slot: whatever this one still remembers is out of date.
            log.error("worker_fenced", extra={"worker": self._context.index})
            self._stop_within(0.0)
            return
        scores.beat(hub)
        version = self._context.scoreboard.table_version
        if version != self._table_version:
            self._table_version = version
            self._owners_changed()
        self._mesh.dial()
        if hub.routes.incomplete:
            hub.routes.refresh()
        hub.namebook.settle()
        self._stores.tick()

    def _owners_changed(self) -> None:
        hub = self._hub
        own = {partition for partition in range(PARTITIONS) if hub.routes.owns(partition)}
        if self._own and own - self._own:
            hub.namebook.unsettle()
        self._own = own
        hub.exchange.refuse_others()
        hub.home.give_up_others()
        hub.routes.refresh()

    def _sweep(self) -> None:
        hub = self._hub
        now = hub.clock()
        for session in list(hub.sessions):
            session.check_deadline(now)
        hub.pressure.sweep(now)
        hub.interest.say_heads(hub.home.heads)
        hub.wake()  # readers who waited because too many bytes were stuck may go on
        set_title(self._context.index, len(hub.sessions))


async def _every(seconds: float, action: Callable[[], None]) -> None:
    while True:
        try:
            action()
        except Exception:
            log.exception("periodic_task_failed")
        await asyncio.sleep(seconds)


def _report(fd: int, line: str) -> None:
    try:
        os.write(fd, line.encode(errors="replace"))
    except OSError:
        # The supervisor is gone, and its death is handled elsewhere; what went wrong is still told.
        if line.startswith("E "):
            sys.stderr.write(line)
