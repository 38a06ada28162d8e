"""Who is next of those that wait: those who ask for little first, the others by fair queueing.

Used wherever requests of many wait for the same thing: connections for the worker
(``connection/schedule``), sends for the way to their home (``member/window``), and submissions for
their commit (``home/submissions``). Decides alone: it knows neither clock nor what is queued.

Those who ask without end go by weighted fair queueing with equal weights (Demers, Keshav and
Shenker, SIGCOMM 1989): the next is whoever would be the first to finish if all were served at once,
bit by bit. Whoever has asked for little the last time, and got all of it, goes before them, as new
flows do in FQ-CoDel (RFC 8290); all of those together have half at most while others wait. An equal
share would not do: beside hundreds it is less than what somebody needs who writes now and then. So
who asks for little does not wait for those who ask without end, however many they are.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class FairQueue(Generic[T]):
    """See the module's docstring. Of whoever is queued, the caller keeps ``finish``; at first 0."""

    def __init__(self, *, quantum: int, little: int, lead_max: int) -> None:
        """Begin with nobody.

        Args:
            quantum: units that somebody is expected to use in one turn.
            little: who asks for so many at most goes first.
            lead_max: what those may use before the others are served again, in units.
        """
        self.quantum = quantum
        self.little = little
        self.lead_max = lead_max
        self._many: list[tuple[float, int, T]] = []
        """A heap of (finish, order of arrival, who)."""
        self._little: list[tuple[float, int, T]] = []
        """Likewise, of those who go before them."""
        self._arrivals = 0
        self._round = 0.0
        """Units that each of those that wait would have had by now, if all were served at once."""
        self._lead = 0
        """Units of those who ask for little, less those of the others."""
        self.waiting = 0
        """How many wait. Kept, not counted: each message looks at it some times."""

    @property
    def little_first(self) -> bool:
        """True if the next one asks for little."""
        return bool(self._little) and (self._lead < self.lead_max or not self._many)

    @property
    def has_little(self) -> bool:
        """True if anybody waits who asks for little, whoever is the next one."""
        return bool(self._little)

    def charge(self, finish: float, units: int, *, drained: bool) -> float:
        """Return in which round somebody finishes what it has just had.

        Args:
            finish: what this returned the last time; 0 at first.
            units: what it has had.
            drained: nothing that it asked for is left. Then it owes nothing.
        """
        begun = self._round
        self._round = begun + units / (self.waiting + 1)
        if not drained or units > self.little:
            self._lead = max(self._lead - units, 0)
        elif self._many:
            # Beside those who rest there is no bound: it would be owed without end afterwards.
            self._lead = min(self._lead + units, self.lead_max + self.little)
        return 0.0 if drained else max(finish, begun) + units

    def add(self, who: T, finish: float, units: int) -> None:
        """Queue somebody who is not queued.

        Args:
            who: waits.
            finish: of its last turn.
            units: what it is likely to use; 0: it has had nothing yet.
        """
        self._arrivals += 1
        little = not finish and 0 < units <= self.little
        finish = max(finish, self._round) + min(units or self.quantum, self.quantum)
        self.waiting += 1
        heapq.heappush(self._little if little else self._many, (finish, self._arrivals, who))

    def pop(self) -> T:
        """Remove the next one and return it. Raises IndexError: nobody waits."""
        who = heapq.heappop(self._little if self.little_first else self._many)[2]
        self.waiting -= 1
        return who

    def pop_little(self) -> T:
        """Likewise, of those who ask for little: the others rest."""
        who = heapq.heappop(self._little)[2]
        self.waiting -= 1
        return who

    def clear(self) -> None:
        """Forget all that wait."""
        self._many.clear()
        self._little.clear()
        self.waiting = 0
