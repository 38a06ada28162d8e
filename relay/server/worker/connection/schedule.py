"""Decides when operations run: at once while the worker has time, otherwise in turn.

Reading, opening and running what one connection sends is limited to ``UNITS_PER_TURN``, and for all
connections together to a slice of time per turn of the worker. A connection that has sent more is
not read until its turn. So a flood of any kind costs its sender waiting time, and others at most a
slice.

As soon as one connection waits, all of them wait, and ``fair_queue`` decides which is next. Light
users go first and have a slice of their own at the start of the turn; the others are served at its
end. Slices are short so that the number of turns that a message passes through does not depend on
the load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.codec import Unknown
from relay.server.worker.connection.budgets.admission import LOGINS_MANY
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
"""Time for the operations of all connections in one turn."""
UNITS_PER_TURN: Final = 256
"""Share of one connection while no other waits. A send is one unit, about 6 µs."""
QUANTUM: Final = 32
"""Share of one connection while many wait. Also the expected use of a new connection."""
ROUND: Final = 1024
"""Units of all waiting connections together, each served once, while they are few: about 6 ms. So a
few heavy users have larger shares in fewer turns, and larger commits, which cost less."""
LIGHT_MAX: Final = 18
"""Limit for light users: one message, a few in one record or at once, or a request. This is what a
client does that waits for answers, plus the consequences while answers are late."""
LIGHT_PER_S: Final = 250
"""Additional allowance of light users per second, in units: eighty messages, each in a record of
its own. Without it, an occasional writer that had to wait, for whatever reason, would count as
heavy because of what arrived meanwhile, and would fall further and further behind."""
SAVED_S: Final = 4.0
"""How long an unused allowance is kept. What arrived while a connection waited is read in several
pieces: if nothing were kept, the first piece, often a single message, would use up the allowance
for all of them."""
BULK: Final = 64
"""If more operations of one record wait, this is a bulk load, for which no saved allowance counts:
what is late of an occasional writer is in records of its own, or in fewer. The allowances of some
hundred clients that send without end, each of which waits for seconds, add up to more than all the
CPU time there is."""
OWED_S_MAX: Final = 1.0
"""Bound of what was used beyond the allowance: after a bulk load, a connection is light again this
long after its last message."""
LEAD_MAX: Final = 512
"""Units that light users may use before heavy users are served again: one and a half slices."""
RECORD_UNITS: Final = 2
"""Opening a record, whatever its content."""
VALUES_PER_UNIT: Final = 64
"""Unpacking this many fields, or elements of arrays, costs as much as a send: eight envelopes of
eight."""
UNITS_OF_WORK: Final = 16
"""For one of the units in which budgets count requests (``charges``): 0.1 ms."""
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
"""Costs of operations that differ from one unit. Useless operations are priced above their cost.

Checking a device's signature takes about 140 µs, so a slice has room for some thirty logins."""


class Scheduled(Protocol):
    """A session."""

    def take_turn(self, now: float) -> None:
        """Continue with the received bytes. Raises nothing."""


class CountsLogins(Protocol):
    """Counts the connections that are logging in: ``Admission``."""

    def logging_in(self, now: float) -> int:
        """Return how many connections may be logging in, at this time of the clock."""


class Schedule:
    """The sessions of a worker that wait for their turn."""

    def __init__(
        self,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
        wakeup: Wakeup,
        admission: CountsLogins | None = None,
    ) -> None:
        """Create without sessions.

        Args:
            clock: monotonic seconds.
            cpu_clock: seconds of CPU time of this thread.
            wakeup: requests a turn.
            admission: counts the connections that are logging in; None: there are none.
        """
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._admission = admission
        self._wakeup = wakeup
        self.busy = 0
        """Number of logged-in sessions that have asked for more than is done at once: they wait for
        their turn, for commits or for an answer. Updated by the sessions."""
        self.slice_s = SLICE_S
        self.serves_light = False
        """True during ``run_light``."""
        self.until = 0.0
        """End of the current slice; 0 if there is none. The turn resets it to 0."""
        self.queue: FairQueue[Scheduled] = FairQueue(
            quantum=QUANTUM, light_max=LIGHT_MAX, lead_max=LEAD_MAX
        )
        """The waiting sessions. The hot path reads its counters directly."""

    @property
    def waiting(self) -> int:
        """Number of waiting sessions."""
        return self.queue.waiting

    def has_time(self, now: float, *, first: bool = False, before_login: bool = False) -> bool:
        """Return True if bytes that have just arrived may be processed at once.

        Args:
            now: of the clock.
            first: even if others wait for their turn.
            before_login: of a connection that is not logged in yet (``has_time_for_logins``).
        """
        if before_login and not self.has_time_for_logins():
            return False
        if self.queue.waiting and not first:
            return False
        if now < self.until:
            return True
        if self.until == 0.0 or (
            # Nothing arrived for the length of a slice, and nothing before needed a turn (a
            # keepalive, a handshake), so no turn will end the slice.
            now >= self.until + self.slice_s and not self._wakeup.scheduled
        ):
            self.until = now + self.slice_s
            return True
        return False

    def logging_in(self) -> int:
        """Return how many connections may be logging in: see ``Admission``."""
        return 0 if self._admission is None else self._admission.logging_in(self._clock())

    def has_time_for_logins(self) -> bool:
        """Return True if connections that are not logged in need not wait with heavy users.

        If there are many of them, each of their steps does: clients that are chatting should not
        wait for hundreds of logins.
        """
        admission = self._admission
        return admission is None or admission.logging_in(self._clock()) < LOGINS_MANY

    @property
    def share(self) -> int:
        """Approximate number of units that a session may use now."""
        others = self.queue.waiting
        if not others:
            return UNITS_PER_TURN
        if self.serves_light:
            return QUANTUM  # for more than that it waits with the heavy users
        return max(QUANTUM, min(UNITS_PER_TURN, ROUND // (others + 1)))

    def add(self, session: Scheduled, finish: float, units: int) -> None:
        """Queue a session that has more work than its share, or that arrived when there was no
        time.

        Args:
            session: not queued yet.
            finish: of its last turn.
            units: the expected use, as much as last time; 0 if it was not served before.
        """
        self.queue.add(session, finish, units)
        self._wakeup.request()

    def run_light(
        self, now: float, slice_s: float = SLICE_S, *, heavy_paused: bool = False
    ) -> None:
        """Give light users their turns, for this much CPU time.

        Not for so long: a turn that the kernel interrupts would serve one of them, and the others
        would wait for as many turns as they are.

        ``heavy_paused``: for lack of CPU time. Nothing is then reserved for heavy users, so the
        lead of light users does not matter.
        """
        queue = self.queue
        until = self._cpu_clock() + slice_s
        self.serves_light = True
        while queue.has_light if heavy_paused else queue.light_first:
            queue.pop_light().take_turn(now)
            if self._cpu_clock() >= until:
                break
            now = self._clock()
        self.serves_light = False

    def run(self, now: float, slice_s: float = SLICE_S) -> None:
        """Give sessions their turns, for this long."""
        queue = self.queue
        until = now + slice_s
        while queue.waiting:
            queue.pop().take_turn(now)
            now = self._clock()
            if now >= until:
                break
