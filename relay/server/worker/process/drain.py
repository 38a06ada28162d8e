"""Shutdown of a worker as a numbered story."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.server.worker.connection.connections import Connections
    from relay.server.worker.process.acceptor import Acceptor
    from relay.server.worker.process.turn import Turn

CLOSES_PER_TURN: Final = 200
log = logging.getLogger("relay.worker")


async def drain(
    connections: Connections,
    acceptor: Acceptor,
    turn: Turn,
    clock: Callable[[], float],
    timeout_s: float,
) -> None:
    """End all connections so that every client is told. The caller closes the store."""
    # 1. Accept no more: what is in the backlog waits for another worker, or is refused at the end.
    acceptor.stop()
    await acceptor.adopted()  # only then can each be told

    # 2. Commit and answer what has arrived.
    turn.run()

    # 3. Tell every client, in slices so that the loop goes on. GOING_AWAY means: connect again.
    sessions = list(connections.sessions)
    for start in range(0, len(sessions), CLOSES_PER_TURN):
        for session in sessions[start : start + CLOSES_PER_TURN]:
            session.close(CloseCode.GOING_AWAY)
        await asyncio.sleep(0)

    # 4. Wait until they are gone, up to the deadline; then drop who does not answer.
    deadline = clock() + timeout_s
    while connections.sessions and clock() < deadline:
        connections.check_deadlines(clock())
        await asyncio.sleep(0.02)
    for session in list(connections.sessions):
        session.abort()
    await asyncio.sleep(0)
    log.info("drained", extra={"connections": len(sessions)})
