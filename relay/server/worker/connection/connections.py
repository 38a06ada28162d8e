"""All connections of a worker: accepting and closing them, and access to them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final

from relay.server.metrics import Budget
from relay.server.worker.connection.budgets.admission import LOGINS_MANY
from relay.server.worker.connection.deadlines import Deadlines
from relay.server.worker.connection.session import Session
from relay.server.worker.connection.stages import Stage
from relay.server.worker.delivery.stream import Stream
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.connection.session import Operations

LOGINS_PAUSE_S: Final = 0.002
"""Minimum pause between accepts while many connections are logging in. It admits a thousand per
second, more than the key agent can serve."""


class Connections:
    """Creates sessions and keeps those that are still open. An ``acceptor.Gate``."""

    def __init__(self, services: ConnectionServices, operations: Operations) -> None:
        self._services = services
        self._operations = operations
        self._admission = services.budgets.admission
        self.admitted = 0
        """Number of connections admitted since the start."""
        self.sessions: set[Session] = set()
        self.deadlines = Deadlines()
        self._on_lost = self._lost
        self._on_watch = self.deadlines.watch
        self.on_lost: Callable[[], None] = _nothing
        """Called when a connection is closed. Set by the acceptor."""
        self.paused_until: Callable[[], float] = _never
        """Returns until when heavy users are paused, on the clock. Set by the turn."""

    # --- acceptor.Gate ------------------------------------------------------------------------
    def closed(self) -> bool:
        """Return True if no connection can be admitted: see ``Admission.closed``."""
        return self._admission.closed()

    def defers(self, *, few: bool) -> bool:
        """Return True if new connections should wait: see ``Admission.defers``."""
        return self._admission.defers(self._services.clock(), few=few)

    def pause_s(self) -> float:
        """Return how long to pause accepting: new connections wait like heavy users."""
        now = self._services.clock()
        pause_s = self.paused_until() - now
        if self._admission.logging_in(now) >= LOGINS_MANY:
            return max(pause_s, LOGINS_PAUSE_S)
        return pause_s

    def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> Stream | None:
        """Return the protocol for a connection that was accepted from this address.

        None: the caller closes it without a message. ``proxied``: a proxy has accepted it.
        ``exhausted``: no descriptors are left; the client is told so as soon as that is possible.
        """
        budgets = self._services.budgets
        source = budgets.sources.open(peer, proxied=proxied)
        if peer == source.name:
            peer = source.name  # one shared string per source
        verdict = budgets.admission.admit(source)
        if verdict.budget is not None:
            whose = source if verdict.evicted is None else verdict.evicted.source
            budgets.refusals.count(verdict.budget, whose.name, self._services.clock())
        if verdict.evicted is not None:
            verdict.evicted.make_room()
        if not verdict.admitted:
            budgets.sources.close(source)
            return None
        stream = Stream(peer, self._services.stalled)
        self.admitted += 1
        id_ = f"{self._services.generation}-{self.admitted}"
        session = Session(
            self._services, stream, source, self._operations, self._on_lost, self._on_watch, id_
        )
        if exhausted:
            session.turned_away = True
            budgets.refusals.count(Budget.DESCRIPTORS, source.name, self._services.clock())
        stream.attach(session, session.reading, session.outbox)
        budgets.admission.enter(session)
        self.sessions.add(session)
        self.deadlines.watch(session)
        return stream

    # --- balance ------------------------------------------------------------------------------
    def send_away(self, count: int) -> int:
        """Tell up to ``count`` logged-in clients to reconnect elsewhere.

        Return how many were told.
        """
        ready = (session for session in self.sessions if session.stage is Stage.READY)
        leaving = list(islice(ready, count))
        for session in leaving:
            session.close(CloseCode.GOING_AWAY)
        return len(leaving)

    # --- from time to time --------------------------------------------------------------------
    def check_deadlines(self, now: float) -> None:
        """Close connections whose deadlines have passed. Called about once a second."""
        self.deadlines.check(now)

    def _lost(self, session: Session) -> None:
        self.sessions.discard(session)
        self.deadlines.forget(session)
        budgets = self._services.budgets
        budgets.admission.leave(session)
        budgets.sources.close(session.source)
        self.on_lost()


def _never() -> float:
    """Default for ``paused_until``: nobody is paused."""
    return 0.0


def _nothing() -> None:
    """Do nothing: placeholder until there is an acceptor."""
