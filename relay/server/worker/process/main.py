"""A worker process: builds its parts, runs its loop, shuts down. Entered after the fork."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast

import uvloop

from relay import __version__, event_loops
from relay.bus.mesh import Mesh
from relay.server import gate, logs, registration
from relay.server.agent.client import AgentClient
from relay.server.context import BUS_DIRECTORY
from relay.server.periodic import Periodic
from relay.server.sources import Proxies
from relay.server.worker.home.retention.departures import Departures
from relay.server.worker.home.retention.passes import Retention
from relay.server.worker.member.routes import NO_HOME
from relay.server.worker.out_of_memory import unhandled
from relay.server.worker.process.accepting.acceptor import Acceptor
from relay.server.worker.process.accepting.balance import Balance
from relay.server.worker.process.admin.admin_socket import AdminSocket
from relay.server.worker.process.admin.commit_pause import CommitPause
from relay.server.worker.process.admin.inspection import Inspection
from relay.server.worker.process.admin.operator_requests import Administration
from relay.server.worker.process.building import build
from relay.server.worker.process.dependencies import WorkerDependencies
from relay.server.worker.process.drain import AT_ONCE, drain
from relay.server.worker.process.loop.collector import Collector
from relay.server.worker.process.loop.waiting_processes import WaitingProcesses
from relay.server.worker.process.parts import WorkerParts
from relay.server.worker.process.periodic import attempt
from relay.server.worker.process.reconfigure import reconfigure
from relay.server.worker.process.reporting.lag import Lag
from relay.server.worker.process.reporting.status import WorkerStatus
from relay.server.worker.process.reporting.title import set_title
from relay.server.worker.process.stop import Stop
from relay.server.worker.process.storage.disk_reserve import DiskReserve
from relay.server.worker.process.storage.ownership import Ownership
from relay.server.worker.process.storage.stores import Stores
from relay.store.retention.message_counter import MessageCounter
from relay.store.retention.removal_reader import RemovalReader
from relay.wire.packing import unpack_entry
from relay.wire.tickets import TicketKeys
from relay.wire.timing import Timing

if TYPE_CHECKING:
    from relay.chat.accounts.decide import Registration
    from relay.server.context import WorkerContext
    from relay.server.line_server import Question

TICK_S: Final = 0.1
"""For the heartbeat, redialling and routes: work that may be slightly late."""
SWEEP_S: Final = 1.0
"""For deadlines of connections, and heads to other workers (invariant "No silent tail")."""
VIOLATION_WAIT_S: Final = 2.0
"""docs/protocol.md, section 5: how long a peer that broke the protocol is still read."""
FINISH_S: Final = 1.0
"""Limit for commits that run in threads, or wait for a checkpoint, when the worker stops."""
THREAD_SWITCH_S: Final = 0.0005
"""How long a thread may block the loop, or wait for a busy one, each time it needs the interpreter.
A COMMIT that waits for the disk blocks its partition meanwhile, and checkpoints and the search
index need it often. Python's default of 5 ms is longer than a turn."""
log = logging.getLogger("relay.worker")


def worker_main(context: WorkerContext) -> int:
    """Run one worker until it is told to stop. Returns its exit code."""
    sys.setswitchinterval(THREAD_SWITCH_S)
    collector = Collector()
    collector.start()
    try:
        with event_loops.runner(uvloop.new_event_loop) as runner:
            return runner.run(_Worker(context, collector).run())
    except KeyboardInterrupt:
        return 0


