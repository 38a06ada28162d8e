"""Who is flushed in a turn, and in which order: answers first, then fan-out, in slices of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.server.worker.delivery.outbox import Outbox

if TYPE_CHECKING:
    from relay.server.worker.delivery.stream import Stream
    from relay.server.worker.wakeup import Wakeup
    from relay.wire.connection import Connection

SLICE_S: Final = 0.005
"""Writes per loop turn before the loop is let go again (docs/architecture.md, "Slices")."""
FLUSHES_PER_CLOCK: Final = 32
SHORT_BYTES: Final = 1024
"""Answers of a connection that asks for little."""


class Flusher:
    """The outboxes of a worker that have something to write."""

    def __init__(self, clock: Callable[[], float], wakeup: Wakeup) -> None:
        self._clock = clock
        self._wakeup = wakeup
        self.answering: deque[Outbox] = deque()
        """Outboxes with answers of their own: before any others."""
        self.flushing: deque[Outbox] = deque()
        """Outboxes of a sweep that is not written yet: no other one may begin."""
        self._short_first = False
        self._started = 0.0
        self.dirty: list[Outbox] = []
        """Outboxes for the next sweep: empty before a distribution. ``fanout`` adds to it."""

    def outbox(self, connection: Connection, stream: Stream) -> Outbox:
        """Return the outbox of a new connection."""
        return Outbox(connection, stream, self.answering, self._wakeup)

    def flush_answers(self, now: float) -> None:
        """Write a slice of the answers; the turn comes again while there are some.

        One pass: operations that go on because answers have left put theirs in the next turn's.
        """
        answering = self.answering
        self._short_first = not self._short_first
        if self._short_first and len(answering) > FLUSHES_PER_CLOCK:
            # Who asks for little does not wait for all who ask without end. Every other time only:
            # many who ask for little must not keep the others waiting for ever.
            ordered = sorted(answering, key=_long)
            answering.clear()
            answering.extend(ordered)
        deadline = 0.0
        left = len(answering)
        while left:
            for _ in range(min(FLUSHES_PER_CLOCK, left)):
                answering.popleft().flush_answers(now)
                left -= 1
            if left:
                now = self._clock()
                if deadline == 0.0:
                    deadline = now + SLICE_S
                elif now >= deadline:
                    return

    def begin(self, now: float) -> None:
        """Begin a sweep: take the outboxes that were distributed to."""
        self.flushing.extend(self.dirty)
        self.dirty.clear()
        self._started = now

    def flush(self) -> tuple[float, float] | None:
        """Write one slice of a sweep.

        Returns:
            None while some of it is left; then (the time, how long all of it took), in seconds.
        """
        clock = self._clock
        now = clock()
        deadline = now + SLICE_S
        flushing = self.flushing
        while flushing:
            for _ in range(min(FLUSHES_PER_CLOCK, len(flushing))):
                flushing.popleft().flush(now)
            now = clock()
            if now >= deadline and flushing:
                return None
        return now, now - self._started


def _long(outbox: Outbox) -> bool:
    return outbox.answers > SHORT_BYTES
