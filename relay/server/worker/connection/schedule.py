"""Whose operations run when: at once while the worker has time, and then in turn.

Reading, opening and running what one connection sent is bounded by ``UNITS_PER_TURN``, what all
connections sent by a slice of time for each turn of the worker. Whoever has more is not read from
until its turn has come. So a flood of any kind costs its sender waiting, and others a slice.

Those that wait go by weighted fair queueing with equal weights (Demers, Keshav and Shenker, SIGCOMM
1989): the next is whoever would be the first to finish if all were served at once, bit by bit. So
who asks for little does not wait for those who ask without end, however many they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.codec import Unknown
from relay.wire.envelopes import (
    Account,
    Devices,
    Enrol,
    Hello,
    History,
    Join,
    Leave,
    Prove,
    Register,
    Room,
    Search,
    Who,
)

if TYPE_CHECKING:
    from relay.server.worker.wakeup import Wakeup

SLICE_S: Final = 0.005
"""For the operations of all connections, in one turn."""
UNITS_PER_TURN: Final = 256
"""Of one connection. A send is one unit, about 6 µs."""
RECORD_UNITS: Final = 2
"""Opening a record, whatever is in it."""
ENVELOPES_PER_UNIT: Final = 8
"""Unpacking that many envelopes of a record is as dear as a send."""
UNITS: Final[dict[type, int]] = {
    Hello: 48,
    Register: 128,
    Enrol: 128,
    Devices: 16,
    Account: 64,
    Room: 64,
    Prove: 128,
    Join: 16,
    Leave: 8,
    Who: 16,
    History: 8,
    Search: 32,
    Unknown: 16,
}
"""Of operations that are not one unit. What is of no use to anybody is priced above its cost.

To check a device's signature takes about 140 µs, so a slice has some thirty logins."""


class Scheduled(Protocol):
    """A session."""

    def take_turn(self, now: float) -> None:
        """Go on with what was received. Raises nothing."""


class Schedule:
    """The sessions of a worker that wait for their turn."""

    def __init__(self, clock: Callable[[], float], wakeup: Wakeup) -> None:
        self._clock = clock
        self._wakeup = wakeup
        self.slice_s = SLICE_S
        self.until = 0.0
        """End of the slice that is being used; 0: none is. The turn sets it to 0."""
        self.waiting: list[tuple[float, int, Scheduled]] = []
        """A heap of (finish, order of arrival, session)."""
        self._arrivals = 0
        self._round = 0.0
        """Units that each of those that wait would have had by now, if all were served at once."""

    def has_time(self, now: float) -> bool:
        """Tell whether what has just been received may be handled at once."""
        if self.until == 0.0:
            self.until = now + self.slice_s
            return True
        return now < self.until

    def charge(self, finish: float, units: int) -> float:
        """Return in which round a session finishes what it has just had.

        Args:
            finish: what this returned for the session the last time; 0 at first.
            units: what it has had.
        """
        finish = max(finish, self._round) + units
        self._round += units / (len(self.waiting) + 1)
        return finish

    def add(self, session: Scheduled, finish: float, units: int) -> None:
        """Queue a session that has more than its share, or came when there was no time.

        Args:
            session: is not queued.
            finish: of its last turn.
            units: what it is likely to use: as much as the last time.
        """
        self._arrivals += 1
        entry = (max(finish, self._round) + units, self._arrivals, session)
        heapq.heappush(self.waiting, entry)
        self._wakeup.request()

    def run(self, now: float) -> None:
        """Give sessions their turns, for one slice."""
        until = now + self.slice_s
        for _ in range(len(self.waiting)):
            heapq.heappop(self.waiting)[2].take_turn(now)
            now = self._clock()
            if now >= until:
                break
