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
7. ``catchup``       pages for readers that are behind, in the remaining time, in one record with
                     their answers; then, in a rush of logins, what was set aside for those who
                     came in it
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
from typing import TYPE_CHECKING, Final, final

from relay.server.worker.member import repair as repairing
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.server.worker.process.loop.pace import Pace
from relay.server.worker.wakeup import FAR

if TYPE_CHECKING:
    from relay.server.worker.connection.schedule import Schedule
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.home.parts import HomeParts
    from relay.server.worker.member.parts import MemberParts
    from relay.server.worker.process.messaging.own_home import OwnHomeStep
    from relay.server.worker.wakeup import Alarm, Wakeup

BLOCKED_RETRY_S: Final = 0.001
"""When to check again a partition whose commits a checkpoint blocks."""
FAILED_RETRY_S: Final = 0.1
LOOK_S: Final = 0.004
"""How often to look, during a pause, whether anybody needs it."""
LONG_TURN_S: Final = 0.05
"""A turn longer than this is logged if it is the longest so far, with its CPU time: an overloaded
machine makes turns long as well."""
log = logging.getLogger("relay.worker")


class Turn:
    """One worker's turn, and when the next one is due."""

    def __init__(
        self,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
        nobody_waits: Callable[[], bool],
        wakeup: Wakeup,
        alarm: Alarm,
        schedule: Schedule,
        own_home: OwnHomeStep,
        home: HomeParts,
        member: MemberParts,
        flusher: Flusher,
    ) -> None:
        """Create the turn of these parts.

        Args:
            clock: seconds.
            cpu_clock: CPU time of this thread in seconds.
            nobody_waits: returns True if no process waits for a CPU.
            wakeup: requests a turn; from now on it runs this one.
            alarm: requests a turn at a later time.
            schedule: of the connections.
            own_home: step 2.
            home: of this worker.
            member: of this worker.
            flusher: writes to the connections.
        """
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._nobody_waits = nobody_waits
        self._wakeup = wakeup
        self._alarm = alarm
        self._schedule = schedule
        self._own_home = own_home
        self._writer = home.writer
        self._permissions = home.permissions
        self._rosters = home.rosters
        self._feeds = member.feeds
        self._forward = member.forward
        self._repair = member.repair
        self._fanout = member.fanout
        self._catchup = member.catchup
        self._flusher = flusher
        self.pace = Pace()
        """Decides when heavy users are served."""
        self._served = False
        """True when this turn has served heavy users."""
        self._heavy_count = 0
        """How many connections waited then, for their turn or for an answer."""
        self._used_until_s = 0.0
        """CPU time at the end of the last turn that served heavy users."""
        self.delivered_s = 0.0
        """CPU time of deliveries since then, if many log in; otherwise it is not measured."""
        self._heavy_waited = False
        """True if heavy users waited in any turn since the last ``heavy_waited``."""
        self._longest = _LongestTurn()
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
            self._wakeup.scheduled = False
            self._alarm.set(self._clock() + FAILED_RETRY_S)
        self._schedule.until = 0.0  # what arrives before the next turn has its own slice
        ended = self._clock()
        took_s = ended - began
        if self._served:
            self._served = False
            self._set_pace(ended, took_s, cpu_began)
        # If it is the longest in neither respect: reading the CPU clock is a system call.
        if took_s > self._longest.cpu_s:
            self._longest.note(took_s, self._cpu_clock() - cpu_began)

    def heavy_waited(self) -> bool:
        """Return whether heavy users waited (step 8) in any turn since the last call."""
        waited, self._heavy_waited = self._heavy_waited, False
        return waited

    def _run(self, now: float) -> None:
        schedule, own_home = self._schedule, self._own_home
        writer, permissions, catchup = self._writer, self._permissions, self._catchup
        connections = schedule.queue
        heavy_paused = now < self.pace.until
        if connections.waiting:
            schedule.run_light(now, self.pace.light_slice_s, heavy_paused=heavy_paused)
        schedule.until = 0.0
        own_home.run(now, heavy_paused)
        # The following steps handle what has requested a turn so far. Another turn is only needed
        # for what arrives from here on, for what the own home was sent meanwhile, and for light
        # users who still wait.
        self._wakeup.scheduled = False
        if (
            own_home.to_home.queue
            or writer.more
            or permissions.decided
            or (
                connections.waiting
                and (connections.has_light if heavy_paused else connections.light_first)
            )
        ):
            self._wakeup.request()
        heavy = (
            connections.waiting > 0
            or writer.remaining
            or (bool(catchup.heavy) and not catchup.near_limit)
            or (permissions.waiting > 0 and permissions.has_room)
        )
        if heavy:
            self._heavy_waited = True
            if heavy_paused and not self._pause_is_useless(now):
                heavy = False
                self._alarm.set(min(self.pace.until, now + LOOK_S))
        if self._forward.waiting:
            self._forward.release()
        if self.waiting_links:
            self.flush_links()
        measured = now < self.pace.logins_until
        began_s = self._cpu_clock() if measured else 0.0
        unfinished = self._deliver(now)
        if measured:
            self.delivered_s += self._cpu_clock() - began_s
        if unfinished:
            self._wakeup.request()
        if heavy:
            self._serve_heavy()
        if not unfinished:
            wakes_at = self._rosters.due_at
            feeds = self._feeds
            if (
                feeds.to_distribute
                or feeds.to_repair
                or self._fanout.late
                or self._flusher.aside
                or writer.blocked
            ):
                wakes_at = self._due_at(now, wakes_at)
            if wakes_at < FAR:
                self._alarm.set(wakes_at)

    def _deliver(self, now: float) -> bool:
        """Steps 4 to 7. Return whether anything is left for the next turn."""
        feeds, fanout, flusher, catchup = self._feeds, self._fanout, self._flusher, self._catchup
        repairing_on = bool(feeds.to_repair) and self._repair.run()
        if feeds.to_distribute or fanout.late:
            fanout.distribute(now)
        if flusher.answering:
            flusher.flush_answers(now)
        if fanout.sweeping:
            fanout.flush()
        reading = bool(catchup.queue) and not catchup.near_limit
        if reading and not flusher.flushing:
            catchup.run()
            reading = bool(catchup.queue) and not catchup.near_limit
        if flusher.before_pages:
            flusher.flush_before_pages(now)
        aside = bool(flusher.aside) and not flusher.flushing and flusher.flush_aside()
        answering = bool(flusher.answering) or bool(flusher.before_pages)
        return bool(flusher.flushing) or reading or answering or repairing_on or aside

    def _serve_heavy(self) -> None:
        """Step 8: continue with heavy users' requests, for a slice of time."""
        schedule, writer, permissions = self._schedule, self._writer, self._permissions
        slice_s = self.pace.slice_s
        self._served = True
        senders = writer.senders if writer.remaining else 0
        self._heavy_count = max(schedule.busy, senders, permissions.waiting)
        if schedule.waiting:
            schedule.run(self._clock(), slice_s)
            schedule.until = 0.0
        if writer.remaining:
            writer.commit_remaining(slice_s)
        if permissions.waiting:
            permissions.ask_heavy()
        if self._catchup.heavy:
            self._catchup.run_heavy(slice_s)
        if self._forward.waiting:
            self._forward.release()
        if self.waiting_links:
            self.flush_links()

    def _set_pace(self, ended: float, took_s: float, cpu_began: float) -> None:
        """After a turn that served heavy users: request the next one, perhaps after a pause."""
        cpu_ended = self._cpu_clock()
        used_s, self._used_until_s = cpu_ended - self._used_until_s, cpu_ended
        self.pace.served(
            ended,
            took_s,
            cpu_ended - cpu_began,
            used_s,
            self._heavy_count,
            self._schedule.logging_in(),
            self.delivered_s,
        )
        self.delivered_s = 0.0
        if self.pace.until > ended and not self._pause_is_useless(ended):
            self._alarm.set(min(self.pace.until, ended + LOOK_S))
        else:
            self._wakeup.request()

    def _pause_is_useless(self, now: float) -> bool:
        """End the pause if many are logging in and no process waits for the CPU that they leave."""
        pace = self.pace
        if now < pace.logins_until and self._nobody_waits():
            pace.end_pause()
            return True
        return False

    def _due_at(self, now: float, wakes_at: float) -> float:
        """Return when the first of the things is due that are left for a later time."""
        feeds, late = self._feeds, self._fanout.late
        if feeds.to_distribute or late:
            for feed in (*feeds.to_distribute, *late):
                wakes_at = min(wakes_at, feed.paused_until)
        if self._flusher.aside:
            wakes_at = min(wakes_at, self._flusher.aside_at)
        if self._writer.blocked:
            wakes_at = min(wakes_at, now + BLOCKED_RETRY_S)
        if feeds.to_repair:
            wakes_at = min(wakes_at, now + repairing.RETRY_S)
        return wakes_at


@final
class _LongestTurn:
    """The duration of the longest turn so far, and its CPU time."""

    __slots__ = ("cpu_s", "s")

    def __init__(self) -> None:
        self.s = 0.0
        self.cpu_s = 0.0
        """Without the time that the CPU worked for other processes."""

    def note(self, took_s: float, cpu_s: float) -> None:
        """Keep what is longer than before, and log it if it is long."""
        if took_s <= self.s and cpu_s <= self.cpu_s:
            return
        self.s = max(took_s, self.s)
        self.cpu_s = max(cpu_s, self.cpu_s)
        if took_s > LONG_TURN_S:
            log.warning(
                "long_turn",
                extra={
                    "turn_ms_max": round(self.s * 1000, 1),
                    "turn_cpu_ms_max": round(self.cpu_s * 1000, 1),
                },
            )


def _nothing() -> None:
    """Do nothing: there is no mesh yet."""