class _Worker:
    """The parts of one worker and their lifetime."""

    _parts: WorkerParts
    _mesh: Mesh
    _stores: Stores
    _acceptor: Acceptor
    _disk_reserve: DiskReserve
    _lag: Lag
    _ownership: Ownership
    _admin: AdminSocket
    _reconfiguring: asyncio.Future[None]
    """Keeps a reference: a task without one may be garbage-collected."""

    def __init__(self, context: WorkerContext, collector: Collector) -> None:
        self._context = context
        self._collector = collector
        self._status = WorkerStatus(context.scoreboard, context.index, context.generation)
        self._agent = AgentClient(context.agent_path, context.agent_uid)
        self._stop = Stop(context.live, context.parent_fd)
        self._balance = Balance(lambda: context.live.current.server.rebalance_s)

    async def run(self) -> int:
        """Build, serve, drain."""
        context = self._context
        self._stop.listen()
        asyncio.get_running_loop().set_exception_handler(unhandled)
        if not await self._build():
            return 0
        self._acceptor.start()
        late_ns = self._status.observer("loop_delay_ns")
        tick = Periodic(TICK_S, partial(attempt, self._tick), late_ns)
        sweep = Periodic(SWEEP_S, partial(attempt, self._sweep))
        removing = asyncio.ensure_future(self.retention.run())
        context.boot.ready()
        await self._stop.requested.wait()
        parts = self._parts
        pace = self._stop.pace
        if pace() != AT_ONCE:
            await drain(parts.connections, self._acceptor, parts.turn, time.monotonic, pace)
        for running in (tick, sweep, removing):
            running.cancel()
        self._status.beat()  # publish what the shutdown has counted
        if not self._status.fenced:
            await self._finish_commits()
        await self._stores.settle()
        if not self._status.fenced:
            parts.home.partitions.close()
        self._mesh.close()
        self._admin.close()
        self._stores.close()
        self._agent.close()
        return 0

    async def _finish_commits(self) -> None:
        """Commit and answer what was submitted, by ordinary turns, up to a deadline."""
        parts = self._parts
        deadline = time.monotonic() + FINISH_S
        while True:
            parts.turn.run()
            if not parts.home.writer.busy or time.monotonic() >= deadline:
                return
            await asyncio.sleep(0.001)

    async def _build(self) -> bool:
        """Build all parts. False: this worker was told to stop before it could open anything."""
        await self._prepare()
        context = self._context
        if not await gate.passed(context.gate_fd, context.boot, self._stop.requested):
            self._stores.close()
            self._agent.close()
            return False
        await self._open()
        return True

    async def _prepare(self) -> None:
        """Build the parts that need neither the partitions nor clients."""
        context, status = self._context, self._status
        settings = context.live.current
        loop = asyncio.get_running_loop()
        await self._agent.connect()
        self._stores = Stores(context, loop)
        needs = self._dependencies(loop)
        if needs.tickets is not None:
            self._agent.follow_ticket_keys(needs.tickets.install)
        parts = self._parts = build(needs)
        replaces = context.scoreboard.row(context.index).get("restarts") > 0
        self._ownership = Ownership(context.scoreboard, parts, self._stores, replaces=replaces)
        lag = self._lag = Lag(parts.home.writer, parts.links, time.monotonic_ns)
        self._agent.on_next_key = self._next_key
        gauges, counters, labelled = parts.measured()
        lags = {"bus_lag_ns": lambda: lag.bus_ns, "commit_lag_ns": lambda: lag.commit_ns}
        indexing = self._stores.indexing
        indexing.short_of_disk = lambda: parts.home.writer.short_of_disk
        indexing.overloaded = parts.turn.heavy_waited
        gauges |= {"search_behind": lambda: indexing.behind}
        counters |= {"messages_indexed": lambda: indexing.entries}
        status.publish(gauges | lags, counters, labelled)
        reserve_bytes = settings.limits.disk_reserve_mib << 20
        self._disk_reserve = DiskReserve(self._stores.path_of, reserve_bytes)

    async def _open(self) -> None:
        """Open the partitions; connect to the other workers and answer queries."""
        context, status, parts = self._context, self._status, self._parts
        server, loop = context.live.current.server, asyncio.get_running_loop()
        counter = MessageCounter(unpack_entry)
        self.retention = Retention(
            parts.home.partitions,
            context.scoreboard.erased,
            run_in_thread=self._stores.run_in_thread,
            new_reader=lambda index: RemovalReader(self._stores.path_of(index), counter),
            settings=lambda: context.live.current.retention,
            wall_clock_ns=time.time_ns,
            departures=Departures(self._stores.reader_at, parts.member.queries.ask),
        )
        parts.home.accounts.on_removed = self.retention.ask
        status.publish({}, self.retention.counters)
        await self._ownership.open()
        self._mesh = Mesh(
            context.runtime / BUS_DIRECTORY,
            context.index,
            context.generation,
            status.peers,
            parts.dispatcher,
            parts.wakeup.request,
            parts.links,
            context.first_generation,
        )
        await self._mesh.start()
        parts.home.names.unsettle()  # from now on the other workers can report their sessions
        parts.turn.flush_links = self._mesh.flush
        parts.turn.waiting_links = self._mesh.waiting
        self._acceptor = Acceptor(
            loop,
            context.listeners,
            parts.connections,
            proxies=Proxies(server.proxies),
            full_at=server.max_connections,
            connections_max=parts.services.budgets.admission.connections_max,
            least_loaded=status.least_loaded,
            starting=status.starting,
            accepting=status.set_accepting,
            counted=status.set_connections,
        )
        parts.connections.on_lost = self._acceptor.ended
        parts.home.partitions.close_partition = self._stores.close_partition
        parts.home.partitions.refuse_partition = self._stores.refuse_partition
        parts.home.followers.before_attach = self._ownership.look
        inspection = Inspection(
            parts.connections, parts.member.feeds.by_log, parts.services.endings, time.monotonic
        )
        administration = Administration(
            parts.member.queries,
            parts.home.names,
            parts.home.partitions.owns,
            self._stores.reader_at,
            self._stores.reader_of,
            parts.services.damage,
            parts.services.first_invitation,
        )
        pause = CommitPause(parts.home.partitions, parts.wakeup.request, loop.call_later)
        self._admin = AdminSocket(
            context,
            {
                **inspection.handlers,
                **administration.handlers,
                **pause.handlers,
                "reindex": self._reindex,
                "troubles": self._troubles,
            },
        )
        await self._admin.open()

    async def _reindex(self, _: Question) -> dict[str, int]:
        """Rebuild the search indexes of this worker's partitions."""
        return {"partitions": self._stores.indexing.anew()}

    async def _troubles(self, _: Question) -> dict[str, str]:
        """Return why partitions of this worker cannot be opened or written."""
        troubles = self._parts.home.partitions.troubles
        return {str(index): reason for index, reason in troubles.items()}

    def _next_key(self, next_hash: bytes) -> None:
        """Announce another next key of the server."""
        parts = self._parts
        parts.services.announcement.change(next_hash, parts.connections.sessions)

    def _dependencies(self, loop: asyncio.AbstractEventLoop) -> WorkerDependencies:
        context, settings = self._context, self._context.live.current
        return WorkerDependencies(
            index=context.index,
            generation=context.generation,
            loop=loop,
            clock=time.monotonic,
            nobody_waits=WaitingProcesses().none,
            agent=self._agent,
            identity=self._agent.identity,
            agent_name=f"relay/{__version__}",
            tickets=TicketKeys(
                sha256(self._agent.identity.spki).digest(),
                context.tickets,
                os.urandom,
                time.monotonic,
            ),
            owner_of=context.scoreboard.owner,
            erased=context.scoreboard.erased,
            erasures=context.scoreboard.erasures,
            owns=context.scoreboard.owned_by(context.index, context.generation),
            silent=self._status.silent,
            open_partition=self._stores.open_partition,
            reader_of=self._stores.reader_of,
            reader_at=self._stores.reader_at,
            rules=self._stores.rules,
            registration=cast("Registration", context.registration),
            guests=settings.accounts.guests,
            first_invitation=registration.first_invitation(context.invitation_path),
            on_invitation_end=partial(registration.ended, context.invitation_path),
            run_in_thread=self._stores.run_in_thread,
            durability=settings.store.durability,
            timing=Timing(
                ping_after_s=settings.server.keepalive_s, violation_wait_s=VIOLATION_WAIT_S
            ),
            slow_reader_timeout_s=settings.server.slow_reader_timeout_s,
            connections_max=settings.server.max_connections,
            limits=settings.limits,
            observe_commit_ns=self._status.observer("commit_ns"),
            searching=self._stores.searches,
        )

    # --- periodic work ------------------------------------------------------------------------
    def _tick(self) -> None:
        parts = self._parts
        if self._status.fenced:
            # Another worker has this slot: the state of this one is out of date.
            log.error("worker_fenced", extra={"worker": self._context.index})
            self._stop.within(0.0)
            return
        self._lag.sample()
        self._status.beat()
        if self._status.asked_to_leave:
            self._stop.leave()
        self._acceptor.yields(on=self._status.yields)
        self._ownership.look()
        if parts.home.partitions.closing:
            parts.home.writer.give_up_others()
        self._mesh.dial()
        if parts.member.routes.incomplete:
            parts.member.attachment.refresh()
        parts.home.names.settle()
        self._stores.tick()
        if (settings := self._context.live.changed()) is not None:
            self._stores.search(on=settings.store.search)
            self._reconfiguring = asyncio.ensure_future(
                reconfigure(parts, self._disk_reserve, settings)
            )
            self.retention.ask()

    def _sweep(self) -> None:
        parts = self._parts
        now = time.monotonic()
        for step in (
            lambda: logs.report_left_out(now),
            lambda: parts.connections.check_deadlines(now),
            lambda: self._share_clients(now),
            parts.services.announcement.sweep,
            lambda: parts.stalled.sweep(now),
            lambda: parts.services.budgets.refusals.sweep(now),
            parts.services.budgets.sources.sweep,
            parts.services.budgets.users.sweep,
            parts.home.writer.give_up_others,
            self._mesh.check,
            self._look_at_disk,
            lambda: parts.home.interest.send_heads(parts.home.partitions.heads),
            parts.home.rooms.sweep,
            parts.home.partitions.settle,
            self._give_up,
            parts.home.writer.settle,
            self._admin.check,
            lambda: self._collector.look(parts.connections.admitted),
        ):
            attempt(step)  # an error in one must not prevent the others
        parts.wakeup.request()  # readers that waited because too many bytes were stuck may continue
        set_title(self._context.index, len(parts.connections.sessions))

    def _look_at_disk(self) -> None:
        self._parts.home.writer.short_of_disk = self._disk_reserve.check(self._ownership.own)

    def _give_up(self) -> None:
        """Answer requests that have waited too long for a home."""
        parts = self._parts
        if away := parts.member.routes.away():
            parts.member.feeds.give_up(away, NO_HOME)
            parts.member.claims.give_up(away)
        parts.member.queries.give_up(away)
        parts.member.forward.give_up(away)

    def _share_clients(self, now: float) -> None:
        if self._stop.requested.is_set():
            return
        began, own = self._balance.began, self._parts.services.budgets.admission.authenticated
        if count := self._balance.due(own, self._status.connections_of_others(), now):
            if not began:
                log.info("rebalancing", extra={"logged_in": own})
            self._parts.connections.send_away(count)
