"""What ends for a connection by time: the handshake, the login, a request, a silent peer.

Nearly all connections wait for nothing but their next keepalive. They are left alone until then;
the others are *watched*: looked at each second.
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
"""Whoever is under these may be gone, and nothing of it was read."""


class Deadlines:
    """Those of all connections of a worker."""

    def __init__(self) -> None:
        """Begin with none."""
        self.watched: set[Session] = set()
        self._quiet: DueTimes[Session] = DueTimes()

    def watch(self, session: Session) -> None:
        """Look at a connection each second: it is new, or something of it may end sooner now."""
        self.watched.add(session)

    def forget(self, session: Session) -> None:
        """A connection is gone."""
        self.watched.discard(session)
        self._quiet.remove(session)

    def check(self, now: float) -> None:
        """End connections whose time is up. Called about once a second."""
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
    """Look at one connection."""
    if session.channel.overdue(now):
        if session.channel.connection.finished:
            session.abort()  # it does not even take the last bytes
        elif session.stage is Stage.LOGIN:  # it is the name's home that is late
            session.close(CloseCode.LOGIN_UNAVAILABLE, session.services.overloaded_retry_s)
        else:
            session.close(CloseCode.LOGIN_TIMEOUT)
        return
    if session.reading.wasted is not None:
        session.services.budgets.waste.sweep(session.reading, now)
    pauses = session.reading.pauses
    if pauses:  # its pongs may be among what is not read, and so is its end
        # Of who is logged in, what was sent before the end still counts.
        waits = WATCHED_PAUSES | (Pause.TURN if session.newcomer else Pause.NONE)
        if pauses & waits and session.stream.peer_is_gone():
            session.abort()
        elif pauses & Pause.REQUEST:
            session.requests.look()
        return
    session.channel.check_peer(now)


def _quiet_until(session: Session) -> float | None:
    """Return until when a connection need not be looked at; None: it is to be watched.

    Whatever ends sooner from then on has it watched again: see ``Session.watch``.
    """
    reading = session.reading
    if session.stage is not Stage.READY or reading.pauses & WATCHED_PAUSES or reading.wasted:
        return None
    return session.channel.connection.next_deadline()
