"""A worker that stops sends GOING_AWAY to each client, whatever state its connection is in."""

from __future__ import annotations

import asyncio
import socket
import time

from relay.server.worker.process.drain import DrainPace, drain
from tests.support.cluster import DEADLINE_S
from tests.support.workers import Cluster


async def test_a_connection_that_is_accepted_in_the_same_turn(single: Cluster) -> None:
    """It is in the table of connections, and has no transport yet."""
    worker = single.workers[0]
    [listener] = worker._context.listeners
    with socket.create_connection(listener.getsockname(), timeout=DEADLINE_S) as client:
        worker._acceptor._accept(listener)
        connections = worker.parts.connections
        assert len(connections.sessions) == 1
        pace = DrainPace(0.0, 0.0, DEADLINE_S)
        await drain(connections, worker._acceptor, worker.parts.turn, time.monotonic, lambda: pace)
        assert not connections.sessions
        with client.makefile("rb") as stream:
            assert await asyncio.to_thread(stream.read)  # it gets GOING_AWAY, and a clean close
