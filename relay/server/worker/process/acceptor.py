"""Accepting from the shared listening sockets, and which worker should.

All workers see every new connection. A worker with clearly more connections than the least-loaded
one lets the others have it for a moment (docs/architecture.md, "Accepting
connections"). Only workers that accept count: one
that is stopped, starting, full or draining must never keep the others from accepting.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

ACCEPTS_PER_TURN: Final = 16
"""Per readiness event, so that a burst neither starves the loop nor lands on one worker."""
YIELD_S: Final = 0.002
"""How long a worker that has more than its share leaves new connections to the others."""
SURPLUS_RATIO: Final = 0.05
EXHAUSTED_PAUSE_S: Final = 0.1
"""Out of file descriptors: stop accepting for this long instead of spinning (as nginx does)."""
log = logging.getLogger("relay.worker")


def surplus(own: int, least: int) -> bool:
    """Tell whether a worker has more than its share, given the least-loaded one's connections."""
    return own >= least + max(1.0, SURPLUS_RATIO * least)


class Acceptor:
    """Accepts connections from listening sockets that all workers share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: tuple[socket.socket, ...],
        make_session: Callable[[str], asyncio.Protocol],
        *,
        connections_max: int,
        least_loaded: Callable[[], int | None],
        accepting: Callable[[bool], None],
        counted: Callable[[int], None],
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            loop: this worker's.
            listeners: non-blocking, listening.
            make_session: the protocol for a peer's address.
            connections_max: at this number it leaves new ones in the backlog, for others.
            least_loaded: the fewest connections of any *other* worker that accepts; None: alone.
            accepting: told whether this worker accepts, for the others to know.
            counted: told ``count`` when it changes, for the others to know at once.
        """
        self._loop = loop
        self._listeners = listeners
        self._make_session = make_session
        self._connections_max = connections_max
        self._least_loaded = least_loaded
        self._accepting = accepting
        self._counted = counted
        self._adopting: set[asyncio.Task[None]] = set()
        self.count = 0
        """Connections of this worker, from accept to the end."""
        self._open = False
        self._stopped = False

    def start(self) -> None:
        """Begin to accept."""
        self._accepting(True)
        self._resume()

    def stop(self) -> None:
        """Accept no more. Connections wait in the backlog for whoever accepts next."""
        self._stopped = True
        self._accepting(False)
        self._suspend()

    def ended(self) -> None:
        """A connection ended: go on if this worker was full."""
        self._count(-1)
        if not self._open and not self._stopped and self.count == self._connections_max - 1:
            self.start()

    def _count(self, change: int) -> None:
        self.count += change
        self._counted(self.count)

    def _resume(self) -> None:
        if not self._open and not self._stopped:
            self._open = True
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)

    def _suspend(self) -> None:
        if self._open:
            self._open = False
            for listener in self._listeners:
                self._loop.remove_reader(listener)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._suspend()
        self._loop.call_later(seconds, then)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self.count >= self._connections_max:
                self._accepting(False)
                self._suspend()
                return
            least = self._least_loaded()
            if least is not None and surplus(self.count, least):
                self._pause(YIELD_S, self._resume)
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.warning("accept_exhausted", extra={"errno": error.errno})
                self._accepting(False)
                self._pause(EXHAUSTED_PAUSE_S, self.start)
                return
            sock.setblocking(False)
            self._count(1)
            task = self._loop.create_task(self._adopt(sock, str(address[0])))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make_session(peer), sock)
        except OSError:
            sock.close()  # gone between accept and now
            self.ended()
