"""What ends for a connection by time: the handshake, the login, a request, a silent peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session


def check_deadlines(session: Session, now: float) -> None:
    """Look at one connection. Called about once a second."""
    if session.channel.overdue(now):
        if session.channel.connection.finished:
            session.abort()  # it does not even take the last bytes
        elif session.stage is Stage.LOGIN:  # it is the name's home that is late
            session.close(CloseCode.LOGIN_UNAVAILABLE, session.services.overloaded_retry_s)
        else:
            session.close(CloseCode.LOGIN_TIMEOUT)
        return
    session.reading.sweep(now)
    pauses = session.reading.pauses
    if pauses:  # its pongs may be among what is not read, and so is its end
        if pauses & (Pause.REQUEST | Pause.WASTE) and session.stream.peer_is_gone():
            session.abort()
        elif pauses & Pause.REQUEST:
            session.requests.look()
        return
    session.channel.check_peer(now)
