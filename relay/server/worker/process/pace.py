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
LEAST: Final = 0.25
"""The crowd's part of the time, however dear the processor is."""
MORE: Final = 0.01
"""By how much the part grows with each ``SEEN_S`` in which the processor was there."""
LESS: Final = 0.5
"""The factor by which it shrinks when it was not."""
SEEN_S: Final = 0.006
"""Of the processor's time, between two decisions: a few turns."""
WAITED_MOST: Final = 0.35
"""How long may be waited for it, as a part of that: nothing is ever alone on a machine."""
REST_MOST_S: Final = 0.02
"""The longest rest: something other than the crowd has made the turn long."""
CROWD_LEAST: Final = 24
"""So many connections that wait at once are a crowd: fewer are somebody's bulk load, and its
throughput matters more."""


@final
class Pace:
    """See the module's docstring."""

    __slots__ = ("_cpu_s", "_took_s", "part", "until")

    def __init__(self) -> None:
        self.part = 1.0
        """Of the time, that the crowd has."""
        self.until = 0.0
        """When its rest ends."""
        self._took_s = 0.0
        self._cpu_s = 0.0

    @property
    def slice_s(self) -> float:
        """For what the crowd asks for in one turn, and for its commits: each has so long."""
        return SLICE_S if self.part == 1.0 else SHORT_SLICE_S

    def served(self, now: float, took_s: float, cpu_s: float, waiting: int) -> None:
        """A turn that has served the crowd is over.

        Args:
            now: monotonic seconds.
            took_s: how long it was.
            cpu_s: how long it had the processor.
            waiting: how many connections waited for it.
        """
        if waiting < CROWD_LEAST:
            self.part = 1.0
            self._took_s = self._cpu_s = 0.0
            return
        self._took_s += took_s
        self._cpu_s += cpu_s
        if self._cpu_s >= SEEN_S:
            if self._took_s > self._cpu_s * (1.0 + WAITED_MOST):
                self.part = max(self.part * LESS, LEAST)
            else:
                self.part = min(self.part + MORE, 1.0)
            self._took_s = self._cpu_s = 0.0
        if self.part < 1.0:
            self.until = now + min(cpu_s * (1.0 / self.part - 1.0), REST_MOST_S)
