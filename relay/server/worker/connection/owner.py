"""The session that owns a connection, as its parts see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.wire.envelopes import ClientEnvelope
    from relay.wire.events import Event


class Owner:
    """The session that owns a ``Reading``. Not a Protocol: compiled, calls are direct."""

    __slots__ = ("_on_watch", "before_login", "ended")

    def __init__(self, on_watch: Callable[[Any], None]) -> None:
        self._on_watch = on_watch
        self.ended = False
        """True once the connection is closing: operations have no effect from then on."""
        self.before_login = True
        """True until the login."""

    def handle_events(self, events: list[Event], now: float) -> None:
        """Handle events of the connection. May raise."""
        raise NotImplementedError

    def run(self, envelope: ClientEnvelope) -> None:
        """Run one operation. May raise."""
        raise NotImplementedError

    def take_sends(self, waiting: list[ClientEnvelope], units: int) -> int:
        """Take plain messages to rooms from the end of a list, at most ``units`` of them.

        Called after the login only. Returns how many were taken; 0: the last operation is not such
        a message, and must be ``run``.
        """
        raise NotImplementedError

    def offer_sends(self) -> None:
        """Offer the sends taken so far, so that later operations come after them."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """Handle an exception of ``handle_events`` or ``run``."""
        raise NotImplementedError

    def write_pending(self) -> None:
        """Write the connection's pending bytes."""
        raise NotImplementedError

    def on_keys(self, now: float) -> None:
        """Continue with received bytes, now that the keys are available."""
        raise NotImplementedError

    def answer_send(self, envelope: bytes) -> None:
        """Queue an answer to a send, unless the connection has ended."""
        raise NotImplementedError

    def watch(self) -> None:
        """Examine this connection every second: it is throttled, or made useless requests."""
        self._on_watch(self)

    def shed(self) -> None:
        """Close: this connection holds the most received and unprocessed bytes."""
        raise NotImplementedError
