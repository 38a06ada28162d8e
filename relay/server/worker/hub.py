"""What the sessions of one worker share, and the turn: the order in which data moves.

One turn, at the end of a loop iteration in which anything arrived:

1. ``home.commit``   one group commit per partition; answers; entries into running batches
2. ``rosters``       coalesced joins and leaves into the feeds' events
3. ``fanout``        running batches into the outboxes of live members
4. ``flush``         one record and one write per connection; answers first; in slices
5. ``catchup``       pages for those who are behind, in what time is left
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.chat.entries import Submission
from relay.server.worker.catchup import Catchup
from relay.server.worker.fanout import Fanout, Feed
from relay.server.worker.home import Home
from relay.server.worker.names import NameBook
from relay.server.worker.presence import Presence
from relay.store.errors import StoreError
from relay.wire.identity import parse_spki

if TYPE_CHECKING:
    from relay.server.worker.fanout import Member
    from relay.server.worker.session import Session
    from relay.store.log import Partition, Reader, Stored

SLICE_S: Final = 0.005
"""Writes per loop turn before the loop is let go again (architecture.md, "Slices")."""
FLUSHES_PER_CLOCK: Final = 32
HELD_S: Final = 0.001
"""When to look again at a partition whose commits a checkpoint holds."""
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


class Hub:
    """One worker's shared state and its turn."""

    def __init__(
        self,
        *,
        loop: Loop,
        clock: Callable[[], float],
        agent: Unwrap,
        spki: bytes,
        open_partition: Callable[[int], Partition],
        reader_of: Callable[[str], Reader],
        wall_clock_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        agent_name: str,
    ) -> None:
        self.loop = loop
        self.clock = clock
        """Monotonic seconds, moving within a turn (uvloop's own ``time`` has whole ms)."""
        self.agent = agent
        self.spki = spki
        self.modulus_bytes = parse_spki(spki).modulus_bytes
        self.reader_of = reader_of
        self.wall_clock_ms = wall_clock_ms
        self.random_bytes = random_bytes
        self.agent_name = agent_name
        self.home = Home(open_partition, self._publish, wall_clock_ms)
        self.fanout = Fanout()
        self.catchup = Catchup(reader_of, clock)
        self.presence = Presence(random_bytes)
        self.names: NameBook[Session] = NameBook()
        self.sessions: set[Session] = set()
        self.urgent: deque[Session] = deque()
        """Sessions with answers of their own to flush: before any fan-out."""
        self._flushing: deque[Session] = deque()
        self._distributed: list[Feed] = []
        self._flush_started = 0.0
        self._scheduled = False
        self._wakes_at = float("inf")

    # --- feeds ---------------------------------------------------------------------------------
    def feed(self, log_name: str) -> Feed:
        """Return the feed of a log, opened at the log's head if nobody follows it here yet.

        Raises:
            StoreError: the log's partition cannot be read.
        """
        feed = self.fanout.feeds.get(log_name)
        if feed is None:
            feed = Feed(log_name, self.home.head(log_name))
            self.fanout.feeds[log_name] = feed
        return feed

    def forget(self, feed: Feed) -> None:
        """Drop a feed that nobody follows any more: an idle log costs nothing."""
        if not feed.members:
            self.fanout.feeds.pop(feed.log, None)
            self.fanout.waiting.pop(feed, None)
            self.presence.forget(feed.log)

    def member_of(self, session: Session, log_name: str) -> Member | None:
        """Return a session's membership in a log."""
        feed = self.fanout.feeds.get(log_name)
        return None if feed is None else feed.members.get(session)

    def _publish(self, submission: Submission, stored: Stored) -> None:
        feed = self.fanout.feeds.get(submission.log)
        if feed is not None:
            self.fanout.publish(feed, stored.epoch, stored.prev, stored.seq, stored.packed)

    # --- the turn --------------------------------------------------------------------------------
    def wake(self) -> None:
        """Have a turn at the end of this loop iteration."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            self._run_turn()
        except StoreError:
            log.exception("turn_failed")
        except Exception:
            # A bug of ours must not end the loop's work for everybody; it is loud in the log.
            log.exception("turn_failed")

    def _run_turn(self) -> None:
        now = self.clock()
        held = self.home.commit()
        for feed, envelope in self.presence.changes(now, self.fanout.feeds):
            self.fanout.announce(feed, envelope)
        self._flush_urgent(now)
        if not self._flushing:
            self._distribute(now)
        self._flush_members()
        if not self._flushing and self.catchup:
            self.catchup.run()
        if self._flushing or self.catchup or self.urgent:
            self.wake()
            return
        wakes_at = self.presence.due_at
        for feed in self.fanout.waiting:
            wakes_at = min(wakes_at, feed.rest_until)
        if held:
            wakes_at = min(wakes_at, now + HELD_S)
        if wakes_at < float("inf"):
            self._wake_at(wakes_at)

    def _flush_urgent(self, now: float) -> None:
        while self.urgent:
            session = self.urgent.popleft()
            session.answers_queued = False
            session.outbox.flush(now)

    def _distribute(self, now: float) -> None:
        self._distributed = self.fanout.distribute(now)
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
                flushing.popleft().outbox.flush(now)
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
