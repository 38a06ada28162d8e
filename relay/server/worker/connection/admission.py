"""Who may connect and log in, and who makes room. Decides alone: no socket, no clock.

Connections that are not logged in have slots of their own, beside those for connections that are.
So nobody who has not even sent a name takes the place of one who could log in, and a full worker
can still answer. When all slots of the unauthenticated are taken, the oldest *silent* one of them
goes: one that the server waits for, not one that waits for the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from relay.server.metrics import Budget

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.source_usage import Source


class Connection(Protocol):
    """A session, as far as admission knows it."""

    @property
    def source(self) -> Source:
        """Where it comes from."""

    @property
    def silent(self) -> bool:
        """True when nothing that it has sent waits for us: the next move is its own."""

    def make_room(self) -> None:
        """End: another one takes its slot."""


class Verdict(NamedTuple):
    """What becomes of a new connection."""

    admitted: bool
    budget: Budget | None = None
    """What was reached, if anything was."""
    evicted: Connection | None = None
    """Who has to go for it; it is counted no more."""


class Admission:
    """The connections of one worker, by whether they are logged in."""

    def __init__(self, authenticated_max: int, limits: Limits) -> None:
        """Begin with none.

        Args:
            authenticated_max: slots for connections that are logged in.
            limits: the settings of that section.
        """
        self._authenticated_max = authenticated_max
        self._limits = limits
        self._unauthenticated: dict[Connection, None] = {}
        """In the order in which they came."""
        self.authenticated = 0
        """How many connections are logged in."""

    def rebound(self, limits: Limits) -> None:
        """Admit by other limits from now on. Whoever is there stays."""
        self._limits = limits

    @property
    def unauthenticated(self) -> int:
        """How many connections are not logged in."""
        return len(self._unauthenticated)

    @property
    def connections_max(self) -> int:
        """The slots of both kinds."""
        return self._authenticated_max + self._limits.unauthenticated

    def closed(self) -> bool:
        """Tell whether nobody can come in now: all that are not logged in wait for the server."""
        return len(self._unauthenticated) >= self._limits.unauthenticated and (
            self._oldest_silent(self._unauthenticated) is None
        )

    def admit(self, source: Source) -> Verdict:
        """Decide about a new connection of a source; ``enter`` it if it is admitted."""
        limits = self._limits
        per_source = 0 if source.exempt else limits.unauthenticated_per_source
        if per_source and source.unauthenticated >= per_source:
            own = (one for one in self._unauthenticated if one.source is source)
            return self._in_place_of(own, Budget.UNAUTHENTICATED_PER_SOURCE)
        if len(self._unauthenticated) >= limits.unauthenticated:
            return self._in_place_of(self._unauthenticated, Budget.UNAUTHENTICATED)
        return Verdict(True)

    def enter(self, connection: Connection) -> None:
        """A connection begins; or one that was logged in ends, and is not closed yet."""
        self._unauthenticated[connection] = None
        connection.source.unauthenticated += 1

    def leave(self, connection: Connection) -> None:
        """One that is not logged in is gone, or is about to be. Idempotent."""
        if connection in self._unauthenticated:
            del self._unauthenticated[connection]
            connection.source.unauthenticated -= 1

    def login_refusal(self, source: Source) -> Budget | None:
        """Return the budget that keeps a connection from logging in; None: it may."""
        if self.authenticated >= self._authenticated_max:
            return Budget.CONNECTIONS
        per_source = 0 if source.exempt else self._limits.connections_per_source
        if per_source and source.authenticated >= per_source:
            return Budget.CONNECTIONS_PER_SOURCE
        return None

    def log_in(self, connection: Connection) -> None:
        """A connection logs in."""
        self.leave(connection)
        self.authenticated += 1
        connection.source.authenticated += 1

    def log_out(self, connection: Connection) -> None:
        """One that is logged in ends; until it is closed it counts among the others."""
        self.authenticated -= 1
        connection.source.authenticated -= 1
        self.enter(connection)

    def _in_place_of(self, candidates: Iterable[Connection], budget: Budget) -> Verdict:
        evicted = self._oldest_silent(candidates)
        if evicted is None:
            return Verdict(False, budget)
        self.leave(evicted)
        return Verdict(True, budget, evicted)

    @staticmethod
    def _oldest_silent(candidates: Iterable[Connection]) -> Connection | None:
        return next((one for one in candidates if one.silent), None)
