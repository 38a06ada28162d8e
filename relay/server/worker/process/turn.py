"""What the sessions of one worker share, and the turn: the order in which data moves.

One turn, at the end of a loop iteration in which anything arrived:

1. ``home.commit``   one group commit per partition; answers; batches to the workers that follow
2. ``presence``      changes of this worker to the homes; changes of rosters to the workers
3. ``mesh.flush``    one write per link, answers first
4. ``repair``        what was missed of a log, from the store
5. ``distribute``    running batches into the outboxes of live members
6. ``flush``         one record and one write per connection; answers first; in slices
7. ``catchup``       pages for those who are behind, in what time is left
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from relay import limits
from relay.bus.messages import ITEMS_PER_MESSAGE, Attach, Members, Presence, Subscribe, Unsubscribe
from relay.chat.partition import partition_of
from relay.server.worker.delivery.stalled import Pressure
from relay.server.worker.home.home import CommitRunner, Home, commit_at_once
from relay.server.worker.home.interest import Interest
from relay.server.worker.home.names import NameBook
from relay.server.worker.home.rosters import Rosters
from relay.server.worker.member.catchup import Catchup
from relay.server.worker.member.claims import Logins
from relay.server.worker.member.fanout import Fanout
from relay.server.worker.member.feed import Feed
from relay.server.worker.member.forward import Forward
from relay.server.worker.member.queries import Waits
from relay.server.worker.member.routes import Owner, Routes
from relay.server.worker.process.dispatch import Exchange, Loopback
from relay.store.errors import StoreError
from relay.wire.codes import CloseCode
from relay.wire.connection import DEFAULT_TIMING, Timing
from relay.wire.identity import parse_spki

if TYPE_CHECKING:
    from relay.bus.link import Link, Port
    from relay.server.worker.connection.session import Session
    from relay.server.worker.delivery.outbox import Outbox
    from relay.store.log import Partition, Reader

SLICE_S: Final = 0.005
"""Writes per loop turn before the loop is let go again (architecture.md, "Slices")."""
FLUSHES_PER_CLOCK: Final = 32
HELD_S: Final = 0.001
"""When to look again at a partition whose commits a checkpoint holds."""
REPAIR_RETRY_S: Final = 0.1
FAILED_RETRY_S: Final = 0.1
log = logging.getLogger("relay.worker")


class Loop(Protocol):
    """The part of an event loop that the hub needs."""

    def call_soon(self, callback: Callable[[], None]) -> object:
        """Run in the next iteration."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Run after so many seconds."""


class Unwrap(Protocol):
    """The key agent's service: a wrapped secret in, the secret out."""

    async def unwrap(self, ciphertext: bytes, source: str) -> bytes:
        """Return the 32-byte secret, real or (for a bad ciphertext) random."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker gets from outside: its place, its clocks, its stores, the key agent."""

    index: int
    generation: int
    loop: Loop
    clock: Callable[[], float]
    """Monotonic seconds, moving within a turn (uvloop's own ``time`` has whole ms)."""
    wall_clock_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    agent: Unwrap
    spki: bytes
    agent_name: str
    owner_of: Callable[[int], Owner]
    links: dict[int, Link]
    silent: Callable[[set[int]], bool]
    open_partition: Callable[[int], Partition]
    reader_of: Callable[[str], Reader]
    run_commit: CommitRunner = commit_at_once
    timing: Timing = DEFAULT_TIMING
    slow_reader_timeout_s: float = 60.0


