"""A fair queue in which light users go first.

It is used wherever requests of many users wait for the same resource: connections for a turn of the
worker (``connection/schedule``), sends for the link to their home (``member/window``), submissions
for a commit (``home/submissions``), and direct messages about which their recipients' homes must be
asked (``home/direct/permissions``). It only decides the order: it has no clock and does not know
what is queued.

Heavy users are served by weighted fair queueing with equal weights (Demers, Keshav and Shenker,
SIGCOMM 1989): the next one is the user that would finish first if all were served at once, bit by
bit. A light user, who asked for little last time and received all of it, goes before them, as new
flows do in FQ-CoDel (RFC 8290). While heavy users wait, light users together get at most half of
the service. Equal shares alone would not be enough: among hundreds of heavy users an equal share is
less than an occasional writer needs. With this rule a light user does not wait for heavy users, no
matter how many there are.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class FairQueue(Generic[T]):
    """A fair queue. The caller stores each user's ``finish``, which starts at 0."""

    def __init__(self, *, quantum: int, light_max: int, lead_max: int) -> None:
        """Create an empty queue.

        Args:
            quantum: units that a user is expected to use in one turn.
            light_max: a user that asks for at most this many units is light.
            lead_max: units that light users may use before heavy users are served again.
        """
        self.quantum = quantum
        self.light_max = light_max
        self.lead_max = lead_max
        self._heavy: list[tuple[float, int, T]] = []
        """Heavy users: a heap of (finish, order of arrival, user)."""
        self._light: list[tuple[float, int, T]] = []
        """Light users, in the same form."""
        self._arrivals = 0
        self._round = 0.0
        """Units that each waiting user would have received by now if all were served at once."""
        self._lead = 0
        """Units used by light users, minus units used by heavy users."""
        self._light_served: T | None = None
        """The user removed last, if it was queued as a light one; until it is charged."""
        self.waiting = 0
        """Number of users that wait. Stored, not computed: it is read several times per message."""

    @property
    def light_first(self) -> bool:
        """Return True if the next user is a light one."""
        return bool(self._light) and (self._lead < self.lead_max or not self._heavy)

    @property
    def has_light(self) -> bool:
        """Return True if any light user waits, even if it is not next."""
        return bool(self._light)

    def charge(self, user: T, finish: float, units: int, *, drained: bool) -> float:
        """Return the round in which a user finishes the work it has just received.

        What it was queued as decides whose share this was: a light user that turns out to have more
        work has still been served before the heavy ones.

        Args:
            user: removed last, or served without having been queued.
            finish: the previous result for this user; 0 at first.
            units: the work it has received.
            drained: True if none of its work is left; its debt is then dropped.
        """
        begun = self._round
        self._round = begun + units / (self.waiting + 1)
        if user is not self._light_served:
            self._lead = max(self._lead - units, 0)
        elif self._heavy:
            # No other bound applies while heavy users are paused: they would be owed more without
            # limit.
            self._lead = min(self._lead + units, self.lead_max + self.light_max)
        self._light_served = None
        return 0.0 if drained else max(finish, begun) + units

    def add(self, user: T, finish: float, units: int) -> None:
        """Queue a user that is not queued yet.

        Args:
            user: the user.
            finish: the result of its last ``charge``.
            units: the work it will probably need; 0 if it has not been served before.
        """
        self._arrivals += 1
        light = not finish and 0 < units <= self.light_max
        finish = max(finish, self._round) + min(units or self.quantum, self.quantum)
        self.waiting += 1
        heapq.heappush(self._light if light else self._heavy, (finish, self._arrivals, user))

    def pop(self) -> T:
        """Remove and return the next user. Raises IndexError if nobody waits."""
        if self.light_first:
            return self.pop_light()
        self._light_served = None
        self.waiting -= 1
        return heapq.heappop(self._heavy)[2]

    def pop_light(self) -> T:
        """Remove and return the next light user. Used while heavy users are paused."""
        user = self._light_served = heapq.heappop(self._light)[2]
        self.waiting -= 1
        return user

    def clear(self) -> None:
        """Remove all users."""
        self._heavy.clear()
        self._light.clear()
        self._light_served = None
        self.waiting = 0
