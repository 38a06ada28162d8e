"""A client's tickets for its next connections: in memory, for one use each."""

from __future__ import annotations

from typing import Final

from relay.wire.tickets import ClientTicket

HELD_MAX: Final = 2
"""Maximum that a server issues on one connection; the newest ones are kept."""
LIFETIME_S_MAX: Final = 7 * 86_400.0
"""Regardless of the server's offer."""


class Tickets:
    """Tickets for the server with one key; those for another key are dropped."""

    def __init__(self) -> None:
        self._fingerprint = ""
        self._held: list[tuple[ClientTicket, float]] = []
        """With the time after which each is invalid; the newest last."""

    def keep(self, fingerprint: str, ticket: ClientTicket, lifetime_s: float, now: float) -> None:
        """Keep a ticket issued by the server with this key."""
        if fingerprint != self._fingerprint:
            self._fingerprint, self._held = fingerprint, []
        self._held = [*self._held, (ticket, now + min(lifetime_s, LIFETIME_S_MAX))][-HELD_MAX:]

    def take(self, fingerprint: str, now: float) -> ClientTicket | None:
        """Remove and return a ticket for the server with this key."""
        while self._held and fingerprint == self._fingerprint:
            ticket, until = self._held.pop()
            if now < until:
                return ticket
        return None

    def forget(self) -> None:
        """Drop all."""
        self._held = []
