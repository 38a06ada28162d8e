"""Rate limits for useless operations: a connection that exceeds them is not read for a while.

Useless operations are refused or unknown ones, resends of a message that this connection knows to
be stored, and needless pings. Each costs a worker about as much as a useful operation, and some
cost much more. So they are charged to one token bucket per connection and one per source. When
either is empty the connection is *throttled*: its socket is not read. That costs the server nothing
and loses nothing, and TCP flow control stops the peer. Afterwards the connection continues where it
was.

The burst covers what an honest client may need: a whole refused window, and some hundred rooms that
cannot be joined. The refill rate is small, since no honest client needs that repeatedly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from relay.server.metrics import Budget
from relay.server.worker.connection.budgets.token_bucket import of_waste
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.budgets.source_usage import Source
    from relay.server.worker.connection.budgets.token_bucket import TokenBucket
    from relay.server.worker.refusals import Refusals

REQUEST_UNITS: Final = 16
"""Price of a refused request. Prices are above the worker's actual cost, in units of ``schedule``.
"""
UNKNOWN_UNITS: Final = 64
"""For an unknown operation: a client of a later version can stop after the first answer."""
SEND_UNITS: Final = 4
"""For a refused message."""
GAP_UNITS: Final = 1
"""For a message refused because an earlier one is missing: the rest of the window is refused, too.
Also for a direct message that is refused for now, whoever's fault it is: it costs two homes more
than a message that is stored."""
BEHIND_UNITS: Final = 0.125
"""The same, if the earlier one was just refused for a budget: no lookup is needed."""
BUDGET_UNITS: Final = 32
"""For anything refused for a budget: clients that wait as told cause few of these."""
REPEAT_UNITS: Final = 64
"""For a message that this connection knows to be stored, or that conflicts with a stored one: the
store has to look it up. Resends after a reconnect are not charged."""
CONTROL_UNITS: Final = 16
"""For a ping, a pong or a key change: a few per minute are useful."""
THROTTLE_EXTRA_S: Final = 1.0
"""How long a connection stays throttled after its debt is paid, so that one long pause replaces
many short ones."""
OURS: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE, ErrorCode.DAMAGED})
"""Refusals that are not the client's fault."""


Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""An event loop's ``call_later``."""


class WasteState:
    """The state of a connection that made useless requests recently."""

    __slots__ = ("bucket", "throttled", "who")

    def __init__(self, who: ThrottledReader, bucket: TokenBucket | None) -> None:
        """Create without charges. Without a bucket only the source is limited."""
        self.who: ThrottledReader | None = who
        """None once the connection has ended: a scheduled resumption must not keep it in memory.
        """
        self.bucket = bucket
        self.throttled = False


class ThrottledReader(Protocol):
    """The ``reading`` of a connection."""

    source: Source
    wasted: WasteState | None
    """None: nothing recently. Only ``Waste`` changes it."""

    def begin_throttle(self) -> None:
        """Stop reading."""

    def end_throttle(self) -> None:
        """Continue, now or in turn."""


class Waste:
    """Charges the connections of a worker."""

    def __init__(
        self, clock: Callable[[], float], later: Later, limits: Limits, refusals: Refusals
    ) -> None:
        """Create with no connection throttled.

        Args:
            clock: monotonic seconds.
            later: calls a function after a number of seconds.
            limits: the settings.
            refusals: counts how often a connection is throttled.
        """
        self._clock = clock
        self.later = later
        """Public, so that a test can decide when throttling ends."""
        self._limits = limits
        self._refusals = refusals

    def rebound(self, limits: Limits) -> None:
        """Apply new limits to connections that begin to make useless requests from now on."""
        self._limits = limits

    def charge(self, who: ThrottledReader, units: float) -> None:
        """Charge a connection for something useless. It may be throttled."""
        now = self._clock()
        wasted = who.wasted
        if wasted is None:
            wasted = who.wasted = WasteState(who, of_waste(self._limits.waste_per_s, now))
        for bucket in (wasted.bucket, who.source.waste(now)):
            if bucket is not None:
                bucket.take(units, now)
        if not wasted.throttled and self._throttle(who, wasted, now):
            self._refusals.count(Budget.WASTE, who.source.name, now)
            who.begin_throttle()

    def _throttle(self, who: ThrottledReader, wasted: WasteState, now: float) -> bool:
        """Return True if the connection must be throttled, and schedule the end of it."""
        owed_s = 0.0
        for bucket in (wasted.bucket, who.source.waste(now)):
            if bucket is not None:
                owed_s = max(owed_s, bucket.wait_s(now))
        wasted.throttled = owed_s > 0.0
        if wasted.throttled:
            self.later(owed_s + THROTTLE_EXTRA_S, partial(self._throttle_over, wasted))
        return wasted.throttled

    def _throttle_over(self, wasted: WasteState) -> None:
        who = wasted.who
        # Operations received earlier may have been answered, and charged, meanwhile.
        if who is not None and not self._throttle(who, wasted, self._clock()):
            who.end_throttle()

    def sweep(self, who: ThrottledReader, now: float) -> None:
        """Drop the state of a connection whose bucket is full. Called about once a second."""
        wasted = who.wasted
        if wasted is None or wasted.throttled:
            return
        if wasted.bucket is None or wasted.bucket.full(now):
            who.wasted = None

    def forget(self, who: ThrottledReader) -> None:
        """Drop the state of a connection that has ended."""
        if who.wasted is not None:
            who.wasted.who = None
            who.wasted = None


def of_request(code: int) -> int:
    """Return the price of a request that is refused with this code."""
    if code in OURS:
        return 0
    return UNKNOWN_UNITS if code == ErrorCode.UNKNOWN_OPERATION else REQUEST_UNITS


def of_send(code: int, *, direct: bool = False) -> int:
    """Return the price of a message that is refused with this code.

    ``direct``: it is a direct message, for which another home had to be asked, or an earlier one
    was refused.
    """
    if code in OURS:
        return GAP_UNITS if direct else 0
    if code == ErrorCode.ID_CONFLICT:
        return REPEAT_UNITS
    return GAP_UNITS if code == ErrorCode.EXPECTED else SEND_UNITS
