"""How much of a contended processor those get who ask without end. Decides alone: no clock.

A worker that wants more than its share of a processor waits for it in the middle of every turn, and
with it everybody, however little they ask for: the kernel wakes at once only who has not used up
its share. So when the worker finds that it waits for the processor while it serves the crowd, its
slices become short and the crowd rests between them, for as long as keeps the worker below its
share. What comes meanwhile from those who ask for little is done at once. Nobody rests while there
is time to spare, nor while only a few wait: short slices are dearer, with smaller commits.

What the share is, nobody tells, so it is found as the speed of a path through a network is: a
little more as long as nothing was missed, and a good part less when it was (Chiu and Jain, 1989).
"""

from __future__ import annotations

from typing import Final, final

from relay.server.worker.connection.schedule import SLICE_S

SHORT_SLICE_S: Final = 0.0005
"""For what the crowd asks for in one turn, and for its commits, while the processor is contended: a
turn that the kernel lets end in one go."""
LEAST: Final = 0.05
"""The crowd's part of the time, however dear the processor is: less than the share of one process
among a dozen."""
MORE: Final = 0.01
"""By how much the part grows with each ``SEEN_S`` in which the processor was there."""
MORE_FOR_NEWCOMERS: Final = 0.05
"""Likewise, while newcomers are among them: they come once, and for as long as they rest too much
the processor is idle."""
LESS: Final = 0.5
"""The factor by which it shrinks when it was not; and it is no more than what there was of it.
With newcomers it is just that, and ``FIRST`` at least."""
FIRST: Final = 0.5
"""The part of newcomers who are suddenly there, all at once. It doubles with each look until
something was missed, as a new connection's rate does (slow start)."""
SEEN_S: Final = 0.006
"""Of the processor's time, between two decisions: a few turns."""
WAITED_MOST: Final = 0.35
"""How long may be waited for it, as a part of that: nothing is ever alone on a machine."""
TIMER_S: Final = 0.001
"""What a timer of the loop can do. Shorter rests are added up."""
REST_MOST_S: Final = 0.02
"""The longest rest: something other than the crowd has made the turn long."""
CROWD_LEAST: Final = 24
"""So many connections that wait at once, or are not logged in, are a crowd: fewer are somebody's
bulk load, and its throughput matters more."""


@final
class Pace:
    """See the module's docstring."""

    __slots__ = ("_begun", "_cpu_s", "_owed_s", "_starting", "_took_s", "part", "until")

    def __init__(self) -> None:
        self.part = 1.0
        """Of the time, that the crowd has."""
        self.until = 0.0
        """When its rest ends."""
        self._begun = False
        """There is a crowd."""
        self._starting = False
        """Of newcomers, and nothing was missed yet."""
        self._took_s = 0.0
        self._cpu_s = 0.0
        self._owed_s = 0.0
        """Rest that would have been too short."""

    @property
    def slice_s(self) -> float:
        """For what the crowd asks for in one turn, and for its commits: each has so long."""
        return SLICE_S if self.part == 1.0 else SHORT_SLICE_S

    def served(
        self,
        now: float,
        took_s: float,
        cpu_s: float,
        used_s: float,
        waiting: int,
        newcomers: int = 0,
    ) -> None:
        """A turn that has served the crowd is over.

        Args:
            now: monotonic seconds.
            took_s: how long it was.
            cpu_s: how long it had the processor.
            used_s: how long the worker had it since the end of the turn before this one that has
                served the crowd. What the crowd leads to is not all done in these turns.
            waiting: how many connections waited for it.
            newcomers: how many were not logged in.
        """
        if waiting + newcomers < CROWD_LEAST:
            self.part = 1.0
            self._begun = False
            self._took_s = self._cpu_s = self._owed_s = 0.0
            return
        if not self._begun:
            self._begun = True
            self._starting = newcomers >= CROWD_LEAST
            if self._starting:
                self.part = FIRST
        self._took_s += took_s
        self._cpu_s += cpu_s
        if self._cpu_s >= SEEN_S:
            if self._took_s > self._cpu_s * (1.0 + WAITED_MOST):
                had = self._cpu_s / self._took_s
                if newcomers >= CROWD_LEAST:
                    self.part = max(min(self.part, had), FIRST)
                else:
                    self.part = max(min(self.part * LESS, had), LEAST)
                self._starting = False
            else:
                more = MORE_FOR_NEWCOMERS if newcomers >= CROWD_LEAST else MORE
                self.part = min(self.part + (self.part if self._starting else more), 1.0)
            self._took_s = self._cpu_s = 0.0
        if self.part < 1.0:
            self._owed_s += used_s * (1.0 / self.part - 1.0)
            if self._owed_s >= TIMER_S:
                self.until = now + min(self._owed_s, REST_MOST_S)
                self._owed_s = 0.0


def timer_s(left_s: float) -> float:
    """Return for how long to wait for something that is due in so many seconds.

    The loop rounds to whole ms. Rounded to none, it would come at once, and again and again until
    it is due: a rest that takes the whole processor.
    """
    return max(left_s + TIMER_S / 2, TIMER_S)
