"""Rate limits for useless operations: whoever exceeds them is not read from for a while.

A refused or unknown operation, a message that this very connection knows to be stored, a needless
ping: each costs a worker about as much as a useful operation, and some cost much more. So there is
a token bucket for these per connection and another per source. When either is empty the connection
*rests*: its socket is not read. That costs nothing, nothing is lost, and the peer is stopped by TCP
flow control. After the rest it continues where it was.

The burst is what an honest client may need: a whole window that is refused, some hundred rooms that
cannot be joined. The refill is small, since no honest client needs that again and again.
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
"""Price of a refused request. The prices here exceed the worker's actual cost, in units of
``schedule``."""
UNKNOWN_UNITS: Final = 64
"""Of an unknown operation: a client of a later version learns from the first answer."""
SEND_UNITS: Final = 4
"""Of a refused message."""
GAP_UNITS: Final = 1
"""Of one refused because an earlier one is missing: the rest of the window is refused, too."""
BEHIND_UNITS: Final = 0.125
"""Likewise, if that one has just been refused for a budget: nothing has to be looked up."""
BUDGET_UNITS: Final = 32
"""Of anything refused for a budget: clients that wait as they are told have few of those."""
REPEAT_UNITS: Final = 64
"""Of a message that this connection knows to be stored, or that conflicts with a stored one: the
store has to look it up. Resends after a reconnect do not count."""
CONTROL_UNITS: Final = 16
"""Of a ping, a pong or a key change: a few per minute are useful."""
REST_S: Final = 1.0
"""How much longer a rest lasts once the buckets are no longer in debt, so that one long rest takes
the place of many short ones."""
OURS: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE, ErrorCode.DAMAGED})
"""Refusals that are not the client's fault."""


Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""An event loop's ``call_later``."""


class Wasted:
    """The state of one connection that has wasted something lately."""

    __slots__ = ("bucket", "rests", "who")

    def __init__(self, who: Waster, bucket: TokenBucket | None) -> None:
        """Begin with nothing. Without a bucket only the source is limited."""
        self.who: Waster | None = who
        """None once the connection has ended: a pending rest must not keep it in memory."""
        self.bucket = bucket
        self.rests = False


class Waster(Protocol):
    """A connection's ``reading``."""

    source: Source
    wasted: Wasted | None
    """None: nothing lately. Changed by ``Waste`` alone."""

    def begin_rest(self) -> None:
        """Read nothing more."""

    def end_rest(self) -> None:
        """Go on, now or in turn."""


class Waste:
    """Charges all connections of a worker."""

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
        """Apply other limits to whoever begins to waste from now on."""
        self._limits = limits

    def charge(self, who: Waster, units: float) -> None:
        """Charge a connection for something useless; it may have to rest."""
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
        """Return True if it must rest, and schedule the end of that."""
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
        # Earlier operations may have been answered during the rest, and have been charged.
        if who is not None and not self._rest(who, wasted, self._clock()):
            who.end_rest()

    def sweep(self, who: Waster, now: float) -> None:
        """Drop the state once its bucket is full again. Called about once a second."""
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
