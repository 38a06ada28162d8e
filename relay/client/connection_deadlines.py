"""How long a server may be silent: until WELCOME, while it owes an answer, and in general.

``answer_watch`` tracks awaited answers, the connection itself its pings.
"""

from __future__ import annotations

from typing import Final

from relay.client.answer_watch import ANSWER_PING, AnswerWatch, Due
from relay.wire.connection import Connection
from relay.wire.phases import Phase
from relay.wire.timing import DEFAULT_TIMING, Timing

_HURRIED: Final = Timing(handshake_s=4.0)
"""For the first of several addresses, whose server may hang. ``connect`` has 20 s for all of them.
"""
LOGIN_S: Final = 15.0
"""From the end of the handshake to WELCOME."""


def timing_of(*, hurried: bool) -> Timing:
    """Return the deadlines of a connection.

    Args:
        hurried: whether it is better to try another address soon.
    """
    return _HURRIED if hurried else DEFAULT_TIMING


class ConnectionDeadlines:
    """The deadlines of successive connections."""

    def __init__(self) -> None:
        self._login_due: float | None = None
        """None except between handshake and WELCOME."""
        self._watch = AnswerWatch()

    @property
    def logging_in(self) -> bool:
        """True between handshake and WELCOME."""
        return self._login_due is not None

    def login_begins(self, now: float) -> None:
        """The handshake is complete; WELCOME is awaited."""
        self._login_due = now + LOGIN_S

    def logged_in(self) -> None:
        """WELCOME has arrived."""
        self._login_due = None

    def received(self, now: float) -> None:
        """The server has sent something."""
        self._watch.received(now)

    def awaited(self, awaited: bool, now: float) -> None:
        """An answer is awaited, or none is."""
        self._watch.awaited(awaited, now)

    def reset(self) -> None:
        """The connection has ended: nothing is awaited."""
        self._login_due = None
        self._watch.reset()

    def next_deadline(self, connection: Connection, *, reading: bool) -> float | None:
        """Return when ``handle`` is due; None: nothing is awaited.

        Without ``reading`` the silence is caused by this client: only the login is awaited.
        """
        due = [self._login_due]
        if reading:
            due += [connection.next_deadline(), self._watch.deadline()]
        return min((at for at in due if at is not None), default=None)

    def handle(self, connection: Connection, now: float, *, reading: bool) -> None:
        """Do what is due: ping, or give up the connection."""
        if self._login_due is not None and now >= self._login_due:
            connection.abort("the server did not answer the login")
        if reading:
            connection.handle_deadline(now)
            self._check_answer(connection, now)

    def _check_answer(self, connection: Connection, now: float) -> None:
        if connection.phase is not Phase.OPEN:
            return
        due = self._watch.check(now)
        if due is Due.PING:
            connection.ping(ANSWER_PING, now)
        elif due is Due.GIVE_UP:
            connection.abort("no answer, and no sign of life")
