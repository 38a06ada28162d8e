"""Limits heavy users' share of a contended CPU. Only decides: no clock.

A worker that wants more than its share of a CPU waits for it in the middle of every turn, and with
it all clients, even light ones: the kernel wakes only processes at once that have not used up their
share. So when the worker sees that it waits for the CPU while serving heavy users, the slices for
these become short, with pauses between them that keep the worker below its share. Requests of light
users that arrive meanwhile are served at once. There are no pauses while CPU time is left, nor
while only a few heavy users wait: short slices have smaller commits and are more expensive.

The share is not known, so it is probed as TCP probes the capacity of a path: increase a little
while no waiting is seen, decrease by a large factor when it is (Chiu and Jain, 1989). While many
are logging in it follows what the worker gets more closely: half of it.
"""

from __future__ import annotations

from typing import Final, final

from relay.server.worker.connection.schedule import SLICE_S
from relay.server.worker.wakeup import TIMER_S

SHORT_SLICE_S: Final = 0.0005
"""For heavy users' operations and commits in one turn while the CPU is contended: a turn that the
kernel does not interrupt."""
SHARE_MIN: Final = 0.05
"""Minimum share for heavy users: less than that of one process among a dozen."""
INCREASE: Final = 0.01
"""Increase of the share with each ``SEEN_S`` in which the CPU was available."""
DECREASE: Final = 0.5
"""Factor for the decrease. In addition the share never exceeds what was available."""
INCREASE_FOR_LOGINS: Final = 0.5
"""Increase while many are logging in, as a part of their share: they come once, and the CPU is idle
for as long as they are paused too much."""
PART_FOR_LOGINS: Final = 0.5
"""Their share when waiting is seen, as a part of what was available. That is what the kernel gives
to a process that always wants to run. One that uses half of it is run as soon as it wakes; with
all of it, each step of a light user's message would wait, too."""
SHARE_FIRST: Final = 0.5
"""Initial share for connections that come to log in all at once. It doubles with each
decision until waiting is seen, as a new TCP connection's rate does (slow start)."""
DELIVERIES_FOR_LOGINS: Final = 0.25
"""The slice for logins is at least this part of the CPU time of deliveries since the last one.
Otherwise those who are back would get their messages while those who are not get hardly a turn."""
LOGINS_S: Final = 1.0
"""How long the CPU time of deliveries is measured after a turn in which many were logging in:
reading that clock is a system call."""
SEEN_S: Final = 0.006
"""CPU time between two decisions: a few turns."""
WAITED_MAX: Final = 0.35
"""Tolerated waiting time for the CPU, as a fraction of the time used: no process is ever alone on a
machine."""
PAUSE_S_MAX: Final = 0.06
"""The longest pause. A longer one is due when something other than heavy users has made the turn
long, and at the minimal share: a turn that serves them costs two to four ms of CPU time, with what
it causes in others. After 20 ms that is four times this share. Beside busy clients it was all that
the kernel gave the worker, so that light users waited for the CPU."""
HEAVY_MIN: Final = 24
"""Fewer connections that wait, or are logging in, are never paused: they are somebody's bulk
load, and its throughput matters more."""


@final
class Pace:
    """Heavy users' share of the CPU."""

    __slots__ = (
        "_begun", "_cpu_s", "_owed_s", "_starting", "_took_s", "logins_until", "share", "slice_s",
        "until",
    )  # fmt: skip

    def __init__(self) -> None:
        self.share = 1.0
        """The share of time that heavy users get."""
        self.until = 0.0
        """When the pause ends."""
        self.slice_s = SLICE_S
        """Time for heavy users' operations in one turn, and the same again for its commits."""
        self.logins_until = 0.0
        """Until when the CPU time of deliveries is needed; in the past unless many are logging in.
        """
        self._begun = False
        """True while enough heavy users wait."""
        self._starting = False
        """True during slow start: many came to log in, and no waiting was seen yet."""
        self._took_s = 0.0
        self._cpu_s = 0.0
        self._owed_s = 0.0
        """Accumulated pauses that were too short for one of the loop's timers."""

    @property
    def light_slice_s(self) -> float:
        """Time for light users' operations in one turn."""
        return SLICE_S if self.share == 1.0 else SHORT_SLICE_S

    def served(
        self,
        now: float,
        took_s: float,
        cpu_s: float,
        used_s: float,
        waiting: int,
        logging_in: int = 0,
        delivered_s: float = 0.0,
    ) -> None:
        """Record a turn that has served heavy users.

        Args:
            now: monotonic seconds.
            took_s: its duration.
            cpu_s: its CPU time.
            used_s: CPU time of the worker since the end of the previous turn that served them:
                some of the work that they cause is done in other turns.
            waiting: how many connections waited.
            logging_in: how many were logging in.
            delivered_s: the part of ``used_s`` that deliveries took. Logins cause none.
        """
        if waiting + logging_in < HEAVY_MIN:
            self.share = 1.0
            self.slice_s = SLICE_S
            self._begun = False
            self.logins_until = 0.0
            self._took_s = self._cpu_s = self._owed_s = 0.0
            return
        logins = logging_in >= HEAVY_MIN
        self.logins_until = now + LOGINS_S if logins else 0.0
        if not self._begun:
            self._begun = True
            self._starting = logins
            if self._starting:
                self.share = SHARE_FIRST
        self._took_s += took_s
        self._cpu_s += cpu_s
        if self._cpu_s >= SEEN_S:
            self._decide(logins=logins)
            self._took_s = self._cpu_s = 0.0
        self.slice_s = self.light_slice_s
        if self.share < 1.0:
            if logins:
                used_s -= delivered_s
                least_s = delivered_s * DELIVERIES_FOR_LOGINS
                self.slice_s = min(max(SHORT_SLICE_S, least_s), SLICE_S)
            self._owed_s += used_s * (1.0 / self.share - 1.0)
            if self._owed_s >= TIMER_S:
                self.until = now + min(self._owed_s, PAUSE_S_MAX)
                self._owed_s = 0.0

    def end_pause(self) -> None:
        """End the pause: nobody needs it now. The share stays, for when somebody does."""
        self.until = 0.0

    def _decide(self, *, logins: bool) -> None:
        """Change the share, by the turns since the last decision."""
        if self._took_s > self._cpu_s * (1.0 + WAITED_MAX):
            had = self._cpu_s / self._took_s
            self._starting = False
            if logins:
                self.share = max(had * PART_FOR_LOGINS, SHARE_MIN)
            else:
                self.share = max(min(self.share * DECREASE, had), SHARE_MIN)
        elif self._starting:
            self.share = min(2 * self.share, 1.0)
        else:
            more = self.share * INCREASE_FOR_LOGINS if logins else INCREASE
            self.share = min(self.share + more, 1.0)
