"""The shutdown of a worker, in numbered steps."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.server.worker.connection.connections import Connections
    from relay.server.worker.process.accepting.acceptor import Acceptor
    from relay.server.worker.process.loop.turn import Turn

CLOSES_PER_TURN: Final = 200
STEP_S: Final = 0.02
log = logging.getLogger("relay.worker")


class DrainPace(NamedTuple):
    """How slowly a worker shuts down."""

    delay_s: float
    """How long it continues as before."""
    spread_s: float
    """Over how long it sends its clients away."""
    timeout_s: float
    """How long they may then take to disconnect."""


AT_ONCE: Final = DrainPace(0.0, 0.0, 0.0)


async def drain(
    connections: Connections,
    acceptor: Acceptor,
    turn: Turn,
    clock: Callable[[], float],
    pace: Callable[[], DrainPace],
) -> None:
    """End all connections so that every client is told. The caller closes the store.

    ``pace`` is called repeatedly: a second signal makes the shutdown faster.
    """
    began = clock()

    # 1. Lame duck: /readyz is red, and load balancers need time to see it.
    while clock() - began < pace().delay_s:  # noqa: ASYNC110  # the pace may change
        await asyncio.sleep(STEP_S)

    # 2. Stop accepting: the backlog waits for another worker, or is refused at the end.
    acceptor.stop()
    await acceptor.adopted()  # only then can each client be told

    # 3. Commit and answer what has arrived.
    turn.run()

    # 4. Tell every client, spread over the window. GOING_AWAY means: reconnect.
    sessions = list(connections.sessions)
    began, told = clock(), 0
    while told < len(sessions):
        spread_s = pace().spread_s
        share = min(1.0, (clock() - began) / spread_s) if spread_s else 1.0
        due = min(len(sessions), int(share * len(sessions)) + 1, told + CLOSES_PER_TURN)
        due = max(told, due)  # a slower pace does not take anything back
        for session in sessions[told:due]:
            session.close(CloseCode.GOING_AWAY)
        waits = due == told or share < 1.0
        told = due
        await asyncio.sleep(STEP_S if waits else 0)

    # 5. Wait until they are gone, up to the deadline; then drop those that remain.
    began = clock()
    while connections.sessions and clock() - began < pace().timeout_s:
        connections.check_deadlines(clock())
        await asyncio.sleep(STEP_S)
    for session in list(connections.sessions):
        session.abort()
    await asyncio.sleep(0)
    log.info("drained", extra={"connections": len(sessions)})
