"""The tickets that a client holds for its next connections: in memory, each for one use."""

from __future__ import annotations

from typing import Final

from relay.wire.tickets import ClientTicket

HELD_MAX: Final = 2
"""What a server gives on one connection at most; the newest ones are kept."""
LIFETIME_S_MAX: Final = 7 * 86_400.0
"""Whatever a server offers."""


class Tickets:
    """Tickets for the server with one key; those for another key are forgotten."""

    def __init__(self) -> None:
        self._fingerprint = ""
        self._held: list[tuple[ClientTicket, float]] = []
        """With the time from which on each is of no use; the newest last."""

    def keep(self, fingerprint: str, ticket: ClientTicket, lifetime_s: float, now: float) -> None:
        """Keep a ticket that the server with this key has given."""
        if fingerprint != self._fingerprint:
            self._fingerprint, self._held = fingerprint, []
        self._held = [*self._held, (ticket, now + min(lifetime_s, LIFETIME_S_MAX))][-HELD_MAX:]

    def take(self, fingerprint: str, now: float) -> ClientTicket | None:
        """Return a ticket for the server with this key, and forget it: it is used up."""
        while self._held and fingerprint == self._fingerprint:
            ticket, until = self._held.pop()
            if now < until:
                return ticket
        return None

    def forget(self) -> None:
        """Forget all."""
        self._held = []
