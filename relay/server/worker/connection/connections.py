"""All connections of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.server.worker.connection.commands import OPERATIONS
from relay.server.worker.connection.session import Session
from relay.server.worker.delivery.stream import Stream

if TYPE_CHECKING:
    from relay.server.worker.connection.services import ConnectionServices


class Connections:
    """Makes sessions, and knows those that are not over."""

    def __init__(self, services: ConnectionServices) -> None:
        self._services = services
        self.sessions: set[Session] = set()
        self.on_lost: Callable[[], None] = _nothing
        """Called when a connection is gone; the acceptor's, once there is one."""

    def accept(self, peer: str) -> Stream:
        """Return the protocol of a connection that was accepted from this address."""
        stream = Stream(peer, self._services.stalled)
        session = Session(self._services, stream, OPERATIONS, self._lost)
        stream.attach(session, session.outbox)
        self.sessions.add(session)
        return stream

    def check_deadlines(self, now: float) -> None:
        """End connections whose time is up. Called about once a second."""
        for session in list(self.sessions):
            session.check_deadline(now)

    def _lost(self, session: Session) -> None:
        self.sessions.discard(session)
        self.on_lost()


def _nothing() -> None:
    """Before there is an acceptor."""
