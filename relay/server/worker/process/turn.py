"""The turn: the order in which data moves through a worker.

One turn, at the end of a loop iteration in which anything arrived:

1. ``schedule``      waiting connections of light users, for a slice of time
2. the own home      handles what this worker sends it; asks permission for direct messages of light
                     senders; one group commit per partition; answers, and batches to the
                     following workers; changes of presence and rosters; this worker handles what
                     its home sent. Repeated, for a slice of time, while that caused new requests
                     that need no commit (a join, a login)
3. ``links``         one write per link, answers first
4. ``repair``        missed entries of a log, from the store
5. ``distribute``    running batches into the outboxes of live subscriptions
6. ``flush``         one record and one write per connection; answers first; in slices
7. ``catchup``       pages for readers that are behind, in the remaining time; then, in a rush of
                     logins, what was set aside for those who came in it
8. heavy users       waiting connections of heavy users, in turn, for a slice of time; for another
                     slice, what the own home has left in step 2 because it was much, and
                     permissions for direct messages of heavy senders; for a third, pages for heavy
                     users; ``links``

So a light user waits for at most one slice of each kind of work for heavy users, not for one in
each step. What step 8 causes is done in the next turn: at once, or, on an overloaded machine, after
a pause (``pace``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Protocol

from relay.server.worker.member import repair as repairing
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.server.worker.process.pace import Pace, timer_s

if TYPE_CHECKING:
    from relay.server.worker.connection.schedule import Schedule
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.home.home import Home
    from relay.server.worker.home.permissions import Permissions
    from relay.server.worker.home.publishing import Interest
    from relay.server.worker.home.rosters import Rosters
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.fanout import Fanout
    from relay.server.worker.member.feed import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.presence import PresenceReports
    from relay.server.worker.member.repair import Repair
    from relay.server.worker.process.own_home import Handlers, OwnHome
    from relay.server.worker.wakeup import Wakeup

HOME_SLICE_S: Final = 0.002
"""How long requests to the own home that need no commit may follow one another in one turn."""
BLOCKED_RETRY_S: Final = 0.001
"""When to check again a partition whose commits a checkpoint blocks."""
FAILED_RETRY_S: Final = 0.1
FAR: Final = float("inf")
LONG_TURN_S: Final = 0.05
"""A turn longer than this is logged if it is the longest so far, with its CPU time: an overloaded
machine makes turns long as well."""
log = logging.getLogger("relay.worker")


class Loop(Protocol):
    """The part of an event loop that the turn uses."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Call after a number of seconds."""


