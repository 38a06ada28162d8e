"""Who may connect and log in, and who makes room. Decides alone: no socket, no clock.

A connection that is not logged in is a *guest*, one that is a *member*; each kind has slots of its
own. So nobody who has not even sent a name takes a member's place, and a worker full of members
can still answer. When all slots of guests are taken, the oldest *silent* one goes: one that the
server waits for, not one that waits for the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from relay.server.metrics import Budget

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.accounts import Account


class Guest(Protocol):
    """A connection that is not logged in: a session."""

    @property
    def account(self) -> Account:
        """Its source's."""

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
    evicted: Guest | None = None
    """Who has to go for it; it is counted no more."""


class Admission:
    """The guests and members of one worker."""

    def __init__(self, members_max: int, limits: Limits) -> None:
        """Begin with none.

        Args:
            members_max: slots for connections that are logged in.
            limits: the settings of that section.
        """
        self._members_max = members_max
        self._limits = limits
        self._guests: dict[Guest, None] = {}
        """In the order in which they came."""
        self.members = 0

    def rebound(self, limits: Limits) -> None:
        """Admit by other limits from now on. Whoever is there stays."""
        self._limits = limits

    @property
    def guests(self) -> int:
        """How many there are."""
        return len(self._guests)

    @property
    def connections_max(self) -> int:
        """The slots of both kinds."""
        return self._members_max + self._limits.unauthenticated

    def closed(self) -> bool:
        """Tell whether nobody can come in now: all guests wait for the server."""
        return len(self._guests) >= self._limits.unauthenticated and (
            self._oldest_silent(self._guests) is None
        )

    def admit(self, account: Account) -> Verdict:
        """Decide about a new connection of a source; ``enter`` it if it is admitted."""
        limits = self._limits
        per_source = 0 if account.exempt else limits.unauthenticated_per_source
        if per_source and account.guests >= per_source:
            own = (guest for guest in self._guests if guest.account is account)
            return self._in_place_of(own, Budget.UNAUTHENTICATED_PER_SOURCE)
        if len(self._guests) >= limits.unauthenticated:
            return self._in_place_of(self._guests, Budget.UNAUTHENTICATED)
        return Verdict(True)

    def enter(self, guest: Guest) -> None:
        """A connection begins, or a member's ends and is not closed yet."""
        self._guests[guest] = None
        guest.account.guests += 1

    def leave(self, guest: Guest) -> None:
        """A guest is gone, or is about to be. Idempotent."""
        if guest in self._guests:
            del self._guests[guest]
            guest.account.guests -= 1

    def login_refusal(self, account: Account) -> Budget | None:
        """Return the budget that keeps a guest from becoming a member; None: it may."""
        if self.members >= self._members_max:
            return Budget.CONNECTIONS
        per_source = 0 if account.exempt else self._limits.connections_per_source
        if per_source and account.members >= per_source:
            return Budget.CONNECTIONS_PER_SOURCE
        return None

    def log_in(self, guest: Guest) -> None:
        """A guest becomes a member."""
        self.leave(guest)
        self.members += 1
        guest.account.members += 1

    def log_out(self, member: Guest) -> None:
        """A member's connection ends; until it is closed it is a guest."""
        self.members -= 1
        member.account.members -= 1
        self.enter(member)

    def _in_place_of(self, guests: Iterable[Guest], budget: Budget) -> Verdict:
        evicted = self._oldest_silent(guests)
        if evicted is None:
            return Verdict(False, budget)
        self.leave(evicted)
        return Verdict(True, budget, evicted)

    @staticmethod
    def _oldest_silent(guests: Iterable[Guest]) -> Guest | None:
        return next((guest for guest in guests if guest.silent), None)
