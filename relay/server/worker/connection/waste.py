"""What brings nothing is charged to who asks for it; who has spent that is not read for a while.

An operation that is refused, or that nobody knows, a message that this very connection knows to be
stored, a record that keeps nothing alive: each costs a worker about as much as what is of use, and
some much more. So a connection has a bucket for that, and its source another one. When either is
empty it *rests*: its socket is not read. That costs nothing, nothing is lost, and the peer has to
wait by itself (its kernel takes no more). After the rest it goes on where it was.

The burst is what a client may need who means no harm: all of a window that is refused, some hundred
rooms that cannot be joined. Its refill is small: nobody needs that again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from relay.server.metrics import Budget
from relay.server.worker.connection.token_bucket import of_waste
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.source_usage import Source
    from relay.server.worker.connection.token_bucket import TokenBucket
    from relay.server.worker.refusals import Refusals

REQUEST_UNITS: Final = 16
"""Of a request that is refused. These prices are above what it costs the worker, in units of
``schedule``."""
UNKNOWN_UNITS: Final = 64
"""Of an operation that nobody knows: a client of a later version learns from the first answer."""
SEND_UNITS: Final = 4
"""Of a message that is refused."""
GAP_UNITS: Final = 1
"""Of one that is refused because one before it is missing: so is all that is in the window."""
BEHIND_UNITS: Final = 0.125
"""Likewise, where that one has just been refused for a budget: nothing is looked at."""
BUDGET_UNITS: Final = 32
"""Of anything that is refused for a budget: whoever waits as it was told has few of those."""
REPEAT_UNITS: Final = 64
"""Of a message that this connection knows to be stored, or that contradicts one that is: the store
has to look it up. What is sent again after a reconnect is none."""
CONTROL_UNITS: Final = 16
"""Of a record that is a ping or a pong, or changes the key: some in a minute are of use."""
REST_S: Final = 1.0
"""How long a rest goes on when nothing is owed any more: what comes in so long may be wasted then,
so that there are not many of them."""
OURS: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE, ErrorCode.DAMAGED})
"""Why something was refused that is no fault of who asked."""


Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""An event loop's ``call_later``."""


class Wasted:
    """What one connection has wasted of late."""

    __slots__ = ("bucket", "rests", "who")

    def __init__(self, who: Waster, bucket: TokenBucket | None) -> None:
        """Begin with nothing; without a bucket it is not bounded by itself."""
        self.who: Waster | None = who
        """None once it has ended: the end of its rest keeps no connection."""
        self.bucket = bucket
        self.rests = False


class Waster(Protocol):
    """A connection's ``reading``."""

    source: Source
    wasted: Wasted | None
    """None: nothing of late. Changed by ``Waste`` alone."""

    def begin_rest(self) -> None:
        """Read nothing more."""

    def end_rest(self) -> None:
        """Go on, now or in turn."""


class Waste:
    """Of all connections of a worker."""

    def __init__(
        self, clock: Callable[[], float], later: Later, limits: Limits, refusals: Refusals
    ) -> None:
        """Begin with nobody who rests.

        Args:
            clock: monotonic seconds.
            later: calls something after so many of them.
            limits: the settings.
            refusals: counts the rests.
        """
        self._clock = clock
        self.later = later
        """Public: a test may let rests end when it likes."""
        self._limits = limits
        self._refusals = refusals

    def rebound(self, limits: Limits) -> None:
        """Bound by other limits whoever begins to waste from now on."""
        self._limits = limits

    def charge(self, who: Waster, units: float) -> None:
        """Note that what somebody has asked for was of no use; it may have to rest."""
        now = self._clock()
        wasted = who.wasted
        if wasted is None:
            wasted = who.wasted = Wasted(who, of_waste(self._limits.waste_per_s, now))
        for bucket in (wasted.bucket, who.source.waste(now)):
            if bucket is not None:
                bucket.take(units, now)
        if not wasted.rests and self._rest(who, wasted, now):
            self._refusals.count(Budget.WASTE, who.source.name, now)
            who.begin_rest()

    def _rest(self, who: Waster, wasted: Wasted, now: float) -> bool:
        """See that a rest ends, if one is due."""
        owed_s = 0.0
        for bucket in (wasted.bucket, who.source.waste(now)):
            if bucket is not None:
                owed_s = max(owed_s, bucket.wait_s(now))
        wasted.rests = owed_s > 0.0
        if wasted.rests:
            self.later(owed_s + REST_S, partial(self._rested, wasted))
        return wasted.rests

    def _rested(self, wasted: Wasted) -> None:
        who = wasted.who
        # What was asked for before the rest may have been answered in it, and have cost more.
        if who is not None and not self._rest(who, wasted, self._clock()):
            who.end_rest()

    def sweep(self, who: Waster, now: float) -> None:
        """Forget what is as if nothing had ever been wasted. Called about once a second."""
        wasted = who.wasted
        if wasted is None or wasted.rests:
            return
        if wasted.bucket is None or wasted.bucket.full(now):
            who.wasted = None

    def forget(self, who: Waster) -> None:
        """It has ended."""
        if who.wasted is not None:
            who.wasted.who = None
            who.wasted = None


def of_request(code: int) -> int:
    """Return what a request costs that is refused with this code."""
    if code in OURS:
        return 0
    return UNKNOWN_UNITS if code == ErrorCode.UNKNOWN_OPERATION else REQUEST_UNITS


def of_send(code: int) -> int:
    """Return what a message costs that is refused with this code."""
    if code in OURS:
        return 0
    if code == ErrorCode.ID_CONFLICT:
        return REPEAT_UNITS
    return GAP_UNITS if code == ErrorCode.EXPECTED else SEND_UNITS
