"""Limits heavy users' share of a contended CPU. Only decides: no clock.

A worker that wants more than its share of a CPU waits for it in the middle of every turn, and with
it all clients, even light ones: the kernel wakes only processes at once that have not used up their
share. So when the worker sees that it waits for the CPU while serving the crowd (the heavy users
that are waiting), its slices become short, and the crowd rests between them, long enough to keep
the worker below its share. Requests of light users that arrive meanwhile are served at once. The
crowd never rests while CPU time is left, nor while only a few wait: short slices have smaller
commits and are more expensive.

The share is not known, so it is probed as TCP probes the capacity of a path: increase a little
while no waiting is seen, decrease by a large factor when it is (Chiu and Jain, 1989).
"""

from __future__ import annotations

from typing import Final, final

from relay.server.worker.connection.schedule import SLICE_S

SHORT_SLICE_S: Final = 0.0005
"""For the crowd's operations and commits in one turn while the CPU is contended: a turn that the
kernel does not interrupt."""
LEAST: Final = 0.05
"""Minimum share for the crowd: less than that of one process among a dozen."""
MORE: Final = 0.01
"""Increase of the share with each ``SEEN_S`` in which the CPU was available."""
MORE_FOR_NEWCOMERS: Final = 0.05
"""The same while unauthenticated connections are among them: they come once, and the CPU is idle
for as long as they rest too much."""
LESS: Final = 0.5
"""Factor for the decrease. In addition the share never exceeds what was available. With
unauthenticated connections only the latter applies, and the minimum is ``FIRST``."""
FIRST: Final = 0.5
"""Initial share for unauthenticated connections that arrive all at once. It doubles with each
decision until waiting is seen, as a new TCP connection's rate does (slow start)."""
SEEN_S: Final = 0.006
"""CPU time between two decisions: a few turns."""
WAITED_MOST: Final = 0.35
"""Tolerated waiting time for the CPU, as a fraction of the time used: no process is ever alone on a
machine."""
TIMER_S: Final = 0.001
"""Resolution of the loop's timers. Shorter rests are added up."""
REST_MOST_S: Final = 0.02
"""The longest rest: something other than the crowd has made the turn long."""
CROWD_LEAST: Final = 24
"""At least this many connections that wait, or are not logged in, are a crowd: fewer are somebody's
bulk load, and its throughput matters more."""


@final
class Pace:
    """The crowd's share of the CPU."""

    __slots__ = ("_begun", "_cpu_s", "_owed_s", "_starting", "_took_s", "part", "until")

    def __init__(self) -> None:
        self.part = 1.0
        """The share of time that the crowd gets."""
        self.until = 0.0
        """When its rest ends."""
        self._begun = False
        """True while there is a crowd."""
        self._starting = False
        """True during slow start: unauthenticated connections arrived, and no waiting was seen yet.
        """
        self._took_s = 0.0
        self._cpu_s = 0.0
        self._owed_s = 0.0
        """Accumulated rest that was too short for a timer."""

    @property
    def slice_s(self) -> float:
        """Time for the crowd's operations in one turn, and the same again for its commits."""
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
        """Record a turn that has served the crowd.

        Args:
            now: monotonic seconds.
            took_s: its duration.
            cpu_s: its CPU time.
            used_s: CPU time of the worker since the end of the previous turn that served the crowd:
                some of the work caused by the crowd is done in other turns.
            waiting: how many connections waited.
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
    """Return the delay of a timer for something that is due in this many seconds.

    The loop rounds to whole ms. Rounded down to zero, the timer would fire again and again until it
    is due, and a rest would consume the whole CPU.
    """
    return max(left_s + TIMER_S / 2, TIMER_S)
