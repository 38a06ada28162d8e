"""Deadlines of connections: the handshake, the login, a request, a silent peer.

Nearly all connections wait only for their next keepalive and are not examined until then. The
others are *watched*: examined every second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.stages import Stage
from relay.server.worker.due_times import DueTimes
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session

WATCHED_PAUSES: Final = Pause.REQUEST | Pause.WASTE
"""Under these pauses the peer may be gone without our noticing, because nothing is read."""


class Deadlines:
    """The deadlines of all connections of a worker."""

    def __init__(self) -> None:
        """Create without connections."""
        self.watched: set[Session] = set()
        self._quiet: DueTimes[Session] = DueTimes()

    def watch(self, session: Session) -> None:
        """Watch a connection: it is new, or one of its deadlines may now be earlier."""
        self.watched.add(session)

    def forget(self, session: Session) -> None:
        """Remove a closed connection."""
        self.watched.discard(session)
        self._quiet.remove(session)

    def check(self, now: float) -> None:
        """Close connections whose deadlines have passed. Called about once a second."""
        self.watched.update(self._quiet.take(now))
        for session in list(self.watched):
            try:
                check_deadlines(session, now)
            except Exception as error:  # noqa: BLE001 - the others are to be looked at all the same
                session.failed(error)
                continue
            if (until := _quiet_until(session)) is not None and session in self.watched:
                self.watched.discard(session)
                self._quiet.put(session, until)


def check_deadlines(session: Session, now: float) -> None:
    """Check the deadlines of one connection."""
    if session.channel.overdue(now):
        if session.channel.connection.finished:
            session.abort()  # the peer does not even read the last bytes
        elif session.stage is Stage.LOGIN:  # the home of the name is late
            session.close(CloseCode.LOGIN_UNAVAILABLE, session.services.overloaded_retry_s)
        else:
            session.close(CloseCode.LOGIN_TIMEOUT)
        return
    if session.reading.wasted is not None:
        session.services.budgets.waste.sweep(session.reading, now)
    pauses = session.reading.pauses
    if pauses:  # unread input may contain its pongs, or its end of stream
        # For a logged-in client, what it sent before its end still counts.
        waits = WATCHED_PAUSES | (Pause.TURN if session.before_login else Pause.NONE)
        if pauses & waits and session.stream.peer_is_gone():
            session.abort()
        elif pauses & Pause.REQUEST:
            session.requests.look()
        return
    session.channel.check_peer(now)


def _quiet_until(session: Session) -> float | None:
    """Return until when a connection need not be examined, or None if it must be watched.

    Anything that creates an earlier deadline must call ``Session.watch``.
    """
    reading = session.reading
    if session.stage is not Stage.READY or reading.pauses & WATCHED_PAUSES or reading.wasted:
        return None
    return session.channel.connection.next_deadline()
