"""Whose operations run when: at once while the worker has time, and then in turn.

Reading, opening and running what one connection sent is bounded by ``UNITS_PER_TURN``, what all
connections sent by a slice of time for each turn of the worker. Whoever has more is not read from
until its turn has come. So a flood of any kind costs its sender waiting, and others a slice.

Once anybody waits, all wait. Those who ask without end go by weighted fair queueing with equal
weights (Demers, Keshav and Shenker, SIGCOMM 1989): the next is whoever would be the first to finish
if all were served at once, bit by bit. Whoever has asked for little the last time, and got all of
it, goes before them, as new flows do in FQ-CoDel (RFC 8290); all of those together have half of the
time at most while others wait. An equal share would not do: beside hundreds it is less than what
somebody needs who writes now and then. So who asks for little does not wait for those who ask
without end, however many they are, but for one share at most, which is small then (``QUANTUM``). A
slice is short, too: through how many turns of how many workers a message passes does not depend on
the load.
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

SLICE_S: Final = 0.002
"""For the operations of all connections, in one turn."""
UNITS_PER_TURN: Final = 256
"""Of one connection, while no other waits. A send is one unit, about 6 µs."""
QUANTUM: Final = 32
"""Of one connection at a time, while others wait. It is what somebody new is expected to use."""
LEAD_MAX: Final = 512
"""What those who ask for little may use before the others are served again, in units: a slice and a
half."""
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
        self._many: list[tuple[float, int, Scheduled]] = []
        """A heap of (finish, order of arrival, session)."""
        self._little: list[tuple[float, int, Scheduled]] = []
        """Likewise, of those who go before them."""
        self._arrivals = 0
        self._round = 0.0
        """Units that each of those that wait would have had by now, if all were served at once."""
        self._lead = 0
        """Units of those who ask for little, less those of the others."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._many) + len(self._little)

    def has_time(self, now: float) -> bool:
        """Tell whether what has just been received may be handled at once."""
        if self._many or self._little:
            return False
        if self.until == 0.0:
            self.until = now + self.slice_s
            return True
        return now < self.until

    @property
    def share(self) -> int:
        """Units that a session may use now, about."""
        return QUANTUM if self._many or self._little else UNITS_PER_TURN

    def charge(self, finish: float, units: int, *, drained: bool) -> float:
        """Return in which round a session finishes what it has just had.

        Args:
            finish: what this returned for the session the last time; 0 at first.
            units: what it has had.
            drained: nothing of what it sent is left. Then it owes nothing.
        """
        finish = max(finish, self._round) + units
        self._round += units / (self.waiting + 1)
        if not drained or units > QUANTUM:
            self._lead = max(self._lead - units, 0)
        elif self._many:
            self._lead += units
        return 0.0 if drained else finish

    def add(self, session: Scheduled, finish: float, units: int) -> None:
        """Queue a session that has more than its share, or came when there was no time.

        Args:
            session: is not queued.
            finish: of its last turn.
            units: what it is likely to use: as much as the last time; 0: it has had nothing yet.
        """
        self._arrivals += 1
        little = not finish and 0 < units <= QUANTUM
        finish = max(finish, self._round) + min(units or QUANTUM, QUANTUM)
        heap = self._little if little else self._many
        heapq.heappush(heap, (finish, self._arrivals, session))
        self._wakeup.request()

    def run(self, now: float) -> None:
        """Give sessions their turns, for one slice."""
        until = now + self.slice_s
        little, many = self._little, self._many
        while little or many:
            heap = little if little and (self._lead < LEAD_MAX or not many) else many
            heapq.heappop(heap)[2].take_turn(now)
            now = self._clock()
            if now >= until:
                break