class Turn:
    """One worker's turn, and when the next one is due."""

    def __init__(
        self,
        *,
        loop: Loop,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
        wakeup: Wakeup,
        own_home: OwnHome,
        handlers: Handlers,
        schedule: Schedule,
        home: Home,
        permissions: Permissions,
        interest: Interest,
        rosters: Rosters,
        feeds: Feeds,
        forward: Forward,
        presence: PresenceReports,
        repair: Repair,
        fanout: Fanout,
        flusher: Flusher,
        catchup: Catchup,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._wakeup = wakeup
        self._own_home = own_home
        self._handlers = handlers
        self._schedule = schedule
        self._home = home
        self._permissions = permissions
        self._interest = interest
        self._rosters = rosters
        self._feeds = feeds
        self._forward = forward
        self._presence = presence
        self._repair = repair
        self._fanout = fanout
        self._flusher = flusher
        self._catchup = catchup
        self._wakes_at = FAR
        self.pace = Pace()
        """Decides when heavy users are served."""
        self._served = False
        """True when this turn has served heavy users."""
        self._heavy_count = 0
        """How many connections waited then, for their turn or for an answer."""
        self._used_until_s = 0.0
        """CPU time at the end of the last turn that served heavy users."""
        self._heavy_waited = False
        """True if heavy users waited in any turn since the last ``heavy_waited``."""
        self.longest_s = 0.0
        self.longest_cpu_s = 0.0
        """CPU time of the longest turn: without the time that the CPU worked for other processes.
        """
        self.flush_links: Callable[[], None] = _nothing
        """Writes what the bus has queued; set when there is a mesh, like the next one."""
        self.waiting_links: Collection[object] = ()
        """The links that have queued anything; empty when all is written."""
        wakeup.bind(self.run)

    def run(self) -> None:
        """Run one turn. Raises nothing."""
        began, cpu_began = self._clock(), self._cpu_clock()
        try:
            self._run(began)
        except Exception as error:
            exit_if_out_of_memory(error)
            # A bug must not stop the loop for everybody; it is logged as an error. The next turn
            # does what this one left.
            log.exception("turn_failed")
            self._wakeup.begun()
            self._wake_at(self._clock() + FAILED_RETRY_S)
        self._schedule.until = 0.0  # what arrives before the next turn has its own slice
        ended = self._clock()
        took_s = ended - began
        if self._served:
            self._served = False
            cpu_ended = self._cpu_clock()
            used_s, self._used_until_s = cpu_ended - self._used_until_s, cpu_ended
            self.pace.served(
                ended,
                took_s,
                cpu_ended - cpu_began,
                used_s,
                self._heavy_count,
                self._schedule.logging_in(),
            )
            if self.pace.until > ended:
                self._wake_at(self.pace.until)
            else:
                self._wakeup.request()
        if took_s <= self.longest_cpu_s:
            return  # the longest in neither respect: reading the CPU clock is a system call
        cpu_s = self._cpu_clock() - cpu_began
        if took_s > self.longest_s or cpu_s > self.longest_cpu_s:
            self.longest_s = max(took_s, self.longest_s)
            self.longest_cpu_s = max(cpu_s, self.longest_cpu_s)
            if took_s > LONG_TURN_S:
                log.warning(
                    "long_turn",
                    extra={
                        "turn_ms_max": round(self.longest_s * 1000, 1),
                        "turn_cpu_ms_max": round(self.longest_cpu_s * 1000, 1),
                    },
                )

    def heavy_waited(self) -> bool:
        """Return whether heavy users waited (step 8) in any turn since the last call."""
        waited, self._heavy_waited = self._heavy_waited, False
        return waited

    def _run(self, now: float) -> None:
        schedule = self._schedule
        waiting = schedule.queue
        heavy_paused = now < self.pace.until
        if waiting.waiting:
            schedule.run_light(now, self.pace.slice_s, heavy_paused=heavy_paused)
        schedule.until = 0.0
        self._run_home(now, heavy_paused)
        # The following steps handle what has requested a turn so far. Another turn is only needed
        # for what arrives from here on, and for what the own home was sent meanwhile.
        self._wakeup.begun()
        home = self._home
        catchup = self._catchup
        asked = bool(catchup.heavy) and not catchup.near_limit
        permissions = self._permissions
        heavy = waiting.waiting > 0 or home.remaining or asked
        if permissions.waiting and permissions.has_room:
            heavy = True
        self._heavy_waited = self._heavy_waited or heavy
        if heavy and heavy_paused:
            heavy = False
            self._wake_at(self.pace.until)
        light = waiting.waiting > 0 and (waiting.has_light if heavy_paused else waiting.light_first)
        if light or self._own_home.to_home.queue or home.more or permissions.decided:
            self._wakeup.request()
        if self._forward.waiting:
            self._forward.release()
        if self.waiting_links:
            self.flush_links()
        repairing_on = bool(self._feeds.to_repair) and self._repair.run()
        flusher = self._flusher
        fanout = self._fanout
        if self._feeds.to_distribute or fanout.late:
            fanout.distribute(now)
        if flusher.answering:
            flusher.flush_answers(now)
        if fanout.sweeping:
            fanout.flush()
        reading = bool(catchup.queue) and not catchup.near_limit
        if reading and not flusher.flushing:
            catchup.run()
            reading = bool(catchup.queue) and not catchup.near_limit
        aside = bool(flusher.aside) and not flusher.flushing and flusher.flush_aside()
        on = flusher.flushing or reading or flusher.answering or repairing_on or aside
        if on:
            self._wakeup.request()
        if heavy:
            self._served = True
            senders = home.senders if home.remaining else 0
            self._heavy_count = max(schedule.busy, senders, permissions.waiting)
            self._serve_heavy()
        if on:
            return
        if (
            self._rosters.due_at < FAR
            or self._feeds.to_distribute
            or fanout.late
            or flusher.aside
            or self._home.blocked
            or self._feeds.to_repair
        ):
            self._wake_later(now)

    def _serve_heavy(self) -> None:
        """Continue with heavy users' requests, for a slice of time."""
        schedule, home, slice_s = self._schedule, self._home, self.pace.slice_s
        if schedule.waiting:
            schedule.run(self._clock(), slice_s)
            schedule.until = 0.0
        if home.remaining:
            home.commit_remaining(slice_s)
        if self._permissions.waiting:
            self._permissions.ask_heavy()
        if self._catchup.heavy:
            self._catchup.run_heavy(slice_s)
        if self._forward.waiting:
            self._forward.release()
        if self.waiting_links:
            self.flush_links()

    def _run_home(self, now: float, heavy_paused: bool) -> None:
        own, handlers = self._own_home, self._handlers
        to_home, to_member = own.to_home, own.to_member
        rosters, presence = self._rosters, self._presence
        permissions = self._permissions
        deadline = now + HOME_SLICE_S
        while True:
            if to_home.queue:
                own.deliver_to_home(self._home, handlers)
            if permissions.waiting:
                permissions.ask_light(heavy_paused=heavy_paused)
            permissions.decided = False
            self._home.commit(heavy_paused=heavy_paused)
            if presence.to_report:
                presence.send()
            if rosters.changed or now >= rosters.due_at:
                for event in rosters.changes():
                    self._interest.publish(event)
            if to_member.queue:
                own.deliver_to_member(handlers)
            more = bool(to_home.queue) or permissions.decided
            if not more or to_home.submits or self._clock() >= deadline:
                return

    def _wake_later(self, now: float) -> None:
        wakes_at = self._rosters.due_at
        for feed in (*self._feeds.to_distribute, *self._fanout.late):
            wakes_at = min(wakes_at, feed.paused_until)
        if self._flusher.aside:
            wakes_at = min(wakes_at, self._flusher.aside_at)
        if self._home.blocked:
            wakes_at = min(wakes_at, now + BLOCKED_RETRY_S)
        if self._feeds.to_repair:
            wakes_at = min(wakes_at, now + repairing.RETRY_S)
        if wakes_at < FAR:
            self._wake_at(wakes_at)

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self._loop.call_later(timer_s(when - self._clock()), self._woken)

    def _woken(self) -> None:
        self._wakes_at = FAR
        self._wakeup.request()


def _nothing() -> None:
    """Do nothing: there is no mesh yet."""
