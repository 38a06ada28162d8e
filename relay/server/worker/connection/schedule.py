"""Whose operations run when: at once while the worker has time, and then in turn.

Reading, opening and running what one connection sent is bounded by ``UNITS_PER_TURN``, what all
connections sent by a slice of time for each turn of the worker. Whoever has more is not read from
until its turn has come. So a flood of any kind costs its sender waiting, and others a slice.

Once anybody waits, all wait, and ``fair_queue`` tells who is next: those who ask for little go
first, and have a part of the turn of their own, before everything else that it does; the others
come at its end. A slice is short: through how many turns of how many workers a message passes does
not depend on the load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.codec import Unknown
from relay.server.worker.fair_queue import FairQueue
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
LITTLE: Final = 18
"""A message, a few in one record or at once, or a question: what somebody does who waits for the
answers, and what comes of it meanwhile if those are late."""
LITTLE_PER_S: Final = 250
"""Besides, in units: eighty messages a second, of which each is a record. However long somebody who
writes now and then had to wait, for whatever reason, what came meanwhile does not make him one of
those who ask for much, who wait for each other's turns: he would fall behind without end."""
SAVED_S: Final = 1.0
"""What was not used of that may be used later, so much of it. What has come while he waited is read
in more than one piece: with none of it saved, the first, which may be one message, would spend what
was for all of it."""
OWED_S_MAX: Final = 1.0
"""What was used beyond that is owed, so much of it: who has sent very much, and sends no more, asks
for little a second later."""
LEAD_MAX: Final = 512
"""What those who ask for little may use before the others are served again, in units: a slice and a
half."""
NEWCOMERS_MAX: Final = 24
"""Of so many connections that are not logged in yet, each step waits for its turn, with those who
ask for much: a handshake and a login, or an account, take a millisecond or two of the processor,
and people who talk do not wait for hundreds of them."""
RECORD_UNITS: Final = 2
"""Opening a record, whatever is in it."""
VALUES_PER_UNIT: Final = 64
"""Unpacking that many fields, or elements of arrays, of a record is as dear as a send: eight
envelopes of eight."""
ROWS_PER_UNIT: Final = 4
"""Of a page of history: some 1.5 us each, and their bytes sealed and written."""
FOUND_UNITS: Final = 8
"""Of each message that a search has found: it is read, and its last edit."""
UNITS_OF_WORK: Final = 16
"""Of one of the units in which budgets count what requests cost (``charges``): 0.1 ms."""
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


class Newcomers(Protocol):
    """Those who are not logged in: ``Admission``."""

    @property
    def unauthenticated(self) -> int:
        """How many there are."""


class Schedule:
    """The sessions of a worker that wait for their turn."""

    def __init__(
        self, clock: Callable[[], float], wakeup: Wakeup, newcomers: Newcomers | None = None
    ) -> None:
        """Begin with nobody.

        Args:
            clock: monotonic seconds.
            wakeup: asks for a turn.
            newcomers: the connections that are not logged in; None: there are none.
        """
        self._clock = clock
        self._newcomers = newcomers
        self._wakeup = wakeup
        self.busy = 0
        """How many sessions that are logged in have asked for more than is done at once: they wait
        for their turn, for commits or for an answer. Kept by those."""
        self.slice_s = SLICE_S
        self.until = 0.0
        """End of the slice that is being used; 0: none is. The turn sets it to 0."""
        self.queue: FairQueue[Scheduled] = FairQueue(
            quantum=QUANTUM, little=LITTLE, lead_max=LEAD_MAX
        )
        """Those that wait. Who only asks how many does so here: each message asks some times."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self.queue.waiting

    @property
    def little_first(self) -> bool:
        """True if the next one asks for little."""
        return self.queue.little_first

    @property
    def has_little(self) -> bool:
        """True if anybody waits who asks for little."""
        return self.queue.has_little

    def has_time(self, now: float) -> bool:
        """Tell whether what has just been received may be handled at once."""
        if self.queue.waiting:
            return False
        if now < self.until:
            return True
        if self.until == 0.0 or (
            # Nothing has come for as long as a slice, and nothing that came needed a turn (a
            # keepalive, a handshake): no turn will end that slice.
            now >= self.until + self.slice_s and not self._wakeup.scheduled
        ):
            self.until = now + self.slice_s
            return True
        return False

    def newcomers(self) -> int:
        """Return how many connections are not logged in."""
        return 0 if self._newcomers is None else self._newcomers.unauthenticated

    def is_for_newcomers(self) -> bool:
        """Tell whether there is time for who is not logged in, besides: see ``NEWCOMERS_MAX``."""
        return self.newcomers() < NEWCOMERS_MAX

    @property
    def share(self) -> int:
        """Units that a session may use now, about."""
        return QUANTUM if self.queue.waiting else UNITS_PER_TURN

    def charge(self, finish: float, units: int, *, drained: bool) -> float:
        """Return in which round a session finishes what it has just had: see ``FairQueue``."""
        return self.queue.charge(finish, units, drained=drained)

    def add(self, session: Scheduled, finish: float, units: int) -> None:
        """Queue a session that has more than its share, or came when there was no time.

        Args:
            session: is not queued.
            finish: of its last turn.
            units: what it is likely to use: as much as the last time; 0: it has had nothing yet.
        """
        self.queue.add(session, finish, units)
        self._wakeup.request()

    def run_little(self, now: float, slice_s: float = SLICE_S, *, resting: bool = False) -> None:
        """Give those who ask for little their turns, for so long.

        While the others rest, for lack of a processor, they have no part of it that could be kept
        for them: what those who ask for little are ahead of them does not matter then.
        """
        queue = self.queue
        until = now + slice_s
        while queue.has_little if resting else queue.little_first:
            queue.pop_little().take_turn(now)
            now = self._clock()
            if now >= until:
                break

    def run(self, now: float, slice_s: float = SLICE_S) -> None:
        """Give sessions their turns, for so long."""
        queue = self.queue
        until = now + slice_s
        while queue.waiting:
            queue.pop().take_turn(now)
            now = self._clock()
            if now >= until:
                break
