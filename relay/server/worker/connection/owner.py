"""The session that owns a connection, and its sends, as its other parts see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from relay.server.worker.member.sender import Sender

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.wire.envelopes import ClientEnvelope
    from relay.wire.events import Event


class SendsOfRecords(Sender):
    """Takes the sends of the records that a ``Reading`` opens."""

    __slots__ = ()

    def take(self, waiting: list[ClientEnvelope], most: int) -> int:
        """Take plain messages to rooms from the end of a list, at most so many.

        Called after the login only. Returns how many were taken; 0: the last operation is not such
        a message, and must be ``run``.
        """
        raise NotImplementedError

    def offer(self) -> None:
        """Offer the sends taken so far, so that later operations come after them."""
        raise NotImplementedError


class Owner:
    """The session that owns a ``Reading``. Not a Protocol: compiled, calls are direct."""

    __slots__ = ("_on_watch", "actor", "before_login", "ended", "key_id", "producer")

    def __init__(self, on_watch: Callable[[Any], None], actor: Actor) -> None:
        self._on_watch = on_watch
        self.actor = actor
        """The account that logged in."""
        self.key_id = b""
        """The device that logged in; empty for a guest."""
        self.producer = b""
        """Names this client instance in the ids of its messages."""
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

    def failed(self, error: Exception) -> None:
        """Handle an exception of ``handle_events`` or ``run``."""
        raise NotImplementedError

    def write_pending(self) -> None:
        """Write the connection's pending bytes."""
        raise NotImplementedError

    def on_keys(self, now: float) -> None:
        """Continue with received bytes, now that the keys are available."""
        raise NotImplementedError

    def wait_for_reader(self) -> None:
        """Run no operations until the client has read its answers."""
        raise NotImplementedError

    def watch(self) -> None:
        """Examine this connection every second: it is throttled, or made useless requests."""
        self._on_watch(self)

    def shed(self) -> None:
        """Close: this connection holds the most received and unprocessed bytes."""
        raise NotImplementedError