class Hub:
    """One worker's shared state and its turn."""

    def __init__(self, around: Surroundings) -> None:
        self.loop = around.loop
        self.clock = around.clock
        self.agent = around.agent
        self.spki = around.spki
        self.modulus_bytes = parse_spki(around.spki).modulus_bytes
        self.reader_of = around.reader_of
        self.wall_clock_ms = around.wall_clock_ms
        self.random_bytes = around.random_bytes
        self.agent_name = around.agent_name
        self.timing = around.timing

        self.loopback = Loopback(around.index, around.generation)
        self.routes = Routes(
            loopback=self.loopback,
            owner_of=around.owner_of,
            links=around.links,
            attach=self._attach,
        )
        # As the home of logs:
        self.interest = Interest()
        self.rosters = Rosters(around.random_bytes, around.clock)
        self.namebook = NameBook(around.clock, around.silent)
        self.home = Home(
            owns=self.routes.owns,
            open_partition=around.open_partition,
            wall_clock_ms=around.wall_clock_ms,
            interest=self.interest,
            refuse=lambda port, partition: self.exchange.refuse(port, partition),
            reader_of=around.reader_of,
            run_commit=around.run_commit,
        )
        # As a worker with members:
        self.forward = Forward(self.routes.port_of)
        self.logins = Logins(self.routes.port_of)
        self.waits = Waits()
        self.fanout = Fanout()
        self.pressure = Pressure(around.clock, around.slow_reader_timeout_s)
        self.catchup = Catchup(around.reader_of, around.clock, self.pressure)
        self.sessions: set[Session] = set()
        self.logged_in = 0
        self.handshakes = 0
        self.repairs = 0
        self.connection_ended: Callable[[], None] = _nothing
        """Called when a connection is gone; the acceptor sets it."""

        self.exchange = Exchange(self)
        self.loopback.exchange = self.exchange
        self.flush_links: Callable[[], None] = _nothing
        """Writes what the bus has queued; the mesh sets it."""
        self.urgent: deque[Session] = deque()
        """Sessions with answers of their own to flush: before any others."""
        self._changed: dict[Feed, None] = {}
        self._flushing: deque[Outbox] = deque()
        self._distributed: list[Feed] = []
        self._flush_started = 0.0
        self._scheduled = False
        self._wakes_at = float("inf")

    # --- the bus ------------------------------------------------------------------------------
    def _attach(self, partition: int, port: Port) -> None:
        """Say to a home everything that this worker has in its partition."""
        port.send(Attach(partition))
        for feed in list(self.fanout.feeds.values()):
            if partition_of(feed.log) == partition:
                port.send(Subscribe(feed.log))
                self._say_presence(port, feed, set(feed.here))
        self.logins.attach(partition, port)
        self.forward.attach(partition, port)
        self.waits.attach(partition, port)

    def _say_presence(self, port: Port, feed: Feed, names: set[str]) -> None:
        changes = feed.presence(names)
        for start in range(0, len(changes), ITEMS_PER_MESSAGE):
            port.send(Presence(feed.log, changes[start : start + ITEMS_PER_MESSAGE]))

    def head_said(self, name: str, epoch: bytes, seq: int) -> None:
        """A log's home says where the log ends."""
        feed = self.fanout.feeds.get(name)
        if feed is None:
            return
        if not feed.head_said(epoch, seq):
            log.error("log_went_back", extra={"log": name})
            for session in list(feed.members):
                session.close(CloseCode.INTERNAL, detail="stored state was lost")
            return
        if feed.repair_to:
            self.fanout.broken[feed] = None
        joining, feed.joining = feed.joining, []
        for join in joining:
            join()

    def members_said(self, message: Members) -> None:
        """A home has answered WHO."""
        answer = self.waits.answered(message.tag)
        if answer is not None:
            answer(message)

    # --- feeds --------------------------------------------------------------------------------
    def feed(self, name: str) -> Feed:
        """Return the feed of a log; a new one is not ``known`` until the home has answered."""
        feed = self.fanout.feeds.get(name)
        if feed is None:
            feed = Feed(name)
            self.fanout.feeds[name] = feed
            port = self.routes.port_of(name)
            if port is not None:
                port.send(Subscribe(name))
        return feed

    def presence_changed(self, feed: Feed) -> None:
        """Connections came or went; the home is told, or the feed is dropped, this turn."""
        self._changed[feed] = None
        self.wake()

    def settle_presence(self) -> None:
        """Tell the homes what changed here since they were last told."""
        while self._changed:
            feed, _ = self._changed.popitem()
            port = self.routes.port_of(feed.log)
            if feed.idle:
                self.fanout.forget(feed)
                if port is not None:
                    port.send(Unsubscribe(feed.log))
                continue
            names, feed.changed = feed.changed, set()
            if port is not None:
                self._say_presence(port, feed, names)

    # --- the turn -----------------------------------------------------------------------------
    def wake(self) -> None:
        """Have a turn at the end of this loop iteration."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        try:
            self._run_turn()
        except Exception:
            # A bug of ours must not end the loop's work for everybody; it is loud in the log. What
            # the turn had still to do is done in the next one.
            log.exception("turn_failed")
            self._scheduled = False
            self._wake_at(self.clock() + FAILED_RETRY_S)

    def _run_turn(self) -> None:
        now = self.clock()
        held = self.home.commit()
        if self._changed:
            self.settle_presence()
        if self.rosters.pending(now):
            for event in self.rosters.changes():
                self.interest.publish(event)
        # What has woken the hub up to here, the steps that follow do. Another turn is needed only
        # for what was submitted because something was answered, and for what comes from here on.
        self._scheduled = False
        if self.home.fresh:
            self.wake()
        self.flush_links()
        repairing = bool(self.fanout.broken) and self._repair()
        if not self._flushing:
            self._distribute(now)
        if self.urgent:
            self._flush_urgent(now)
        self._flush_members()
        if not self._flushing and self.catchup.busy:
            self.catchup.run()
        if self._flushing or self.catchup.busy or self.urgent or repairing:
            self.wake()
            return
        wakes_at = self.rosters.due_at
        for feed in self.fanout.waiting:
            wakes_at = min(wakes_at, feed.rest_until)
        if held:
            wakes_at = min(wakes_at, now + HELD_S)
        if self.fanout.broken:
            wakes_at = min(wakes_at, now + REPAIR_RETRY_S)
        if wakes_at < float("inf"):
            self._wake_at(wakes_at)

    def _repair(self) -> bool:
        """Read pages for the feeds that miss something, in turn, for a slice of time.

        Returns:
            True while there is more to read.
        """
        deadline = self.clock() + SLICE_S
        for feed in list(self.fanout.broken):
            if self.clock() >= deadline:
                break
            del self.fanout.broken[feed]  # to the end of the queue, if it needs another page
            try:
                if feed.repair(self.reader_of(feed.log), limits.PAGE_BYTES_MAX):
                    self.fanout.waiting[feed] = None
            except StoreError as error:
                self.fanout.broken[feed] = None
                log.warning("repair_failed", extra={"log": feed.log, "reason": str(error)})
                return False
            if feed.repair_to:
                self.fanout.broken[feed] = None
            else:
                self.repairs += 1
        return bool(self.fanout.broken)

    def _flush_urgent(self, now: float) -> None:
        # One pass: operations that go on because answers have left put theirs in the next turn's.
        for _ in range(len(self.urgent)):
            session = self.urgent.popleft()
            session.answers_queued = False
            session.flush(now)

    def _distribute(self, now: float) -> None:
        if not self.fanout.waiting:
            return
        self._distributed = self.fanout.distribute(now)
        for feed in self._distributed:
            ahead, feed.ahead = feed.ahead, []
            for member in ahead:
                self.catchup.add(member)
        self._flushing.extend(self.fanout.dirty)
        self.fanout.dirty.clear()
        self._flush_started = now

    def _flush_members(self) -> None:
        if not self._flushing and not self._distributed:
            return
        clock = self.clock
        now = clock()
        deadline = now + SLICE_S
        flushing = self._flushing
        while flushing:
            for _ in range(min(FLUSHES_PER_CLOCK, len(flushing))):
                flushing.popleft().flush(now)
            now = clock()
            if now >= deadline and flushing:
                return
        self.fanout.rest(self._distributed, now - self._flush_started, now)
        self._distributed = []

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self.loop.call_later(max(0.0, when - self.clock()), self._woken)

    def _woken(self) -> None:
        self._wakes_at = float("inf")
        self.wake()


def _nothing() -> None:
    """Before somebody is there to be told."""
