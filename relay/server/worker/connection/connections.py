"""All connections of a worker: accepting, closing, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final

from relay.server.metrics import Budget
from relay.server.worker.connection.deadlines import Deadlines
from relay.server.worker.connection.schedule import NEWCOMERS_MAX
from relay.server.worker.connection.session import Session
from relay.server.worker.connection.stages import Stage
from relay.server.worker.delivery.stream import Stream
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.connection.session import Operations

NEWCOMERS_REST_S: Final = 0.002
"""The least rest between accepts, while many are there who are not logged in: a thousand come in
each second, which is more than the key agent can do."""


class Connections:
    """Makes sessions, and knows those that are not over. An ``acceptor.Gate``."""

    def __init__(self, services: ConnectionServices, operations: Operations) -> None:
        self._services = services
        self._operations = operations
        self._admission = services.budgets.admission
        self.admitted = 0
        """How many there were since the start."""
        self.sessions: set[Session] = set()
        self.deadlines = Deadlines()
        self._on_lost = self._lost
        self._on_watch = self.deadlines.watch
        self.on_lost: Callable[[], None] = _nothing
        """Called when a connection is gone; the acceptor's, once there is one."""
        self.rests_until: Callable[[], float] = _never
        """Until when those who ask for much rest, by the clock; the turn's, once there is one."""

    # --- acceptor.Gate ------------------------------------------------------------------------
    def closed(self) -> bool:
        """Tell whether nobody can come in now: see ``Admission.closed``."""
        return self._admission.closed()

    def holds(self) -> bool:
        """Tell whether newcomers should wait for those before them: see ``Admission.holds``."""
        return self._admission.holds(self._services.clock())

    def rest_s(self) -> float:
        """Tell for how long nobody should come in: who is new waits with those who ask for much."""
        rest_s = self.rests_until() - self._services.clock()
        if self._admission.unauthenticated >= NEWCOMERS_MAX:
            return max(rest_s, NEWCOMERS_REST_S)
        return rest_s

    def admit(self, peer: str, *, exhausted: bool = False) -> Stream | None:
        """Return the protocol of a connection that was accepted from this address.

        None: it has to be closed, without a word. ``exhausted``: there are no descriptors left, and
        it is told so as soon as it can be.
        """
        budgets = self._services.budgets
        source = budgets.sources.open(peer)
        if peer == source.name:
            peer = source.name  # one string for all of them
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
        stream.attach(session, session.outbox)
        budgets.admission.enter(session)
        self.sessions.add(session)
        self.deadlines.watch(session)
        return stream

    # --- balance ------------------------------------------------------------------------------
    def send_away(self, count: int) -> int:
        """Tell so many clients that are logged in to connect again. Returns how many there were."""
        ready = (session for session in self.sessions if session.stage is Stage.READY)
        leaving = list(islice(ready, count))
        for session in leaving:
            session.close(CloseCode.GOING_AWAY)
        return len(leaving)

    # --- from time to time --------------------------------------------------------------------
    def check_deadlines(self, now: float) -> None:
        """End connections whose time is up. Called about once a second."""
        self.deadlines.check(now)

    def _lost(self, session: Session) -> None:
        self.sessions.discard(session)
        self.deadlines.forget(session)
        budgets = self._services.budgets
        budgets.admission.leave(session)
        budgets.sources.close(session.source)
        self.on_lost()


def _never() -> float:
    """Nobody rests."""
    return 0.0


def _nothing() -> None:
    """Before there is an acceptor."""
