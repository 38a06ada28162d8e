"""Decides which connections may enter and log in, and which must make room. No socket, no clock.

Unauthenticated connections have slots of their own, separate from those of authenticated ones. So a
client that has not even sent a name cannot take the slot of one that could log in, and a full
worker can still answer. When all unauthenticated slots are taken, the oldest *silent* connection is
closed: one whose peer must act next, not one that waits for the server.

With thousands of clients reconnecting at once, each new connection would close that of a client
that had no time to answer yet. So new connections wait in the backlog of the listening socket while
earlier ones log in (``defers``).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from relay.server.metrics import Budget

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.budgets.source_usage import Source
    from relay.server.worker.delivery.rush import Rush


DEFER_FROM: Final = 256
"""Up to this many unauthenticated connections delay nobody: half a second's handshakes are always
in progress, and idle connections (a port scanner's, a load balancer's) are not a queue."""
FEW: Final = 8
"""The same while another worker is about to accept: enough for one that is never idle."""
LOGINS: Final = 4
"""A connection that takes this many times as long as the usual login is expected not to log in."""
PATIENCE_S: Final = 1.0
PATIENCE_MAX_S: Final = 4.0
"""Bounds of that time. Clients that log in slowly on purpose delay others for no longer."""
SMOOTHING: Final = 16
"""Approximate number of logins in the moving mean."""
LOGINS_MANY: Final = 24
"""From this many on, logins are many. A handshake with a login or a registration takes one or two
milliseconds of CPU time."""
NEWEST: Final = 4 * LOGINS_MANY
"""How many of the connections that take longer than logins do, the newest ones, are looked at to
count those that may be logging in all the same."""


class Connection(Protocol):
    """The part of a session that admission uses."""

    @property
    def since_us(self) -> int:
        """When it was accepted."""

    @property
    def source(self) -> Source:
        """The source of the connection."""

    @property
    def silent(self) -> bool:
        """True if the peer must act next: nothing that it has sent is waiting for the server."""

    def make_room(self) -> None:
        """Close this connection because another one takes its slot."""


class Verdict(NamedTuple):
    """The decision about a new connection."""

    admitted: bool
    budget: Budget | None = None
    """The budget that was reached, if any."""
    evicted: Connection | None = None
    """The connection that must be closed to make room. It is no longer counted."""


class Admission:
    """The connections of one worker, by whether they are logged in."""

    def __init__(self, authenticated_max: int, limits: Limits, rush: Rush) -> None:
        """Create without connections.

        Args:
            authenticated_max: slots for connections that are logged in.
            limits: the ``limits`` section of the settings.
            rush: told of each login.
        """
        self._rush = rush
        self._authenticated_max = authenticated_max
        self._limits = limits
        self._slow: dict[Connection, None] = {}
        """Connections that are not logged in and take longer than logins do, in order of arrival.
        """
        self._new: dict[Connection, None] = {}
        """Those that arrived later, in order of arrival. Asked for how many they are with each step
        of each login, which therefore looks at none of them."""
        self._leaving: dict[Connection, None] = {}
        """Those whose login ended, until they are closed."""
        self.unauthenticated = 0
        """Number of connections that are not logged in (not yet, or no longer)."""
        self.authenticated = 0
        """Number of connections that are logged in."""
        self._login_s = 0.0
        """From accept to login, a moving mean."""
        self.patience_s = PATIENCE_S
        """How long a login may take in any case."""

    def rebound(self, limits: Limits) -> None:
        """Apply new limits. Existing connections stay."""
        self._limits = limits

    @property
    def connections_max(self) -> int:
        """Total number of slots of both kinds."""
        return self._authenticated_max + self._limits.unauthenticated

    def closed(self) -> bool:
        """Return True if no connection can be admitted: all slots wait for the server."""
        return self.unauthenticated >= self._limits.unauthenticated and (
            self._oldest_silent(self._all()) is None
        )

    def defers(self, now: float, *, few: bool = False) -> bool:
        """Return True if new connections should wait in the backlog while earlier ones log in.

        In an attack the earlier ones take longer than logins do. Then nobody is deferred, the
        slots fill up, and from then on each new connection takes the slot of the oldest.

        Args:
            now: by the clock of ``Connection.since_us``, in seconds.
            few: another worker is about to accept, and should get its share.
        """
        defer_from = min(FEW if few else DEFER_FROM, self._limits.unauthenticated // 2)
        if not defer_from < self.unauthenticated < self._limits.unauthenticated:
            return False
        oldest = next(islice(self._all(), defer_from, None))  # but for the idle ones
        return now - oldest.since_us / 1e6 < self._login_s_max

    def logging_in(self, now: float) -> int:
        """Return how many connections may be logging in; exactly, if it is below ``LOGINS_MANY``.

        Of that many unauthenticated ones or more, those do not count that are silent and take
        longer than logins do. Otherwise a few dozen idle connections, which cost nothing, would be
        treated as so many logins.

        Args:
            now: by the clock of ``Connection.since_us``, in seconds.
        """
        new, slow = self._new, self._slow
        count = len(new) + len(slow)
        if count < LOGINS_MANY:
            return count
        since_us = (now - self._login_s_max) * 1e6
        while new and (oldest := next(iter(new))).since_us <= since_us:
            del new[oldest]
            slow[oldest] = None
        found = len(new)
        if found < LOGINS_MANY:
            for one in islice(reversed(slow), NEWEST):
                found += not one.silent
        return found if found < LOGINS_MANY else count

    @property
    def _login_s_max(self) -> float:
        """How long a login may take."""
        return max(min(LOGINS * self._login_s, PATIENCE_MAX_S), self.patience_s)

    def admit(self, source: Source) -> Verdict:
        """Decide about a new connection. The caller calls ``enter`` if it is admitted."""
        limits = self._limits
        per_source = 0 if source.exempt else limits.unauthenticated_per_source
        if per_source and source.unauthenticated >= per_source:
            own = (one for one in self._all() if one.source is source)
            return self._in_place_of(own, Budget.UNAUTHENTICATED_PER_SOURCE)
        if self.unauthenticated >= limits.unauthenticated:
            return self._in_place_of(self._all(), Budget.UNAUTHENTICATED)
        return Verdict(True)

    def enter(self, connection: Connection) -> None:
        """Add a new connection."""
        self._new[connection] = None
        self._count(connection, 1)

    def leave(self, connection: Connection) -> None:
        """Remove an unauthenticated connection that is closed or about to be. Idempotent."""
        for group in (self._new, self._slow, self._leaving):
            if connection in group:
                del group[connection]
                self._count(connection, -1)
                return

    def login_refusal(self, source: Source) -> Budget | None:
        """Return the budget that prevents a login from this source, or None if it is allowed."""
        if self.authenticated >= self._authenticated_max:
            return Budget.CONNECTIONS
        per_source = 0 if source.exempt else self._limits.connections_per_source
        if per_source and source.authenticated >= per_source:
            return Budget.CONNECTIONS_PER_SOURCE
        return None

    def log_in(self, connection: Connection, now: float) -> int:
        """Move a connection to the authenticated ones. Return its rush (``Rush.logged_in``)."""
        self.leave(connection)
        took_s = min(now - connection.since_us / 1e6, PATIENCE_MAX_S)
        self._login_s += (took_s - self._login_s) / SMOOTHING
        self.authenticated += 1
        connection.source.authenticated += 1
        return self._rush.logged_in(now, self.logging_in(now))

    def log_out(self, connection: Connection) -> None:
        """Move a connection whose login ended to the unauthenticated ones until it is closed."""
        self.authenticated -= 1
        connection.source.authenticated -= 1
        self._leaving[connection] = None
        self._count(connection, 1)

    def _count(self, connection: Connection, change: int) -> None:
        self.unauthenticated += change
        connection.source.unauthenticated += change

    def _all(self) -> Iterable[Connection]:
        """Return the unauthenticated connections: in order of arrival, then those that leave."""
        return chain(self._slow, self._new, self._leaving)

    def _in_place_of(self, candidates: Iterable[Connection], budget: Budget) -> Verdict:
        evicted = self._oldest_silent(candidates)
        if evicted is None:
            return Verdict(False, budget)
        self.leave(evicted)
        return Verdict(True, budget, evicted)

    @staticmethod
    def _oldest_silent(candidates: Iterable[Connection]) -> Connection | None:
        return next((one for one in candidates if one.silent), None)
