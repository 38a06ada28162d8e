"""Accepting from the shared listening sockets, and which worker should."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

ACCEPTS_PER_TURN: Final = 16
"""Per readiness event, so that a burst neither starves the loop nor lands on one worker."""
EXHAUSTED_PAUSE_S: Final = 0.1
"""Out of file descriptors: stop accepting for this long instead of spinning (as nginx does)."""
log = logging.getLogger("relay.worker")


class Acceptor:
    """Accepts connections from listening sockets that all workers share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: tuple[socket.socket, ...],
        make_session: Callable[[str], asyncio.Protocol],
        may_accept: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._make_session = make_session
        self._may_accept = may_accept
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)

    def stop(self) -> None:
        """Accept no more. Connections wait in the backlog for whoever accepts next."""
        if self._open:
            self._open = False
            for listener in self._listeners:
                self._loop.remove_reader(listener)

    def _pause(self, seconds: float) -> None:
        self.stop()
        self._loop.call_later(seconds, self.start)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.warning("accept_exhausted", extra={"errno": error.errno})
                self._pause(EXHAUSTED_PAUSE_S)
                return
            if not self._may_accept():
                sock.close()
                continue
            sock.setblocking(False)
            task = self._loop.create_task(self._adopt(sock, str(address[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _adopt(self, sock: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make_session(peer), sock)
        except OSError:
            sock.close()  # gone between accept and now
